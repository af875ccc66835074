//go:build linux

package proxy

import (
	"mainstay/eventloop"
	"mainstay/proxy/http1"
)

// forward brings the request to an instance of its route's service.
func (x *loopExchange) forward() {
	size := int64(0)
	if x.route.hold.For > 0 {
		size = int64(len(x.raw))
	}
	x.follow(x.delivery.begin(x.lane.now(), x.route, &x.record, size))
}

// follow does what the delivery says.
func (x *loopExchange) follow(m move) {
	switch m {
	case moveTry:
		x.began, x.heard = x.lane.clock(), false
		x.connect()
	case moveWait:
		x.enter(atHeld, 0, reasonNone)
		x.until = x.lane.clock() + x.delivery.waiter.expires().Sub(x.lane.now())
		x.session.expect(x.until)
	case moveDefeat:
		if fixed := x.delivery.fixed(); fixed != nil {
			x.answerFixed(x.delivery.why, fixed)
		} else {
			x.answer(x.delivery.why, "")
		}
	}
}

// called implements called: the line has moved. It is called on any goroutine.
func (x *loopExchange) called() { x.lane.loop.Post(&x.note) }

// abort implements aborter. It is called on any goroutine.
func (x *loopExchange) abort(attempt uint64, why reason) {
	x.mu.Lock()
	x.aborts = append(x.aborts, abortion{attempt, why})
	x.mu.Unlock()
	x.lane.loop.Post(&x.note)
}

// Receive implements eventloop.Receiver: an attempt was aborted, or the line has moved. It may be late, when the exchange is another
// one, or none.
func (x *loopExchange) Receive(*eventloop.Note) {
	x.mu.Lock()
	aborts := x.aborts
	x.aborts = nil
	x.mu.Unlock()
	for _, a := range aborts {
		if x.session != nil && x.delivery.trying && x.delivery.number == a.attempt {
			x.ended(a.why)
		}
	}
	if x.session != nil && x.at == atHeld {
		if m := x.delivery.resume(x.lane.now()); m != moveWait {
			x.follow(m)
		}
	}
}

// connect takes or makes a connection to the instance.
func (x *loopExchange) connect() {
	shelf := &x.delivery.lease.up.conns[engineLoop].(*origin).shelves[x.lane.number]
	for {
		if x.link = shelf.take(x); x.link == nil {
			break
		}
		if x.fits(x.link) {
			x.connected()
			return
		}
		x.link.close()
	}
	l, err := shelf.dial(x)
	if err != nil {
		x.failedBy(failure{reason: reasonConnectFailure, blameless: outOfDescriptors(err)})
		return
	}
	x.link = l
	x.enter(atConnect, x.route.Timeouts.Connect, reasonConnectTimeout)
}

// fits reports whether an idle connection may carry the request. What must not be sent twice is not sent on one
// that the instance has closed just now.
func (x *loopExchange) fits(l *link) bool { return x.repeatable() || !l.gone() }

// repeatable reports whether the request may be sent twice.
func (x *loopExchange) repeatable() bool {
	return idempotent(x.record.Method, x.incoming.Request.Fields.Has(http1.NameIdempotencyKey))
}

// connected goes on when there is a connection to the instance.
func (x *loopExchange) connected() {
	x.delivery.waiter.reached()
	x.link.written = 0
	x.outgoing.Begin(x.incoming.Request.Method, x.incoming.Request.WebSocket)
	x.begin()
}

// severed says that the connection to the instance has broken. One that was idle may have been closed by the instance at the same
// moment: then the request goes on another one, as if this had not been there.
func (x *loopExchange) severed() {
	if x.at >= atStream {
		x.tear(reasonIncomplete)
		return
	}
	l := x.link
	if l.reused && !x.heard && x.upload.state != uploadFailed && !x.upload.spent && (l.flushed() == 0 || x.repeatable()) {
		l.close()
		x.link = nil
		x.connect()
		return
	}
	x.failed(reasonReset)
}

// failed ends an attempt that got no response, and does what follows from that.
func (x *loopExchange) failed(why reason) { x.failedBy(failure{reason: why}) }

// failedBy is failed, where more is known of the failure than its reason.
func (x *loopExchange) failedBy(f failure) {
	f.idempotent, f.replayable = x.repeatable(), !x.upload.spent
	if l := x.link; l != nil {
		f.sent = l.state == linkBusy && l.flushed() > 0
		if f.reason == reasonReset && x.heard {
			f.reason = reasonBadResponse
		}
		x.link = nil
		l.close()
	}
	if x.upload.state == uploadFailed {
		f.reason = x.upload.fault
	}
	x.record.Upstream += (x.lane.clock() - x.began).Seconds()
	x.listen(false)
	x.at, x.limit = atHead, 0
	x.follow(x.delivery.failed(x.lane.now(), f))
}

// release gives the link and the attempt back once the response has ended.
func (x *loopExchange) release() {
	if l := x.link; l != nil {
		x.link = nil
		if x.whole && !x.cut && x.outgoing.Reusable(len(l.kept)) {
			l.put()
		} else {
			l.close()
		}
	}
	if x.delivery.trying {
		x.delivery.delivered(x.lane.now(), x.record.Reason == reasonIncomplete)
	}
	x.delivery.end(x.lane.now())
}
