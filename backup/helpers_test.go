package backup

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"mainstay/topology"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "take" { // a process for tests to kill
		takeForever(os.Args[2], os.Args[3])
	}
	if len(os.Args) > 1 && os.Args[1] == "readonly" { // a process of another user
		if err := restoreReadOnly(os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

func quiet(t *testing.T) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), nil))
}

// newSpec returns a backup of a new directory with some files into a new repository.
func newSpec(t *testing.T, name string) topology.Backup {
	t.Helper()
	top := t.TempDir()
	data := filepath.Join(top, "data")
	for path, content := range map[string]string{"orders.db": "one\n", "deep/er/file": strings.Repeat("x", 1_000_000), "empty": ""} {
		write(t, filepath.Join(data, path), content)
	}
	return topology.Backup{
		Name: name, Service: "shop", Paths: []string{data},
		Repository: "file://" + filepath.Join(top, "repo"), PasswordFile: filepath.Join(top, "keys", "password"),
	}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func mustTake(t *testing.T, spec topology.Backup) *Snapshot {
	t.Helper()
	s, err := Take(t.Context(), quiet(t), spec)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// contents returns what is in a directory: the files' content by path.
func contents(t *testing.T, top string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(top, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(top, path)
		all[rel] = entry.Type().String()
		if entry.Type().IsRegular() {
			var data []byte
			data, err = os.ReadFile(path)
			all[rel] = string(data)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func same(t *testing.T, want map[string]string, dir string) {
	t.Helper()
	if diff := cmp.Diff(want, contents(t, dir)); diff != "" {
		t.Errorf("%s (-want +got):\n%s", dir, diff)
	}
}

// stock runs Debian's restic on the repository of spec.
func stock(t *testing.T, repository string, spec topology.Backup, args ...string) []byte {
	t.Helper()
	bin, err := exec.LookPath("restic")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("restic is not installed")
		}
		t.Skip("restic is not installed")
	}
	cmd := exec.CommandContext(t.Context(), bin, append([]string{"--no-cache", "-r", repository, "--password-file", spec.PasswordFile}, args...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("restic %q: %v\n%s%s", args, err, out, stderr.Bytes())
	}
	return out
}

// dataBlobsAddedByStock lets restic take a snapshot too.
func dataBlobsAddedByStock(t *testing.T, repository string, spec topology.Backup) int {
	t.Helper()
	lines := bytes.Split(bytes.TrimSpace(stock(t, repository, spec, append([]string{"backup", "--json", "--force"}, spec.Paths...)...)), []byte("\n"))
	var s struct {
		DataBlobs int `json:"data_blobs"`
	}
	if err := json.Unmarshal(lines[len(lines)-1], &s); err != nil {
		t.Fatal(err)
	}
	return s.DataBlobs
}
