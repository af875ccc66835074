package topology

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Problems are what is wrong with a file, in the order of their lines. As an error it prints one problem a line.
type Problems []Problem

// Error implements error.
func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i, problem := range p {
		lines[i] = problem.String()
	}
	return strings.Join(lines, "\n")
}

// Failed reports whether one of the problems is an error rather than a warning.
func (p Problems) Failed() bool {
	return slices.ContainsFunc(p, func(p Problem) bool { return p.Severity == severityError })
}

const (
	severityError   = "error"
	severityWarning = "warning"
)

// A Problem is one thing that is wrong in one place.
type Problem struct {
	File       string `json:"file"`
	Line       int    `json:"line"`     // from 1; 0 when the problem is the file itself
	Column     int    `json:"column"`   // from 1, in characters
	Path       string `json:"path"`     // services.web.replicas
	Severity   string `json:"severity"` // error or warning
	Message    string `json:"message"`
	Suggestion string `json:"suggestion,omitempty"`
}

// String is the form that editors jump to: topology.yaml:14:5: error: message; did you mean "replicas"?
func (p Problem) String() string {
	var b strings.Builder
	if p.File != "" {
		b.WriteString(p.File + ":")
	}
	if p.Line > 0 {
		fmt.Fprintf(&b, "%d:%d:", p.Line, p.Column)
	}
	if b.Len() > 0 {
		b.WriteByte(' ')
	}
	b.WriteString(p.Severity + ": " + p.Message)
	if p.Suggestion != "" {
		fmt.Fprintf(&b, "; did you mean %q?", p.Suggestion)
	}
	return b.String()
}

// A fault is what is wrong with a value, before it is known where the value stands.
type fault struct {
	message    string
	suggestion string
}

func (f fault) Error() string { return f.message }

// A report collects problems, at most one error and one warning for each place, so that one
// mistake is told once even if it is found on several ways: in defaults, or through an alias.
type report struct {
	files    map[string]int // by path: position among the files
	problems Problems
	seen     map[place]bool
	read     map[string]bool // other files that were looked at, absolute
}

type place struct {
	file         string
	line, column int
	severity     string
}

func newReport(files []File) *report {
	r := &report{files: map[string]int{}, seen: map[place]bool{}, read: map[string]bool{}}
	for i, f := range files {
		r.files[f.Path] = i
	}
	return r
}

func (r *report) add(p Problem) {
	at := place{p.File, p.Line, p.Column, p.Severity}
	if r.seen[at] {
		return
	}
	r.seen[at] = true
	r.problems = append(r.problems, p)
}

// fail reports that what stands at n, with the given path, is wrong. If err is a fault, its suggestion is kept.
func (r *report) fail(n *node, path string, err error) {
	p := Problem{File: n.source.Path, Line: n.line, Column: n.column, Path: path, Severity: severityError, Message: err.Error()}
	if f, ok := errors.AsType[fault](err); ok {
		p.Suggestion = f.suggestion
	}
	r.add(p)
}

func (r *report) failf(n *node, path, format string, args ...any) {
	r.fail(n, path, fmt.Errorf(format, args...))
}

func (r *report) warnf(n *node, path, format string, args ...any) {
	r.add(Problem{
		File: n.source.Path, Line: n.line, Column: n.column, Path: path,
		Severity: severityWarning, Message: fmt.Sprintf(format, args...),
	})
}

// reads notes that what is right depends on the file at path, whether it is there or not.
func (r *report) reads(path string) { r.read[path] = true }

func (r *report) filesRead() []string { return slices.Sorted(maps.Keys(r.read)) }

// sorted returns the problems in the order of files and lines.
func (r *report) sorted() Problems {
	slices.SortStableFunc(r.problems, func(a, b Problem) int {
		return cmp.Or(
			cmp.Compare(r.files[a.File], r.files[b.File]),
			cmp.Compare(a.Line, b.Line),
			cmp.Compare(a.Column, b.Column),
		)
	})
	return r.problems
}
