package topology

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
)

// A scalar is a value's text after interpolation. Its segments keep apart what the file says and what was put
// in, so that what was put in is never taken for quotes, blanks or placeholders.
type scalar struct {
	segments  []segment
	directory string // that relative paths are relative to
}

type segment struct {
	text     string
	inserted bool // by ${env:} or ${file:}
	secret   bool // by ${file:}
}

// literal is the scalar of a text that the table says.
func literal(text, directory string) scalar {
	return scalar{[]segment{{text: text}}, directory}
}

// String returns the whole text. It may be secret.
func (s scalar) String() string {
	if len(s.segments) == 1 {
		return s.segments[0].text
	}
	var b strings.Builder
	for _, seg := range s.segments {
		b.WriteString(seg.text)
	}
	return b.String()
}

// Text returns the whole text, secret if a part of it is.
func (s scalar) Text() Text {
	for _, seg := range s.segments {
		if seg.secret {
			return Secret(s.String())
		}
	}
	return Plain(s.String())
}

// inserted reports whether anything was interpolated.
func (s scalar) inserted() bool {
	for _, seg := range s.segments {
		if seg.inserted {
			return true
		}
	}
	return false
}

var (
	envForm = regexp.MustCompile(`^env:([A-Za-z_][A-Za-z0-9_]*)(:-(.*))?$`)
	envName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
)

// interpolate replaces ${env:NAME}, ${env:NAME:-default} and ${file:/path} in n's text; $${ stands for ${.
// The default is taken where the variable is unset or empty, as a shell does. ${file:} is a fault unless
// secrets are allowed. It reports what to warn of; the error is what is wrong.
func (w *walker) interpolate(n *node, path string, secrets bool) (scalar, error) {
	out := scalar{directory: n.source.Directory}
	rest := n.text
	var plain strings.Builder
	flush := func() {
		if plain.Len() > 0 {
			out.segments = append(out.segments, segment{text: plain.String()})
			plain.Reset()
		}
	}
	for {
		i := strings.Index(rest, "${")
		if i < 0 {
			plain.WriteString(rest)
			break
		}
		if i > 0 && rest[i-1] == '$' {
			plain.WriteString(rest[:i-1] + "${")
			rest = rest[i+2:]
			continue
		}
		plain.WriteString(rest[:i])
		form, after, closed := strings.Cut(rest[i+2:], "}")
		if !closed {
			return out, fault{message: `"${" without "}"; write "$${" for a plain "${"`}
		}
		rest = after
		flush()
		seg, err := w.insert(n, path, form, secrets)
		if err != nil {
			return out, err
		}
		out.segments = append(out.segments, seg)
	}
	flush()
	return out, nil
}

func (w *walker) insert(n *node, path, form string, secrets bool) (segment, error) {
	if m := envForm.FindStringSubmatch(form); m != nil {
		name, hasDefault := m[1], m[2] != ""
		value, set := os.LookupEnv(name)
		switch {
		case hasDefault && value == "":
			return segment{text: m[3], inserted: true}, nil
		case !set:
			return segment{}, fault{message: fmt.Sprintf("the environment variable %s is not set; write ${env:%s:-default} to do without", name, name)}
		}
		return segment{text: value, inserted: true}, nil
	}
	if file, ok := strings.CutPrefix(form, "file:"); ok && file != "" {
		if !secrets {
			return segment{}, fault{message: "${file:} is for secrets in command, environment and exec probes only"}
		}
		return w.readSecret(n, path, absolute(file, n.source.Directory))
	}
	f := fault{message: fmt.Sprintf(`${%s} is none of ${env:NAME}, ${env:NAME:-default}, ${file:/path}; write "$${" for a plain "${"`, form)}
	if envName.MatchString(form) {
		f.suggestion = "${env:" + form + "}"
	}
	return segment{}, f
}

const maxSecretBytes = 64 << 10

func (w *walker) readSecret(n *node, path, file string) (segment, error) {
	w.report.reads(file)
	content, mode, err := readRegular(file, maxSecretBytes)
	if err != nil {
		return segment{}, err
	}
	text := strings.TrimSuffix(strings.TrimSuffix(string(content), "\n"), "\r")
	if strings.ContainsRune(text, 0) {
		return segment{}, fault{message: fmt.Sprintf("%s has a NUL byte in it, which neither arguments nor environment can carry", file)}
	}
	w.report.warnReadable(n, path, file, mode)
	return segment{text: text, inserted: true, secret: true}, nil
}

// warnReadable warns of a secret that everyone can read.
func (r *report) warnReadable(n *node, path, file string, mode os.FileMode) {
	if mode.Perm()&0o004 != 0 {
		r.warnf(n, path, "everyone on this machine can read %s; chmod o-r takes that away", file)
	}
}

// readRegular returns the content and mode of a regular file of at most limit bytes. It never blocks on
// a FIFO or a device.
func readRegular(path string, limit int64) ([]byte, os.FileMode, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	stat, err := f.Stat()
	if err != nil {
		return nil, 0, err
	}
	if !stat.Mode().IsRegular() {
		return nil, 0, fmt.Errorf("%s is not a regular file", path)
	}
	content, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, 0, err
	}
	if int64(len(content)) > limit {
		return nil, 0, fmt.Errorf("%s is larger than %d bytes", path, limit)
	}
	return content, stat.Mode(), nil
}

// absolute returns path, relative to directory unless it is absolute, in its shortest form.
func absolute(path, directory string) string {
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(directory, path)
}
