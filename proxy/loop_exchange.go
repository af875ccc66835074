//go:build linux

package proxy

import (
	"sync"
	"time"
	"unsafe"

	"mainstay/eventloop"
	"mainstay/proxy/http1"
)

// An at is how far an exchange is.
type at uint8

const (
	atHead    at = iota // the request's header is being read
	atHeld              // it waits for an instance
	atConnect           // a connection is being established
	atSend              // the request is being sent
	atAwait             // it is sent, the response's header is awaited
	atStream            // the response is being sent on
	atTunnel            // bytes go both ways
	atFlush             // all that is left is that the client takes what there is for it
)

// A loopExchange is one request and its response on an event loop. It belongs to its session, and is used again for
// others on the same loop: what may reach it late names the attempt that it means.
type loopExchange struct {
	lane    *lane
	session *session
	next    *loopExchange // in the lane's list of those that are free

	at       at
	incoming http1.Incoming
	raw      []byte // the request's header, of which texts of record and target are views
	head     []byte // of the request as every attempt sends it
	hostAt   int    // where the instance's address is to stand in it; 0: nowhere
	upload   upload
	taking   pace // of what is sent to the client, up to session.written

	outgoing http1.Outgoing
	reply    http1.Reply // what the client gets
	whole    bool        // the response has come to its end

	record record
	opened time.Duration // when the header had come, on the lane's clock
	target requestTarget
	table  *table
	route  *route
	id     []byte // of the request, unless the client has given it one

	delivery delivery
	link     *link         // nil: none
	began    time.Duration // when the attempt did
	heard    bool          // a byte of a response has come
	until    time.Duration // when waiting for an instance ends
	tunnels  tunnel

	limit   time.Duration // without progress, after which expired ends the exchange; 0: none
	expired reason
	touched time.Duration // when there was progress
	last    bool          // the client's connection ends with this exchange
	cut     bool          // so that the client must notice that something is missing

	note   eventloop.Note
	mu     sync.Mutex // guards what others on other goroutines have to say, which is:
	aborts []abortion
}

// An abortion says that an attempt is to be given up.
type abortion struct {
	attempt uint64
	why     reason
}

// keptHead is how large the memory for a header may be that an exchange keeps for the next.
const keptHead = 8 << 10

// init prepares a new one.
func (x *loopExchange) init() {
	x.note.Address(x)
	x.delivery.own(x.lane.engine.metrics, x)
}

// reset makes it fit for another request.
func (x *loopExchange) reset() {
	x.session, x.table, x.route, x.link = nil, nil, nil, nil
	x.at, x.limit, x.last, x.cut = atHead, 0, false, false
	x.record, x.target = record{}, requestTarget{}
	x.raw, x.head = kept(x.raw), kept(x.head)
	x.upload.reset()
	x.reply, x.whole, x.taking = http1.Reply{}, false, pace{}
	x.incoming.Reset()
}

func kept(b []byte) []byte {
	if cap(b) > keptHead {
		return nil
	}
	return b[:0]
}

// readHead goes on reading the request's header from what the session has. It returns false if the session has to wait:
// for more, or for the end of the exchange.
func (x *loopExchange) readHead() bool {
	s := x.session
	p := s.rest
	if len(x.raw) > 0 {
		x.raw = append(x.raw, p...)
		p = x.raw
	}
	n, err := x.incoming.Head(p, s.branch.headLimits())
	switch {
	case err != nil:
		x.raw = append(x.raw[:0], p...)
		s.rest = nil
		x.refuse(err)
		return false
	case n == 0:
		if len(x.raw) == 0 {
			x.raw = append(x.raw, p...)
		}
		s.rest = nil
		return true
	}
	s.rest = s.rest[len(s.rest)-(len(p)-n):]
	if len(x.raw) == 0 {
		x.raw = append(x.raw, p[:n]...)
	} else {
		x.raw = x.raw[:n]
	}
	s.enter(sessionBusy)
	x.open()
	x.dispatch()
	return s.state <= sessionHead
}

// text returns a view of the request's header.
func (x *loopExchange) text(s http1.Span) string { return s.View(x.raw) }

// value returns a view of the first line of a field, "" if there is none.
func (x *loopExchange) value(name http1.Name) string {
	f := &x.incoming.Request.Fields
	if i := f.Find(name); i >= 0 {
		return x.text(f.Lines[i].Value)
	}
	return ""
}

// touch says that there was progress.
func (x *loopExchange) touch() { x.touched = x.lane.clock() }

// enter begins a step that may take as long as limit without progress.
func (x *loopExchange) enter(a at, limit time.Duration, expired reason) {
	x.at, x.limit, x.expired = a, limit, expired
	x.touch()
	if limit > 0 {
		x.session.expect(after(x.touched, limit))
	}
}

// due returns when something will have taken too long; 0: never.
func (x *loopExchange) due() time.Duration {
	due := time.Duration(0)
	switch {
	case x.at == atHeld:
		due = x.until
	case x.limit > 0:
		due = after(x.touched, x.limit)
	}
	return sooner(due, x.upload.due(x.session.settings()))
}

// late ends what has taken too long.
func (x *loopExchange) late() {
	now := x.lane.clock()
	switch up := x.upload.due(x.session.settings()); {
	case up != 0 && up <= now && x.upload.state == uploadExpected:
		x.invite()
	case up != 0 && up <= now:
		x.upload.fail(reasonTimeoutBody)
		x.ended(reasonTimeoutBody)
	case x.at == atHeld:
		x.follow(x.delivery.expire(x.lane.now()))
	default:
		x.ended(x.expired)
	}
}

// ended gives up what is being done: the request is answered with why, or what was begun of the response is cut off.
func (x *loopExchange) ended(why reason) {
	switch {
	case x.at == atHead:
		x.answer(why, "")
	case x.at == atHeld:
		x.follow(x.delivery.leave(x.lane.now(), why))
	case x.at < atStream:
		x.failed(why)
	default:
		x.tear(why)
	}
}

// tear cuts off a response that has begun.
func (x *loopExchange) tear(why reason) {
	x.record.Reason, x.cut = why, true
	x.finish()
}

// abandoned says that the client has gone.
func (x *loopExchange) abandoned() { x.lost(reasonClientAbort) }

// lost ends an exchange whose client gets nothing more.
func (x *loopExchange) lost(why reason) {
	x.session.output.Drop()
	x.ended(why)
}

// fail ends the exchange after a bug.
func (x *loopExchange) fail() {
	x.record.Reason = reasonInternalFailure
	x.cut = true
	x.finish()
}

// sessionReady goes on when the client has sent something, or takes something.
func (x *loopExchange) sessionReady(events eventloop.Events) {
	s := x.session
	switch {
	case x.at == atTunnel:
		x.tunnel()
	case x.wantsContent():
		x.pull()
	case s.left(), x.at == atHeld && x.upload.unread() && s.socket.PeerClosed():
		x.abandoned()
	}
}

// took says that the client has taken something, which is progress.
func (x *loopExchange) took() {
	if x.at == atStream || x.at == atTunnel {
		x.touch()
	}
}

// drained goes on when the client has taken something.
func (x *loopExchange) drained() {
	out := &x.session.output
	switch x.at {
	case atFlush:
		if out.Size() == 0 {
			x.finish()
		}
	case atStream:
		if out.Drained() {
			x.push()
		}
	}
}

// finish ends the exchange: it is counted and logged, and the session goes on.
func (x *loopExchange) finish() {
	s := x.session
	x.release()
	x.record.BytesIn += x.upload.read
	x.record.Duration = (x.lane.clock() - x.opened).Seconds()
	e := x.lane.engine
	e.metrics.observe(x.route, &x.record)
	if log := e.access.Load(); log != nil {
		log.write(&x.record)
	}
	if x.upload.unread() {
		x.last = true
	}
	s.finished(x)
}

// view returns a string that shares b's memory.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
