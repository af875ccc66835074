package proxy

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"mainstay/topology"
)

// A pool is the instances that may receive a service's requests. It belongs to the service's name and outlives
// reloads. Picking an instance and counting the request on it are one step, so that two requests that arrive
// together never see the same counts.
type pool struct {
	service  string
	counters *serviceCounters
	connect  func(address string) [engineKinds]conns
	ejected  func(id string) // is called when an instance is ejected
	queued   atomic.Int64    // how many stand in the line
	// admissions counts the instances that have come in.
	admissions atomic.Uint64

	mu       sync.Mutex
	active   []*upstream // in the order of admission
	shared   bool        // one of active has a share
	draining []*upstream
	line     line
	inFlight int // leases of all, draining ones too
	retrying int // requests that are on a further attempt and count against the budget
}

// An upstream is one admitted instance. Its fields are guarded by its pool's mu.
type upstream struct {
	topology.Instance                    // ID and Address never change
	conns             [engineKinds]conns // set once

	leases   *lease        // the newest; the others follow
	inFlight int           // how many
	drained  chan struct{} // nil until draining; closed when the last lease is released
	requests uint64
	failures uint64
	traffic  traffic
	balance
}

// A lease is one attempt of a request at an instance; the instance counts it from acquire to release. It is a part of what
// works on the attempt and can be used again after release.
type lease struct {
	owner aborter // never changes

	pool       *pool
	up         *upstream
	next, prev *lease // of those that up has
	attempt    uint64
	began      time.Time
	// panicked says that the instance was picked although it was ejected, because all were.
	panicked bool

	status int           // of the response; 0 until its header has come
	took   time.Duration // until then
	torn   bool          // the instance did not send the response to its end
}

// An aborter works on attempts.
type aborter interface {
	// abort gives up an attempt because its instance is going away. It may be called from any goroutine and must not block. It may
	// come late, when the attempt has ended and another has begun; attempts of one owner therefore never have the same number.
	abort(attempt uint64, why reason)
}

// answered says that the response's header has come. Like release it belongs to whoever acquired the lease.
func (l *lease) answered(now time.Time, status int) { l.status, l.took = status, now.Sub(l.began) }

// A verdict is what an attempt says about its instance.
type verdict int

const (
	verdictNone   verdict = iota // nothing: the client went away
	verdictOK                    // the instance answered
	verdictFailed                // it did not
)

// acquire picks an instance that is not in tried and counts l, which has the number attempt among those of its owner, on it. It
// returns false if there is none.
func (p *pool) acquire(now time.Time, l *lease, attempt uint64, tried []*upstream) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	choose := pick
	if p.shared {
		choose = pickShared
	}
	up, panicked := choose(p.active, tried, now)
	if up == nil {
		return false
	}
	*l = lease{owner: l.owner, pool: p, up: up, next: up.leases, attempt: attempt, began: now, panicked: panicked}
	if up.leases != nil {
		up.leases.prev = l
	}
	up.leases = l
	up.inFlight++
	up.requests++
	p.inFlight++
	return true
}

// release ends the attempt. It must be called once.
func (l *lease) release(now time.Time, v verdict) {
	if l.settle(now, v) {
		l.pool.ejected(l.up.ID)
	}
}

// settle gives the lease back and reports whether its instance was ejected by the verdict.
func (l *lease) settle(now time.Time, v verdict) (ejected bool) {
	p := l.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	single := len(p.active) == 1
	switch v {
	case verdictFailed:
		l.up.failures++
		ejected = l.up.fail(now, single)
	case verdictOK:
		l.up.succeed(single || l.panicked)
	}
	if v != verdictNone {
		l.up.traffic.count(l)
	}
	l.up.forget(l)
	p.inFlight--
	if l.up.drained != nil && l.up.inFlight == 0 {
		p.removeLocked(l.up)
	}
	return ejected
}

// forget takes a lease off the list.
func (u *upstream) forget(l *lease) {
	if l.prev != nil {
		l.prev.next = l.next
	} else {
		u.leases = l.next
	}
	if l.next != nil {
		l.next.prev = l.prev
	}
	l.next, l.prev = nil, nil
	u.inFlight--
}

// beginRetry asks for a further attempt of a request that an instance may already have worked on. At most a fifth
// of the service's requests in flight, and always three, may be on one, so that a service that resets under load is
// not sent a multiple of it (Envoy's retry budget has the same numbers). If it returns true, endRetry must follow.
func (p *pool) beginRetry() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.retrying >= max(3, p.inFlight/5) {
		return false
	}
	p.retrying++
	return true
}

func (p *pool) endRetry() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.retrying--
}

// admit adds the instance. One that is in rotation already keeps its place, its requests and its counts, and goes on with
// the weight and the share that it has now; one that is draining, or that has moved, comes in anew beside what is left of it.
func (p *pool) admit(i topology.Instance) {
	i.Weight = max(i.Weight, 1)
	p.mu.Lock()
	defer p.mu.Unlock()
	defer p.noteSharesLocked()
	if up := p.findLocked(i.ID); up != nil {
		moved := up.Instance
		moved.Weight, moved.Share = i.Weight, i.Share
		if moved == i {
			if up.Instance != i {
				up.reweigh(i)
				up.Instance = i
			}
			return
		}
		p.retireLocked(up)
	}
	p.active = append(p.active, &upstream{
		Instance: i,
		conns:    p.connect(i.Address),
		balance:  newBalance(i),
	})
	p.admissions.Add(1)
	p.callLocked(holdBurst)
}

func (p *pool) noteSharesLocked() {
	p.shared = slices.ContainsFunc(p.active, func(up *upstream) bool { return up.share > 0 })
}

// findLocked returns the instance in rotation with that ID, or nil.
func (p *pool) findLocked(id string) *upstream {
	for _, up := range p.active {
		if up.ID == id {
			return up
		}
	}
	return nil
}

// retireLocked takes the instance out of rotation.
func (p *pool) retireLocked(up *upstream) {
	p.active = slices.DeleteFunc(p.active, func(u *upstream) bool { return u == up })
	p.noteSharesLocked()
	p.draining = append(p.draining, up)
	up.drained = make(chan struct{})
	if up.inFlight == 0 {
		p.removeLocked(up)
	}
}

// removeLocked forgets a retired instance whose last request has finished.
func (p *pool) removeLocked(up *upstream) {
	p.draining = slices.DeleteFunc(p.draining, func(u *upstream) bool { return u == up })
	for _, c := range up.conns {
		if c != nil {
			c.CloseIdleConnections()
		}
	}
	close(up.drained)
}

// drain takes the instance out of rotation and waits until its last request has finished. When ctx is done first,
// it ends the requests that remain and returns ctx's error.
func (p *pool) drain(ctx context.Context, id string) error {
	for _, up := range p.retire(id) {
		select {
		case <-up.drained:
			continue
		default:
		}
		select {
		case <-up.drained:
		case <-ctx.Done():
			p.abort(up)
			return ctx.Err()
		}
	}
	return nil
}

// retire takes the instance out of rotation and returns what of it still has requests: more than one if it was
// admitted again while it drained.
func (p *pool) retire(id string) []*upstream {
	p.mu.Lock()
	defer p.mu.Unlock()
	if up := p.findLocked(id); up != nil {
		p.retireLocked(up)
	}
	var left []*upstream
	for _, up := range p.draining {
		if up.ID == id {
			left = append(left, up)
		}
	}
	return left
}

// abort ends the requests that the instance still has.
func (p *pool) abort(up *upstream) {
	type attempt struct {
		owner  aborter
		number uint64
	}
	var left []attempt
	p.mu.Lock()
	for l := up.leases; l != nil; l = l.next {
		left = append(left, attempt{l.owner, l.attempt})
	}
	p.mu.Unlock()
	for _, a := range left {
		a.owner.abort(a.number, reasonDrained)
	}
}

// trafficOf returns what was seen of the requests to the instance, with those that still run on it where it drains.
func (p *pool) trafficOf(id string) topology.Traffic {
	p.mu.Lock()
	defer p.mu.Unlock()
	var sum topology.Traffic
	for _, list := range [...][]*upstream{p.active, p.draining} {
		for _, up := range list {
			if up.ID == id {
				up.traffic.addTo(&sum)
				sum.InFlight += up.inFlight
			}
		}
	}
	return sum
}

// instances returns those in rotation.
func (p *pool) instances() []topology.Instance {
	p.mu.Lock()
	defer p.mu.Unlock()
	var list []topology.Instance
	for _, up := range p.active {
		list = append(list, up.Instance)
	}
	return list
}

// status returns the instances, those in rotation first.
func (p *pool) status(now time.Time) PoolStatus {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := PoolStatus{Service: p.service, Held: p.line.held, Instances: []UpstreamStatus{}}
	for _, up := range p.active {
		state := "admitted"
		if len(p.active) > 1 && up.ejected(now) {
			state = "ejected"
		}
		s.Instances = append(s.Instances, up.status(state))
	}
	for _, up := range p.draining {
		s.Instances = append(s.Instances, up.status("draining"))
	}
	return s
}

func (u *upstream) status(state string) UpstreamStatus {
	return UpstreamStatus{
		ID: u.ID, Address: u.Address, State: state,
		InFlight: u.inFlight, Requests: u.requests, Failures: u.failures,
	}
}
