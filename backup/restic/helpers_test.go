package restic

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"mainstay/backup/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const password = "correct horse"

func testLog(t *testing.T) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
}

// stock runs Debian's restic on the repository in dir and returns what it printed.
func stock(t *testing.T, dir string, args ...string) []byte {
	t.Helper()
	out, err := tryStock(t, dir, args...)
	if err != nil {
		t.Fatalf("restic %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func tryStock(t *testing.T, dir string, args ...string) ([]byte, error) {
	t.Helper()
	bin, err := exec.LookPath("restic")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("restic is not installed")
		}
		t.Skip("restic is not installed")
	}
	cmd := exec.CommandContext(t.Context(), bin, append([]string{"--no-cache"}, args...)...)
	cmd.Env = append(os.Environ(), "RESTIC_REPOSITORY="+dir, "RESTIC_PASSWORD="+password)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return append(stdout.Bytes(), stderr.Bytes()...), err
	}
	return stdout.Bytes(), nil
}

// checkStock lets stock restic check everything in the repository.
func checkStock(t *testing.T, dir string) {
	t.Helper()
	if out := stock(t, dir, "check", "--read-data", "--no-lock"); !bytes.Contains(out, []byte("no errors were found")) {
		t.Errorf("restic check:\n%s", out)
	}
}

// A stockSummary is the last line of restic backup --json.
type stockSummary struct {
	DataBlobs int    `json:"data_blobs"`
	TreeBlobs int    `json:"tree_blobs"`
	ID        string `json:"snapshot_id"`
}

func stockBackup(t *testing.T, dir string, args ...string) stockSummary {
	t.Helper()
	out := stock(t, dir, append([]string{"backup", "--json"}, args...)...)
	lines := bytes.Split(bytes.TrimSpace(out), []byte("\n"))
	var s stockSummary
	if err := json.Unmarshal(lines[len(lines)-1], &s); err != nil {
		t.Fatal(err)
	}
	return s
}

func openStore(t *testing.T, dir string) store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), testLog(t), "file://"+dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// newRepo creates a repository in a new directory.
func newRepo(t *testing.T) (*Repository, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "repo")
	r, err := Create(t.Context(), testLog(t), openStore(t, dir), password)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	r.settle = 0 // nobody locks at the same time
	return r, dir
}

func openRepo(t *testing.T, s store.Store) *Repository {
	t.Helper()
	r, err := Open(t.Context(), testLog(t), s, password)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

func backup(t *testing.T, r *Repository, paths ...string) *Snapshot {
	t.Helper()
	s, err := r.Backup(t.Context(), BackupRequest{Paths: paths, Tags: []string{"test"}, Program: "test"})
	if err != nil {
		t.Fatal(err)
	}
	if s.Partial() {
		t.Fatalf("partial: %q", s.Unreadable)
	}
	return s
}

// restore brings back what the snapshot has at path and returns where.
func restore(t *testing.T, r *Repository, s *Snapshot, path string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "restored")
	if _, err := r.Restore(t.Context(), s, []Placement{{From: path, To: to}}, anyRoom); err != nil {
		t.Fatal(err)
	}
	return to
}

func anyRoom(string, uint64) error { return nil }

// makeTree fills a new directory with files of every kind and returns it.
func makeTree(t *testing.T) string {
	t.Helper()
	top := filepath.Join(t.TempDir(), "tree")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	random := rand.NewChaCha8([32]byte{1})
	bytesOf := func(n int) []byte {
		b := make([]byte, n)
		random.Read(b)
		return b
	}
	write := func(name string, data []byte) string {
		path := filepath.Join(top, name)
		must(os.MkdirAll(filepath.Dir(path), 0o755))
		must(os.WriteFile(path, data, 0o644))
		return path
	}
	large := bytesOf(7 << 20)
	write("large", large)
	write("large-shifted", append([]byte("a few bytes more"), large...))
	write("zeros", make([]byte, 3<<20))
	write("text", bytes.Repeat([]byte("the quick brown fox\n"), 100_000))
	for _, n := range []int{0, 1, 100, minChunk - 1, minChunk, minChunk + 1} {
		write(fmt.Sprintf("sizes/%d", n), bytesOf(n))
	}
	for i := range 300 {
		write(fmt.Sprintf("many/%03d/%d", i%7, i), bytesOf(i))
	}
	for _, name := range []string{"non-utf8-\xff\xfe", "new\nline", `quote"and'`, `back\slash`, "<&>", "\u2028", "tab\t", "ünïcödé", " ", "-n", strings.Repeat("x", 255), `\xff`, "\x7f\x01"} {
		write("names/"+name, []byte(name))
	}
	must(os.Chmod(write("modes/setuid", []byte("x")), 0o4755|os.ModeSetuid))
	must(os.Chmod(write("modes/none", []byte("x")), 0))
	must(os.Mkdir(filepath.Join(top, "modes/sticky"), 0o755))
	must(os.Chmod(filepath.Join(top, "modes/sticky"), 0o777|os.ModeSticky))
	must(os.Mkdir(filepath.Join(top, "modes/setgid"), 0o755))
	must(os.Chmod(filepath.Join(top, "modes/setgid"), 0o755|os.ModeSetgid))
	must(os.Link(write("links/first", []byte("twice")), filepath.Join(top, "links/second")))
	must(os.Symlink("first", filepath.Join(top, "links/soft")))
	must(os.Symlink("/nonexistent/<x>", filepath.Join(top, "links/dangling")))
	must(os.Symlink("loop", filepath.Join(top, "links/loop")))
	must(unix.Mkfifo(filepath.Join(top, "fifo"), 0o640))
	if os.Geteuid() == 0 {
		must(unix.Mknod(filepath.Join(top, "null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
		must(unix.Mknod(filepath.Join(top, "loop7"), unix.S_IFBLK|0o660, int(unix.Mkdev(7, 7))))
		must(os.Chown(write("owned", []byte("x")), 12345, 54321))
	}
	attributed := write("attributes", []byte("x"))
	for name, value := range map[string]string{"user.one": "1", "user.empty": "", "user.binary": "\x00\xff"} {
		if err := unix.Lsetxattr(attributed, name, []byte(value), 0); err != nil {
			t.Logf("no extended attributes in %s: %v", top, err)
		}
	}
	old := []unix.Timespec{{Sec: -86400 * 365 * 3, Nsec: 123456789}, {Sec: -86400 * 365 * 3, Nsec: 123456789}}
	must(unix.UtimesNanoAt(unix.AT_FDCWD, write("old", nil), old, 0))
	must(os.Mkdir(filepath.Join(top, "empty"), 0o700))
	return top
}

// A look is all that is compared of a file.
type look struct {
	Mode     fs.FileMode
	UID, GID uint32
	ModTime  string
	Links    uint64
	Device   uint64
	Content  string
	Xattrs   string
}

// looks returns what is in the directory, by path.
func looks(t *testing.T, top string) map[string]look {
	t.Helper()
	all := map[string]look{}
	err := filepath.WalkDir(top, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		st := info.Sys().(*syscall.Stat_t)
		l := look{Mode: info.Mode(), UID: st.Uid, GID: st.Gid, ModTime: info.ModTime().String(), Device: st.Rdev}
		switch {
		case info.Mode().IsRegular():
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			l.Links, l.Content = uint64(st.Nlink), fmt.Sprintf("%d bytes, %x", len(data), sha256.Sum256(data))
		case info.Mode()&fs.ModeSymlink != 0:
			l.Content, err = os.Readlink(path)
		}
		attributes, _ := readXattrs(path)
		for _, a := range attributes {
			l.Xattrs += fmt.Sprintf("%s=%x ", a.Name, a.Value)
		}
		rel, _ := filepath.Rel(top, path)
		all[fmt.Sprintf("%q", rel)] = l
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// same compares two directories, file by file.
func same(t *testing.T, want, got string) {
	t.Helper()
	if diff := cmp.Diff(looks(t, want), looks(t, got)); diff != "" {
		t.Errorf("%s and %s differ (-want +got):\n%s", want, got, diff)
	}
}

// A faulty store fails from the given call on, as if its machine had been switched off.
type faulty struct {
	store.Store
	left atomic.Int64
}

var errOff = fmt.Errorf("switched off")

func (f *faulty) on() bool { return f.left.Add(-1) >= 0 }

func (f *faulty) Put(ctx context.Context, name string, data []byte, sum [32]byte) error {
	if !f.on() {
		return errOff
	}
	return f.Store.Put(ctx, name, data, sum)
}

func (f *faulty) Get(ctx context.Context, name string, offset, length int64) ([]byte, error) {
	if !f.on() {
		return nil, errOff
	}
	return f.Store.Get(ctx, name, offset, length)
}

func (f *faulty) List(ctx context.Context, dir string) iter.Seq2[store.Object, error] {
	if !f.on() {
		return func(yield func(store.Object, error) bool) { yield(store.Object{}, errOff) }
	}
	return f.Store.List(ctx, dir)
}

func (f *faulty) Delete(ctx context.Context, name string) error {
	if !f.on() {
		return errOff
	}
	return f.Store.Delete(ctx, name)
}

// memory is a store of one object, under whatever name it is asked for.
type memory map[string][]byte

func (m memory) Get(_ context.Context, _ string, offset, length int64) ([]byte, error) {
	data := m["data"]
	if offset < 0 || length < 0 || length > int64(len(data))-offset {
		return nil, io.ErrUnexpectedEOF
	}
	return bytes.Clone(data[offset : offset+length]), nil
}

func (m memory) Put(context.Context, string, []byte, [32]byte) error         { return errOff }
func (m memory) Stat(context.Context, string) (int64, error)                 { return 0, errOff }
func (m memory) List(context.Context, string) iter.Seq2[store.Object, error] { return nil }
func (m memory) Delete(context.Context, string) error                        { return errOff }
func (m memory) Close()                                                      {}
func (m memory) String() string                                              { return "memory" }
