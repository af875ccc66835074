package backup

import (
	"context"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"mainstay/topology"
)

// A Backup takes the topology's snapshots on their schedules.
type Backup struct{}

// New returns a Backup that runs nothing yet.
func New(log *slog.Logger, reg prometheus.Registerer) *Backup { return &Backup{} }

// Apply implements the engine's Subsystem.
func (b *Backup) Apply(ctx context.Context, t *topology.Topology) error { return nil }

// A JobStatus is how one backup is doing.
type JobStatus struct {
	Name       string    `json:"name"`
	Repository string    `json:"repository"`
	State      string    `json:"state"`             // idle, running, failed
	Reason     string    `json:"reason,omitempty"`  // of the last failure
	Newest     *Snapshot `json:"newest,omitempty"`  // newest snapshot known to this process
	NextRun    time.Time `json:"next_run,omitzero"` // zero: only by hand
	Runs       uint64    `json:"runs"`
	Failures   uint64    `json:"failures"`
}

// Status returns every backup in name's order. It does not block.
func (b *Backup) Status() []JobStatus { return nil }

// Now takes a snapshot for the named backup of the applied topology, then forgets what its retention lets go.
// It waits for a run of the same backup that is under way. It blocks until the snapshot is whole in the store.
func (b *Backup) Now(ctx context.Context, name string) (*Snapshot, error) { return nil, nil }

// A Snapshot is one state of some paths in a repository.
type Snapshot struct {
	ID          string    `json:"id"` // 64 hex digits; commands accept any unambiguous beginning, or "latest"
	Time        time.Time `json:"time"`
	Hostname    string    `json:"hostname"`
	Paths       []string  `json:"paths"`
	Tags        []string  `json:"tags,omitempty"`
	Files       uint64    `json:"files"`
	Bytes       uint64    `json:"bytes"`       // of all files
	AddedBytes  uint64    `json:"added_bytes"` // stored anew for this snapshot
	Partial     bool      `json:"partial,omitempty"`
	Unreadable  []string  `json:"unreadable,omitempty"` // what could not be read, with the reason
	TookSeconds float64   `json:"took_seconds,omitempty"`
}

// Take takes one snapshot for spec, outside of any schedule, creating the repository if there is none.
func Take(ctx context.Context, log *slog.Logger, spec topology.Backup) (*Snapshot, error) {
	return nil, nil
}

// List returns the snapshots in spec's repository, oldest first.
func List(ctx context.Context, log *slog.Logger, spec topology.Backup) ([]Snapshot, error) {
	return nil, nil
}

// A RestoreRequest says what to bring back and where to.
type RestoreRequest struct {
	Snapshot string   // id, a beginning of one, or "latest"
	Target   string   // directory that receives the snapshot's tree; empty: each path where it came from
	Include  []string // only these paths of the snapshot; empty: all
	Force    bool     // replace what is at the place; what was there is kept beside it with the suffix .pre-restore-TIME
}

// A Restored tells what a restore brought back.
type Restored struct {
	Snapshot string   `json:"snapshot"`
	Paths    []string `json:"paths"`          // what is now in place
	Kept     []string `json:"kept,omitempty"` // what was there before, set aside
	Files    uint64   `json:"files"`
	Bytes    uint64   `json:"bytes"`
}

// Restore brings a snapshot's files back: into a staging directory beside the target, verified, then
// renamed into place, so that the target is either untouched or whole.
func Restore(ctx context.Context, log *slog.Logger, spec topology.Backup, req RestoreRequest) (*Restored, error) {
	return nil, nil
}
