// Package proxy sends each request to the least busy ready instance of its
// route's service.
//
// A request passes a listener, the table of routes, a pool and an engine. The
// table is immutable; a reload makes another and swaps it in one store. A pool
// belongs to a service's name, a listener to an address: both outlive reloads,
// so that what did not change keeps its connections, counts and WebSockets.
// Which instances a pool has is not in the topology: the supervisor says it with
// Admit and Drain. The pool picks an instance and counts the request in one step
// (balance.go has the rule); an engine carries the bytes.
//
// Table, pools, retry policy, fields, answers, metrics and access log know no
// engine. There are two (engine.go): one on event loops for HTTP/1.1, loop.go and
// the files whose names begin so, and one on net/http for everything, nethttp.go
// and the files whose names begin so.
//
// While a service has no instance its requests stand in its pool's line (hold.go)
// as long as the file allows, then the fallback has its turn.
//
// An upgrade hands the clients' connections to another process and gets them back
// (handover.go): each at a moment when it is between two requests.
//
// Goroutines: the loops have one each, whatever is connected. A listener of
// net/http has one that accepts and two that give to net/http, which has one per
// connection and two per connection to an instance. The access log has its writer. Apply starts them and waits for those that it stops.
package proxy

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"mainstay/sockets"
	"mainstay/topology"
)

// A Proxy sends each request to the least busy ready instance of its route's service.
type Proxy struct {
	policies
	sockets *sockets.Set
	engines engines
	grace   time.Duration // of the minimum rate

	mu      sync.Mutex
	pools   map[string]*pool        // by service; a pool stays, so that a service that comes back finds its counts
	serving map[string]serving      // by address
	leaving map[*departure]struct{} // whose place in serving others have taken
	applied applied
}

// A serving is a server and the engine that it belongs to.
type serving struct {
	server
	kind engineKind
}

// applied is the part of a topology that the proxy runs.
type applied struct {
	proxy       topology.Proxy
	logDir      string                              // where requests are logged; empty: nowhere
	unavailable map[string]topology.WhenUnavailable // by service
}

// New returns a Proxy that listens nowhere yet, and later through set.
func New(log *slog.Logger, reg prometheus.Registerer, set *sockets.Set) *Proxy {
	p := &Proxy{
		policies: policies{log: log, metrics: newMetrics(reg), name: "mainstay-" + strings.ToLower(rand.Text()[:8])},
		sockets:  set, grace: topology.RateGrace, pools: map[string]*pool{}, serving: map[string]serving{}, leaving: map[*departure]struct{}{},
	}
	p.table.Store(&table{})
	e := newNetHTTP(&p.policies)
	p.engines[engineNetHTTP] = &engineUse{engine: e}
	if l := loops(&p.policies); l != nil {
		p.engines[engineLoop] = &engineUse{engine: l}
		e.loops = p.engines[engineLoop]
	}
	if reg != nil {
		reg.MustRegister(newCollector(p.Status))
	}
	return p
}

// Apply implements the engine's Subsystem. What WhenUnavailable says holds for requests that come from then on; those that
// are held already wait as long as was said when they came, or until nothing is to be held for their service any more. It waits for the requests on listeners that go away, upgraded ones too,
// and ends them when ctx is done. An address is bound before another is let go. If StateDir is set, requests are
// logged to logs/access.log in it, unless AccessLog is false.
//
// A listener that goes to another engine stays bound. Its clients' connections go there too, each between two requests;
// what cannot (TLS, a WebSocket) is finished by the engine that has it, and not waited for.
func (p *Proxy) Apply(ctx context.Context, t *topology.Topology) error {
	want := applied{proxy: t.Proxy, unavailable: unavailable(t)}
	if t.StateDir != "" && t.Proxy.AccessLog {
		want.logDir = filepath.Join(t.StateDir, "logs")
	}
	if len(want.proxy.Listeners) > 0 {
		p.Resume()
	}
	p.mu.Lock()
	have, before := p.applied, maps.Clone(p.serving)
	p.mu.Unlock()
	if reflect.DeepEqual(have, want) {
		return nil
	}
	next, err := p.acquire(ctx, have, want, before)
	if err != nil {
		return err
	}
	p.swap(next, want)
	for address, s := range next.serving {
		if s != before[address] {
			go s.serve()
			if before[address].server == nil {
				p.log.Info("listener opened", "listener", s.bound().settings.Load().spec.Name, "address", s.bound().Addr().String())
			}
		}
	}
	p.release(ctx, before, next)
	return nil
}

// A next is what a topology needs, acquired but not in use yet.
type next struct {
	table    *table
	serving  map[string]serving           // those that stay and those that are new
	settings map[string]*listenerSettings // by address
	access   *accessLog
	retired  *accessLog // that access replaces, or nil
}

// acquire does everything that may fail. On an error nothing is left of it.
func (p *Proxy) acquire(ctx context.Context, have, want applied, before map[string]serving) (*next, error) {
	n := &next{serving: map[string]serving{}, settings: map[string]*listenerSettings{}, access: p.access.Load()}
	err := p.acquireInto(ctx, n, have, want, before)
	if err != nil {
		for address, s := range n.serving {
			if s != before[address] {
				s.bound().Close()
				p.engines[s.kind].closed()
			}
		}
	}
	return n, err
}

func (p *Proxy) acquireInto(ctx context.Context, n *next, have, want applied, before map[string]serving) (err error) {
	if n.table, err = newTable(want, p.pool, p.table.Load()); err != nil {
		return err
	}
	wanted := map[string]bool{}
	for _, spec := range want.proxy.Listeners {
		wanted[spec.Address] = true
	}
	var leaving []*listener
	for address, s := range before {
		if !wanted[address] {
			leaving = append(leaving, s.bound())
		}
	}
	for _, name := range slices.Sorted(maps.Keys(want.proxy.Listeners)) {
		spec := want.proxy.Listeners[name]
		spec.Name = name
		s := before[spec.Address]
		var previous *listenerSettings
		if s.server != nil {
			previous = s.bound().settings.Load()
		}
		settings, err := newSettings(spec, want.proxy.Limits, p.grace, previous)
		if err != nil {
			return err
		}
		settings.loops = want.proxy.Engine != topology.EngineNetHTTP
		if kind := p.engines.choose(want.proxy.Engine, spec); s.server == nil || s.kind != kind {
			if s, err = p.open(ctx, spec, kind, s.server, leaving); err != nil {
				return err
			}
		}
		n.serving[spec.Address], n.settings[spec.Address] = s, settings
	}
	n.pairRedirects()
	if want.logDir == have.logDir {
		return nil
	}
	n.retired, n.access = n.access, nil
	if want.logDir != "" {
		n.access, err = openAccessLog(p.log, want.logDir, func(lines int) { p.metrics.dropped.Add(float64(lines)) })
		if err != nil {
			return fmt.Errorf("open access log: %w", err)
		}
	}
	return nil
}

// open returns a server of spec that does not accept yet: of the socket that former, another engine's, has, if that is not nil.
func (p *Proxy) open(ctx context.Context, spec topology.Listener, kind engineKind, former server, leaving []*listener) (serving, error) {
	var l *listener
	var err error
	if former != nil {
		l, err = former.bound().share(p.sockets)
	} else {
		l, err = bind(ctx, p.sockets, spec, leaving)
	}
	if err != nil {
		return serving{}, err
	}
	s, err := p.engines[kind].open(l)
	if err != nil {
		return serving{}, errors.Join(fmt.Errorf("serve listener %s: %w", spec.Name, err), l.Close())
	}
	return serving{s, kind}, nil
}

// pairRedirects tells listeners that redirect to https the port of the first listener, by name, that has TLS.
func (n *next) pairRedirects() {
	port, first := "443", ""
	for address, s := range n.settings {
		if s.tls != nil && (first == "" || s.spec.Name < first) {
			port, first = n.serving[address].bound().port(), s.spec.Name
		}
	}
	for _, s := range n.settings {
		if s.spec.RedirectHTTPS {
			s.redirect = port
		}
	}
}

// swap puts what was acquired to use.
func (p *Proxy) swap(n *next, want applied) {
	p.table.Store(n.table)
	if n.access != nil {
		p.access.Store(n.access)
	}
	for address, s := range n.serving {
		s.bound().settings.Store(n.settings[address])
	}
	p.mu.Lock()
	for address, s := range p.serving {
		// One that another takes the place of may still accept: what comes to it must be spoken to as is said now.
		if settings := n.settings[address]; settings != nil {
			s.bound().settings.Store(settings)
		}
	}
	p.serving, p.applied = n.serving, want
	pools := slices.Collect(maps.Values(p.pools))
	p.mu.Unlock()
	for _, pool := range pools {
		if want.unavailable[pool.service].Hold.For == 0 {
			pool.drop()
		}
	}
}

// unavailable returns what requests meet whose service has no instance. None is held for a service that is to have none
// (stopped, scaled to nothing, gone), nor when all listeners close, because everything is about to stop.
func unavailable(t *topology.Topology) map[string]topology.WhenUnavailable {
	policies := map[string]topology.WhenUnavailable{}
	for name, s := range t.Services {
		w := s.WhenUnavailable
		if s.Stopped || s.Replicas == 0 || len(t.Proxy.Listeners) == 0 {
			w.Hold = topology.Hold{}
		}
		if w != (topology.WhenUnavailable{}) {
			policies[name] = w
		}
	}
	return policies
}

// release lets go of what is no longer wanted.
func (p *Proxy) release(ctx context.Context, before map[string]serving, n *next) {
	var stopping sync.WaitGroup
	for _, d := range p.departures() {
		if n.serving[d.bound().address].server == nil {
			stopping.Go(func() { d.end(ctx) })
		}
	}
	for address, s := range before {
		switch successor := n.serving[address]; {
		case successor.server == nil:
			stopping.Go(func() {
				s.stop(ctx)
				p.engines[s.kind].closed()
				p.log.Info("listener closed", "listener", s.bound().settings.Load().spec.Name, "address", s.bound().Addr().String())
			})
		case successor != s:
			p.depart(s)
		}
	}
	stopping.Wait()
	if n.access == nil { // not before: what ran on listeners that have gone was to be logged
		p.access.Store(nil)
	}
	if n.retired != nil {
		n.retired.close()
	}
}

// pool returns the pool of a service.
func (p *Proxy) pool(service string) *pool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pools[service] == nil {
		ejections := p.metrics.ejections.WithLabelValues(service)
		p.pools[service] = &pool{service: service, counters: p.metrics.serviceCounters(service), connect: p.engines.connect, ejected: func(id string) {
			ejections.Inc()
			p.log.Warn("instance ejected", "service", service, "instance", id)
		}}
	}
	return p.pools[service]
}

// Admit implements the supervisor's Router: requests for the instance's service may go to it. The service need not
// have a route yet. An instance that is admitted again with another weight or share goes on with that.
func (p *Proxy) Admit(i topology.Instance) { p.pool(i.Service).admit(i) }

// Drain implements the supervisor's Router. From the moment it is called no request is sent to the instance. It returns
// nil when the last one has finished, WebSockets included; when ctx is done first, those that remain are ended, and
// it returns ctx's error. An instance that is not there is drained at once.
func (p *Proxy) Drain(ctx context.Context, i topology.Instance) error {
	return p.pool(i.Service).drain(ctx, i.ID)
}

// Traffic implements the supervisor's Router: what was seen of the requests to the instance since it was admitted. It is
// forgotten when the instance has drained.
func (p *Proxy) Traffic(i topology.Instance) topology.Traffic {
	return p.pool(i.Service).trafficOf(i.ID)
}
