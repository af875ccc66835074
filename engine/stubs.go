package engine

import (
	"context"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"mainstay/topology"
)

// A Source says what should run on this node.
type Source interface {
	// Load returns the files as they are now.
	Load(ctx context.Context) ([]topology.File, error)
	// Watch calls changed after each change until ctx is done, and returns then.
	Watch(ctx context.Context, changed func()) error
}

// Files is the Source that reads the files at paths, later ones over earlier ones, and watches them.
func Files(log *slog.Logger, paths ...string) Source { return nil }

// Static is the Source of a file that never changes.
func Static(f topology.File) Source { return nil }

// A Stage is a subsystem with the name that errors and logs give it.
type Stage struct {
	Name      string
	Subsystem Subsystem
}

// An Engine makes what its source says so: it hands each new topology to the stages in order and puts the
// old one back if one refuses.
type Engine struct{}

// New returns an Engine that has applied nothing yet. Those stages that can refuse come first.
func New(log *slog.Logger, reg prometheus.Registerer, source Source, stages ...Stage) *Engine {
	return &Engine{}
}

// Run loads and applies the topology, follows its source, and when ctx is done stops everything and returns nil.
// It returns an error if nothing could be started: the file's topology.Problems when there is no good
// generation to fall back on, a stage's refusal, or a state directory that another Mainstay holds.
func (e *Engine) Run(ctx context.Context) error { return nil }

// Started is closed once the first topology has been applied.
func (e *Engine) Started() <-chan struct{} { return nil }

// Reload loads the source and applies it if it says something new. It is safe for concurrent use; calls
// wait for each other. origin says who asked: watch, SIGHUP, api. The error is topology.Problems, or a refusal.
func (e *Engine) Reload(ctx context.Context, origin string) (Outcome, error) { return Outcome{}, nil }

// Plan returns what a Reload would change now, without any effect, and the file's warnings; or the file's topology.Problems.
func (e *Engine) Plan(ctx context.Context) ([]topology.Change, topology.Problems, error) {
	return nil, nil, nil
}

// An Override changes a service at run time, over what the file says, until Mainstay stops or the
// service's own replicas change in the file.
type Override struct {
	Replicas *int  // nil: no opinion
	Stopped  *bool // nil: no opinion
	Restart  bool  // replace every instance once
}

// Override lays o over the named service. The error is ErrNoService or a stage's refusal.
func (e *Engine) Override(ctx context.Context, service string, o Override) error { return nil }

// Topology returns what runs, overrides included; topology.Empty before the first.
func (e *Engine) Topology() *topology.Topology { return topology.Empty }

// Status tells what runs since when, and how the last reload ended. It does not block.
func (e *Engine) Status() Status { return Status{} }

// An Outcome is how one reload ended.
type Outcome struct {
	Time        time.Time         `json:"time"`
	Origin      string            `json:"origin"`     // start, watch, SIGHUP, api
	Result      string            `json:"result"`     // applied, unchanged, invalid, refused
	Generation  int               `json:"generation"` // that runs after it
	Changes     []topology.Change `json:"changes,omitempty"`
	Problems    topology.Problems `json:"problems,omitempty"`
	Error       string            `json:"error,omitempty"`
	TookSeconds float64           `json:"took_seconds"`
}

// A Status is what the engine knows.
type Status struct {
	Name       string            `json:"name"`
	Generation int               `json:"generation"`
	Since      time.Time         `json:"since"` // of the generation
	Files      []string          `json:"files"`
	Fallback   string            `json:"fallback,omitempty"` // why an older generation runs instead of the file
	LastReload Outcome           `json:"last_reload"`
	Overrides  map[string]string `json:"overrides,omitempty"` // service: "replicas 5 (file: 3)"
}
