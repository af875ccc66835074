package proxy

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"mainstay/topology"
)

// forward brings the request to an instance of its route's service. Where there is none the fallback has its turn, and that
// only once: its own fallback has none. It is not waited for either, as the client has waited already.
func (x *exchange) forward() {
	f := x.deliver(x.route.pool, x.route.hold)
	if f == nil {
		return
	}
	if f.stranded && x.route.fallback != nil {
		x.record.Fallback = x.route.fallback.service
		x.metrics.fallbacks.WithLabelValues(x.route.Service, x.record.Fallback).Inc()
		if f = x.deliver(x.route.fallback, topology.Hold{}); f == nil {
			return
		}
	}
	if f.stranded && x.route.response != nil {
		x.respondFixed(f.reason, x.route.response)
		return
	}
	x.answer(f.reason, "")
}

// A defeat is why no instance answered.
type defeat struct {
	reason reason
	// stranded says that no instance has the request: there is none, or none that takes connections.
	stranded bool
}

// deliver sends the request to an instance of the pool, and to another while the policy grants it. While there is none, it
// waits for one as long as hold allows. It returns nil if one answered.
func (x *exchange) deliver(p *pool, hold topology.Hold) *defeat {
	x.waiter = p.newWaiter(hold, x.size())
	defer x.waiter.leave()
	why := reasonNoInstance
	var tried []*upstream
	counted := 0 // attempts that the policy counts: since the last wait, and those that may have been worked on
	sent := 0    // of those, the latter
	for {
		if l := x.acquire(p, tried); l != nil {
			tried = append(tried, l.up)
			f := x.attempt(l)
			if f == nil {
				x.countHeld("served")
				return nil
			}
			why = f.reason
			counted++
			if f.sent {
				sent++
			}
			now, later := x.mayRetry(f, counted)
			if now {
				continue
			}
			if !f.stranded() && !(later && hold.For > 0) { // who waits for its turn multiplies nothing
				x.countHeld("served")
				return &defeat{reason: why}
			}
		}
		switch x.await() {
		case waitCalled:
			tried, counted = nil, sent
			continue
		case waitLeft:
			x.countHeld("left")
			return &defeat{reason: x.ended(reasonClientAbort)}
		case waitDropped:
			x.countHeld("dismissed")
		case waitExpired:
			x.countHeld("expired")
			why = reasonHoldExpired
		case waitFull:
			x.metrics.held.WithLabelValues(x.route.Service, "full").Inc()
			why = reasonHoldFull
		case waitNone: // why stays
		}
		return &defeat{why, true}
	}
}

// A try is one attempt.
type try struct {
	lease
	number int
	ctx    context.Context // ends with the request, or earlier with the reason why the attempt was given up
	giveUp context.CancelCauseFunc
}

// acquire returns an instance to try, or nil if there is none or others came first.
func (x *exchange) acquire(p *pool, tried []*upstream) *try {
	if !x.waiter.mayTry() {
		return nil
	}
	t := &try{number: x.record.Attempts + 1}
	t.ctx, t.giveUp = context.WithCancelCause(x.ctx)
	x.watch.begin(t.number, t.giveUp)
	t.owner = x
	if !p.acquire(time.Now(), &t.lease, uint64(t.number), tried) {
		t.giveUp(nil)
		return nil
	}
	x.record.Instance, x.record.Attempts = t.up.ID, t.number
	return t
}

// abort implements aborter.
func (x *exchange) abort(attempt uint64, why reason) { x.watch.abort(int(attempt), why) }

// await waits in the line of the pool.
func (x *exchange) await() wait {
	began := time.Now()
	var gone func() bool
	if x.contentLeft() { // net/http notices that a client leaves only when it has read all
		gone = func() bool { return hasLeft(x.r.Context()) }
	}
	w := x.waiter.wait(x.ctx, gone)
	if x.waiter.number != 0 {
		x.record.Held += time.Since(began).Seconds()
	}
	return w
}

// countHeld counts how being held ended, if the request was.
func (x *exchange) countHeld(outcome string) {
	if x.waiter.number != 0 {
		x.metrics.held.WithLabelValues(x.route.Service, outcome).Inc()
	}
}

// size returns the memory that the request's target, fields and kept content take up.
func (x *exchange) size() int64 {
	n := len(x.r.Method) + len(x.r.RequestURI) + len(x.r.Host)
	for name, values := range x.r.Header {
		for _, value := range values {
			n += len(name) + len(value)
		}
	}
	if x.body != nil {
		n += int(min(x.body.read.Load(), replayLimit))
	}
	return int64(n)
}

// respondFixed ends the request with the response that the file has for when there is no instance.
func (x *exchange) respondFixed(why reason, fixed *topology.Response) {
	x.watch.stop()
	x.record.Reason, x.record.Status = why, fixed.Status
	h := x.w.Header()
	if fixed.ContentType != "" {
		h.Set("Content-Type", fixed.ContentType)
	}
	if fixed.Status != http.StatusNoContent && fixed.Status != http.StatusNotModified {
		h.Set("Content-Length", fmt.Sprint(len(fixed.Body)))
	}
	a := why.answer()
	x.introduce(a.fault, a.text)
	if fixed.Status == http.StatusServiceUnavailable {
		h.Set("Retry-After", "1")
	}
	x.writeHeader(fixed.Status)
	x.write(fixed.Body)
}
