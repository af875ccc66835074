package topology

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v4"
	"golang.org/x/tools/txtar"
)

// eachKey calls f for every key of the table.
func eachKey(f func(path string, k *key)) {
	var walk func(path string, k *key)
	walk = func(path string, k *key) {
		f(path, k)
		if k.typ.item != nil {
			walk(path+"[]", k.typ.item)
		}
		if k.typ.each != nil {
			walk(join(path, k.typ.each.name), k.typ.each)
		}
		for _, child := range k.typ.keys {
			walk(join(path, child.name), child)
		}
	}
	walk("", root)
}

func TestEveryKeyIsDescribed(t *testing.T) {
	eachKey(func(path string, k *key) {
		if k.name == "" { // an item of a list stands under its list's name
			return
		}
		if k.doc == "" || !strings.HasSuffix(k.doc, ".") {
			t.Errorf("%s: doc %q is no sentence", path, k.doc)
		}
		if k.example == "" && k.name != strings.ToUpper(k.name) && k != root {
			t.Errorf("%s has no example", path)
		}
		if k.typ.name == "" {
			t.Errorf("%s takes nothing that has a name", path)
		}
		if slices.Contains([]string{"on", "off", "yes", "no", "y", "n"}, k.name) {
			t.Errorf("%s is a boolean to readers of YAML 1.1", path)
		}
		if k.typ.parse != nil && k.typ.schema == nil {
			t.Errorf("%s has no schema", path)
		}
	})
}

func TestEveryKeyHasAClass(t *testing.T) {
	var walk func(path string, k *key, m meaning)
	walk = func(path string, k *key, m meaning) {
		m = m.of(k)
		if k.typ.isMapping() || k.typ.item != nil {
			for _, child := range append(slices.Clone(k.typ.keys), k.typ.each, k.typ.item) {
				if child != nil {
					walk(path+"."+child.name, child, m)
				}
			}
		} else if m.class == "" || m.reason == "" {
			t.Errorf("%s: class %q, reason %q", path, m.class, m.reason)
		}
	}
	for _, k := range root.typ.keys {
		if k.name != "defaults" {
			walk(k.name, k, meaning{})
		}
	}
}

func TestDefaultsAndExamplesAreValid(t *testing.T) {
	t.Chdir(t.TempDir())
	eachKey(func(path string, k *key) {
		if k.def != "" {
			if _, err := k.typ.parse(literal(k.def, "/")); err != nil {
				t.Errorf("%s: default: %v", path, err)
			}
		}
		if k.example == "" || k.typ == userName || k.typ == groupName {
			return
		}
		r := newReport(nil)
		n := readYAML(r, &source{Path: "example"}, []byte(k.example))
		if n != nil {
			supported := *k
			supported.unsupported = false
			supported.typ = withoutLater(k.typ)
			w := &walker{report: r, partial: true}
			w.walk(&supported, n, nil, path, true)
		}
		for _, p := range r.problems {
			if !strings.Contains(p.Message, "is not supported yet") && !strings.Contains(p.Message, "this machine has no") {
				t.Errorf("%s: example %s: %v", path, k.example, p)
			}
		}
	})
}

func withoutLater(t *typ) *typ {
	out := *t
	out.later, out.laterMapping = nil, false
	return &out
}

func TestForeignKeysLeadSomewhere(t *testing.T) {
	eachKey(func(path string, k *key) {
		for name, f := range k.typ.foreign {
			if f.key == "" && f.why == "" {
				t.Errorf("%s: %s has to lead to a key or say why not", path, name)
			}
			if k.typ.child(name) != nil {
				t.Errorf("%s: %s is a key", path, name)
			}
			for at, rest := k, f.key; rest != ""; {
				var next string
				next, rest, _ = strings.Cut(rest, ".")
				if at = at.typ.child(next); at == nil {
					t.Errorf("%s: %s leads to %s, which is no key", path, name, f.key)
					break
				}
			}
		}
	})
}

// wholeTree returns the tree of the topology that uses every supported key, whose directory is the current one then.
func wholeTree(t *testing.T) *node {
	archive, err := txtar.ParseFile("testdata/whole.txtar")
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(unpack(t, archive))
	content, err := os.ReadFile("topology.yaml")
	if err != nil {
		t.Fatal(err)
	}
	r := newReport(nil)
	tree := readTree(r, []File{{"topology.yaml", content}})
	if tree == nil {
		t.Fatal(r.problems)
	}
	return tree
}

func resolveTree(tree *node) (*Topology, Problems) {
	r := newReport(nil)
	w := &walker{report: r}
	v := w.walk(root, spreadDefaults(tree), nil, "", false)
	return resolve(r, v, filepath.Dir("/")), r.sorted()
}

func TestWholeUsesEveryKey(t *testing.T) {
	tree := wholeTree(t)
	used := map[*key]bool{}
	var mark func(k *key, n *node)
	mark = func(k *key, n *node) {
		used[k] = true
		for _, e := range n.entries {
			if child := k.typ.child(e.key.text); child != nil {
				mark(child, e.value)
			}
		}
		for _, item := range n.items {
			mark(k.typ.item, item)
		}
	}
	mark(root, tree)
	var check func(path string, k *key)
	check = func(path string, k *key) {
		if k.unsupported || k.typ.laterMapping {
			return
		}
		if !used[k] {
			t.Errorf("%s is not in whole.txtar", path)
		}
		for _, child := range append(slices.Clone(k.typ.keys), k.typ.each, k.typ.item) {
			// Startup, readiness and liveness take the same, and so do both directions of headers.
			if child != nil && !strings.HasPrefix(path, "defaults") && !strings.Contains(path, "probes.") && !strings.Contains(path, "headers.") {
				check(join(path, child.name), child)
			}
		}
	}
	check("", root)
}

// TestNoKeyIsIgnored takes each key of the whole topology away in turn: what comes out must differ.
func TestNoKeyIsIgnored(t *testing.T) {
	tree := wholeTree(t)
	whole, problems := resolveTree(tree)
	if problems.Failed() {
		t.Fatal(problems)
	}
	only := []string{"version", "x-note", "proxy.load_balancing", "defaults.update.order", "defaults.update.failure_action", "backups.orders.consistency"} // one value
	var try func(path string, n *node)
	try = func(path string, n *node) {
		for i, e := range n.entries {
			at := join(path, e.key.text)
			if slices.Contains(only, at) {
				continue
			}
			entries := n.entries
			n.entries = slices.Concat(entries[:i], entries[i+1:])
			without, problems := resolveTree(tree)
			n.entries = entries
			if !problems.Failed() && reflect.DeepEqual(whole, without) {
				t.Errorf("the topology is the same without %s", at)
			}
			try(at, e.value)
		}
		for i, item := range n.items {
			try(path+"["+string(rune('0'+i))+"]", item)
		}
	}
	try("", tree)
}

func TestReferencePage(t *testing.T) {
	path := filepath.Join("..", "docs", "topology.md")
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, Reference(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	page, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(Reference()), string(page)); diff != "" {
		t.Errorf("docs/topology.md is not what the table says; go test ./topology -update writes it anew:\n%s", diff)
	}
}

func compileSchema(t *testing.T) *jsonschema.Schema {
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(Schema()))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("topology.schema.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("topology.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	if s.DraftVersion != 7 {
		t.Errorf("draft %d", s.DraftVersion)
	}
	return s
}

// asJSON is what a validator sees of a YAML document.
func asJSON(t *testing.T, content []byte) any {
	var v any
	if err := yaml.Load(content, &v); err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

func TestSchemaAccepts(t *testing.T) {
	schema := compileSchema(t)
	contents := map[string][]byte{}
	for _, name := range []string{"whole", "later", "smallest", "warnings", "defaults-used", "version-only"} {
		archive, err := txtar.ParseFile("testdata/" + name + ".txtar")
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range archive.Files {
			if f.Name == "topology.yaml" {
				contents[name] = f.Data
			}
		}
	}
	example, err := os.ReadFile("../topology.yaml")
	if err != nil {
		t.Fatal(err)
	}
	contents["example"] = example
	for name, content := range contents {
		if err := schema.Validate(asJSON(t, content)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSchemaRefuses(t *testing.T) {
	schema := compileSchema(t)
	for _, content := range []string{
		"services: {}",
		"version: 2",
		"version: 1\nservice: {}",
		"version: 1\nservices: {web: {command: ./web, replica: 2}}",
		"version: 1\nservices: {web: {command: ./web, replicas: 1.5}}",
		"version: 1\nservices: {web: {command: ./web, stop_grace_period: 20}}",
		"version: 1\nservices: {web: {command: ./web, restart: {policy: sometimes}}}",
		"version: 1\nservices: {web: {command: {shel: x}}}",
		"version: 1\nservices: {web: null}",
		"version: 1\nproxy: {routes: [{match: {host: a}}]}",
		"version: 1\nbus: {a: {publishers: 127.0.0.1:1, subscribers: tcp://127.0.0.1:1}}",
		"version: 1\nbackups: {a: {paths: [a], repositories: a, password_file: b}}",
	} {
		if schema.Validate(asJSON(t, []byte(content))) == nil {
			t.Errorf("accepted:\n%s", content)
		}
	}
}

func TestExampleIsValid(t *testing.T) {
	files, err := Read([]string{"../topology.yaml"})
	if err != nil {
		t.Fatal(err)
	}
	if _, problems := Parse(files); problems.Failed() {
		t.Error(problems)
	}
}
