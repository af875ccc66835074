package supervisor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"mainstay/topology"
)

// A simulation is a Supervisor on a simulated machine, in a bubble of simulated time, and a record of what
// reaches processes and the Router, in order.
type simulation struct {
	*Supervisor
	t        *testing.T
	stateDir string // empty: nothing outlives the Supervisor

	mu        sync.Mutex
	behaviour map[string]behaviour // by the command's second word
	inFlight  time.Duration        // how long requests take to finish
	live      map[int]*simulated   // by pid
	most      int                  // that lived at once
	pids      int
	foreign   map[int]string          // programs of others, by the port that they listen on
	told      map[string]func(notice) // what a process tells goes here, by its notification socket
	opened    int                     // how often the host was opened and not closed
	events    []event
	routed    map[string]int     // processes of each place that the Router was told of, by its id
	rotation  map[string]rotated // by instance ID
	draining  map[string]int     // drains under way, by port
	fewest    int                // that were in the rotation at once
}

// rotated is an instance in the rotation.
type rotated struct {
	since time.Time
	port  string
	behaviour
}

type event struct {
	at   time.Duration // since the simulation's start
	what string        // "start web/1 v2", "admit web/1.3", "drain web/1.3", "drained …", "signal web/1 v2 terminated", "end web/1 v2"
}

// behaviour is how a simulated program behaves.
type behaviour struct {
	refuse      error         // cannot be started
	readyAfter  time.Duration // answers probes from then on
	sickAfter   time.Duration // fails probes from then on; 0: never
	neverReady  bool
	dieAfter    time.Duration // 0: never
	status      int           // of its own end
	ignoreTerm  bool
	stopTime    time.Duration // from signal to end
	rate        float64       // requests a second that it gets while it is in the rotation
	errors      float64       // the share of them that it fails
	latency     time.Duration // of each
	outOfMemory bool          // it is the kernel that ends it
}

type simulated struct {
	sim     *simulation
	id      int
	name    string // "web/1 v2"
	port    string
	run     string
	limits  topology.Limits
	socket  bool   // it was given one
	ear     string // its notification socket
	started time.Time
	behaviour
	gone chan struct{} // closed when it has ended

	once  sync.Once
	ended exit
}

// A hold is what a Supervisor has of a simulated process: its own start of it, or an adoption.
type hold struct {
	*simulated
	over     chan struct{} // closed when the process has ended and was not released
	silenced chan struct{}
	quiet    sync.Once
	left     chan struct{} // closed by release
}

func (p *simulated) held() *hold {
	h := &hold{simulated: p, over: make(chan struct{}), silenced: make(chan struct{}), left: make(chan struct{})}
	go func() {
		select {
		case <-p.gone:
			close(h.over)
			h.quiet.Do(func() { close(h.silenced) })
		case <-h.left:
		}
	}()
	return h
}

// newSimulation returns a simulation in the bubble of t.
func newSimulation(t *testing.T, reg prometheus.Registerer, behaviour map[string]behaviour) *simulation {
	s := &simulation{
		t: t, behaviour: behaviour, live: map[int]*simulated{}, told: map[string]func(notice){},
		routed: map[string]int{}, rotation: map[string]rotated{}, draining: map[string]int{},
	}
	s.Supervisor = newSupervisor(slog.New(slog.DiscardHandler), reg, s, s)
	s.site.ports.free = func(int) bool { return true }
	s.site.slots = nil
	s.record(time.Now(), "")
	return s
}

// simulate runs test on a simulated machine and stops everything after it.
func simulate(t *testing.T, behaviour map[string]behaviour, test func(s *simulation)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := newSimulation(t, nil, behaviour)
		test(s)
		s.apply()
		s.applyAs(topology.Empty)
		if s.opened != 0 {
			t.Errorf("after Empty the host is still open (%d)", s.opened)
		}
		if st := s.Status(); len(st) != 0 {
			t.Errorf("after Empty there are still services: %+v", st)
		}
		if len(s.live) != 0 {
			t.Errorf("after Empty there are still processes: %v", s.live)
		}
	})
}

func (s *simulation) record(at time.Time, format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.events) == 0 {
		s.events = []event{{time.Duration(at.UnixNano()), "begin"}}
		return
	}
	s.events = append(s.events, event{time.Duration(at.UnixNano()) - s.events[0].at, fmt.Sprintf(format, args...)})
}

// apply applies services as the next topology.
func (s *simulation) apply(services ...topology.Service) {
	s.t.Helper()
	s.applyAs(s.topology(services...))
}

func (s *simulation) topology(services ...topology.Service) *topology.Topology {
	if len(services) == 0 {
		return topology.Empty
	}
	t := &topology.Topology{StateDir: s.stateDir, Services: map[string]topology.Service{}}
	for _, svc := range services {
		t.Services[svc.Name] = svc
		t.Generation = max(t.Generation, svc.Epoch)
	}
	return t
}

func (s *simulation) applyAs(t *topology.Topology) {
	s.t.Helper()
	if err := s.Apply(context.Background(), t); err != nil {
		s.t.Fatalf("Apply: %v", err)
	}
	synctest.Wait()
}

// pass lets time pass.
func (s *simulation) pass(d time.Duration) {
	time.Sleep(d) // simulated
	synctest.Wait()
}

// forget forgets the record so far.
func (s *simulation) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = s.events[:1]
	s.most, s.fewest = len(s.live), len(s.rotation)
}

// happened returns what is on record of things that begin with one of prefixes.
func (s *simulation) happened(prefixes ...string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []string
	for _, e := range s.events[1:] {
		for _, p := range prefixes {
			if strings.HasPrefix(e.what, p) {
				list = append(list, e.what)
			}
		}
	}
	return list
}

func (s *simulation) times(what string) []time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []time.Duration
	for _, e := range s.events[1:] {
		if e.what == what {
			list = append(list, e.at)
		}
	}
	return list
}

// running returns the sorted names of what lives.
func (s *simulation) running() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []string
	for _, p := range s.live {
		list = append(list, p.name)
	}
	slices.Sort(list)
	return list
}

// kill ends the processes of that name as if by a crash.
func (s *simulation) kill(name string) {
	s.mu.Lock()
	list := slices.Collect(maps.Values(s.live))
	s.mu.Unlock()
	for _, p := range list {
		if p.name == name {
			p.end(exit{signal: syscall.SIGSEGV})
		}
	}
	synctest.Wait()
}

func (s *simulation) service(name string) ServiceStatus {
	s.t.Helper()
	for _, st := range s.Status() {
		if st.Name == name {
			return st
		}
	}
	s.t.Fatalf("there is no service %s", name)
	return ServiceStatus{}
}

// wantState checks a service's state and count of ready instances.
func (s *simulation) wantState(name, state string, ready int) {
	s.t.Helper()
	if st := s.service(name); st.State != state || st.Ready != ready {
		s.t.Errorf("%s is %s with %d ready (%s), want %s with %d", name, st.State, st.Ready, st.Reason, state, ready)
	}
}

func (s *simulation) wantRunning(names ...string) {
	s.t.Helper()
	if got := s.running(); !slices.Equal(got, names) {
		s.t.Errorf("running: %v, want %v", got, names)
	}
}

func (s *simulation) wantHappened(want []string, prefixes ...string) {
	s.t.Helper()
	if got := s.happened(prefixes...); !slices.Equal(got, want) {
		s.t.Errorf("happened:\n\t%s\nwant:\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}

// open implements host.
func (s *simulation) open() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.opened++
}

// close implements host.
func (s *simulation) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.opened--
}

// adopt implements host. Whose process was started by one Supervisor of the simulation may be adopted by the next.
func (s *simulation) adopt(run string, _ func(string, []byte, bool)) (process, error) {
	s.mu.Lock()
	var found *simulated
	for _, p := range s.live {
		if p.run == run && run != "" {
			found = p
		}
	}
	s.mu.Unlock()
	if found == nil {
		return nil, errGone
	}
	s.record(time.Now(), "adopt %s", found.name)
	return found.held(), nil
}

// bind implements host.
func (s *simulation) bind(int) (*os.File, error) { return os.Open(os.DevNull) }

// bound implements host.
func (s *simulation) bound(process, int) (*os.File, error) { return os.Open(os.DevNull) }

// notify implements host.
func (s *simulation) notify(name string) (notifySocket, error) { return &ear{s, name}, nil }

// An ear is a notification socket of a simulation.
type ear struct {
	*simulation
	name string
}

func (e *ear) serve(_ func(int) bool, tell func(notice)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.told[e.name] = tell
}

func (e *ear) close() {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.told, e.name)
}

// tell lets the process of that name tell of itself, as in a datagram.
func (s *simulation) tell(name, datagram string) {
	s.t.Helper()
	s.mu.Lock()
	var tell func(notice)
	for _, p := range s.live {
		if p.name == name {
			tell = s.told[p.ear]
		}
	}
	s.mu.Unlock()
	if tell == nil {
		s.t.Fatalf("%s has nowhere to tell %q", name, datagram)
	}
	tell(parseNotice([]byte(datagram)))
	synctest.Wait()
}

// owns implements host.
func (s *simulation) owns(p process, port int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if other, ok := s.foreign[port]; ok {
		return fmt.Errorf("port %d is listened on by %s, not by %d", port, other, p.pid())
	}
	return nil
}

// start implements host.
func (s *simulation) start(c command) (process, error) {
	env := map[string]string{}
	for _, kv := range c.env {
		name, value, _ := strings.Cut(kv, "=")
		env[name] = value
	}
	s.mu.Lock()
	b := s.behaviour[c.argv[1]]
	s.mu.Unlock()
	name := fmt.Sprintf("%s/%s %s", env["MAINSTAY_SERVICE"], env["MAINSTAY_REPLICA"], c.argv[1])
	if b.refuse != nil {
		s.record(time.Now(), "refuse %s", name)
		return nil, b.refuse
	}
	s.mu.Lock()
	s.pids++
	p := &simulated{
		sim: s, id: s.pids, name: name, port: env["PORT"], ear: env["NOTIFY_SOCKET"], run: c.run, limits: c.limits, socket: c.socket != nil,
		started: time.Now(), behaviour: b, gone: make(chan struct{}),
	}
	s.live[p.id] = p
	s.most = max(s.most, len(s.live))
	s.mu.Unlock()
	s.record(p.started, "start %s", name)
	if b.dieAfter > 0 {
		e := exit{status: b.status}
		if b.outOfMemory {
			e = exit{signal: syscall.SIGKILL, oom: true, memory: c.limits.Memory}
		}
		time.AfterFunc(b.dieAfter, func() { p.end(e) })
	}
	return p.held(), nil
}

// check implements host: it asks the process that listens on the port.
func (s *simulation) check(_ context.Context, c check) error {
	port := c.tcp[strings.LastIndex(c.tcp, ":")+1:]
	s.mu.Lock()
	defer s.mu.Unlock()
	if b, ok := s.behaviour[c.tcp]; ok && !b.neverReady {
		return nil // runs elsewhere
	}
	for _, p := range s.live {
		age := time.Since(p.started)
		if p.port == port && !p.neverReady && age >= p.readyAfter && (p.sickAfter == 0 || age < p.sickAfter) {
			return nil
		}
	}
	return errors.New("connection refused")
}

// Admit implements Router.
func (s *simulation) Admit(i topology.Instance) {
	alias, share := s.alias(i), ""
	if i.Weight != 1 {
		share = fmt.Sprintf(" with %d", i.Weight)
	}
	if i.Share != 0 {
		share = fmt.Sprintf(" for %g %%", i.Share)
	}
	s.record(time.Now(), "admit %s%s", alias, share)
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.rotation[i.ID]
	if !ok {
		r.since, r.port = time.Now(), portOf(i)
	}
	for _, p := range s.live {
		if strings.HasSuffix(i.Address, ":"+p.port) {
			r.behaviour = p.behaviour
		}
	}
	s.rotation[i.ID] = r
}

func portOf(i topology.Instance) string { return i.Address[strings.LastIndex(i.Address, ":")+1:] }

// alias names an instance by its place and which process it is there, whatever else is started meanwhile.
func (s *simulation) alias(i topology.Instance) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	place := instanceID(i.Service, i.Replica)
	if s.routed[i.ID] == 0 {
		s.routed[place]++
		s.routed[i.ID] = s.routed[place]
	}
	return fmt.Sprintf("%s.%d", place, s.routed[i.ID])
}

// Drain implements Router.
func (s *simulation) Drain(ctx context.Context, i topology.Instance) error {
	id := s.alias(i)
	s.record(time.Now(), "drain %s", id)
	s.mu.Lock()
	delete(s.rotation, i.ID)
	s.fewest = min(s.fewest, len(s.rotation))
	s.draining[portOf(i)]++
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.draining[portOf(i)]--
		s.mu.Unlock()
	}()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if !wait(ctx, s.inFlight) {
		s.record(time.Now(), "abort %s", id)
		return ctx.Err()
	}
	s.record(time.Now(), "drained %s", id)
	return nil
}

// Traffic implements Router.
func (s *simulation) Traffic(i topology.Instance) (t topology.Traffic) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.rotation[i.ID]
	if !ok {
		return t
	}
	t.Requests = uint64(r.rate * time.Since(r.since).Seconds())
	t.Errors = uint64(r.errors * float64(t.Requests))
	b, _ := slices.BinarySearch(topology.LatencyBuckets[:], r.latency)
	t.Latencies[b] = t.Requests
	return t
}

func (p *simulated) pid() int              { return p.id }
func (p *simulated) exit() exit            { return p.ended }
func (p *simulated) contains(pid int) bool { return pid == p.id }
func (p *simulated) sweep(context.Context) {}
func (h *hold) exited() <-chan struct{}    { return h.over }
func (h *hold) silent() <-chan struct{}    { return h.silenced }

func (h *hold) release() {
	close(h.left)
	h.sim.record(time.Now(), "release %s", h.name)
	h.quiet.Do(func() { close(h.silenced) })
}

func (p *simulated) signal(sig syscall.Signal) {
	p.sim.record(time.Now(), "signal %s %s", p.name, sig)
	p.sim.mu.Lock()
	for id, r := range p.sim.rotation {
		if r.port == p.port && p.port != "" {
			p.sim.t.Errorf("%s was signalled while it was in the rotation as %s", p.name, id)
		}
	}
	if n := p.sim.draining[p.port]; n > 0 && p.port != "" {
		p.sim.t.Errorf("%s was signalled while its requests were waited for", p.name)
	}
	p.sim.mu.Unlock()
	if sig == syscall.SIGKILL {
		p.end(exit{signal: sig})
	} else if p.stopTime == 0 && !p.ignoreTerm {
		// A timer that is due at once may crash the race detector when another one of the bubble is: the runtime
		// runs both where they are set, with one context of the detector's (runtime/time.go, unlockAndRun).
		go p.end(exit{signal: sig})
	} else if !p.ignoreTerm {
		time.AfterFunc(p.stopTime, func() { p.end(exit{signal: sig}) })
	}
}

func (p *simulated) end(e exit) {
	p.once.Do(func() {
		p.ended = e
		p.sim.record(time.Now(), "end %s", p.name)
		p.sim.mu.Lock()
		delete(p.sim.live, p.id)
		p.sim.mu.Unlock()
		close(p.gone)
	})
}

// web returns a service with the defaults that a file would give it, whose instances are ready when they answer.
func web(program string, replicas int) topology.Service {
	return topology.Service{
		Name:     "web",
		Command:  []topology.Text{topology.Plain("web"), topology.Plain(program)},
		Replicas: replicas,
		Probes: topology.Probes{Readiness: &topology.Probe{
			TCP: "{address}", Period: time.Second, Timeout: time.Second, FailureThreshold: 3, SuccessThreshold: 1,
		}},
		Restart: topology.Restart{
			Policy:  topology.RestartAlways,
			Backoff: topology.Backoff{Initial: 500 * time.Millisecond, Max: 30 * time.Second, ResetAfter: 30 * time.Second},
		},
		Update:          topology.Update{Order: topology.StartFirst, Parallelism: 1, MinReady: 5 * time.Second, Deadline: time.Minute},
		StopSignal:      syscall.SIGTERM,
		StopGracePeriod: 10 * time.Second,
	}
}

// with returns spec after changes.
func with(spec topology.Service, changes ...func(*topology.Service)) topology.Service {
	for _, change := range changes {
		change(&spec)
	}
	return spec
}

var errNoProgram = errors.New("no such program")

func named(name string) func(*topology.Service) {
	return func(s *topology.Service) { s.Name = name }
}

// worker makes a service one without a port, which is ready once started.
func worker(s *topology.Service) {
	s.Port = topology.PortNone
	s.Probes.Readiness = nil
}

func needs(name string, c topology.Condition) func(*topology.Service) {
	return func(s *topology.Service) { s.DependsOn = map[string]topology.Condition{name: c} }
}

func policy(p topology.RestartPolicy) func(*topology.Service) {
	return func(s *topology.Service) { s.Restart.Policy = p }
}
