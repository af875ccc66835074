package backup

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"mainstay/topology"
)

func of(specs ...topology.Backup) *topology.Topology {
	t := &topology.Topology{Backups: map[string]topology.Backup{}}
	for _, s := range specs {
		t.Backups[s.Name] = s
	}
	return t
}

func apply(t *testing.T, b *Backup, specs ...topology.Backup) {
	t.Helper()
	if err := b.Apply(t.Context(), of(specs...)); err != nil {
		t.Fatal(err)
	}
}

func TestJobRunsBySchedule(t *testing.T) {
	spec := newSpec(t, "orders")
	spec.Schedule = "*/10 * * * *"
	spec.Retention.KeepLast = 2
	synctest.Test(t, func(t *testing.T) {
		b := New(quiet(t), nil)
		apply(t, b, spec)
		synctest.Wait()
		status := b.Status()[0]
		next := time.Now().Truncate(10 * time.Minute).Add(10 * time.Minute)
		if status.State != stateIdle || status.Runs != 0 || !status.NextRun.Equal(next) {
			t.Errorf("before the first run: %+v", status)
		}
		time.Sleep(35 * time.Minute)
		synctest.Wait()
		status = b.Status()[0]
		if status.Runs != 3 || status.Failures != 0 || status.Missed != 0 || status.Newest == nil || status.LastGood.IsZero() {
			t.Errorf("after three runs: %+v", status)
		}
		if listed, err := List(t.Context(), quiet(t), spec); err != nil || len(listed) != 2 || listed[1].ID != status.Newest.ID {
			t.Errorf("kept: %+v, %v", listed, err)
		}

		spec.Schedule = "*/30 * * * *" // takes effect at once
		apply(t, b, spec)
		synctest.Wait()
		if next := b.Status()[0].NextRun; next.Minute()%30 != 0 || time.Until(next) > 30*time.Minute {
			t.Errorf("next run by the new schedule: %v", next)
		}
		time.Sleep(30 * time.Minute)
		synctest.Wait()
		if status := b.Status()[0]; status.Runs != 4 {
			t.Errorf("after the fourth run: %+v", status)
		}
		spec.Schedule = ""
		apply(t, b, spec)
		synctest.Wait()
		if next := b.Status()[0].NextRun; !next.IsZero() {
			t.Errorf("next run without a schedule: %v", next)
		}
		time.Sleep(time.Hour)
		apply(t, b)
		if status := b.Status(); len(status) != 0 {
			t.Errorf("after it was removed: %+v", status)
		}
	})
}

func TestAStoreThatIsDownIsAState(t *testing.T) {
	spec := newSpec(t, "orders")
	spec.Repository = "file:///dev/null/repository"
	b := New(quiet(t), nil)
	apply(t, b, spec)
	if _, err := b.Now(t.Context(), "orders"); err == nil {
		t.Error("a snapshot in /dev/null")
	}
	status := b.Status()[0]
	if status.State != stateFailed || status.Failures != 1 || !strings.Contains(status.Reason, "not a directory") {
		t.Errorf("status: %+v", status)
	}
	spec.Repository = "file://" + filepath.Join(t.TempDir(), "repo")
	apply(t, b, spec)
	s, err := b.Now(t.Context(), "orders")
	if err != nil {
		t.Fatal(err)
	}
	if status := b.Status()[0]; status.State != stateIdle || status.Reason != "" || status.Newest.ID != s.ID || status.Repository != spec.Repository {
		t.Errorf("status: %+v", status)
	}
	if _, err := b.Now(t.Context(), "other"); err == nil || err.Error() != `no backup named "other"` {
		t.Errorf("run of an unknown backup: %v", err)
	}
	apply(t, b)
}

// One run at a time; one that is removed is cancelled and waited for.
func TestTurnsAndRemoval(t *testing.T) {
	spec := newSpec(t, "orders")
	b := New(quiet(t), nil)
	apply(t, b, spec)
	j := b.jobs["orders"]
	j.turn <- struct{}{} // a run is under way

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.Now(ctx, "orders"); !errors.Is(err, context.Canceled) {
		t.Errorf("run given up while waiting for its turn: %v", err)
	}
	result := make(chan error)
	go func() {
		_, err := j.now(t.Context()) // waits for its turn, or comes too late: the same either way
		result <- err
	}()
	apply(t, b)
	if err := <-result; !errors.Is(err, errRemoved) {
		t.Errorf("run of a backup removed meanwhile: %v", err)
	}
	if _, err := j.now(t.Context()); !errors.Is(err, errRemoved) {
		t.Errorf("run after the removal: %v", err)
	}
	if entries, err := os.ReadDir(strings.TrimPrefix(spec.Repository, "file://")); err == nil {
		t.Errorf("something was done: %v", entries)
	}
}

func TestPartialSnapshotIsNoSuccess(t *testing.T) {
	spec := newSpec(t, "orders")
	b := New(quiet(t), nil)
	apply(t, b, spec)
	defer apply(t, b)
	if _, err := b.Now(t.Context(), "orders"); err != nil {
		t.Fatal(err)
	}
	good := b.Status()[0].LastGood
	spec.Paths = append(spec.Paths, "/nonexistent")
	apply(t, b, spec)
	if _, err := b.Now(t.Context(), "orders"); err != nil {
		t.Fatal(err)
	}
	status := b.Status()[0]
	if !status.LastGood.Equal(good) || !status.Newest.Partial || !strings.Contains(status.Reason, "/nonexistent: no such file") {
		t.Errorf("status: %+v", status)
	}
}

func TestMetrics(t *testing.T) {
	reg := prometheus.NewRegistry()
	b := New(quiet(t), reg)
	good, bad := newSpec(t, "good"), newSpec(t, "bad")
	good.Schedule = "0 0 1 1 *"
	bad.Repository = "file:///dev/null/repository"
	apply(t, b, good, bad)
	b.Now(t.Context(), "good")
	b.Now(t.Context(), "bad")
	problems, err := testutil.GatherAndLint(reg)
	if err != nil || len(problems) > 0 {
		t.Errorf("lint: %v, %v", []promlint.Problem(problems), err)
	}
	want := `
# HELP backup_runs_total Runs of a backup, by how they ended: success, partial, failure, cancelled.
# TYPE backup_runs_total counter
backup_runs_total{backup="bad",result="failure"} 1
backup_runs_total{backup="good",result="success"} 1
# HELP backup_running Whether a run is under way.
# TYPE backup_running gauge
backup_running{backup="bad"} 0
backup_running{backup="good"} 0
# HELP backup_snapshot_size_bytes Size of all files in the newest snapshot.
# TYPE backup_snapshot_size_bytes gauge
backup_snapshot_size_bytes{backup="good"} 1.000004e+06
`
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "backup_runs_total", "backup_running", "backup_snapshot_size_bytes"); err != nil {
		t.Error(err)
	}
	for _, name := range []string{"backup_last_success_timestamp_seconds", "backup_next_run_timestamp_seconds", "backup_duration_seconds", "backup_added_bytes_total"} {
		if n, err := testutil.GatherAndCount(reg, name); err != nil || n != 1 {
			t.Errorf("%s has %d series, %v", name, n, err)
		}
	}
	apply(t, b)
	if n, err := testutil.GatherAndCount(reg); err != nil || n != 0 {
		t.Errorf("%d series of backups that are not there any more, %v", n, err)
	}
}
