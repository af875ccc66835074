package topology

import (
	"slices"
	"strings"
)

// A key is one line of the table of keys: what it is called, what it takes, and what it means.
// Everything that is known about a key is said here and nowhere else.
type key struct {
	name    string
	doc     string // sentences
	typ     *typ
	def     string // the default, as one would write it
	defDoc  string // what the default is when it is no plain value
	example string // a value as one would write it

	class  Class  // of a change; empty is that of the key above
	reason string // why it has this class

	required    bool
	secrets     bool   // ${file:} is allowed here and below
	external    bool   // means something for instances that are not launched
	alternative string // keys of one mapping with the same word here exclude each other
	partial     bool   // lies under other values, so nothing is missing in it
	unsupported bool   // known, but what it asks for is not there yet
}

func (k *key) typOrNil() *typ {
	if k == nil {
		return nil
	}
	return k.typ
}

// A typ is what a key takes. It has up to three forms, one for each shape of a YAML value.
type typ struct {
	name string // as problems and the reference call it: "a duration"

	// As a scalar: parse turns the text into the value that get returns.
	parse  func(scalar) (any, error)
	yaml   string         // the YAML type without interpolation: !!int, !!bool, empty for !!str, "any" for each of them
	schema map[string]any // JSON Schema of the scalar
	later  []string       // values that are known but not supported yet

	// As a list.
	item *key

	// As a mapping: of these keys, or of free names to values like each.
	keys  []*key
	each  *key
	named func(string) error // whether a free name is allowed
	fold  bool               // free names that differ only in case are one
	// foreign maps keys of other tools to the key here that does the same.
	foreign map[string]foreign
	// laterMapping says that the form as a mapping is known but not supported yet.
	laterMapping bool
}

// A foreign key is one that other tools have: the key that does the same here, or why there is none, or both.
type foreign struct{ key, why string }

// child returns the key that a mapping of this typ knows by that name, or nil.
func (t *typ) child(name string) *key {
	if t == nil {
		return nil
	}
	if t.each != nil {
		return t.each
	}
	for _, k := range t.keys {
		if k.name == name {
			return k
		}
	}
	return nil
}

func (t *typ) isMapping() bool { return t.keys != nil || t.each != nil }

func (t *typ) takes(s shape) bool {
	switch s {
	case shapeScalar:
		return t.parse != nil
	case shapeList:
		return t.item != nil
	case shapeMapping:
		return t.isMapping()
	}
	return false
}

// names returns the names of the keys of a mapping.
func (t *typ) names() []string {
	names := make([]string, len(t.keys))
	for i, k := range t.keys {
		names[i] = k.name
	}
	return names
}

// oneOf is the typ of a word out of values; those in later are known but not supported yet.
func oneOf(values []string, later ...string) *typ {
	name := "one of " + strings.Join(values, ", ")
	if later != nil {
		name += " (not supported yet: " + strings.Join(later, ", ") + ")"
	}
	return &typ{
		name:   name,
		parse:  func(s scalar) (any, error) { return parseEnum(s.String(), values) },
		schema: map[string]any{"enum": slices.Concat(values, later)},
		later:  later,
	}
}

// listOf is the typ of a list of items of the given typ.
func listOf(t *typ) *typ {
	return &typ{name: "a list of " + t.plural(), item: &key{typ: t}}
}
