package topology

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
)

// TestPlanGolden compares the plan from old.yaml to new.yaml with the file plan of each archive.
func TestPlanGolden(t *testing.T) {
	for _, path := range archives(t, "testdata/plan/*.txtar") {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) { testPlan(t, path) })
	}
}

func testPlan(t *testing.T, path string) {
	archive, err := txtar.ParseFile(path)
	if err != nil {
		t.Fatal(err)
	}
	dir := unpack(t, archive)
	t.Chdir(dir)
	read := func(name string) *Topology {
		files, err := Read([]string{name})
		if err != nil {
			t.Fatal(err)
		}
		topology, problems := Parse(files)
		if problems.Failed() {
			t.Fatal(problems)
		}
		return topology
	}
	var b strings.Builder
	have, next := read("old.yaml"), read("new.yaml")
	changes := Plan(have, next)
	if (len(changes) == 0) != reflect.DeepEqual(have, next) {
		t.Errorf("%d changes between topologies that are equal: %v", len(changes), reflect.DeepEqual(have, next))
	}
	for _, c := range changes {
		fmt.Fprintf(&b, "%s %s %s %q -> %q (%s)", c.Class, c.Action, c.Path, c.Old, c.New, c.Reason)
		for _, name := range c.Instances {
			fmt.Fprintf(&b, " %s", name)
		}
		fmt.Fprintln(&b)
		if want := strings.HasPrefix(c.Path, "services."); want != (c.Service != "") {
			t.Errorf("%s: service %q", c.Path, c.Service)
		}
	}
	got := strings.ReplaceAll(b.String(), dir, "$DIR")
	if strings.Contains(got, "secret") {
		t.Errorf("the plan shows a secret:\n%s", got)
	}
	last := len(archive.Files) - 1
	if *update {
		if archive.Files[last].Name != "plan" {
			archive.Files = append(archive.Files, txtar.File{})
			last++
		}
		archive.Files[last] = txtar.File{Name: "plan", Data: []byte(got)}
		if err := os.WriteFile(path, txtar.Format(archive), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if archive.Files[last].Name != "plan" {
		t.Fatal("no golden plan")
	}
	if diff := cmp.Diff(string(archive.Files[last].Data), got); diff != "" {
		t.Error(diff)
	}
}

func TestPlanFromAndToNothing(t *testing.T) {
	whole, problems := resolveTree(wholeTree(t))
	if problems.Failed() {
		t.Fatal(problems)
	}
	for _, other := range []*Topology{nil, Empty} {
		for _, c := range append(Plan(other, whole), Plan(whole, other)...) {
			if c.Class == ClassManual {
				t.Errorf("manual: %s", c.Path)
			}
		}
	}
	if changes := Plan(whole, whole); len(changes) != 0 {
		t.Error(changes)
	}
}

// TestPlanSeesEveryField changes every field of the resolved types in turn: no difference must go unseen.
func TestPlanSeesEveryField(t *testing.T) {
	tree := wholeTree(t)
	have, problems := resolveTree(tree)
	if problems.Failed() {
		t.Fatal(problems)
	}
	// Names are the keys of their maps; the others are never in the file.
	skipped := map[string]bool{"Generation": true, "Stopped": true, "Epoch": true, "Read": true}
	count := 0
	changed := func(path string) {
		count++
		next, _ := resolveTree(tree)
		if !change(reflect.ValueOf(next).Elem(), path, "") {
			t.Fatalf("%s cannot be changed", path)
		}
		if len(Plan(have, next)) == 0 {
			t.Errorf("a change of %s is in no plan", path)
		}
	}
	eachField(reflect.ValueOf(have).Elem(), "", func(path string, f reflect.StructField) bool {
		return skipped[f.Name] || f.Name == "Name" && path != "" || path == ".Services[legacy]" && f.Name == "Replicas"
	}, changed)
	if count < 250 {
		t.Errorf("only %d fields", count)
	}
}

var textType = reflect.TypeFor[Text]()

// eachField calls f with the path of every plain value below v.
func eachField(v reflect.Value, path string, skip func(path string, f reflect.StructField) bool, f func(path string)) {
	switch {
	case v.Type() == textType:
		f(path)
	case v.Kind() == reflect.Struct:
		for i := range v.NumField() {
			field := v.Type().Field(i)
			inExternal := strings.HasPrefix(path, ".Services[legacy]") && v.Field(i).IsZero()
			if !skip(path, field) && !inExternal {
				eachField(v.Field(i), path+"."+field.Name, skip, f)
			}
		}
	case v.Kind() == reflect.Pointer && !v.IsNil():
		eachField(v.Elem(), path, skip, f)
	case v.Kind() == reflect.Map:
		for _, k := range v.MapKeys() {
			eachField(v.MapIndex(k), path+"["+k.String()+"]", skip, f)
		}
	case v.Kind() == reflect.Slice:
		for i := range v.Len() {
			eachField(v.Index(i), fmt.Sprintf("%s[%d]", path, i), skip, f)
		}
	case v.Kind() != reflect.Pointer:
		f(path)
	}
}

// change makes the value at path below v another one and reports whether it is there.
func change(v reflect.Value, path, at string) bool {
	if !strings.HasPrefix(path, at) {
		return false
	}
	switch {
	case v.Type() == textType:
		if at == path {
			v.Set(reflect.ValueOf(Plain("changed")))
		}
		return at == path
	case v.Kind() == reflect.Struct:
		for i := range v.NumField() {
			if change(v.Field(i), path, at+"."+v.Type().Field(i).Name) {
				return true
			}
		}
		return false
	case v.Kind() == reflect.Pointer:
		return !v.IsNil() && change(v.Elem(), path, at)
	case v.Kind() == reflect.Map:
		for _, k := range v.MapKeys() {
			item := reflect.New(v.Type().Elem()).Elem()
			item.Set(v.MapIndex(k))
			if change(item, path, at+"["+k.String()+"]") {
				v.SetMapIndex(k, item)
				return true
			}
		}
		return false
	case v.Kind() == reflect.Slice:
		for i := range v.Len() {
			if change(v.Index(i), path, fmt.Sprintf("%s[%d]", at, i)) {
				return true
			}
		}
		return false
	}
	if at != path {
		return false
	}
	switch v.Kind() {
	case reflect.Float64:
		v.SetFloat(v.Float() + 1)
	case reflect.String:
		v.SetString("changed")
	case reflect.Bool:
		v.SetBool(!v.Bool())
	case reflect.Int, reflect.Int64:
		step := int64(1)
		if v.Type() == reflect.TypeFor[time.Duration]() {
			step = int64(time.Second)
		}
		v.SetInt(v.Int() + step)
	case reflect.Uint32:
		v.SetUint(v.Uint() ^ 1)
	default:
		return false
	}
	return true
}

func TestCompare(t *testing.T) {
	have := map[string][]int{"same": {1}, "changed": {1}, "gone": nil, "also-gone": nil}
	want := map[string][]int{"same": {1}, "changed": {2}, "new": nil, "also-new": nil}
	add, change, remove := Compare(have, want)
	for got, want := range map[*[]string][]string{&add: {"also-new", "new"}, &change: {"changed"}, &remove: {"also-gone", "gone"}} {
		if diff := cmp.Diff(want, *got); diff != "" {
			t.Error(diff)
		}
	}
}
