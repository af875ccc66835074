package topology

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// TestParseGolden parses the .yaml files of each archive in testdata, one over the other in their order, and
// compares what comes out with its file resolved or problems. Files in bin are executable, *.key
// are private, the lines of the file env are environment variables.
func TestParseGolden(t *testing.T) {
	for _, path := range archives(t, "testdata/*.txtar") {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) { testGolden(t, path) })
	}
}

// archives returns the absolute paths of the files that match pattern.
func archives(t testing.TB, pattern string) []string {
	pattern, err := filepath.Abs(pattern)
	if err != nil {
		t.Fatal(err)
	}
	paths, err := filepath.Glob(pattern)
	if err != nil || len(paths) == 0 {
		t.Fatalf("glob %s: %v, %v", pattern, paths, err)
	}
	return paths
}

func testGolden(t *testing.T, path string) {
	archive, err := txtar.ParseFile(path)
	if err != nil {
		t.Fatal(err)
	}
	dir := unpack(t, archive)
	t.Chdir(dir)
	var files []File
	for _, f := range archive.Files {
		if filepath.Ext(f.Name) == ".yaml" {
			files = append(files, File{f.Name, f.Data})
		}
	}
	topology, problems := Parse(files)
	if (topology == nil) != problems.Failed() {
		t.Fatalf("topology %v beside problems:\n%v", topology, problems)
	}
	got := map[string]string{}
	if len(problems) > 0 {
		got["problems"] = strings.ReplaceAll(problems.Error(), dir, "$DIR") + "\n"
	}
	if topology != nil {
		got["resolved"] = strings.ReplaceAll(dump(topology), dir, "$DIR")
	}
	if *update {
		archive.Files = slices.DeleteFunc(archive.Files, func(f txtar.File) bool { return f.Name == "problems" || f.Name == "resolved" })
		for _, name := range slices.Sorted(maps.Keys(got)) {
			archive.Files = append(archive.Files, txtar.File{Name: name, Data: []byte(got[name])})
		}
		if err := os.WriteFile(path, txtar.Format(archive), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want := map[string]string{}
	for _, f := range archive.Files {
		if f.Name == "problems" || f.Name == "resolved" {
			want[f.Name] = string(f.Data)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// unpack writes the archive's files into a new directory.
func unpack(t testing.TB, archive *txtar.Archive) string {
	dir := filepath.Join(t.TempDir(), "shop")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, f := range archive.Files {
		if f.Name == "env" {
			for line := range strings.Lines(string(f.Data)) {
				name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
				t.Setenv(name, value)
			}
			continue
		}
		path, mode := filepath.Join(dir, f.Name), os.FileMode(0o644)
		switch {
		case strings.HasPrefix(f.Name, "bin/"):
			mode = 0o755
		case filepath.Ext(f.Name) == ".key":
			mode = 0o600
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, f.Data, mode); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// dump returns everything in t, a line for each value.
func dump(t *Topology) string {
	var lines []string
	var walk func(path string, v any)
	walk = func(path string, v any) {
		if branch, ok := v.(tree); ok {
			for name, child := range branch {
				walk(strings.TrimPrefix(path+"."+name, "."), child)
			}
			return
		}
		lines = append(lines, fmt.Sprintf("%s = %s\n", path, shown(nil, v)))
	}
	walk("", treeOf(t))
	slices.Sort(lines)
	return strings.Join(lines, "")
}
