package topology

import (
	"fmt"
	"slices"
	"strings"
)

// A value is what the file says for a key, found to be what the key takes, or a default.
type value struct {
	key    *key
	path   string // services.web.replicas
	node   *node  // nil: the file does not say
	name   *node  // of a mapping's value: where its key stands
	broken bool   // a problem was reported; what it holds is not to be relied on
	scalar any    // what the scalar parsed to
	fields map[string]*value
	order  []string // names of fields as the file has them
	items  []*value
}

// A walker goes through the merged tree along the table and reports what does not fit.
type walker struct {
	report *report
	// partial says that nothing is missing here: the tree is only laid under others.
	partial bool
}

// walk returns the value of k that stands at n. name is where the key stands, nil in a list.
func (w *walker) walk(k *key, n, name *node, path string, secrets bool) *value {
	v := &value{key: k, path: path, node: n, name: name}
	secrets = secrets || k.secrets
	if k.partial {
		w = &walker{report: w.report, partial: true}
	}
	t := k.typ
	switch {
	case n.shape == shapeBroken:
		v.broken = true
	case k.unsupported:
		w.breakf(v, v.place(), "%s is not supported yet", path)
	case n.shape == shapeNull:
		w.breakf(v, v.place(), "%s is empty%s", path, like(k))
	case n.shape == shapeMapping && t.laterMapping:
		w.breakf(v, n, "%s as a mapping is not supported yet", path)
	case !t.takes(n.shape):
		w.breakf(v, n, "%s must be %s, not %s%s", v.called(), t.name, n.what(), like(k))
	case n.shape == shapeScalar:
		w.walkScalar(v, secrets)
	case n.shape == shapeList:
		for i, item := range n.items {
			v.items = append(v.items, w.walk(t.item, item, nil, fmt.Sprintf("%s[%d]", path, i), secrets))
		}
	case t.each != nil:
		w.walkNames(v, secrets)
	default:
		w.walkKeys(v, secrets)
	}
	return v
}

// breakf reports that v is wrong at n.
func (w *walker) breakf(v *value, n *node, format string, args ...any) {
	v.broken = true
	w.report.failf(n, v.path, format, args...)
}

// place is where v's key stands, or v itself in a list.
func (v *value) place() *node {
	if v.name != nil {
		return v.name
	}
	return v.node
}

// like is the end of a message that shows what would be right.
func like(k *key) string {
	if k.example == "" {
		return ""
	}
	return "; it looks like " + k.example
}

// called is v's path, for a message.
func (v *value) called() string {
	if v.path == "" {
		return "the topology"
	}
	return v.path
}

// yamlNames are what the types of scalars are called in problems.
var yamlNames = map[string]string{"!!str": "a string", "!!int": "a number", "!!float": "a number", "!!bool": "true or false"}

// what is what n is, for a message.
func (n *node) what() string {
	if n.shape == shapeScalar {
		return yamlNames[n.tag]
	}
	return "a " + string(n.shape)
}

func (w *walker) walkScalar(v *value, secrets bool) {
	n, t := v.node, v.key.typ
	s, err := w.interpolate(n, v.path, secrets)
	if err == nil && slices.Contains(t.later, s.String()) {
		err = faultf("%s is not supported yet", s)
	}
	if err == nil {
		err = checkYAMLType(t, n, s)
	}
	if err == nil {
		v.scalar, err = t.parse(s)
	}
	if err == nil {
		return
	}
	v.broken = true
	f, ok := err.(fault)
	if !ok {
		f = fault{message: err.Error()}
	}
	if _, safe := err.(besideSecret); !safe && s.Text().IsSecret() {
		f = fault{message: "the value of ${file:} does not fit here"}
	}
	if strings.HasPrefix(f.message, "is ") || strings.HasPrefix(f.message, "has ") {
		f.message = v.path + " " + f.message
	} else {
		f.message = v.path + ": " + f.message
	}
	w.report.fail(n, v.path, f)
}

// checkYAMLType holds numbers, words and strings apart, where nothing was interpolated.
func checkYAMLType(t *typ, n *node, s scalar) error {
	want := t.yaml
	if want == "" {
		want = "!!str"
	}
	if s.inserted() || want == "any" || want == n.tag || want == "!!float" && n.tag == "!!int" {
		return nil
	}
	if want == "!!str" {
		return faultf("%s is %s; it must be a string, in quotes", n.text, yamlNames[n.tag])
	}
	if _, err := t.parse(s); err != nil {
		return err
	}
	return faultf("%q is %s; it must be %s, without quotes", n.text, yamlNames[n.tag], t.name)
}

func (v *value) child(name string) string {
	if v.path == "" {
		return name
	}
	return v.path + "." + name
}

func (v *value) set(name string, field *value) {
	if v.fields == nil {
		v.fields = map[string]*value{}
	}
	v.fields[name] = field
	v.order = append(v.order, name)
}

// walkNames walks a mapping of free names.
func (w *walker) walkNames(v *value, secrets bool) {
	folded := map[string]string{}
	for _, e := range v.node.entries {
		name, path := e.key.text, v.child(e.key.text)
		if err := v.key.typ.named(name); err != nil {
			w.report.fail(e.key, path, fault{message: v.path + ": " + err.Error()})
			v.set(name, &value{key: v.key.typ.each, path: path, node: e.value, name: e.key, broken: true})
			continue
		}
		if other, ok := folded[strings.ToLower(name)]; ok && v.key.typ.fold {
			w.report.failf(e.key, path, "%s has both %q and %q, which are one header", v.path, other, name)
			continue
		}
		folded[strings.ToLower(name)] = name
		v.set(name, w.walk(v.key.typ.each, e.value, e.key, path, secrets))
	}
}

// walkKeys walks a mapping of known keys.
func (w *walker) walkKeys(v *value, secrets bool) {
	t := v.key.typ
	meant := map[string]entry{} // by the name of the key: what stands there in its place
	for _, e := range v.node.entries {
		name := e.key.text
		if k := t.child(name); k != nil {
			v.set(name, w.walk(k, e.value, e.key, v.child(name), secrets))
		} else if v.key != root || !strings.HasPrefix(name, "x-") {
			meant[w.unknownKey(v, e)] = e
		}
	}
	for _, k := range t.keys { // what was meant is not missing, too
		if e, ok := meant[k.name]; ok && v.fields[k.name] == nil {
			v.set(k.name, &value{key: k, path: v.child(k.name), node: e.value, name: e.key, broken: true})
		}
	}
	w.checkAlternatives(v)
	if !w.partial {
		w.checkMissing(v)
	}
}

// unknownKey reports e and returns the name of the key that was probably meant, or the empty string.
func (w *walker) unknownKey(v *value, e entry) string {
	name, t := e.key.text, v.key.typ
	f := fault{message: fmt.Sprintf("unknown key %q in %s", name, v.called())}
	if known, ok := t.foreign[name]; ok {
		f.suggestion = known.key
		if known.why != "" {
			f.message += ": " + known.why
		}
	} else {
		f.suggestion = nearest(name, t.names())
	}
	w.report.fail(e.key, v.child(name), f)
	meant, _, _ := strings.Cut(f.suggestion, ".")
	return meant
}

// checkAlternatives reports keys that exclude each other.
func (w *walker) checkAlternatives(v *value) {
	chosen := map[string]*value{}
	for _, name := range v.order {
		field := v.fields[name]
		group := field.key.alternative
		if group == "" {
			continue
		}
		if other := chosen[group]; other != nil {
			if !other.broken && !field.broken {
				w.breakf(field, field.name, "%s has both %s and %s; keep one", v.path, other.key.name, field.key.name)
			}
			continue
		}
		chosen[group] = field
	}
}

// checkMissing reports the keys that v needs and has not, all of them as one problem.
func (w *walker) checkMissing(v *value) {
	var missing []string
	for _, k := range v.key.typ.keys {
		if !k.required || v.fields[k.name] != nil {
			continue
		}
		if k.alternative == "" {
			missing = append(missing, k.name)
			continue
		}
		var group []string
		given := false
		for _, other := range v.key.typ.keys {
			if other.alternative == k.alternative {
				group = append(group, other.name)
				given = given || v.fields[other.name] != nil
			}
		}
		if !given && group[0] == k.name {
			missing = append(missing, strings.Join(group, " or "))
		}
	}
	if len(missing) == 0 {
		return
	}
	v.broken = true
	if v.key == root {
		w.report.failf(v.place(), "version", `the file needs "version: 1"`)
		return
	}
	w.report.failf(v.place(), v.path, "%s needs %s", v.path, strings.Join(missing, " and "))
}

// given reports whether the file says something for the key at the path of names below v.
func (v *value) given(names ...string) bool {
	f := v.at(names...)
	return f.node != nil
}

// sound reports whether no problem was found with the key at the path of names below v, or above it.
func (v *value) sound(names ...string) bool {
	for ; ; names = names[1:] {
		if v.broken {
			return false
		}
		if len(names) == 0 || v.fields[names[0]] == nil {
			return true
		}
		v = v.fields[names[0]]
	}
}

// at returns the value at the path of names below v, one without a node if the file does not say.
func (v *value) at(names ...string) *value {
	for _, name := range names {
		next := v.fields[name]
		if next == nil {
			k := v.key.typ.child(name)
			if k == nil {
				panic("no key " + name + " in " + v.path)
			}
			next = &value{key: k, path: v.child(name)}
		}
		v = next
	}
	return v
}

// get returns what the file says at the path of names below v, or the table's default, or T's zero if there is none.
func get[T any](v *value, names ...string) T {
	k := v.key
	for _, name := range names {
		if v != nil {
			v = v.fields[name]
		}
		if k = k.typ.child(name); k == nil {
			panic("no key " + name)
		}
	}
	var parsed any
	if v != nil {
		parsed = v.scalar
	}
	if parsed == nil && k.def != "" {
		parsed, _ = k.typ.parse(literal(k.def, "/"))
	}
	t, _ := parsed.(T)
	return t
}

// items returns what the scalars of v's list parsed to.
func items[T any](v *value) []T {
	var out []T
	for _, item := range v.items {
		if t, ok := item.scalar.(T); ok {
			out = append(out, t)
		}
	}
	return out
}
