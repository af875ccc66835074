package proxy

import "time"

// forward brings the request to an instance of its route's service.
func (x *exchange) forward() {
	kept := int64(0)
	if x.route.hold.For > 0 {
		x.calls, kept = make(chan struct{}, 1), x.size()
	}
	x.delivery.own(x.metrics, x)
	for s := x.delivery.begin(time.Now(), x.route, &x.record, kept); ; {
		switch s {
		case moveTry:
			f := x.attempt()
			if f == nil {
				return
			}
			s = x.delivery.failed(time.Now(), *f)
		case moveWait:
			s = x.await()
		case moveDefeat:
			if fixed := x.delivery.fixed(); fixed != nil {
				x.watch.stop()
				x.record.Reason = x.delivery.why
				x.send(substitute(x.delivery.why, fixed, x.record.ID))
			} else {
				x.answer(x.delivery.why, "")
			}
			return
		}
	}
}

// attempt sends the request to the instance that the delivery has chosen, and the response to the client.
func (x *exchange) attempt() *failure {
	d := &x.delivery
	x.fate.begin()
	x.watch.begin(d.number, x.fate.giveUp)
	began := time.Now()
	head, f := x.roundTrip()
	now := time.Now()
	x.record.Upstream += now.Sub(began).Seconds()
	if f != nil {
		x.watch.enter(d.number, stageGivenUp, 0, reasonNone)
		return f
	}
	d.answered(now, x.conn.outgoing.Response.Status)
	x.respond(head)
	d.delivered(time.Now(), x.record.Reason == reasonIncomplete)
	return nil
}

// abort implements aborter.
func (x *exchange) abort(attempt uint64, why reason) { x.watch.abort(attempt, why) }

// called implements called.
func (x *exchange) called() {
	select {
	case x.calls <- struct{}{}:
	default: // there is a call that it has not seen yet
	}
}

// await waits in the line of the pool.
func (x *exchange) await() move {
	d := &x.delivery
	expired := time.NewTimer(time.Until(d.waiter.expires()))
	defer expired.Stop()
	var look <-chan time.Time
	if x.contentLeft() { // net/http notices that a client leaves only when it has read all
		ticker := time.NewTicker(time.Second)
		defer ticker.Stop()
		look = ticker.C
	}
	for {
		select {
		case <-x.calls:
			if s := d.resume(time.Now()); s != moveWait {
				return s
			}
		case <-expired.C:
			return d.expire(time.Now())
		case <-x.r.Context().Done():
			return d.leave(time.Now(), x.ended(reasonClientAbort))
		case <-look:
			if hasLeft(x.r.Context()) {
				return d.leave(time.Now(), x.ended(reasonClientAbort))
			}
		}
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
