// Package supervisor keeps the processes of a topology running.
//
// Each service has one goroutine (service.go), the only place where processes and traffic
// meet: it compares what it wants with what it has and starts, replaces and
// stops instances, one per place ("web/2"). Each instance has one goroutine too (instance.go):
// it starts a process, probes it, tells the Router when requests may go to it, ends it, and starts
// the next after a crash. An instance's life is one State, moved by that goroutine alone.
//
// A process (process_linux.go) leads a group of its own. Its exit and the end of its output are
// separate events, so that a grandchild that keeps the output open delays nothing. Before
// its place is filled again or a stop is done, nothing of the group is left.
//
// Whatever the reason for ending a process, the order is the same: out of the
// rotation, wait for its requests, stop signal, wait, SIGKILL.
//
// Output is read in bounded pieces and never waits for a disk (output.go); it is kept in
// files of bounded size (package logfile) and can be followed live (logs.go).
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
	applies  int                 // how often Apply was called
	services map[string]*service // by name; those being removed stay until they are gone
}

// New returns a Supervisor that runs nothing yet.
func New(log *slog.Logger, reg prometheus.Registerer, router Router) *Supervisor {
	return newSupervisor(log, reg, router, &machine{log: log})
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
	}
	if reg != nil {
		reg.MustRegister(gauges{s.Status})
	}
	return s
}

// Apply implements the engine's Subsystem. It returns once the services that t no longer has are
// stopped, dependents before what they depend on; when ctx is done first, their processes are killed.
// New and changed services converge in their own time, which Status tells. The error is always nil:
// a process that cannot be started is a state of its instance.
func (s *Supervisor) Apply(ctx context.Context, t *topology.Topology) error {
	s.mu.Lock()
	if !s.open && t != topology.Empty {
		s.open = true
		s.site.host.open()
	}
	s.applies++
	names := slices.Sorted(maps.Keys(t.Services))
	for _, name := range names {
		if svc, ok := s.services[name]; ok && svc.differs(t.Services[name]) {
			s.site.board.ask(name, s.applies)
		}
	}
	for _, name := range names {
		v := version{spec: t.Services[name], generation: t.Generation, apply: s.applies}
		if svc, ok := s.services[name]; ok {
			svc.apply(v)
		} else {
			s.services[name] = startService(s.site, t.StateDir, v)
		}
	}
	var gone []*service
	for name, svc := range s.services {
		if _, ok := t.Services[name]; !ok {
			gone = append(gone, svc)
		}
	}
	s.mu.Unlock()

	s.remove(ctx, gone)
	if t == topology.Empty {
		s.closeHost()
	}
	return nil
}

// closeHost closes the host unless something is left of a service.
func (s *Supervisor) closeHost() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open && len(s.services) == 0 {
		s.open = false
		s.site.host.close()
	}
}

// afterKill bounds the wait for processes that were sent SIGKILL: one in an uninterruptible system call does not die of it.
const afterKill = 5 * time.Second

// remove stops services and forgets them.
func (s *Supervisor) remove(ctx context.Context, gone []*service) {
	if len(gone) == 0 {
		return
	}
	var all sync.WaitGroup
	for _, svc := range gone {
		all.Go(func() {
			for _, other := range gone {
				if other.dependsOn(svc.name) {
					<-other.done
				}
			}
			svc.stop()
			<-svc.done
		})
	}
	stopped := make(chan struct{})
	go func() { all.Wait(); close(stopped) }()

	select {
	case <-stopped:
	case <-ctx.Done():
		for _, svc := range gone {
			svc.kill()
		}
		select {
		case <-stopped:
		case <-time.After(afterKill):
			s.site.log.Error("processes outlived SIGKILL", "services", len(gone))
		}
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	for _, svc := range gone {
		delete(s.services, svc.name)
		s.site.metrics.forget(svc.name)
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
	runs    atomic.Uint64 // how often an instance was admitted
}
