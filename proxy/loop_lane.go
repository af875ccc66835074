//go:build linux

package proxy

import (
	"time"

	"mainstay/eventloop"
	"mainstay/proxy/http1"
)

// laneBuffer is how much is read at once.
const laneBuffer = 64 << 10

// spareExchanges is how many exchanges a lane keeps for later.
const spareExchanges = 1024

// A lane is what one loop has of the engine. All of it belongs to the loop's goroutine.
type lane struct {
	engine *loopEngine
	number int // among the engine's lanes
	loop   *eventloop.Loop

	// These are room for one turn: what is to stay longer is copied.
	in    []byte // read from a client
	reply []byte // read from an instance
	out   []byte // composed to be written
	// sealed is what crypto/tls has written and no output has yet. It is empty but within sealing's methods.
	sealed []byte

	splice eventloop.Splice // holds nothing between two calls

	free  *loopExchange
	spare int   // in free
	links *link // all that are open

	ids        idSource
	forwarding forwarding // of the request whose header is being composed

	date   []byte // the Date field's value
	dateAt int64  // the second that it tells
}

func newLane(e *loopEngine, number int, loop *eventloop.Loop) *lane {
	return &lane{
		engine: e, number: number, loop: loop, ids: newIDSource(),
		in: make([]byte, laneBuffer), reply: make([]byte, laneBuffer), out: make([]byte, 0, laneBuffer+4<<10),
	}
}

// now returns the time as of this turn.
func (l *lane) now() time.Time { return l.loop.Now() }

// clock returns the time as of this turn since the loop was started.
func (l *lane) clock() time.Duration { return time.Duration(l.loop.Elapsed()) }

// exchange returns one that is free for a request of s.
func (l *lane) exchange(s *session) *loopExchange {
	x := l.free
	if x == nil {
		x = &loopExchange{lane: l}
		x.init()
	} else {
		l.free, x.next = x.next, nil
		l.spare--
	}
	x.session = s
	return x
}

// release takes an exchange back that has ended.
func (l *lane) release(x *loopExchange) {
	x.reset()
	if l.spare < spareExchanges {
		x.next, l.free = l.free, x
		l.spare++
	}
}

// appendDate appends the value of a Date field (RFC 9110, section 6.6.1).
func (l *lane) appendDate(b []byte) []byte {
	if now := l.now(); l.dateAt != now.Unix() {
		l.dateAt = now.Unix()
		l.date = http1.AppendDate(l.date[:0], now)
	}
	return append(b, l.date...)
}

// empty drops what a call that was not finished has left.
func (l *lane) empty() {
	l.sealed = l.sealed[:0]
	l.splice.Drop()
	l.forwarding.reset()
}

// close closes the links, which are idle: no server is left.
func (l *lane) close() {
	for l.links != nil {
		l.links.close()
	}
}
