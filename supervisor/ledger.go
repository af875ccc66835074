package supervisor

import (
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// A Run is one run of a job.
type Run struct {
	Due      time.Time `json:"due"` // tells it from the job's other runs
	Reason   RunReason `json:"reason"`
	Started  time.Time `json:"started,omitzero"`
	Ended    time.Time `json:"ended,omitzero"` // zero: it is under way
	Result   RunResult `json:"result"`
	Cause    string    `json:"cause,omitempty"` // why it did not succeed: how the process ended, and its last words
	Attempts int       `json:"attempts"`        // processes that it took
}

// A RunReason is why a run began.
type RunReason string

const (
	RunScheduled RunReason = "schedule"
	RunCaughtUp  RunReason = "missed" // while Mainstay did not run, or the machine slept
	RunTriggered RunReason = "trigger"
)

// A RunResult is what became of a run.
type RunResult string

const (
	RunQueued    RunResult = "queued"  // it waits for the one under way
	RunRunning   RunResult = "running" // it is under way
	RunSucceeded RunResult = "succeeded"
	RunFailed    RunResult = "failed"
	RunTimedOut  RunResult = "timed-out" // a failure too
	RunReplaced  RunResult = "replaced"  // it was stopped for the next one
	RunStopped   RunResult = "stopped"   // with the service, or with Mainstay
	RunUnknown   RunResult = "unknown"   // nobody saw how it ended: Mainstay was killed meanwhile

	// What is counted beside runs.
	runSkipped RunResult = "skipped"
	runMissed  RunResult = "missed"
)

// A JobStatus is how a service with a schedule is doing.
type JobStatus struct {
	Schedule    string    `json:"schedule"`
	TimeZone    string    `json:"time_zone,omitempty"` // empty: this machine's
	Next        time.Time `json:"next,omitzero"`       // zero: it is stopped
	Queued      bool      `json:"queued,omitempty"`    // a run waits for the one under way
	LastSuccess time.Time `json:"last_success,omitzero"`
	Last        *Run      `json:"last,omitempty"`    // the last that has ended
	Runs        []Run     `json:"runs"`              // the last ones, newest first, with that under way
	Skipped     uint64    `json:"skipped,omitempty"` // times that were left out because a run was under way, since Mainstay began
	LastSkipped time.Time `json:"last_skipped,omitzero"`
}

// runsKept is how many ended runs are remembered.
const runsKept = 20

// A ledger is what outlives Mainstay of a job, in StateDir/jobs/NAME.json.
type ledger struct {
	Schedule  string    `json:"schedule"`
	TimeZone  string    `json:"time_zone,omitempty"`
	Done      time.Time `json:"done"` // up to when all that was due has had its run, or never will
	Succeeded time.Time `json:"succeeded,omitzero"`
	Running   *Run      `json:"running,omitempty"`
	Queued    *Run      `json:"queued,omitempty"` // to begin when nothing of the run before is left
	Runs      []Run     `json:"runs,omitempty"`   // newest first

	path   string // empty: it is not kept
	opened bool   // Done was told to a ticker already
	lost   bool   // it could not be written the last time
}

// openLedger reads what was kept of the job. What cannot be read is begun anew.
func openLedger(stateDir, name string, log *slog.Logger) ledger {
	if stateDir == "" {
		return ledger{}
	}
	empty := ledger{path: filepath.Join(stateDir, "jobs", name+".json")}
	b, err := os.ReadFile(empty.path)
	if errors.Is(err, os.ErrNotExist) {
		return empty
	}
	l := empty
	if err == nil {
		err = json.Unmarshal(b, &l)
	}
	if err != nil {
		log.Warn("job's history unreadable, begun anew", "err", err)
		return empty
	}
	l.Runs = slices.DeleteFunc(l.Runs, func(r Run) bool { return r.Ended.IsZero() }) // somebody else wrote those
	l.Runs = l.Runs[:min(len(l.Runs), runsKept)]
	return l
}

// save writes the ledger whole, or not at all.
func (l *ledger) save(log *slog.Logger) {
	if l.path == "" {
		return
	}
	err := l.write()
	if err != nil && !l.lost { // once for each time that it begins
		log.Warn("job's history not kept", "err", err)
	}
	l.lost = err != nil
}

func (l *ledger) write() error {
	b, err := json.MarshalIndent(l, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(l.path), 0o750); err != nil {
		return err
	}
	temporary := l.path + ".new"
	f, err := os.OpenFile(temporary, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o640)
	if err != nil {
		return err
	}
	_, err = f.Write(append(b, '\n'))
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(temporary))
	}
	return os.Rename(temporary, l.path)
}
