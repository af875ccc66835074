// Package backup takes snapshots of the topology's data on their schedules, forgets the old ones
// and brings them back.
//
// A snapshot is one of the restic program's (backup/restic writes its format), in a directory or a bucket
// (backup/store), so that data can be restored without Mainstay.
//
// Each backup of the topology is a job: a goroutine that waits for the next time of its schedule, and runs.
// A run opens the repository, which it makes if there is none, takes the snapshot, and forgets what the
// retention lets go. One run of a job at a time; [Backup.Now] waits its turn. Nothing of a repository is touched by Apply:
// a store that is down is a failed run, told by Status, and the next run is another chance.
//
// Take, List and Restore work on a repository by themselves, beside a running Mainstay, or without one.
package backup

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"mainstay/topology"
)

// A Backup takes the topology's snapshots on their schedules. Its methods are safe for concurrent use,
// but Apply is only called by one goroutine at a time.
type Backup struct {
	log     *slog.Logger
	metrics *metrics

	mu   sync.Mutex
	jobs map[string]*job // by name
}

// New returns a Backup that runs nothing yet. reg may be nil.
func New(log *slog.Logger, reg prometheus.Registerer) *Backup {
	b := &Backup{log: log, jobs: map[string]*job{}}
	b.metrics = newMetrics(reg, b)
	return b
}

// Apply implements the engine's Subsystem. A backup that is still there goes on, with a run that is under way: what
// changed about it counts from the next run. A run of a backup that is not there any more is cancelled and waited for until ctx is done.
func (b *Backup) Apply(ctx context.Context, t *topology.Topology) error {
	var problems []error
	for name, spec := range t.Backups {
		if err := check(spec); err != nil {
			problems = append(problems, fmt.Errorf("backup %s: %w", name, err))
		}
	}
	if len(problems) > 0 {
		slices.SortFunc(problems, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
		return errors.Join(problems...)
	}
	for _, j := range b.swap(t.Backups) {
		if !j.stop(ctx) {
			b.log.Warn("removed backup still stopping", "backup", j.name)
		}
		b.metrics.forget(j.name)
	}
	return nil
}

// swap starts and changes jobs to be those wanted, and returns those that are to be stopped.
func (b *Backup) swap(wanted map[string]topology.Backup) []*job {
	b.mu.Lock()
	defer b.mu.Unlock()
	var removed []*job
	for name, j := range b.jobs {
		if _, ok := wanted[name]; !ok {
			removed = append(removed, j)
			delete(b.jobs, name)
			b.log.Info("backup removed", "backup", name)
		}
	}
	for name, spec := range wanted {
		switch j := b.jobs[name]; {
		case j == nil:
			b.jobs[name] = startJob(b.log.With("backup", name), b.metrics, name, spec)
			b.log.Info("backup added", "backup", name, "schedule", spec.Schedule)
		case !reflect.DeepEqual(j.current(), spec):
			j.change(spec)
			b.log.Info("backup changed", "backup", name, "schedule", spec.Schedule)
		}
	}
	return removed
}

// A JobStatus is how one backup is doing.
type JobStatus struct {
	Name       string    `json:"name"`
	Repository string    `json:"repository"`
	State      string    `json:"state"`             // idle, running, failed
	Reason     string    `json:"reason,omitempty"`  // of the last failure, or what the last run has to say
	Newest     *Snapshot `json:"newest,omitempty"`  // newest snapshot known to this process
	NextRun    time.Time `json:"next_run,omitzero"` // zero: only by hand
	LastRun    time.Time `json:"last_run,omitzero"` // when the last run ended
	LastGood   time.Time `json:"last_good,omitzero"`
	Runs       uint64    `json:"runs"`
	Failures   uint64    `json:"failures"`
	Missed     uint64    `json:"missed"` // times of the schedule at which it did not run
}

// Status returns every backup in name's order. It does not block.
func (b *Backup) Status() []JobStatus {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := make([]JobStatus, 0, len(b.jobs))
	for _, j := range b.jobs {
		all = append(all, j.report())
	}
	slices.SortFunc(all, func(a, b JobStatus) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// Now takes a snapshot for the named backup of the applied topology, then forgets what its retention lets go.
// It waits for a run of the same backup that is under way. It blocks until the snapshot is whole in the store.
func (b *Backup) Now(ctx context.Context, name string) (*Snapshot, error) {
	b.mu.Lock()
	j := b.jobs[name]
	b.mu.Unlock()
	if j == nil {
		return nil, fmt.Errorf("no backup named %q", name)
	}
	return j.now(ctx)
}
