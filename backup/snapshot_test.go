package backup

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"mainstay/backup/restic"
	"mainstay/backup/store/storetest"
	"mainstay/topology"
)

func TestTakeListRestore(t *testing.T) {
	t.Parallel()
	spec := newSpec(t, "orders")
	want := contents(t, spec.Paths[0])
	taken := mustTake(t, spec)
	if taken.Files != 3 || taken.Bytes != 1_000_004 || taken.AddedBytes == 0 || taken.Partial {
		t.Errorf("taken: %+v", taken)
	}
	if diff := cmp.Diff([]string{"backup=orders", "service=shop"}, taken.Tags); diff != "" {
		t.Errorf("tags (-want +got):\n%s", diff)
	}
	if again := mustTake(t, spec); again.AddedBytes > 10_000 || again.Files != 3 {
		t.Errorf("taken again, unchanged: %+v", again)
	}
	listed, err := List(t.Context(), quiet(t), spec)
	if err != nil || len(listed) != 2 || listed[0].ID != taken.ID || listed[0].Files != 3 {
		t.Errorf("listed: %+v, %v", listed, err)
	}
	target := filepath.Join(t.TempDir(), "new", "target")
	restored, err := Restore(t.Context(), quiet(t), spec, RestoreRequest{Snapshot: taken.ID[:10], Target: target})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(&Restored{Snapshot: taken.ID, Paths: []string{target}, Files: 3, Bytes: 1_000_004}, restored); diff != "" {
		t.Errorf("restored (-want +got):\n%s", diff)
	}
	same(t, want, filepath.Join(target, spec.Paths[0]))
}

func TestRealS3(t *testing.T) {
	server := storetest.VersityGW(t)
	spec := newSpec(t, "orders")
	spec.Repository = server.Location(storetest.Bucket, "shop")
	stockRepository := "s3:" + server.Endpoint + "/" + storetest.Bucket + "/shop"
	want := contents(t, spec.Paths[0])
	mustTake(t, spec)
	if n := dataBlobsAddedByStock(t, stockRepository, spec); n != 0 {
		t.Errorf("restic added %d data blobs", n)
	}
	if out := stock(t, stockRepository, spec, "check", "--read-data"); !bytes.Contains(out, []byte("no errors were found")) {
		t.Errorf("restic check: %s", out)
	}
	to := t.TempDir()
	stock(t, stockRepository, spec, "restore", "latest", "--target", to)
	same(t, want, filepath.Join(to, spec.Paths[0]))

	target := filepath.Join(t.TempDir(), "target")
	if _, err := Restore(t.Context(), quiet(t), spec, RestoreRequest{Snapshot: "latest", Target: target}); err != nil {
		t.Fatal(err)
	}
	same(t, want, filepath.Join(target, spec.Paths[0]))

	write(t, filepath.Join(spec.Paths[0], "orders.db"), "two\n")
	spec.Retention.KeepLast = 1
	b := New(quiet(t), nil)
	if err := b.Apply(t.Context(), &topology.Topology{Backups: map[string]topology.Backup{"orders": spec}}); err != nil {
		t.Fatal(err)
	}
	defer b.Apply(t.Context(), topology.Empty)
	now, err := b.Now(t.Context(), "orders")
	if err != nil {
		t.Fatal(err)
	}
	listed, err := List(t.Context(), quiet(t), spec)
	if err != nil || len(listed) != 2 { // restic's own is none of ours
		t.Errorf("listed: %+v, %v", listed, err)
	}
	if !slices.ContainsFunc(listed, func(s Snapshot) bool { return s.ID == now.ID }) {
		t.Errorf("the newest is gone: %+v", listed)
	}
	stock(t, stockRepository, spec, "check", "--read-data")

	spec.Repository = server.Location("missing", "")
	if _, err := Take(t.Context(), quiet(t), spec); err == nil || !strings.Contains(err.Error(), "no such bucket") {
		t.Errorf("take into a missing bucket: %v", err)
	}
}

func TestPasswordFile(t *testing.T) {
	t.Parallel()
	spec := newSpec(t, "orders")
	var log bytes.Buffer
	logger := slog.New(slog.NewTextHandler(&log, nil))
	if _, err := List(t.Context(), logger, spec); err == nil || !strings.Contains(err.Error(), "password file "+spec.PasswordFile+" is missing") {
		t.Errorf("list with nothing there: %v", err)
	}
	if _, err := Take(t.Context(), logger, spec); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(spec.PasswordFile)
	if err != nil || info.Mode().Perm() != 0o600 || info.Size() < 40 {
		t.Errorf("password file: %+v, %v", info, err)
	}
	if !strings.Contains(log.String(), "keep a copy of it elsewhere") {
		t.Errorf("nothing said about a copy:\n%s", &log)
	}
	password, err := os.ReadFile(spec.PasswordFile)
	if err != nil {
		t.Fatal(err)
	}

	if err := os.Remove(spec.PasswordFile); err != nil {
		t.Fatal(err)
	}
	if _, err := Take(t.Context(), logger, spec); err == nil || !strings.Contains(err.Error(), "bring it back") {
		t.Errorf("take without the password: %v", err)
	}
	if _, err := os.Stat(spec.PasswordFile); err == nil {
		t.Error("a new password was made for a repository that has another")
	}
	write(t, spec.PasswordFile, "wrong")
	if _, err := Take(t.Context(), logger, spec); !errors.Is(err, restic.ErrWrongPassword) {
		t.Errorf("take with a wrong password: %v", err)
	}
	write(t, spec.PasswordFile, " \n")
	if _, err := Take(t.Context(), logger, spec); err == nil || !strings.Contains(err.Error(), "is empty") {
		t.Errorf("take with an empty password: %v", err)
	}
	log.Reset()
	write(t, spec.PasswordFile, "  "+string(password)+"\r\n") // with white space, and for all to read
	if _, err := Take(t.Context(), logger, spec); err != nil {
		t.Error(err)
	}
	if !strings.Contains(log.String(), "can be read by everyone") {
		t.Errorf("nothing said about a password that all can read:\n%s", &log)
	}
}

func TestWhatIsWrongIsToldBeforeAnythingIsDone(t *testing.T) {
	t.Parallel()
	good := newSpec(t, "orders")
	for want, change := range map[string]func(*topology.Backup){
		"no paths":                           func(b *topology.Backup) { b.Paths = nil },
		`path "data" is not absolute`:        func(b *topology.Backup) { b.Paths = []string{"data"} },
		"is inside of":                       func(b *topology.Backup) { b.Repository = "file://" + b.Paths[0] + "/repo" },
		"write file:///absolute/path or s3:": func(b *topology.Backup) { b.Repository = "/mnt" },
		"no password file":                   func(b *topology.Backup) { b.PasswordFile = "" },
		"not five (minute":                   func(b *topology.Backup) { b.Schedule = "every day" },
		"never comes":                        func(b *topology.Backup) { b.Schedule = "0 0 30 2 *" },
	} {
		spec := good
		change(&spec)
		b := New(quiet(t), nil)
		err := b.Apply(t.Context(), &topology.Topology{Backups: map[string]topology.Backup{"orders": spec, "fine": good}})
		if err == nil || !strings.Contains(err.Error(), "backup orders: ") || !strings.Contains(err.Error(), want) {
			t.Errorf("apply: %v, want %q", err, want)
		}
		if status := b.Status(); len(status) > 0 {
			t.Errorf("runs after a refusal: %+v", status)
		}
		if _, err := Take(t.Context(), quiet(t), spec); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("take: %v, want %q", err, want)
		}
	}
	leftovers(t, good.Paths[0], "data")
	leftovers(t, filepath.Join(good.Paths[0], "deep"), "deep", "empty", "orders.db")
}

func TestMissingAndLinkedPaths(t *testing.T) {
	t.Parallel()
	spec := newSpec(t, "orders")
	missing := filepath.Join(spec.Paths[0], "../missing")
	spec.Paths = append(spec.Paths, missing)
	taken := mustTake(t, spec)
	if !taken.Partial || len(taken.Unreadable) != 1 || !strings.Contains(taken.Unreadable[0], "missing: no such file") {
		t.Errorf("taken: %+v", taken)
	}
	if listed, err := List(t.Context(), quiet(t), spec); err != nil || !listed[0].Partial || len(listed[0].Unreadable) != 1 {
		t.Errorf("listed: %+v, %v", listed, err)
	}
	spec.Paths = spec.Paths[1:]
	if _, err := Take(t.Context(), quiet(t), spec); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("take of nothing: %v", err)
	}
	if err := os.Symlink("data", missing); err != nil {
		t.Fatal(err)
	}
	if _, err := Take(t.Context(), quiet(t), spec); err == nil || !strings.Contains(err.Error(), "is a symbolic link; name the place that it points to") {
		t.Errorf("take of a link: %v", err)
	}
}

// takeForever takes snapshots until the process is killed.
func takeForever(data, repository string) {
	spec := topology.Backup{Name: "killed", Paths: []string{data}, Repository: "file://" + repository, PasswordFile: filepath.Join(repository, "../password"), Retention: topology.Retention{KeepLast: 2}}
	log := slog.New(slog.DiscardHandler)
	for i := 0; ; i++ {
		name := filepath.Join(data, "changing")
		if err := os.WriteFile(name, bytes.Repeat([]byte{byte(i), byte(i >> 8)}, 500_000), 0o644); err != nil {
			panic(err)
		}
		s, forgetting, err := takeAndForget(context.Background(), log, spec)
		if err != nil || forgetting != nil {
			panic(errors.Join(err, forgetting))
		}
		os.Stdout.WriteString(s.ID + "\n")
	}
}

// Killed at any moment of a snapshot, a forget or a prune, the repository is sound, and the next run goes on.
func TestKilled(t *testing.T) {
	t.Parallel()
	spec := newSpec(t, "killed")
	spec.Repository = "file://" + filepath.Join(filepath.Dir(spec.Paths[0]), "repo")
	spec.PasswordFile = filepath.Join(filepath.Dir(spec.Paths[0]), "password")
	for round := range 4 {
		cmd := exec.Command(os.Args[0], "take", spec.Paths[0], strings.TrimPrefix(spec.Repository, "file://"))
		cmd.Stderr = t.Output()
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := out.Read(make([]byte, 65)); err != nil { // one is whole
			t.Errorf("the process ended: %v", err)
		}
		<-time.After(rand.N(time.Second)) // somewhere in one of the next
		cmd.Process.Kill()
		cmd.Wait()
		if out := stock(t, strings.TrimPrefix(spec.Repository, "file://"), spec, "check", "--read-data", "--no-lock"); !bytes.Contains(out, []byte("no errors were found")) {
			t.Errorf("round %d: restic check: %s", round, out)
		}
	}
	want := contents(t, spec.Paths[0])
	taken := mustTake(t, spec)
	target := filepath.Join(t.TempDir(), "target")
	if _, err := Restore(t.Context(), quiet(t), spec, RestoreRequest{Snapshot: taken.ID, Target: target}); err != nil {
		t.Fatal(err)
	}
	same(t, want, filepath.Join(target, spec.Paths[0]))
	stock(t, strings.TrimPrefix(spec.Repository, "file://"), spec, "check") // takes the exclusive lock: no stale ones are left
}

// One damaged snapshot does not keep the others from being listed and restored, nor new ones from being taken.
func TestDamagedSnapshotIsSkipped(t *testing.T) {
	t.Parallel()
	spec := newSpec(t, "orders")
	damaged := mustTake(t, spec)
	good := mustTake(t, spec)
	repo := strings.TrimPrefix(spec.Repository, "file://")
	if err := os.Truncate(filepath.Join(repo, "snapshots", damaged.ID), 20); err != nil {
		t.Fatal(err)
	}
	mustTake(t, spec)
	listed, err := List(t.Context(), quiet(t), spec)
	if err != nil || len(listed) != 3 || listed[0].ID != good.ID || listed[2].ID != damaged.ID || !strings.Contains(listed[2].Damaged, "snapshot "+damaged.ID[:8]+" cannot be read") {
		t.Errorf("listed: %+v, %v", listed, err)
	}
	for _, which := range []string{"latest", good.ID[:10]} {
		if _, err := Restore(t.Context(), quiet(t), spec, RestoreRequest{Snapshot: which, Target: filepath.Join(t.TempDir(), "target")}); err != nil {
			t.Errorf("restore %s: %v", which, err)
		}
	}
	_, err = Restore(t.Context(), quiet(t), spec, RestoreRequest{Snapshot: damaged.ID[:10], Target: filepath.Join(t.TempDir(), "target")})
	if !errors.Is(err, restic.ErrDamaged) || !strings.Contains(err.Error(), damaged.ID) {
		t.Errorf("restore of the damaged one: %v", err)
	}
	spec.Retention.KeepLast = 1 // what the damaged one needs is not known
	if _, forgetting, err := takeAndForget(t.Context(), quiet(t), spec); err != nil || !errors.Is(forgetting, restic.ErrDamaged) {
		t.Errorf("retention beside a damaged snapshot: %v, %v", forgetting, err)
	}
}

// A repository that has lost its config is not made anew over what is there.
func TestLostConfigIsToldAndNotReplaced(t *testing.T) {
	t.Parallel()
	spec := newSpec(t, "orders")
	mustTake(t, spec)
	config := filepath.Join(strings.TrimPrefix(spec.Repository, "file://"), "config")
	if err := os.Rename(config, config+".away"); err != nil {
		t.Fatal(err)
	}
	for name, f := range map[string]func() error{
		"take": func() error { _, err := Take(t.Context(), quiet(t), spec); return err },
		"list": func() error { _, err := List(t.Context(), quiet(t), spec); return err },
	} {
		if err := f(); !errors.Is(err, restic.ErrDamaged) || !strings.Contains(err.Error(), "has lost its config") || !strings.Contains(err.Error(), "bring the object config back") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := os.Stat(config); err == nil {
		t.Fatal("a new config was made")
	}
	if err := os.Rename(config+".away", config); err != nil {
		t.Fatal(err)
	}
	mustTake(t, spec)
}
