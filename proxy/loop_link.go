//go:build linux

package proxy

import (
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"mainstay/eventloop"
)

// An origin is the connections that the loops keep to one instance.
type origin struct {
	engine  *loopEngine
	name    string // to be looked up; empty: the address is a numeric one
	retired atomic.Bool
	shelves []shelf // by lane
}

// A shelf is the idle connections that one lane keeps to an instance. All but the note belongs to the lane.
type shelf struct {
	note    eventloop.Note
	origin  *origin
	address unix.Sockaddr // package unix writes into it
	newest  *link
	count   int
}

// connect implements engine.
func (e *loopEngine) connect(address string) conns {
	o := &origin{engine: e, shelves: make([]shelf, e.size)}
	for i := range o.shelves {
		s := &o.shelves[i]
		s.origin = o
		s.note.Address(s)
		var err error
		if s.address, err = parseSockaddr(address); err != nil {
			o.name = address
		}
	}
	return o
}

// parseSockaddr reads a numeric address with a port.
func parseSockaddr(address string) (unix.Sockaddr, error) {
	a, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, err
	}
	if ip := a.Addr().Unmap(); ip.Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: ip.As4()}, nil
	}
	to := &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
	if zone := a.Addr().Zone(); zone != "" {
		i, err := net.InterfaceByName(zone)
		if err != nil {
			return nil, err
		}
		to.ZoneId = uint32(i.Index)
	}
	return to, nil
}

// CloseIdleConnections implements conns. None is kept from then on.
func (o *origin) CloseIdleConnections() {
	o.retired.Store(true)
	for i, l := range o.engine.running() {
		l.loop.Post(&o.shelves[i].note)
	}
}

// Receive implements eventloop.Receiver: the instance is gone.
func (s *shelf) Receive(*eventloop.Note) {
	for s.newest != nil {
		s.newest.close()
	}
}

// A linkState is what a link is for at the moment.
type linkState uint8

const (
	linkConnecting linkState = iota
	linkBusy                 // an exchange has it
	linkIdle
	linkClosed
)

// A link is a connection to an instance.
type link struct {
	socket eventloop.Socket
	timer  eventloop.Timer
	output eventloop.Output
	lane   *lane
	shelf  *shelf

	dialling *dialling // while its name is looked up, and is being connected to

	state  linkState
	reused bool          // it has carried an exchange before
	mute   bool          // nothing can be written any more; there may still be something to read
	since  time.Duration // when it became idle

	x       *loopExchange // that has it
	written int           // bytes that were given to it for this attempt
	kept    []byte        // read and not understood yet: the rest of it is to come

	previous, next *link // in the lane's list
	older, newer   *link // on the shelf
}

// take returns the idle link that was used last, nil if there is none.
func (s *shelf) take(x *loopExchange) *link {
	l := s.newest
	if l == nil {
		return nil
	}
	s.remove(l)
	l.state, l.x, l.reused = linkBusy, x, true
	return l
}

// dial returns a link that is being connected. Its exchange hears of the outcome.
func (s *shelf) dial(x *loopExchange) (*link, error) {
	lane := x.lane
	l := &link{lane: lane, shelf: s, state: linkConnecting, x: x}
	if s.origin.name != "" {
		s.dialName(l)
	} else if err := lane.loop.Connect(&l.socket, s.address, l); err != nil {
		return nil, fmt.Errorf("connect to instance: %w", err)
	}
	if l.next = lane.links; l.next != nil {
		l.next.previous = l
	}
	lane.links = l
	return l, nil
}

// write sends p to the instance, now or when it takes it.
func (l *link) write(p []byte) error {
	l.written += len(p)
	if err := l.output.Write(&l.socket, p); err != nil {
		l.mute = true
		return err
	}
	return nil
}

// flushed returns how much of what was written may have reached the instance.
func (l *link) flushed() int { return l.written - l.output.Size() }

// gone reports whether the instance has closed an idle link, or sent what nobody asked for.
func (l *link) gone() bool {
	var one [1]byte
	_, _, err := unix.Recvfrom(l.socket.FD(), one[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
	return err != unix.EAGAIN
}

// put keeps the link for another exchange.
func (l *link) put() {
	s := l.shelf
	l.x, l.kept = nil, nil
	full := s.count >= max(upstreamIdleLimit/s.origin.engine.size, 1)
	ended := l.socket.PeerClosed() || l.socket.Failed()
	// Where a read ended just with the response, there may be more, of which no event will tell.
	if s.origin.retired.Load() || full || ended || l.socket.Readable() && l.gone() {
		l.close()
		return
	}
	l.state, l.since = linkIdle, l.lane.clock()
	if l.older = s.newest; l.older != nil {
		l.older.newer = l
	}
	s.newest = l
	s.count++
	if !l.timer.IsSet() {
		l.lane.loop.SetTimer(&l.timer, upstreamIdleTimeout, l)
	}
}

func (s *shelf) remove(l *link) {
	if l.newer != nil {
		l.newer.older = l.older
	} else {
		s.newest = l.older
	}
	if l.older != nil {
		l.older.newer = l.newer
	}
	l.older, l.newer = nil, nil
	s.count--
}

// close closes the connection. The exchange that has it has given it up.
func (l *link) close() {
	if l.state == linkClosed {
		return
	}
	if l.state == linkIdle {
		l.shelf.remove(l)
	}
	l.state, l.x, l.kept = linkClosed, nil, nil
	l.lane.loop.StopTimer(&l.timer)
	if l.dialling != nil {
		l.dialling.cancel()
		l.dialling = nil
	}
	l.output.Drop()
	l.socket.Close()
	if l.previous != nil {
		l.previous.next = l.next
	} else {
		l.lane.links = l.next
	}
	if l.next != nil {
		l.next.previous = l.previous
	}
	l.previous, l.next = nil, nil
}

// Ready implements eventloop.Handler.
func (l *link) Ready(events eventloop.Events) {
	switch l.state {
	case linkConnecting:
		switch {
		case events&eventloop.Failed != 0:
			l.x.failed(reasonConnectFailure)
		case events&eventloop.Connected != 0:
			l.state = linkBusy
			l.x.connected()
			if l.state == linkBusy && l.socket.Readable() { // it has spoken already, of which nothing else tells
				l.lane.loop.Again(&l.socket)
			}
		}
	case linkBusy:
		l.x.linkReady(events)
	case linkIdle:
		// Whatever comes is no response to a request.
		if events&(eventloop.Readable|eventloop.PeerClosed|eventloop.Failed) != 0 {
			l.close()
		}
	case linkClosed:
	}
}

// Expire implements eventloop.Expirer: the link may have been idle for too long.
func (l *link) Expire(*eventloop.Timer) {
	if l.state != linkIdle {
		return
	}
	if due := l.since + upstreamIdleTimeout; due > l.lane.clock() {
		l.lane.loop.SetTimer(&l.timer, due-l.lane.clock(), l)
		return
	}
	l.close()
}
