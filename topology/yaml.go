package topology

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
	"go.yaml.in/yaml/v4/plugin/loaderlimits"
)

// What a file may be at most. A topology of a thousand routes stays far below each of them.
const (
	maxFileBytes = 1 << 20
	maxDepth     = 32
	maxAliased   = 10_000 // values that stand in the tree because an alias repeated them
)

// A node is one YAML value and the place where it stands. Aliases are expanded.
type node struct {
	source       *source
	line, column int
	shape        shape
	tag          string  // of a scalar: !!str, !!int, !!float, !!bool
	text         string  // of a scalar
	entries      []entry // of a mapping
	items        []*node // of a list
}

type entry struct{ key, value *node }

type shape string

const (
	shapeNull    shape = "null"
	shapeScalar  shape = "scalar"
	shapeList    shape = "list"
	shapeMapping shape = "mapping"
	shapeBroken  shape = "broken" // what was wrong with it is told already
)

// A source is a File with the directory that its relative paths are relative to.
type source struct {
	Path      string
	Directory string
}

// find returns the entry with the given key, or nil.
func (n *node) find(key string) *entry {
	if n == nil {
		return nil
	}
	for i := range n.entries {
		if n.entries[i].key.text == key {
			return &n.entries[i]
		}
	}
	return nil
}

// A yamlReader turns the parser's tree into nodes and reports what the file's rules forbid for every key.
type yamlReader struct {
	report  *report
	source  *source
	aliased int                 // values that stand in the tree because of aliases
	bomb    bool                // there were too many of them
	inAlias int                 // how many aliases the reader is inside of
	open    map[*yaml.Node]bool // values with an anchor that the reader is inside of
}

// readYAML returns the root of the one document in content, or nil after reporting why there is none.
func readYAML(r *report, src *source, content []byte) *node {
	y := &yamlReader{report: r, source: src, open: map[*yaml.Node]bool{}}
	if len(content) > maxFileBytes {
		y.failFile(fmt.Sprintf("the file is larger than 1 MiB (%d bytes)", len(content)))
		return nil
	}
	if !utf8.Valid(content) {
		y.failFile("the file is not UTF-8")
		return nil
	}
	loader, err := yaml.NewLoader(bytes.NewReader(content), yaml.WithPlugin(loaderlimits.New(loaderlimits.DepthFunc(checkDepth))))
	if err != nil {
		y.failFile(err.Error())
		return nil
	}
	var doc, second yaml.Node
	switch err := loader.Load(&doc); {
	case errors.Is(err, io.EOF) || err == nil && len(doc.Content) == 0:
		y.failFile(`the file is empty; the smallest is "version: 1"`)
		return nil
	case err != nil:
		y.failSyntax(content, err)
		return nil
	}
	switch err := loader.Load(&second); {
	case errors.Is(err, io.EOF):
	case err != nil:
		y.failSyntax(content, err)
	default:
		r.failf(y.at(&second), "", "a second document begins here; a topology is one document")
	}
	root := y.read(doc.Content[0], 1)
	if root.shape == shapeNull {
		y.failFile(`the file is empty; the smallest is "version: 1"`)
		return nil
	}
	return root
}

func (y *yamlReader) failFile(message string) {
	y.report.add(Problem{File: y.source.Path, Severity: severityError, Message: message})
}

// tooDeep is what is wrong with a value that stands deeper than maxDepth.
var tooDeep = fmt.Sprintf("more than %d levels of nesting", maxDepth)

// checkDepth keeps the parser from going deeper than a topology does.
func checkDepth(depth int, _ *yaml.DepthContext) error {
	if depth > maxDepth {
		return errors.New(tooDeep)
	}
	return nil
}

func (y *yamlReader) failSyntax(content []byte, err error) {
	p := Problem{File: y.source.Path, Line: 1, Column: 1, Severity: severityError, Message: "not YAML: " + err.Error()}
	if e, ok := errors.AsType[*yaml.LoadError](err); ok {
		p.Line, p.Column = max(e.Mark.Line, 1), max(e.Mark.Column, 1)
		p.Message = "not YAML: " + e.Message
		switch {
		case strings.Contains(e.Message, tooDeep):
			p.Message = tooDeep
		case isTab(content, p.Line):
			p.Message = "not YAML: the line is indented with a tab; use blanks"
		case e.ContextMsg != "":
			p.Message += " " + e.ContextMsg
			if e.ContextMark.Line > 0 && e.ContextMark.Line != e.Mark.Line {
				p.Message += fmt.Sprintf(" that begins in line %d", e.ContextMark.Line)
			}
		}
	}
	y.report.add(p)
}

// isTab reports whether the indentation of a line of content has a tab in it.
func isTab(content []byte, line int) bool {
	lines := bytes.SplitN(content, []byte("\n"), line+1)
	if len(lines) < line {
		return false
	}
	text := lines[line-1]
	return bytes.ContainsRune(text[:len(text)-len(bytes.TrimLeft(text, " \t"))], '\t')
}

// at returns an empty node in n's place.
func (y *yamlReader) at(n *yaml.Node) *node {
	return &node{source: y.source, line: max(n.Line, 1), column: max(n.Column, 1), shape: shapeNull}
}

// broken reports what is wrong with n, and returns a node in its place of which nothing more is said.
func (y *yamlReader) broken(n *yaml.Node, message string) *node {
	out := y.at(n)
	out.shape = shapeBroken
	y.report.failf(out, "", "%s", message)
	return out
}

func (y *yamlReader) read(n *yaml.Node, depth int) *node {
	out := y.at(n)
	if depth > maxDepth {
		return y.broken(n, tooDeep)
	}
	if n.Anchor != "" {
		y.open[n] = true
		defer delete(y.open, n)
	}
	if y.inAlias > 0 {
		y.aliased++
	}
	switch n.Kind {
	case yaml.AliasNode:
		return y.readAlias(n, depth)
	case yaml.ScalarNode:
		return y.readScalar(n)
	case yaml.SequenceNode:
		if n.Tag != "!!seq" {
			return y.broken(n, "unknown tag "+n.Tag)
		}
		out.shape = shapeList
		for _, item := range n.Content {
			out.items = append(out.items, y.read(item, depth+1))
		}
	case yaml.MappingNode:
		if n.Tag != "!!map" {
			return y.broken(n, "unknown tag "+n.Tag)
		}
		y.readMapping(n, out, depth)
	}
	return out
}

func (y *yamlReader) readAlias(n *yaml.Node, depth int) *node {
	switch {
	case n.Alias == nil:
		return y.broken(n, fmt.Sprintf("unknown anchor %q", n.Value))
	case y.open[n.Alias]:
		return y.broken(n, fmt.Sprintf("the alias *%s stands inside of what it names", n.Value))
	case y.bomb: // told already
		out := y.at(n)
		out.shape = shapeBroken
		return out
	case y.aliased > maxAliased:
		y.bomb = true
		return y.broken(n, fmt.Sprintf("aliases repeat more than %d values", maxAliased))
	}
	y.inAlias++
	defer func() { y.inAlias-- }()
	return y.read(n.Alias, depth)
}

func (y *yamlReader) readScalar(n *yaml.Node) *node {
	out := y.at(n)
	out.shape, out.tag, out.text = shapeScalar, n.Tag, n.Value
	switch n.Tag {
	case "!!str", "!!int", "!!float", "!!bool":
	case "!!null":
		out.shape = shapeNull
	case "!!timestamp", "!!merge": // no types of the core schema: strings, unless the file asks for more
		if n.Style&yaml.TaggedStyle != 0 {
			return y.broken(n, "unknown tag "+n.Tag)
		}
		out.tag = "!!str"
	default:
		return y.broken(n, "unknown tag "+n.Tag)
	}
	return out
}

func (y *yamlReader) readMapping(n *yaml.Node, out *node, depth int) {
	out.shape = shapeMapping
	first := map[string]int{} // by key: its line
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := y.read(n.Content[i], depth+1)
		value := y.read(n.Content[i+1], depth+1)
		switch {
		case n.Content[i].Tag == "!!merge":
			y.report.failf(key, "", `merge keys (<<) are not part of YAML 1.2; write what all services share into "defaults"`)
			continue
		case key.shape == shapeBroken:
			continue
		case key.shape != shapeScalar:
			y.report.failf(key, "", "a key must be a string, not a %s", key.shape)
			continue
		case key.tag != "!!str":
			y.report.failf(key, "", "the key %s is %s; it must be a string, in quotes", key.text, yamlNames[key.tag])
			continue
		}
		if line, ok := first[key.text]; ok {
			y.report.failf(key, "", "duplicate key %q, first in line %d", key.text, line)
			continue
		}
		first[key.text] = key.line
		out.entries = append(out.entries, entry{key, value})
	}
}

// topLevelBlock returns the lines of content from the given key at the left margin up to the next one: what
// can still be read of a file that is no YAML as a whole. It returns nil if there is no such key.
func topLevelBlock(content []byte, key string) []byte {
	var block []string
	for line := range strings.Lines(string(content)) {
		switch {
		case strings.HasPrefix(line, key+":"):
			block = []string{line}
		case block != nil && strings.TrimLeft(line, " \t\r\n") == line && line[0] != '#':
			return []byte(strings.Join(block, ""))
		case block != nil:
			block = append(block, line)
		}
	}
	return []byte(strings.Join(block, ""))
}
