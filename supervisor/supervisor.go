// Package supervisor keeps the processes of a topology running.
//
// Each service has one goroutine (service.go), the only place where processes and traffic
// meet: it compares what it wants with what it has and starts, replaces and
// stops instances, one per place ("web/2"). Each instance has one goroutine too (instance.go):
// it starts a process, probes it, tells the Router when requests may go to it, ends it, and starts
// the next after a crash. An instance's life is one State, moved by that goroutine alone.
//
// A process (tree.go) leads a group of its own. Its exit and the end of its output are
// separate events, so that a grandchild that keeps the output open delays nothing. Before
// its place is filled again or a stop is done, nothing of it and of what it has started is left.
//
// Whatever the reason for ending a process, the order is the same: out of the
// rotation, wait for its requests, stop signal, wait, SIGKILL.
//
// Output is read in bounded pieces and never waits for a disk (output.go); it is kept in
// files of bounded size (package logfile), all of them together within a bound too (archive.go), and can be searched
// and followed live (logs.go).
//
// A service with a schedule is a job (job.go): its goroutine fills its place when it is due, and remembers what became of it.
//
// Processes outlive Mainstay: each has a directory with what the next one must know of it (runs.go), which
// goes on with those that it finds (survivors.go). Suspend leaves them to it on purpose.
//
// The machine below is behind one seam, host (process.go): tests put a simulated one in its place.
package supervisor

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"mainstay/schedule"
	"mainstay/topology"
)

// A Router sends requests to instances. The supervisor tells it when an instance
// may receive them and when it must not; *proxy.Proxy is one. Both are safe for
// concurrent use.
type Router interface {
	// Admit lets requests for the instance's service go to it. It does not block. An instance that is admitted again with
	// another weight or share goes on with that: its requests and its Traffic stay.
	Admit(i topology.Instance)

	// Drain sends no more requests to the instance and returns nil when the last one has
	// finished, or ctx's error when ctx is done first. An instance that was
	// never admitted is drained at once.
	Drain(ctx context.Context, i topology.Instance) error

	// Traffic returns what was seen of the requests to the instance; nothing of one that was never admitted or is forgotten.
	Traffic(i topology.Instance) topology.Traffic
}

// A Supervisor keeps the processes of a topology running.
type Supervisor struct {
	site *site

	mu       sync.Mutex
	open     bool                // the host is
	ended    bool                // Suspend was called
	applies  int                 // how often Apply was called
	services map[string]*service // by name; those being removed stay until they are gone

	asides sync.WaitGroup // removals under way
}

// New returns a Supervisor that runs nothing yet.
func New(log *slog.Logger, reg prometheus.Registerer, router Router) *Supervisor {
	return newSupervisor(log, reg, router, newMachine(log))
}

func newSupervisor(log *slog.Logger, reg prometheus.Registerer, router Router, host host) *Supervisor {
	s := &Supervisor{services: map[string]*service{}}
	s.site = &site{
		log:     log,
		router:  router,
		host:    host,
		ports:   newPorts(),
		board:   newBoard(),
		metrics: newMetrics(reg),
		morgue:  newMorgue(log),
		slots:   &slots{time.Now()},
		clock:   schedule.System(),

		suspended: make(chan struct{}),
	}
	s.site.archive = newArchive(log, s.site.metrics.forgotten)
	if reg != nil {
		reg.MustRegister(gauges{s.Status})
	}
	return s
}

// Apply implements the engine's Subsystem. It returns once the services that t no longer has are
// stopped, dependents before what they depend on; when ctx is done first, their processes are killed. Unless t is
// topology.Empty, those that take longer than a few seconds to stop go on aside: what they hold is theirs until they are gone, and a later
// Apply that has one of them again goes on with it.
// New and changed services converge in their own time, which Status tells. The error is always nil:
// a process that cannot be started is a state of its instance.
//
// The first Apply goes on with what a former Mainstay that has not stopped its services left of them below t's state directory; of
// those, who was ready is admitted to the Router when Apply returns.
func (s *Supervisor) Apply(ctx context.Context, t *topology.Topology) error {
	s.mu.Lock()
	if s.ended {
		s.mu.Unlock()
		return nil
	}
	if !s.open && t != topology.Empty {
		s.open = true
		s.site.host.open()
	}
	s.applies++
	if t.StateDir != "" {
		s.site.morgue.open(t.StateDir)
	}
	found := s.lookBack(t)
	names := slices.Sorted(maps.Keys(t.Services))
	for _, name := range names {
		if svc, ok := s.services[name]; ok && svc.differs(t.Services[name]) {
			s.site.board.ask(name, s.applies)
		}
	}
	for _, name := range names {
		v := version{spec: t.Services[name], generation: t.Generation, apply: s.applies}
		svc, ok := s.services[name]
		if ok && svc.apply(v) {
			continue
		}
		if ok {
			svc.part()
		}
		s.services[name] = startService(s.site, t.StateDir, v, found[name])
	}
	for name, runs := range found {
		if _, ok := t.Services[name]; !ok {
			s.services[name] = startService(s.site, t.StateDir, version{spec: remnant(runs)}, runs)
		}
	}
	var gone []*service
	for name, svc := range s.services {
		if _, ok := t.Services[name]; !ok && (t == topology.Empty || !svc.leaves()) {
			gone = append(gone, svc)
		}
	}
	s.mu.Unlock()
	s.site.archive.bound(t.StateDir, t.Logs.MaxTotal)

	if t != topology.Empty {
		s.remove(ctx, gone, removalPatience)
		return nil
	}
	s.remove(ctx, gone, 0)
	s.asides.Wait()
	s.closeHost()
	return nil
}

// lookBack returns what a former Mainstay left, by service, and holds the ports of it. It does so once.
func (s *Supervisor) lookBack(t *topology.Topology) map[string][]*run {
	if t.StateDir == "" || s.site.runs != nil || len(s.services) > 0 {
		return nil
	}
	runs, found := openRuns(t.StateDir, s.site.log)
	s.site.runs = runs
	for _, list := range found {
		for _, r := range list {
			if r.Port != 0 {
				s.site.ports.find(r.Port)
			}
		}
	}
	return found
}

// Suspend lets go of every process without touching it, for the next Mainstay to take over: in the place of this one, or in its own
// time. What the processes have written is kept, what is to be known of them is noted, and nothing of the Supervisor's runs any more.
// Afterwards there are no services, and Apply does nothing. Processes that nothing is noted of, because there is no state
// directory or it cannot be written, are stopped instead. The error is ctx's, if it was done before: then such processes were killed.
func (s *Supervisor) Suspend(ctx context.Context) error {
	s.mu.Lock()
	if s.ended {
		s.mu.Unlock()
		return nil
	}
	s.ended = true
	close(s.site.suspended)
	all := slices.Collect(maps.Values(s.services))
	s.mu.Unlock()

	s.remove(ctx, all, 0)
	s.asides.Wait()
	s.closeHost()
	return ctx.Err()
}

// closeHost closes the host unless something is left of a service.
func (s *Supervisor) closeHost() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open && len(s.services) == 0 {
		s.open = false
		s.site.host.close()
		s.site.morgue.flush()
	}
}

// site is what all services and instances stand on.
type site struct {
	log     *slog.Logger
	router  Router
	host    host
	ports   *ports
	board   *board
	metrics *metrics
	morgue  *morgue
	admits  atomic.Uint64 // how often an instance was admitted
	slots   *slots        // nil: probes are tried whenever they are due
	runs    *runs         // nil: nothing outlives Mainstay
	clock   schedule.Clock
	archive *archive
	defeats defeats

	suspended chan struct{} // closed when processes are to be let go
}
