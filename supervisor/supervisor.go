package supervisor

import (
	"context"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"mainstay/topology"
)

// A Router sends requests to instances. The supervisor tells it when an instance
// may receive them and when it must not; *proxy.Proxy is one. Both are safe for
// concurrent use.
type Router interface {
	// Admit lets requests for the instance's service go to it. It does not block.
	Admit(i topology.Instance)

	// Drain sends no more requests to the instance and returns nil when the last one has
	// finished, or ctx's error when ctx is done first. An instance that was
	// never admitted is drained at once.
	Drain(ctx context.Context, i topology.Instance) error
}

// A Supervisor keeps the processes of a topology running.
type Supervisor struct{}

// New returns a Supervisor that runs nothing yet.
func New(log *slog.Logger, reg prometheus.Registerer, router Router) *Supervisor {
	return &Supervisor{}
}

// Apply implements the engine's Subsystem.
func (s *Supervisor) Apply(ctx context.Context, t *topology.Topology) error { return nil }

// A State is where an instance is in its life.
type State string

const (
	StatePending  State = "pending"  // waits for its dependencies
	StateStarting State = "starting" // runs, not yet ready
	StateReady    State = "ready"
	StateDraining State = "draining" // gets no new requests
	StateStopping State = "stopping" // was sent its stop signal
	StateStopped  State = "stopped"
	StateWaiting  State = "waiting" // waits out its back-off
	StateFailed   State = "failed"  // ended and is not restarted
)

// A ServiceStatus is how one service is doing.
type ServiceStatus struct {
	Name      string           `json:"name"`
	Desired   int              `json:"desired"`
	Ready     int              `json:"ready"`
	State     string           `json:"state"`            // ready, starting, updating, degraded, failed, stopped, completed
	Reason    string           `json:"reason,omitempty"` // why it is not ready: last probe answer, exit cause, last lines of output
	Instances []InstanceStatus `json:"instances"`
}

// An InstanceStatus is how one instance is doing.
type InstanceStatus struct {
	ID         string    `json:"id"` // "web/2"; while it is being replaced, two instances have one id and differ in generation or pid
	Replica    int       `json:"replica"`
	PID        int       `json:"pid,omitempty"`
	Address    string    `json:"address,omitempty"`
	State      State     `json:"state"`
	Reason     string    `json:"reason,omitempty"`
	Restarts   int       `json:"restarts"`
	Generation int       `json:"generation"` // of the topology that gave the instance its specification
	Since      time.Time `json:"since"`      // when it entered its state
}

// Status returns every service by name's order. It does not block.
func (s *Supervisor) Status() []ServiceStatus { return nil }

// A LogQuery selects lines of output.
type LogQuery struct {
	Service string // required
	Replica int    // 0: all
	Tail    int    // how many of the last lines of each instance first; negative: all that are kept
	Follow  bool   // go on with new lines until ctx is done
}

// A LogLine is one line of an instance's output.
type LogLine struct {
	Time     time.Time `json:"time"`
	Instance string    `json:"instance"` // "web/2"
	Stream   string    `json:"stream"`   // stdout or stderr
	Text     string    `json:"text"`     // without the line's end; invalid UTF-8 is replaced
	Partial  bool      `json:"partial,omitempty"`
}

// Logs calls emit with each line that q selects, oldest first, until there is no more
// or, following, until ctx is done. It returns emit's error, or an error if there is no such service.
func (s *Supervisor) Logs(ctx context.Context, q LogQuery, emit func(LogLine) error) error {
	return nil
}
