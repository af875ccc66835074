package restic

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"mainstay/backup/store"
)

func writeFile(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

func randomBytes(n int) []byte {
	var seed [32]byte
	binary.LittleEndian.PutUint64(seed[:], rand.Uint64())
	b := make([]byte, n)
	rand.NewChaCha8(seed).Read(b)
	return b
}

// Wherever a snapshot, a forget or a prune stops, the repository is sound, and the next goes on.
func TestSwitchedOff(t *testing.T) {
	t.Parallel()
	r, dir := newRepo(t)
	tree := filepath.Join(t.TempDir(), "tree")
	change := func() {
		for i := range 10 {
			writeFile(t, filepath.Join(tree, fmt.Sprint(rand.IntN(20))), randomBytes(1000+i))
		}
	}
	off := &faulty{Store: r.store}
	broken := *r
	broken.store = off
	newest := Retention{Last: 1}.Forgettable
	until := func(name string, f func() error) {
		t.Helper()
		for calls := int64(0); ; calls++ {
			if _, err := r.Forget(t.Context(), newest); err != nil {
				t.Fatal(err)
			}
			if _, err := r.Prune(t.Context()); err != nil { // what is left when nothing is to be forgotten
				t.Fatal(err)
			}
			change()
			backup(t, r, tree)
			change()
			off.left.Store(calls)
			err := f()
			if err != nil && !errors.Is(err, errOff) {
				t.Errorf("%s switched off after %d calls: %v", name, calls, err)
			}
			sound(t, r, fmt.Sprintf("%s switched off after %d calls: %v", name, calls, err))
			removeLocks(t, r)
			if calls%20 == 19 {
				checkStock(t, dir)
			}
			if off.left.Load() >= 0 {
				if err != nil || calls < 10 {
					t.Errorf("%s: %v after %d calls", name, err, calls)
				}
				return
			}
		}
	}
	until("backup", func() error {
		_, err := broken.Backup(t.Context(), BackupRequest{Paths: []string{tree}})
		return err
	})
	until("forget", func() error {
		_, err := broken.Forget(t.Context(), newest)
		return err
	})
	last := backup(t, r, tree)
	if _, err := r.Prune(t.Context()); err != nil {
		t.Fatal(err)
	}
	checkStock(t, dir)
	same(t, tree, restore(t, r, last, tree))
}

// sound fails the test if a snapshot lacks something, or an index names a pack that is not there.
func sound(t *testing.T, r *Repository, when string) {
	t.Helper()
	snapshots, err := r.Snapshots(t.Context())
	if err != nil {
		t.Fatalf("%s: %v", when, err)
	}
	p := newPruner(r)
	if err := p.inventory(t.Context()); err != nil {
		t.Fatalf("%s: %v", when, err)
	}
	if err := p.mark(t.Context(), snapshots); err != nil {
		t.Fatalf("%s: %v", when, err)
	}
	for id, s := range p.packs {
		if s.size == 0 {
			t.Errorf("%s: the index names pack %s, which is not there", when, id.Short())
		}
	}
}

func removeLocks(t *testing.T, r *Repository) {
	t.Helper()
	for o, err := range r.store.List(t.Context(), "locks") {
		if err == nil {
			err = r.store.Delete(t.Context(), o.Name)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// What was stored before an interruption is not stored again.
func TestInterruptedBackupIsContinued(t *testing.T) {
	t.Parallel()
	r, dir := newRepo(t)
	tree := t.TempDir()
	for i := range 6 {
		writeFile(t, filepath.Join(tree, fmt.Sprint(i)), randomBytes(8<<20))
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("no more")
	interrupted := *r
	interrupted.store = &counted{Store: r.store, after: 4, then: func() { cancel(stop) }}
	if _, err := interrupted.Backup(ctx, BackupRequest{Paths: []string{tree}}); !errors.Is(err, stop) {
		t.Errorf("interrupted: %v", err)
	}
	if locks, err := os.ReadDir(filepath.Join(dir, "locks")); err != nil || len(locks) > 0 {
		t.Errorf("locks left: %v, %v", locks, err)
	}
	if s := backup(t, r, tree); s.Summary.DataAdded > 34<<20 || s.Summary.DataAdded == 0 {
		t.Errorf("%d MiB stored anew", s.Summary.DataAdded>>20)
	}
	checkStock(t, dir)
}

// A counted store calls a function when it has stored so many packs.
type counted struct {
	store.Store
	after int64
	then  func()
	packs faulty
}

func (c *counted) Put(ctx context.Context, name string, data []byte, sum [32]byte) error {
	err := c.Store.Put(ctx, name, data, sum)
	if strings.HasPrefix(name, "data/") && c.packs.left.Add(1) == c.after {
		c.then()
	}
	return err
}

// Every stored byte counts: wherever one is flipped, there is an error, never a wrong file.
func TestDamageIsFound(t *testing.T) {
	t.Parallel()
	r, dir := newRepo(t)
	tree := filepath.Join(t.TempDir(), "tree")
	for i := range 5 {
		writeFile(t, filepath.Join(tree, fmt.Sprint(i)), randomBytes(5000))
	}
	backup(t, r, tree)
	var files []string
	for _, pattern := range []string{"config", "keys/*", "snapshots/*", "index/*", "data/*/*"} {
		found, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil || len(found) == 0 {
			t.Fatal(found, err)
		}
		files = append(files, found...)
	}
	for _, path := range files {
		whole, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for name, damage := range map[string]func(data []byte) []byte{
			"flipped": func(data []byte) []byte { data[rand.IntN(min(len(data), 5000))] ^= 1 << rand.IntN(8); return data },
			"cut":     func(data []byte) []byte { return data[:len(data)/2] },
			"emptied": func(data []byte) []byte { return nil },
		} {
			if err := os.WriteFile(path, damage(bytes.Clone(whole)), 0o600); err != nil {
				t.Fatal(err)
			}
			err := func() error {
				again := r
				if strings.Contains(path, "/keys/") || strings.HasSuffix(path, "/config") {
					var err error
					if again, err = Open(t.Context(), testLog(t), r.store, password); err != nil {
						return err
					}
					defer again.Close()
				}
				all, err := again.Snapshots(t.Context())
				if err != nil {
					return err
				}
				to := filepath.Join(t.TempDir(), "restored")
				if _, err = again.Restore(t.Context(), all[0], []Placement{{From: tree, To: to}}, anyRoom); err == nil {
					same(t, tree, to)
				}
				return err
			}()
			// A bit of a pack that no restore needs, such as in its header, may go unnoticed.
			if err == nil && !strings.Contains(path, "/data/") {
				t.Errorf("%s %s, and nobody noticed", path, name)
			}
		}
		if err := os.WriteFile(path, whole, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	removeLocks(t, r)
	checkStock(t, dir)
}

// A prune that would lose something removes nothing.
func TestPruneOfADamagedRepository(t *testing.T) {
	t.Parallel()
	r, dir := newRepo(t)
	tree := t.TempDir()
	writeFile(t, filepath.Join(tree, "a"), randomBytes(5000))
	backup(t, r, tree)
	packs, err := filepath.Glob(filepath.Join(dir, "data/*/*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range packs {
		if err := os.Rename(path, path+".away"); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Prune(t.Context()); err == nil || !strings.Contains(err.Error(), "nothing was removed") {
			t.Errorf("prune without %s: %v", path, err)
		}
		if err := os.Rename(path+".away", path); err != nil {
			t.Fatal(err)
		}
	}
	// A lost index is found again in the packs.
	indexes, err := filepath.Glob(filepath.Join(dir, "index/*"))
	if err != nil || len(indexes) != 1 {
		t.Fatal(indexes, err)
	}
	if err := os.Remove(indexes[0]); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Prune(t.Context()); err != nil {
		t.Fatal(err)
	}
	checkStock(t, dir)
}

func TestWhatCannotBeReadWholeIsTold(t *testing.T) {
	t.Parallel()
	r, dir := newRepo(t)
	tree := t.TempDir()
	writeFile(t, filepath.Join(tree, "good"), []byte("good"))
	growing := filepath.Join(tree, "growing")
	writeFile(t, growing, randomBytes(4<<20))
	done := make(chan struct{})
	written := make(chan struct{})
	go func() {
		defer close(written)
		for n := byte(0); ; n++ {
			select {
			case <-done:
				return
			default:
				f, err := os.OpenFile(growing, os.O_WRONLY, 0)
				if err == nil {
					f.WriteAt([]byte{n}, 1<<20)
					f.Close()
				}
			}
		}
	}()
	// Reads of a process' memory fail at its first page.
	unreadable := fmt.Sprintf("/proc/%d/mem", os.Getpid())
	s, err := r.Backup(t.Context(), BackupRequest{Paths: []string{tree, unreadable}, Tags: []string{"test"}})
	close(done)
	<-written
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Join(s.Unreadable, "\n")
	if !s.Partial() || len(s.Unreadable) != 2 || !strings.Contains(text, growing+": changed while it was read") || !strings.Contains(text, unreadable+": input/output error") {
		t.Errorf("unreadable: %q", s.Unreadable)
	}
	if strings.Join(s.Tags, " ") != "test partial" {
		t.Errorf("tags: %q", s.Tags)
	}
	checkStock(t, dir)
	to := restore(t, r, s, tree)
	if data, err := os.ReadFile(filepath.Join(to, "good")); err != nil || string(data) != "good" {
		t.Errorf("restored: %q, %v", data, err)
	}
}

// A file that vanishes between the listing of its directory and the reading.
func TestVanishedFile(t *testing.T) {
	gone := filepath.Join(t.TempDir(), "gone")
	a := &archiver{}
	d := &directory{nodes: make([]*Node, 1)}
	d.pending.Store(2)
	if err := a.readFile(t.Context(), nil, &file{path: gone, node: &Node{}, dir: d}); err != nil {
		t.Error(err)
	}
	if len(a.unreadable) != 1 || a.unreadable[0] != gone+": no such file or directory" || d.pending.Load() != 1 {
		t.Errorf("unreadable: %q", a.unreadable)
	}
}

// With the store gone, whoever holds a lock is told before others take it for stale.
func TestLockIsLostWhenItCannotBeRefreshed(t *testing.T) {
	r, _ := newRepo(t)
	off := &faulty{Store: r.store}
	off.left.Store(1000)
	r.store = off
	synctest.Test(t, func(t *testing.T) {
		l, ctx, err := r.lock(t.Context(), false)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(12 * time.Minute)
		if ctx.Err() != nil {
			t.Errorf("lock lost though it is refreshed: %v", context.Cause(ctx))
		}
		off.left.Store(0)
		time.Sleep(26 * time.Minute)
		if !errors.Is(context.Cause(ctx), errOff) {
			t.Errorf("lock held without being refreshed: %v", context.Cause(ctx))
		}
		l.release(t.Context())
	})
}

// Some files say that they are regular and make a reader wait for what will happen.
func TestFileThatIsWaitedFor(t *testing.T) {
	const path = "/proc/kmsg"
	if f, err := os.Open(path); err != nil {
		t.Skipf("no file to wait for: %v", err)
	} else {
		f.Close()
	}
	r, _ := newRepo(t)
	s, err := r.Backup(t.Context(), BackupRequest{Paths: []string{path}})
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Unreadable) != 1 || !strings.HasPrefix(s.Unreadable[0], path+": ") {
		t.Errorf("unreadable: %q", s.Unreadable)
	}
}
