package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"mainstay/topology"
)

// leftovers fails the test if anything but the given names is beside path.
func leftovers(t *testing.T, path string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("beside %s: %q, want %q", path, got, want)
	}
}

func TestRestoreInPlace(t *testing.T) {
	t.Parallel()
	spec := newSpec(t, "orders")
	data := spec.Paths[0]
	want := contents(t, data)
	mustTake(t, spec)
	restore := func(req RestoreRequest) (*Restored, error) {
		req.Snapshot = "latest"
		return Restore(t.Context(), quiet(t), spec, req)
	}

	write(t, filepath.Join(data, "orders.db"), "broken")
	broken := contents(t, data)
	if _, err := restore(RestoreRequest{}); !errors.Is(err, ErrOccupied) {
		t.Errorf("restore over data without force: %v", err)
	}
	same(t, broken, data)
	leftovers(t, data, "data", "keys", "repo")

	restored, err := restore(RestoreRequest{Force: true})
	if err != nil {
		t.Fatal(err)
	}
	same(t, want, data)
	if len(restored.Kept) != 1 || !strings.HasPrefix(restored.Kept[0], data+".pre-restore-") {
		t.Fatalf("kept: %q", restored.Kept)
	}
	same(t, broken, restored.Kept[0])
	if err := os.RemoveAll(restored.Kept[0]); err != nil {
		t.Fatal(err)
	}
	leftovers(t, data, "data", "keys", "repo")

	if err := os.RemoveAll(data); err != nil {
		t.Fatal(err)
	}
	if _, err := restore(RestoreRequest{}); err != nil {
		t.Errorf("restore of what is gone: %v", err)
	}
	same(t, want, data)

	if err := os.RemoveAll(data); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(data, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := restore(RestoreRequest{}); err != nil {
		t.Errorf("restore into an empty directory: %v", err)
	}
	same(t, want, data)

	one := filepath.Join(data, "orders.db")
	if err := os.Remove(one); err != nil {
		t.Fatal(err)
	}
	if restored, err := restore(RestoreRequest{Include: []string{one}}); err != nil || restored.Files != 1 || restored.Paths[0] != one {
		t.Errorf("restore of one file: %+v, %v", restored, err)
	}
	same(t, want, data)
	if _, err := restore(RestoreRequest{Include: []string{data + "/nothing"}}); err == nil || !strings.Contains(err.Error(), "nothing is not in the snapshot") {
		t.Errorf("restore of what is not in the snapshot: %v", err)
	}
	leftovers(t, one, "deep", "empty", "orders.db")
}

func TestRestoreThatCannotKeepWhatIsThere(t *testing.T) {
	t.Parallel()
	spec := newSpec(t, "orders")
	mustTake(t, spec)
	target := filepath.Join(t.TempDir(), strings.Repeat("n", 230)) // ".pre-restore-" and the time make it too long
	write(t, filepath.Join(target, "precious"), "only here")
	before := contents(t, target)
	_, err := Restore(t.Context(), quiet(t), spec, RestoreRequest{Snapshot: "latest", Target: target, Force: true})
	if err == nil || !strings.Contains(err.Error(), "set aside") {
		t.Errorf("restore: %v", err)
	}
	same(t, before, target)
	leftovers(t, target, filepath.Base(target))
}

func TestRestoreSomeToTarget(t *testing.T) {
	t.Parallel()
	spec := newSpec(t, "orders")
	data := spec.Paths[0]
	mustTake(t, spec)
	target := filepath.Join(t.TempDir(), "target")
	request := RestoreRequest{Snapshot: "latest", Target: target, Include: []string{data + "/deep", data + "/empty"}}
	restored, err := Restore(t.Context(), quiet(t), spec, request)
	if err != nil || restored.Files != 2 {
		t.Fatalf("restored: %+v, %v", restored, err)
	}
	same(t, map[string]string{".": "d---------", "deep": "d---------", "deep/er": "d---------", "deep/er/file": strings.Repeat("x", 1_000_000), "empty": ""}, filepath.Join(target, data))
	for _, wrong := range []string{"latest ", "nothing", "", "0"} {
		request.Snapshot, request.Target = wrong, target+"2"
		if _, err := Restore(t.Context(), quiet(t), spec, request); err == nil {
			t.Errorf("restored snapshot %q", wrong)
		}
	}
	leftovers(t, target, "target")
}

// Either all paths of a snapshot are put in place, or none.
func TestRestoreOfSeveralPathsIsOne(t *testing.T) {
	t.Parallel()
	spec := newSpec(t, "orders")
	first, second := spec.Paths[0], filepath.Join(filepath.Dir(spec.Paths[0]), "second")
	write(t, filepath.Join(second, "a"), "a")
	spec.Paths = append(spec.Paths, second)
	mustTake(t, spec)
	write(t, filepath.Join(first, "orders.db"), "changed")
	before := contents(t, first)

	mount(t, second) // to which nothing can be renamed
	write(t, filepath.Join(second, "b"), "b")
	_, err := Restore(t.Context(), quiet(t), spec, RestoreRequest{Snapshot: "latest", Force: true})
	if err == nil || !strings.Contains(err.Error(), "mount point") {
		t.Errorf("restore over a mount point: %v", err)
	}
	same(t, before, first)
	leftovers(t, first, "data", "keys", "repo", "second")
}

// mount puts a file system of one MiB at path until the test ends.
func mount(t *testing.T, path string) {
	t.Helper()
	if err := unix.Mount("tmpfs", path, "tmpfs", 0, "size=1m"); err != nil {
		t.Skipf("cannot mount a small file system: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
}

func TestRestoreLooksForRoomFirst(t *testing.T) {
	t.Parallel()
	spec := newSpec(t, "orders")
	write(t, filepath.Join(spec.Paths[0], "large"), strings.Repeat("y", 2<<20))
	mustTake(t, spec)
	small := t.TempDir()
	mount(t, small)
	_, err := Restore(t.Context(), quiet(t), spec, RestoreRequest{Snapshot: "latest", Target: small + "/target"})
	if err == nil || !strings.Contains(err.Error(), "it needs 2 MiB, there is room for ") {
		t.Errorf("restore to a small file system: %v", err)
	}
	leftovers(t, small+"/target")
}

func TestInterruptedRestore(t *testing.T) {
	t.Parallel()
	spec := newSpec(t, "orders")
	mustTake(t, spec)
	top := t.TempDir()
	target := filepath.Join(top, "target")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Restore(ctx, quiet(t), spec, RestoreRequest{Snapshot: "latest", Target: target}); err == nil {
		t.Error("restored though cancelled")
	}
	leftovers(t, target)

	abandoned := target + stagingInfix + "123"
	write(t, abandoned+"/content/x", "x")
	for _, others := range []string{"notes", "2024"} { // whose names only resemble
		write(t, target+stagingInfix+others+"/x", "x")
	}
	busy := target + stagingInfix + "456"
	write(t, busy+"/content/x", "x")
	lock, err := lockDir(busy) // another restore
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if _, err := Restore(t.Context(), quiet(t), spec, RestoreRequest{Snapshot: "latest", Target: target}); err != nil {
		t.Fatal(err)
	}
	leftovers(t, target, "target", "target"+stagingInfix+"2024", "target"+stagingInfix+"456", "target"+stagingInfix+"notes")
}

func TestRestoreOfADamagedRepositoryTouchesNothing(t *testing.T) {
	t.Parallel()
	spec := newSpec(t, "orders")
	data := spec.Paths[0]
	mustTake(t, spec)
	before := contents(t, data)
	packs, err := filepath.Glob(strings.TrimPrefix(spec.Repository, "file://") + "/data/*/*")
	if err != nil || len(packs) == 0 {
		t.Fatal(packs, err)
	}
	for _, pack := range packs {
		f, err := os.OpenFile(pack, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 1)
		if _, err := f.ReadAt(b, 40); err != nil && err != io.EOF {
			t.Fatal(err)
		}
		b[0] ^= 1
		if _, err := f.WriteAt(b, 40); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	if _, err := Restore(t.Context(), quiet(t), spec, RestoreRequest{Snapshot: "latest", Force: true}); err == nil || !strings.Contains(err.Error(), "seal is broken") {
		t.Errorf("restore from damaged packs: %v", err)
	}
	same(t, before, data)
	leftovers(t, data, "data", "keys", "repo")
}

func TestLatestIsOfTheBackupsOwnPaths(t *testing.T) {
	t.Parallel()
	spec := newSpec(t, "orders")
	mine := mustTake(t, spec)
	other := spec
	other.Name, other.Paths = "other", []string{filepath.Join(spec.Paths[0], "deep")}
	newest := mustTake(t, other)
	unnamed, everything := spec, spec
	unnamed.Name = ""
	everything.Paths = nil
	for _, c := range []struct {
		spec topology.Backup
		want *Snapshot
	}{{spec, mine}, {unnamed, mine}, {other, newest}, {everything, newest}} {
		target := filepath.Join(t.TempDir(), "target")
		restored, err := Restore(t.Context(), quiet(t), c.spec, RestoreRequest{Snapshot: "latest", Target: target})
		if err != nil || restored.Snapshot != c.want.ID {
			t.Errorf("latest of %s %q: %+v, %v", c.spec.Name, c.spec.Paths, restored, err)
		}
	}
	spec.Name, spec.Paths = "", []string{"/elsewhere"}
	if _, err := Restore(t.Context(), quiet(t), spec, RestoreRequest{Snapshot: "latest"}); err == nil || !strings.Contains(err.Error(), "no such snapshot") {
		t.Errorf("latest of paths that were never stored: %v", err)
	}
}

// A directory that its owner may not write to changes its place too, as someone who is not root.
func TestReadOnlyDirectoryIsPutInPlace(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can become someone else")
	}
	top := t.TempDir()
	if err := os.Chmod(top, 0o777); err != nil {
		t.Fatal(err)
	}
	bin, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(top, "test")
	data, err := os.ReadFile(bin)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(copied, data, 0o755); err != nil {
		t.Fatal(err)
	}
	for dir := filepath.Dir(top); dir != "/" && dir != "/tmp"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), copied, "readonly", filepath.Join(top, "work"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// restoreReadOnly takes and restores a directory of mode 0555, into an empty place and over another such.
func restoreReadOnly(top string) error {
	data := filepath.Join(top, "data")
	if err := os.MkdirAll(data, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(data, "file"), []byte("x"), 0o444); err != nil {
		return err
	}
	if err := os.Chmod(data, 0o555); err != nil {
		return err
	}
	log := slog.New(slog.DiscardHandler)
	spec := topology.Backup{Name: "readonly", Paths: []string{data}, Repository: "file://" + filepath.Join(top, "repo"), PasswordFile: filepath.Join(top, "key")}
	if _, err := Take(context.Background(), log, spec); err != nil {
		return err
	}
	target := filepath.Join(top, "target")
	for _, r := range []RestoreRequest{{Include: []string{data}, Force: true}, {Force: true, Target: target}, {Force: true, Target: target}} {
		r.Snapshot = "latest"
		done, err := Restore(context.Background(), log, spec, r)
		if err != nil {
			return err
		}
		for _, path := range append(done.Kept, data) {
			if r.Target != "" && path != data {
				continue
			}
			if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o555 {
				return fmt.Errorf("%s: %v, %w", path, info, err)
			}
		}
	}
	return nil
}
