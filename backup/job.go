package backup

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"mainstay/schedule"
	"mainstay/topology"
)

// The states of a job.
const (
	stateIdle    = "idle"
	stateRunning = "running"
	stateFailed  = "failed" // the last run has
)

var errRemoved = errors.New("the backup was removed from the topology")

// A job runs one backup of the topology.
type job struct {
	name    string
	log     *slog.Logger
	metrics *metrics
	turn    chan struct{} // holds one: whoever takes it may run
	changed chan struct{} // holds one: there is a new spec
	ctx     context.Context
	cancel  context.CancelCauseFunc
	active  sync.WaitGroup // the goroutine, and every call of now
	clock   schedule.Clock

	ticker *schedule.Ticker // the goroutine's; nil: only by hand
	cron   string           // that it goes along

	mu     sync.Mutex
	spec   topology.Backup
	status JobStatus
}

func startJob(log *slog.Logger, m *metrics, name string, spec topology.Backup) *job {
	j := &job{
		name: name, log: log, metrics: m, spec: spec,
		turn: make(chan struct{}, 1), changed: make(chan struct{}, 1),
		clock:  schedule.System(),
		status: JobStatus{Name: name, State: stateIdle},
	}
	j.ctx, j.cancel = context.WithCancelCause(context.Background())
	j.plan()
	j.active.Go(j.follow)
	return j
}

// stop cancels what runs and waits for it until ctx is done. It tells whether all has ended.
func (j *job) stop(ctx context.Context) bool {
	j.mu.Lock()
	j.cancel(errRemoved) // with the lock held: no now begins after this
	j.mu.Unlock()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		j.active.Wait()
	}()
	select {
	case <-ended:
		return true
	case <-ctx.Done():
		return false
	}
}

func (j *job) current() topology.Backup {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.spec
}

// change gives the job another spec, for its next run.
func (j *job) change(spec topology.Backup) {
	j.mu.Lock()
	j.spec = spec
	j.mu.Unlock()
	select {
	case j.changed <- struct{}{}:
	default: // is to be noticed already
	}
}

func (j *job) report() JobStatus {
	j.mu.Lock()
	defer j.mu.Unlock()
	s := j.status
	s.Repository = j.spec.Repository
	return s
}

// plan goes along the current spec's schedule, if that is another one, and tells the next time.
func (j *job) plan() {
	j.mu.Lock()
	defer j.mu.Unlock()
	if cron := j.spec.Schedule; cron != j.cron {
		t, err := newTicker(cron, j.clock())
		if err != nil {
			j.log.Error("schedule never comes", "error", err) // it was checked before
		}
		j.ticker, j.cron = t, cron
	}
	j.status.NextRun = time.Time{}
	if j.ticker != nil {
		j.status.NextRun = j.ticker.Next()
	}
}

// follow runs the job at the times of its schedule until it is stopped.
func (j *job) follow() {
	for {
		var wake <-chan time.Time // never, without a schedule
		if j.ticker != nil {
			wake = time.After(j.ticker.Pause(j.clock()))
		}
		select {
		case <-j.ctx.Done():
			return
		case <-j.changed:
		case <-wake:
			j.look()
		}
		j.plan()
	}
}

// look runs the job if it is due, and tells the times of the schedule at which it did not run.
func (j *job) look() {
	turn := j.ticker.Look(j.clock())
	if !turn.Skipped.IsZero() {
		j.log.Warn("clock was set forward", "skipped", turn.Skipped)
	}
	if !turn.Missed.IsZero() {
		j.miss("the machine slept")
	}
	if turn.Due.IsZero() {
		return
	}
	select {
	case j.turn <- struct{}{}:
	default:
		j.miss("another run was under way")
		return
	}
	j.plan()            // the next time is told during the run too
	_, _ = j.run(j.ctx) // told by run itself
	<-j.turn
	if turn := j.ticker.Look(j.clock()); !turn.Due.IsZero() || !turn.Missed.IsZero() {
		j.miss("the run before took longer")
	}
}

func (j *job) miss(why string) {
	j.log.Warn("scheduled backup missed", "reason", why)
	j.metrics.missed.WithLabelValues(j.name).Inc()
	j.mu.Lock()
	defer j.mu.Unlock()
	j.status.Missed++
}

// cancelled tells whether a run ended because nobody wanted it any more.
func cancelled(err error) bool { return errors.Is(err, errRemoved) || errors.Is(err, context.Canceled) }

// now runs the job once its turn has come.
func (j *job) now(ctx context.Context) (*Snapshot, error) {
	j.mu.Lock()
	if j.ctx.Err() != nil {
		j.mu.Unlock()
		return nil, errRemoved
	}
	j.active.Add(1)
	j.mu.Unlock()
	defer j.active.Done()

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(j.ctx, func() { cancel(context.Cause(j.ctx)) })()
	select {
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case j.turn <- struct{}{}:
	}
	defer func() { <-j.turn }()
	return j.run(ctx)
}

// run takes a snapshot and forgets old ones. The caller holds the turn.
func (j *job) run(ctx context.Context) (*Snapshot, error) {
	start := time.Now()
	j.mu.Lock()
	spec := j.spec
	j.status.State = stateRunning
	j.mu.Unlock()
	j.log.Info("backup started")

	snapshot, retention, err := takeAndForget(ctx, j.log, spec)
	took := time.Since(start)

	j.mu.Lock()
	defer j.mu.Unlock()
	j.status.Runs++
	j.status.LastRun = time.Now()
	j.status.State, j.status.Reason = stateIdle, ""
	if err != nil {
		j.status.State, j.status.Reason = stateFailed, err.Error()
		j.status.Failures++
		j.metrics.ran(j.name, err, nil, took)
		if cancelled(err) {
			j.log.Warn("backup cancelled", "reason", err, "took", took)
		} else {
			j.log.Error("backup failed", "error", err, "took", took)
		}
		return nil, err
	}
	j.status.Newest = snapshot
	j.metrics.ran(j.name, nil, snapshot, took)
	switch {
	case snapshot.Partial:
		j.status.Reason = fmt.Sprintf("the snapshot is partial: %s", snapshot.Unreadable[0])
		j.log.Warn("backup is partial", "snapshot", snapshot.ID, "unreadable", len(snapshot.Unreadable), "first", snapshot.Unreadable[0])
	case retention != nil:
		j.status.Reason = retention.Error()
		fallthrough
	default:
		j.status.LastGood = snapshot.Time
	}
	j.log.Info("backup done", "snapshot", snapshot.ID[:8], "files", snapshot.Files, "bytes", snapshot.Bytes, "added_bytes", snapshot.AddedBytes, "took", took)
	return snapshot, nil
}
