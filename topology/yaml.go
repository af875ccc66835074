package topology

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"

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
	report    *report
	source    *source
	aliased   int
	expanding map[*yaml.Node]bool // aliases that the reader is inside of
}

// readYAML returns the root of the one document in content, or nil after reporting why there is none.
func readYAML(r *report, src *source, content []byte) *node {
	y := &yamlReader{report: r, source: src, expanding: map[*yaml.Node]bool{}}
	if len(content) > maxFileBytes {
		y.failFile(fmt.Sprintf("the file is larger than 1 MiB (%d bytes)", len(content)))
		return nil
	}
	loader, err := yaml.NewLoader(bytes.NewReader(content), yaml.WithPlugin(loaderlimits.New(loaderlimits.DepthValue(maxDepth))))
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
		y.failSyntax(err)
		return nil
	}
	switch err := loader.Load(&second); {
	case errors.Is(err, io.EOF):
	case err != nil:
		y.failSyntax(err)
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

// parserMessage cuts what the parser says about positions, which the problem has already.
var parserMessage = regexp.MustCompile(`^go-yaml load error in \w+ (\(.*\) )?at [^:]*: `)

func (y *yamlReader) failSyntax(err error) {
	p := Problem{File: y.source.Path, Severity: severityError}
	if e, ok := errors.AsType[*yaml.LoadError](err); ok {
		p.Line, p.Column = max(e.Mark.Line, 1), max(e.Mark.Column, 1)
		p.Message = "not YAML: " + e.Message
		if e.ContextMsg != "" {
			p.Message += " " + e.ContextMsg
			if e.ContextMark.Line > 0 && e.ContextMark.Line != e.Mark.Line {
				p.Message += fmt.Sprintf(" that begins in line %d", e.ContextMark.Line)
			}
		}
	} else {
		p.Line, p.Column = 1, 1
		p.Message = "not YAML: " + parserMessage.ReplaceAllString(err.Error(), "")
	}
	y.report.add(p)
}

// at returns an empty node in n's place.
func (y *yamlReader) at(n *yaml.Node) *node {
	return &node{source: y.source, line: max(n.Line, 1), column: max(n.Column, 1), shape: shapeNull}
}

func (y *yamlReader) read(n *yaml.Node, depth int) *node {
	out := y.at(n)
	if depth > maxDepth {
		y.report.failf(out, "", "more than %d levels of nesting", maxDepth)
		return out
	}
	if len(y.expanding) > 0 {
		y.aliased++
	}
	switch n.Kind {
	case yaml.AliasNode:
		return y.readAlias(n, depth)
	case yaml.ScalarNode:
		y.readScalar(n, out)
	case yaml.SequenceNode:
		y.checkTag(n, out, "!!seq")
		out.shape = shapeList
		for _, item := range n.Content {
			out.items = append(out.items, y.read(item, depth+1))
		}
	case yaml.MappingNode:
		y.checkTag(n, out, "!!map")
		y.readMapping(n, out, depth)
	}
	return out
}

func (y *yamlReader) readAlias(n *yaml.Node, depth int) *node {
	at := y.at(n)
	switch {
	case n.Alias == nil:
		y.report.failf(at, "", "unknown anchor %q", n.Value)
		return at
	case y.expanding[n.Alias]:
		y.report.failf(at, "", "the alias *%s stands inside of what it names", n.Value)
		return at
	case y.aliased > maxAliased:
		y.report.failf(at, "", "aliases repeat more than %d values", maxAliased)
		return at
	}
	y.expanding[n.Alias] = true
	defer delete(y.expanding, n.Alias)
	return y.read(n.Alias, depth)
}

func (y *yamlReader) readScalar(n *yaml.Node, out *node) {
	out.text = n.Value
	out.shape = shapeScalar
	switch n.Tag {
	case "!!str", "!!int", "!!float", "!!bool":
		out.tag = n.Tag
	case "!!null":
		out.shape = shapeNull
	case "!!timestamp", "!!merge": // no types of the core schema: plain strings, unless asked for
		out.tag = "!!str"
		if n.Style&yaml.TaggedStyle != 0 {
			y.report.failf(out, "", "unknown tag %s", n.Tag)
		}
	default:
		out.tag = "!!str"
		y.report.failf(out, "", "unknown tag %s", n.Tag)
	}
}

func (y *yamlReader) checkTag(n *yaml.Node, out *node, core string) {
	if n.Tag != core {
		y.report.failf(out, "", "unknown tag %s", n.Tag)
	}
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
