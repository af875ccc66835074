package restic

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestStockReadsOurs(t *testing.T) {
	t.Parallel()
	r, dir := newRepo(t)
	tree := makeTree(t)
	s := backup(t, r, tree)
	checkStock(t, dir)

	to := t.TempDir()
	stock(t, dir, "restore", "--target", to, s.ID.String())
	same(t, tree, filepath.Join(to, tree))

	// Read from scratch by restic, it must cut the same chunks, and write the same bytes for each directory.
	again := stockBackup(t, dir, "--force", tree)
	if again.DataBlobs != 0 {
		t.Errorf("restic on top of our snapshot added %d data blobs", again.DataBlobs)
	}
	sameTree(t, r, tree, s.ID.String(), again.ID)
	var shown []struct{ Tags, Paths []string }
	if err := json.Unmarshal(stock(t, dir, "snapshots", "--json", s.ID.String()), &shown); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]struct{ Tags, Paths []string }{{[]string{"test"}, []string{tree}}}, shown); diff != "" {
		t.Errorf("snapshot as restic sees it (-want +got):\n%s", diff)
	}
}

func TestWeReadStock(t *testing.T) {
	t.Parallel()
	tree := makeTree(t)
	for _, version := range []string{"1", "2"} {
		t.Run("version "+version, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "repo")
			stock(t, dir, "init", "--repository-version", version)
			wrote := stockBackup(t, dir, tree)
			r := openRepo(t, openStore(t, dir))
			snapshots, err := r.Snapshots(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			s, err := Find(snapshots, wrote.ID[:8])
			if err != nil {
				t.Fatal(err)
			}
			same(t, tree, restore(t, r, s, tree))

			// Read from scratch, it must cut the same chunks too.
			anew := backupAnew(t, r, tree)
			if anew.Summary.DataBlobs != 0 {
				t.Errorf("on top of restic's snapshot we added %d data blobs", anew.Summary.DataBlobs)
			}
			sameTree(t, r, tree, wrote.ID, anew.ID.String())
			if ours := backup(t, r, tree); ours.Summary.FilesUnmodified != ours.Summary.TotalFilesProcessed {
				t.Errorf("%d of %d files found unchanged", ours.Summary.FilesUnmodified, ours.Summary.TotalFilesProcessed)
			}
			checkStock(t, dir)
		})
	}
}

// Both programs take turns, and forget and prune what the other wrote.
func TestTurns(t *testing.T) {
	t.Parallel()
	r, dir := newRepo(t)
	tree := makeTree(t)
	random := rand.New(rand.NewPCG(1, 2))
	change := func() {
		for range 20 {
			data := make([]byte, random.IntN(100_000))
			for i := range data {
				data[i] = byte(random.Uint32())
			}
			path := filepath.Join(tree, "many", fmt.Sprintf("%03d", random.IntN(7)), fmt.Sprint(random.IntN(300)))
			if err := os.WriteFile(path, data, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	for range 4 {
		backup(t, r, tree)
		change()
		stockBackup(t, dir, tree)
		change()
	}
	keepLast := func(n int) func(all []*Snapshot) []*Snapshot {
		return Retention{Last: n}.Forgettable
	}
	forgotten, err := r.Forget(t.Context(), keepLast(5))
	if err != nil {
		t.Fatal(err)
	}
	if forgotten.Snapshots != 3 || forgotten.Pruned.RemovedPacks == 0 {
		t.Errorf("forgotten: %+v", forgotten)
	}
	checkStock(t, dir)
	stock(t, dir, "forget", "--keep-last", "3", "--prune")
	last := backup(t, r, tree)
	checkStock(t, dir)
	if _, err := r.Forget(t.Context(), keepLast(1)); err != nil {
		t.Fatal(err)
	}
	checkStock(t, dir)
	same(t, tree, restore(t, r, last, tree))
	if nothing, err := r.Forget(t.Context(), keepLast(1)); err != nil || nothing != (Forgotten{}) {
		t.Errorf("forget with nothing to forget: %+v, %v", nothing, err)
	}
}

func TestRetentionIsRestics(t *testing.T) {
	t.Parallel()
	r, dir := newRepo(t)
	tree := filepath.Join(t.TempDir(), "tree")
	if err := os.Mkdir(tree, 0o755); err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(3, 4))
	template := *backup(t, r, tree)
	if err := r.store.Delete(t.Context(), "snapshots/"+template.ID.String()); err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.Local)
	for range 150 {
		s := template
		s.Time = at
		if _, err := r.putJSON(t.Context(), "snapshots", s); err != nil {
			t.Fatal(err)
		}
		at = at.Add(-time.Duration(random.ExpFloat64() * float64(30*time.Hour)))
	}
	snapshots, err := r.Snapshots(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, rule := range []Retention{
		{Last: 5}, {Hourly: 3}, {Daily: 10}, {Weekly: 4}, {Monthly: 5}, {Yearly: 3}, {Monthly: 100},
		{Last: 3, Daily: 7, Weekly: 4, Monthly: 12, Yearly: 10}, {Hourly: 200, Yearly: 1},
	} {
		args := []string{"forget", "--dry-run", "--json"}
		for flag, n := range map[string]int{"last": rule.Last, "hourly": rule.Hourly, "daily": rule.Daily, "weekly": rule.Weekly, "monthly": rule.Monthly, "yearly": rule.Yearly} {
			if n != 0 {
				args = append(args, fmt.Sprintf("--keep-%s=%d", flag, n))
			}
		}
		var groups []struct{ Remove []struct{ ID ID } }
		if err := json.Unmarshal(bytes.SplitAfter(stock(t, dir, args...), []byte("\n"))[0], &groups); err != nil {
			t.Fatal(err)
		}
		want, got := map[ID]bool{}, map[ID]bool{}
		for _, s := range groups[0].Remove {
			want[s.ID] = true
		}
		for _, s := range rule.Forgettable(snapshots) {
			got[s.ID] = true
		}
		delete(want, snapshots[0].ID) // restic before 0.16 does not keep the oldest for a rule that is not full
		delete(got, snapshots[0].ID)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%+v (-restic +ours):\n%s", rule, diff)
		}
	}
}

func TestLocksAreHonoured(t *testing.T) {
	t.Parallel()
	r, dir := newRepo(t)
	tree := makeTree(t)
	backup(t, r, tree)

	shared, _, err := r.lock(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	if out, err := tryStock(t, dir, "prune"); err == nil || !bytes.Contains(out, []byte("already locked")) {
		t.Errorf("restic prune beside our snapshot: %v\n%s", err, out)
	}
	stockBackup(t, dir, tree)
	if _, err := r.Prune(t.Context()); !errors.Is(err, ErrLocked) {
		t.Errorf("prune beside a snapshot: %v", err)
	}
	shared.release(t.Context())

	exclusive, _, err := r.lock(t.Context(), true)
	if err != nil {
		t.Fatal(err)
	}
	if out, err := tryStock(t, dir, "backup", tree); err == nil || !bytes.Contains(out, []byte("already locked")) {
		t.Errorf("restic backup beside our prune: %v\n%s", err, out)
	}
	exclusive.release(t.Context())
	if locks := stock(t, dir, "list", "locks", "--no-lock"); len(locks) > 0 {
		t.Errorf("locks left: %s", locks)
	}
	stock(t, dir, "prune")
}

// A snapshot waits for a prune to end, but not for ever.
func TestSnapshotWaitsForPrune(t *testing.T) {
	r, _ := newRepo(t)
	tree := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		prune, _, err := r.lock(t.Context(), true)
		if err != nil {
			t.Fatal(err)
		}
		_, err = r.Backup(t.Context(), BackupRequest{Paths: []string{tree}})
		if !errors.Is(err, ErrLocked) {
			t.Errorf("snapshot beside a prune that does not end: %v", err)
		}
		time.AfterFunc(time.Minute, func() { prune.release(t.Context()) })
		start := time.Now()
		if _, err := r.Backup(t.Context(), BackupRequest{Paths: []string{tree}}); err != nil || time.Since(start) < time.Minute {
			t.Errorf("snapshot after %v of waiting for a prune: %v", time.Since(start), err)
		}
	})
}

func TestStaleLocksAreRemoved(t *testing.T) {
	t.Parallel()
	r, dir := newRepo(t)
	hostname, _ := os.Hostname()
	for _, f := range []lockFile{
		{Time: time.Now(), Exclusive: true, Hostname: hostname, PID: 1<<22 + 1}, // no pid is so large
		{Time: time.Now().Add(-time.Hour), Exclusive: true, Hostname: "elsewhere", PID: 1},
	} {
		if _, err := r.putJSON(t.Context(), "locks", f); err != nil {
			t.Fatal(err)
		}
	}
	backup(t, r, t.TempDir())
	entries, err := os.ReadDir(filepath.Join(dir, "locks"))
	if err != nil || len(entries) > 0 {
		t.Errorf("locks left: %v, %v", entries, err)
	}
	if _, err := r.putJSON(t.Context(), "locks", lockFile{Time: time.Now(), Exclusive: true, Hostname: "elsewhere", Username: "ada", PID: 7}); err != nil {
		t.Fatal(err)
	}
	_, err = r.Prune(t.Context())
	if !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), "exclusive lock of ada on elsewhere, process 7") {
		t.Errorf("prune beside a lock from elsewhere: %v", err)
	}
}

// backupAnew takes a snapshot that knows of none before.
func backupAnew(t *testing.T, r *Repository, path string) *Snapshot {
	t.Helper()
	other := *r
	other.who.hostname = "another"
	return backup(t, &other, path)
}

// sameTree compares the ids of the directory at path in two snapshots.
func sameTree(t *testing.T, r *Repository, path, id1, id2 string) {
	t.Helper()
	snapshots, err := r.Snapshots(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	x, err := r.loadIndex(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var trees []*ID
	for _, id := range []string{id1, id2} {
		s, err := Find(snapshots, id)
		if err != nil {
			t.Fatal(err)
		}
		n, err := newPlan(r, x).find(t.Context(), *s.Tree, path)
		if err != nil {
			t.Fatal(err)
		}
		trees = append(trees, n.Subtree)
	}
	if *trees[0] != *trees[1] {
		t.Errorf("the same directory became two trees, %s and %s", trees[0], trees[1])
	}
}

// Links and fifos may have several names too.
func TestEveryKindOfHardLinkIsRestored(t *testing.T) {
	t.Parallel()
	r, dir := newRepo(t)
	tree := filepath.Join(t.TempDir(), "tree")
	if err := os.Mkdir(tree, 0o755); err != nil {
		t.Fatal(err)
	}
	in := func(name string) string { return filepath.Join(tree, name) }
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.Symlink("nowhere", in("soft")))
	must(unix.Mkfifo(in("fifo"), 0o600))
	must(os.WriteFile(in("file"), []byte("x"), 0o600))
	must(os.WriteFile(in("zeros"), make([]byte, 1<<20), 0o600))
	for _, name := range []string{"soft", "fifo", "file", "zeros"} {
		must(os.Link(in(name), in(name+"-again")))
	}
	s := backup(t, r, tree)
	checkStock(t, dir)
	to := restore(t, r, s, tree)
	for _, name := range []string{"soft", "fifo", "file", "zeros"} {
		first, err := os.Lstat(filepath.Join(to, name))
		must(err)
		second, err := os.Lstat(filepath.Join(to, name+"-again"))
		must(err)
		if !os.SameFile(first, second) {
			t.Errorf("%s: the two names are two files", name)
		}
	}
	same(t, tree, to)
}
