package proxy

import (
	"time"

	"mainstay/topology"
)

// A delivery brings one request to an instance of its route's service: it says which is to be tried, whether there is another
// attempt, and when to wait, and gives back what it has taken. Where no instance can take the request the fallback has its turn, and
// that only once: its own fallback has none. It is not waited for either, as the client has waited already.
//
// It does no I/O and never blocks. Who owns it does what a move says and reports how that went, in one goroutine or one after
// the other. It is a part of what works on the request and can be used again after end.
type delivery struct {
	metrics *metrics // never changes
	lease   lease    // of the last attempt
	waiter  waiter   // of the pool whose turn it is

	route  *route
	record *record
	pool   *pool
	tried  []*upstream
	room   [4]*upstream // that tried has at first
	// number is the last attempt's. It goes on when the delivery is used again, so that a late abort is known as such.
	number  uint64
	counted int  // attempts that the policy counts: since the last wait, and those that may have been worked on
	sent    int  // of those, the latter
	trying  bool // an attempt is under way
	waiting bool // it stands in the line
	// budgeted says that the request holds one of its pool's retries.
	budgeted bool
	joined   time.Time // when the wait under way began
	why      reason    // the last attempt failed, or no instance answered
	// stranded says that no instance has the request: there is none, or none that takes connections.
	stranded bool
}

// A move is what is to be done with a request next.
type move int

const (
	// moveTry: send it to the instance that the lease has; then call failed, or answered and delivered.
	moveTry move = iota
	// moveWait: wait until the waiter's owner is called, then call resume. When the waiter's time is up call expire, and when
	// the client is gone, leave.
	moveWait
	// moveDefeat: no instance has answered, and why says why. If fixed returns a response, that is to be sent.
	moveDefeat
)

// own prepares the delivery for its owner, once.
func (d *delivery) own(m *metrics, owner interface {
	aborter
	called
}) {
	d.metrics, d.lease.owner, d.waiter.owner = m, owner, owner
}

// begin takes on a request of the route, of which bytes are kept in memory while it waits. What becomes of it is written into r.
func (d *delivery) begin(now time.Time, to *route, r *record, bytes int64) move {
	d.route, d.record = to, r
	return d.start(now, to.pool, to.hold, bytes)
}

func (d *delivery) start(now time.Time, p *pool, hold topology.Hold, bytes int64) move {
	d.pool, d.tried, d.counted, d.sent = p, d.room[:0], 0, 0
	d.why, d.stranded = reasonNoInstance, false
	d.waiter.begin(p, hold, bytes)
	return d.next(now)
}

// next tries an instance or, if there is none or others come first, waits for one.
func (d *delivery) next(now time.Time) move {
	if !d.waiter.mayTry() || !d.pool.acquire(now, &d.lease, d.number+1, d.tried) {
		return d.line(now)
	}
	d.number++
	d.trying = true
	d.tried = append(d.tried, d.lease.up)
	d.record.Instance = d.lease.up.ID
	d.record.Attempts++
	return moveTry
}

// line waits for an instance, unless one has come just now.
func (d *delivery) line(now time.Time) move {
	switch outcome := d.waiter.join(now); outcome {
	case waitStanding:
		d.waiting, d.joined = true, now
		return moveWait
	case waitCalled:
		return d.renew(now)
	default:
		return d.strand(now, outcome)
	}
}

// renew tries again as if there had been no attempt yet that the instance cannot have worked on.
func (d *delivery) renew(now time.Time) move {
	d.tried, d.counted = d.tried[:0], d.sent
	return d.next(now)
}

// answered says that the header of the instance's response has come.
func (d *delivery) answered(now time.Time, status int) { d.lease.answered(now, status) }

// delivered says that the response has been sent on, or as much of it as there was: torn says that the instance did not
// send it to its end.
func (d *delivery) delivered(now time.Time, torn bool) {
	d.lease.torn = torn
	d.release(now, verdictOK)
	d.countHeld("served")
}

func (d *delivery) release(now time.Time, v verdict) {
	d.trying = false
	d.lease.release(now, v)
}

// failed says that the attempt ended before the header of a response had come.
func (d *delivery) failed(now time.Time, f failure) move {
	d.release(now, f.verdict())
	d.why = f.reason
	d.counted++
	if f.sent {
		d.sent++
	}
	again, later := d.mayRetry(f)
	if again {
		return d.next(now)
	}
	if !f.stranded() && !(later && d.waiter.hold.For > 0) { // who waits for its turn multiplies nothing
		d.countHeld("served")
		return d.defeat()
	}
	return d.line(now)
}

// mayRetry asks the policy, and where the instance may have worked on the request the budget, for another attempt. later says
// that only the budget forbids it now.
func (d *delivery) mayRetry(f failure) (again, later bool) {
	on, ok := mayRetry(d.route.Retries, d.counted, f)
	if !ok {
		return false, false
	}
	// An instance that was stopped gets no more requests: these cannot multiply.
	if f.sent && f.reason != reasonDrained && !d.budgeted {
		d.budgeted = d.route.pool.beginRetry()
		if !d.budgeted {
			return false, true
		}
	}
	d.metrics.retries.WithLabelValues(d.route.Service, string(on)).Inc()
	return true, false
}

// resume goes on after the waiter was called. It returns moveWait if it was not.
func (d *delivery) resume(now time.Time) move {
	switch d.waiter.answer() {
	case waitStanding:
		return moveWait
	case waitDropped:
		d.waited(now)
		return d.strand(now, waitDropped)
	default:
		d.waited(now)
		return d.renew(now)
	}
}

// expire ends a wait that has lasted long enough.
func (d *delivery) expire(now time.Time) move {
	d.waiter.quit()
	d.waited(now)
	return d.strand(now, waitExpired)
}

// leave ends a wait because the client has gone or the request was ended, as why says.
func (d *delivery) leave(now time.Time, why reason) move {
	d.waiter.quit()
	d.waited(now)
	d.countHeld("left")
	d.why = why
	return d.defeat()
}

func (d *delivery) waited(now time.Time) {
	d.waiting = false
	d.record.Held += now.Sub(d.joined).Seconds()
}

// strand gives the request to the fallback if there is one.
func (d *delivery) strand(now time.Time, outcome wait) move {
	switch outcome {
	case waitDropped:
		d.countHeld("dismissed")
	case waitExpired:
		d.countHeld("expired")
		d.why = reasonHoldExpired
	case waitFull:
		d.metrics.held.WithLabelValues(d.route.Service, "full").Inc()
		d.why = reasonHoldFull
	}
	if d.route.fallback != nil && d.record.Fallback == "" {
		d.waiter.leave()
		d.record.Fallback = d.route.fallback.service
		d.metrics.fallbacks.WithLabelValues(d.route.Service, d.record.Fallback).Inc()
		return d.start(now, d.route.fallback, topology.Hold{}, 0)
	}
	d.stranded = true
	return d.defeat()
}

func (d *delivery) defeat() move {
	d.waiter.leave()
	return moveDefeat
}

// fixed returns the response that the file has for when no instance can take a request, or nil.
func (d *delivery) fixed() *topology.Response {
	if d.stranded {
		return d.route.response
	}
	return nil
}

// countHeld counts how being held ended, if the request was.
func (d *delivery) countHeld(outcome string) {
	if d.waiter.number != 0 {
		d.metrics.held.WithLabelValues(d.route.Service, outcome).Inc()
	}
}

// end gives back what the request still has. It may be called at any time, and more than once.
func (d *delivery) end(now time.Time) {
	if d.trying {
		d.release(now, verdictNone)
	}
	if d.waiting {
		d.waiting = false
		d.waiter.quit()
	}
	d.waiter.leave()
	if d.budgeted {
		d.budgeted = false
		d.route.pool.endRetry()
	}
	clear(d.room[:]) // so that what is used again keeps no instance
	d.tried = nil
}
