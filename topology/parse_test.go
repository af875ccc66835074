package topology

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"golang.org/x/tools/txtar"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestSplitWords(t *testing.T) {
	for in, want := range map[string][]string{
		`./web`:                        {"./web"},
		"  a\tb\n c  ":                 {"a", "b", "c"},
		`a 'b c' "d e" f\ g`:           {"a", "b c", "d e", "f g"},
		`a '' ""`:                      {"a", "", ""},
		`a'b'"c"d`:                     {"abcd"},
		`'a\b' "a\b" "a\"b" "\\" a\'b`: {`a\b`, `a\b`, `a"b`, `\`, `a'b`},
		`--x='a "b" c'`:                {`--x=a "b" c`},
		`echo '|' \| a|b`:              {"echo", "|", "|", "a|b"},
		`$HOME ~ * #x`:                 {"$HOME", "~", "*", "#x"},
	} {
		words, err := splitWords(literal(in, "/"))
		if err != nil {
			t.Errorf("%s: %v", in, err)
		}
		var got []string
		for _, w := range words {
			got = append(got, w.Reveal())
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s:\n%s", in, diff)
		}
	}
	for _, in := range []string{`'a`, `"a`, `a\`, `a | b`, `a && b`, `a > b`, `a ;`} {
		if words, err := splitWords(literal(in, "/")); err == nil {
			t.Errorf("%s: %v", in, words)
		}
	}
}

func TestSplitWordsKeepsWhatWasInserted(t *testing.T) {
	words, err := splitWords(scalar{segments: []segment{
		{text: "a 'b "}, {text: `c' "d`, inserted: true, secret: true}, {text: "' e"}, {text: " f", inserted: true}, {text: " "}, {text: "", inserted: true},
	}})
	if err != nil {
		t.Fatal(err)
	}
	want := []Text{Plain("a"), Secret(`b c' "d`), Plain("e f"), Plain("")}
	if diff := cmp.Diff(want, words, cmp.AllowUnexported(Text{})); diff != "" {
		t.Error(diff)
	}
}

func TestPlaceholderBesideSecret(t *testing.T) {
	key := segment{text: "a{port}b", inserted: true, secret: true}
	for _, good := range [][]segment{
		{{text: "web {port} "}, key, {text: " {host}"}},
		{{text: "web {po"}, key, {text: "rt}"}},
		{{text: "web {other}"}, key},
		{{text: "web {port}"}, {text: "x", inserted: true}},
	} {
		if _, err := splitWords(scalar{segments: good}); err != nil {
			t.Errorf("%v: %v", good, err)
		}
	}
	bad := scalar{segments: []segment{{text: "web http://:"}, key, {text: "@{address}/"}}}
	if words, err := splitWords(bad); err == nil {
		t.Errorf("as a command: %v", words)
	}
	if text, err := argument.parse(bad); err == nil {
		t.Errorf("as a value: %v", text)
	}
	if _, err := argument.parse(scalar{segments: []segment{{text: "{other}"}, key}}); err != nil {
		t.Error(err)
	}
}

func TestReadPipe(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if files, err := Read([]string{path}); err != nil || len(files[0].Content) != 0 {
		t.Errorf("without a writer: %q, %v", files, err)
	}
	pipe, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer pipe.Close()
	if _, err := Read([]string{path}); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("with a writer that is silent: %v", err)
	}
}

func TestDurations(t *testing.T) {
	for in, want := range map[string]time.Duration{
		"0s": 0, "500ms": 500 * time.Millisecond, "1m30s": 90 * time.Second, "1.5h": 90 * time.Minute,
		"30d": 720 * time.Hour, "1d12h": 36 * time.Hour, "0d": 0,
	} {
		if got, err := parseDuration(in); err != nil || got != want {
			t.Errorf("%s: %v, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "5", "1.5", "s", "-1s", "+1s", "1d-1h", "1 s", "1y", "99999999999d", "9999999h", "1e3s"} {
		if got, err := parseDuration(in); err == nil {
			t.Errorf("%q: %v", in, got)
		}
	}
	for want, d := range map[string]time.Duration{"1m": time.Minute, "1h": time.Hour, "1h1m": 61 * time.Minute, "10s": 10 * time.Second, "0s": 0, "1m30s": 90 * time.Second} {
		if got := shortDuration(d); got != want {
			t.Errorf("%v is shown as %s", d, got)
		}
	}
}

func TestSizes(t *testing.T) {
	for in, want := range map[string]int64{"1B": 1, "64MiB": 64 << 20, "1 GiB": 1 << 30, "2kB": 2000, "3TB": 3e12} {
		if got, err := parseSize(in); err != nil || got != want {
			t.Errorf("%s: %v, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "64", "64M", "-1MiB", "0MiB", "1.5GiB", "MiB", "9999999999TiB", "99999999999999999999B"} {
		if got, err := parseSize(in); err == nil {
			t.Errorf("%q: %v", in, got)
		}
	}
	for want, n := range map[string]int64{"64MiB": 64 << 20, "1000B": 1000, "1KiB": 1024, "2GiB": 2 << 30} {
		if got := shortSize(n); got != want {
			t.Errorf("%d is shown as %s", n, got)
		}
	}
}

func TestNearest(t *testing.T) {
	names := []string{"replicas", "command", "port", "user", "update"}
	for word, want := range map[string]string{
		"replica": "replicas", "repilcas": "replicas", "comand": "command", "Command": "command", "prot": "port", "udpate": "update",
		"zzz": "", "p": "", "us": "", "poet": "port", "replication": "", "": "",
	} {
		if got := nearest(word, names); got != want {
			t.Errorf("%q: %q, not %q", word, got, want)
		}
	}
}

func TestOverlap(t *testing.T) {
	for _, test := range []struct {
		a, b string
		want bool
	}{
		{"127.0.0.1", "127.0.0.1", true}, {"127.0.0.1", "127.0.0.2", false}, {"", "127.0.0.1", true}, {"0.0.0.0", "127.0.0.1", true},
		{"0.0.0.0", "::1", false}, {"::", "127.0.0.1", true}, {"*", "::1", true}, {"localhost", "127.0.0.1", true}, {"localhost", "0.0.0.0", true},
		{"localhost", "10.0.0.1", false}, {"a.example.com", "b.example.com", false},
	} {
		if overlap(test.a, test.b) != test.want || overlap(test.b, test.a) != test.want {
			t.Errorf("%q and %q: not %v", test.a, test.b, test.want)
		}
	}
}

func TestProblemIsWhatEditorsJumpTo(t *testing.T) {
	for want, p := range map[string]Problem{
		`topology.yaml:14:5: error: unknown key "replica" in services.web; did you mean "replicas"?`: {
			File: "topology.yaml", Line: 14, Column: 5, Severity: "error", Message: `unknown key "replica" in services.web`, Suggestion: "replicas"},
		`a.yaml: error: the file is empty`: {File: "a.yaml", Severity: "error", Message: "the file is empty"},
		`error: there is no file to read`:  {Severity: "error", Message: "there is no file to read"},
	} {
		if got := p.String(); got != want {
			t.Errorf("%s, not %s", got, want)
		}
	}
}

func TestFileTooLarge(t *testing.T) {
	path := filepath.Join(t.TempDir(), "topology.yaml")
	if err := os.WriteFile(path, []byte("version: 1\n#"+strings.Repeat("x", 2<<20)), 0o600); err != nil {
		t.Fatal(err)
	}
	files, err := Read([]string{path})
	if err != nil {
		t.Fatal(err)
	}
	if len(files[0].Content) > 1<<20+1 {
		t.Errorf("%d bytes were read", len(files[0].Content))
	}
	_, problems := Parse(files)
	if len(problems) != 1 || !strings.Contains(problems[0].Message, "larger than 1 MiB") {
		t.Error(problems)
	}
}

func TestFileNotUTF8(t *testing.T) {
	for _, content := range []string{"version: 1\nname: \xff\n", "\xff\xfev\x00"} { // the second is UTF-16
		if _, problems := Parse([]File{{"topology.yaml", []byte(content)}}); len(problems) != 1 || problems[0].Message != "the file is not UTF-8" {
			t.Errorf("%q: %v", content, problems)
		}
	}
}

func TestReadNamesTheFile(t *testing.T) {
	if _, err := Read([]string{"/nowhere/topology.yaml"}); err == nil || !strings.Contains(err.Error(), "/nowhere/topology.yaml") {
		t.Error(err)
	}
}

func TestParseNothing(t *testing.T) {
	if topology, problems := Parse(nil); topology != nil || !problems.Failed() {
		t.Error(topology, problems)
	}
}

// TestSecretsAreNotShown prints a topology with secrets, and problems with them, in every way.
func TestSecretsAreNotShown(t *testing.T) {
	archive := txtar.Parse([]byte(`
-- a.key --
hunter2 'x
-- bin/web --
#!/bin/sh
-- topology.yaml --
version: 1
services:
  web:
    command: [./bin/web, "--key=${file:a.key}"]
    environment: {KEY: "${file:a.key}"}
    probes: {liveness: {exec: "./bin/web ${file:a.key}"}}
`))
	t.Chdir(unpack(t, archive))
	content := archive.Files[2].Data
	topology, problems := Parse([]File{{"topology.yaml", content}})
	if topology == nil {
		t.Fatal(problems)
	}
	if got := topology.Services["web"].Environment["KEY"].Reveal(); got != "hunter2 'x" {
		t.Errorf("the secret is %q", got)
	}
	if got := topology.Services["web"].Command[1].Reveal(); got != "--key=hunter2 'x" {
		t.Errorf("the secret argument is %q", got)
	}
	asJSON, err := json.Marshal(topology)
	if err != nil {
		t.Fatal(err)
	}
	for _, shown := range []string{
		string(asJSON), fmt.Sprintf("%v %+v", topology, topology), fmt.Sprintf("%#v", topology.Services["web"].Environment),
		dump(topology), fmt.Sprint(Plan(nil, topology)),
	} {
		if strings.Contains(shown, "hunter2") {
			t.Errorf("a secret is shown: %s", shown)
		}
		if !strings.Contains(shown, "***") {
			t.Errorf("there is no secret: %s", shown)
		}
	}
	bad := strings.Replace(string(content), `"./bin/web ${file:a.key}"`, `"${file:a.key}"`, 1)
	bad = strings.Replace(bad, `{KEY:`, `{"A": "${file:a.key}${file:missing}", KEY:`, 1)
	if _, problems := Parse([]File{{"topology.yaml", []byte(bad)}}); strings.Contains(problems.Error(), "hunter2") {
		t.Errorf("a secret is shown: %v", problems)
	}
}

func TestLocate(t *testing.T) {
	t.Setenv("STATE", "/from/env")
	dir := t.TempDir()
	for _, test := range []struct {
		name, content     string
		stateDir, address string
	}{
		{"defaults", "version: 1", dir + "/.mainstay", dir + "/.mainstay/admin.sock"},
		{"given", "state_dir: ${env:STATE}\nadmin: {socket: run/x.sock}", "/from/env", dir + "/run/x.sock"},
		{"no version, other mistakes", "state_dir: s\nservices: 7\nreplica: x", dir + "/s", dir + "/s/admin.sock"},
		{"not YAML below", "version: 1\nstate_dir: s\nservices: {web: [\nadmin:\n  socket: /run/x.sock\n\n  # why\n  mode: \"0660\"\nmetrics: ]", dir + "/s", "/run/x.sock"},
		{"values of wrong types", "state_dir: [a]\nadmin: 7", dir + "/.mainstay", dir + "/.mainstay/admin.sock"},
		{"empty", "", dir + "/.mainstay", dir + "/.mainstay/admin.sock"},
	} {
		t.Run(test.name, func(t *testing.T) {
			stateDir, socket := Locate([]File{{dir + "/topology.yaml", []byte(test.content)}})
			if stateDir != test.stateDir || socket != test.address {
				t.Errorf("%s and %s, not %s and %s", stateDir, socket, test.stateDir, test.address)
			}
		})
	}
	stateDir, _ := Locate([]File{{dir + "/a.yaml", []byte("state_dir: a")}, {dir + "/b/b.yaml", []byte("state_dir: b")}})
	if stateDir != dir+"/b/b" {
		t.Errorf("of two files: %s", stateDir)
	}
	if stateDir, socket := Locate(nil); stateDir == "" || socket == "" {
		t.Error("nothing of no files")
	}
}

var lineBreaks = strings.NewReplacer("\r", "\n", "\u0085", "\n", "\u2028", "\n", "\u2029", "\n")

// FuzzParse: whatever stands in a file, Parse returns, and every problem names its place, each place once.
func FuzzParse(f *testing.F) {
	for _, path := range archives(f, "testdata/*.txtar") {
		archive, err := txtar.ParseFile(path)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range archive.Files {
			if filepath.Ext(file.Name) == ".yaml" {
				f.Add(file.Data)
			}
		}
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		file := File{"topology.yaml", content}
		over := File{"over.yaml", []byte("version: 1\nservices: {web: {command: mainstay, replicas: 2}, gone: null}\n")}
		for _, files := range [][]File{{file}, {file, over}, {over, file}} {
			topology, problems := Parse(files)
			if (topology == nil) != problems.Failed() {
				t.Fatalf("topology %v beside problems:\n%v", topology, problems)
			}
			seen := map[Problem]bool{}
			for _, p := range problems {
				at := Problem{File: p.File, Line: p.Line, Column: p.Column, Severity: p.Severity}
				if p.File == "" || p.Line < 0 || p.Line > 0 && p.Column < 1 || p.Message == "" || seen[at] {
					t.Fatalf("problem without a place of its own: %+v", p)
				}
				// Every break of a line that YAML knows is counted, and the end of the file.
				if p.File == file.Path && p.Line > 2+strings.Count(lineBreaks.Replace(string(content)), "\n") {
					t.Fatalf("the file has no line %d", p.Line)
				}
				seen[at] = true
			}
			if topology != nil {
				if changes := Plan(topology, topology); len(changes) > 0 {
					t.Fatal(changes)
				}
				Plan(nil, topology)
			}
			Locate(files)
		}
	})
}

// BenchmarkParse parses a topology of 1,000 routes and 50 services.
func BenchmarkParse(b *testing.B) {
	files := []File{{"topology.yaml", manyRoutes(1000)}}
	b.SetBytes(int64(len(files[0].Content)))
	b.ReportAllocs()
	for b.Loop() {
		if topology, problems := Parse(files); topology == nil || len(problems) > 0 {
			b.Fatal(problems)
		}
	}
}

func manyRoutes(n int) []byte {
	var s strings.Builder
	s.WriteString("version: 1\nservices:\n")
	for i := range 50 {
		fmt.Fprintf(&s, "  web-%d: {command: mainstay example-service web --listen {address}, replicas: 2, environment: {A: b}}\n", i)
	}
	text := strings.ReplaceAll(s.String(), "mainstay example-service web --listen {address}", `"mainstay example-service web --listen {address}"`)
	s.Reset()
	s.WriteString(text + "proxy:\n  routes:\n")
	for i := range n {
		fmt.Fprintf(&s, "    - match: {host: shop-%d.example.com, path_prefix: /api/v%d}\n      service: web-%d\n      timeouts: {connect: 1s, response_header: 30s}\n      strip_prefix: /api\n", i/2, i%7, i%50)
	}
	return []byte(s.String())
}

func TestManyRoutes(t *testing.T) {
	topology, problems := Parse([]File{{"topology.yaml", manyRoutes(1000)}})
	if len(problems) > 0 || len(topology.Proxy.Routes) != 1000 {
		t.Error(problems)
	}
}
