//go:build linux

package proxy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"mainstay/eventloop"
	"mainstay/proxy/http1"
)

// A loopServer serves the requests of one listener on event loops. Its branches belong to their loops; what they share is
// what follows them here.
type loopServer struct {
	*listener
	engine   *loopEngine
	portText string    // that is bound
	branches []*branch // by lane

	connections atomic.Int64 // open ones, and those on their way to another server

	control  sync.Mutex          // guards the four that follow; no loop may wait for it
	acceptor *eventloop.Acceptor // nil: nothing was accepted yet
	serving  bool                // serve was called
	stopped  bool
	pausing  bool

	mu    sync.Mutex
	empty chan struct{} // nil, or closed when there are no connections
}

// listen implements engine.
func (e *loopEngine) listen(l *listener) server {
	s := &loopServer{listener: l, engine: e, portText: l.port()}
	for _, lane := range e.running() {
		s.branches = append(s.branches, &branch{server: s, lane: lane})
	}
	return s
}

// bound implements server.
func (s *loopServer) bound() *listener { return s.listener }

// connected implements server.
func (s *loopServer) connected() int { return int(s.connections.Load()) }

// serve implements server.
func (s *loopServer) serve() {
	s.control.Lock()
	defer s.control.Unlock()
	s.serving = true
	s.acceptLocked()
}

// acceptLocked accepts connections, unless that is to begin later or has come to its end.
func (s *loopServer) acceptLocked() {
	if !s.serving || s.stopped || s.pausing {
		return
	}
	if s.acceptor != nil {
		if err := s.acceptor.Resume(); err != nil {
			s.engine.log.Error("listener accepts nothing", "address", s.address, "error", err)
		}
		return
	}
	fd, err := s.descriptor()
	if err == nil {
		if s.acceptor, err = s.engine.group.Accept(fd, s); err != nil {
			unix.Close(fd)
		}
	}
	if err != nil {
		s.engine.log.Error("listener accepts nothing", "address", s.address, "error", err)
	}
}

// descriptor returns another descriptor of the listening socket.
func (s *loopServer) descriptor() (fd int, err error) {
	raw, err := s.Listener.(syscall.Conn).SyscallConn()
	if err != nil {
		return -1, err
	}
	if e := raw.Control(func(number uintptr) { fd, err = unix.FcntlInt(number, unix.F_DUPFD_CLOEXEC, 3) }); e != nil {
		return -1, e
	}
	return fd, os.NewSyscallError("fcntl", err)
}

// Welcome implements eventloop.Welcomer.
func (s *loopServer) Welcome(l *eventloop.Loop, fd int, peer netip.AddrPort) {
	if scarce(fd) && s.branch(l).makeRoom() == 0 {
		s.engine.metrics.turnedAway.Inc()
		unix.Close(fd)
		return
	}
	s.engine.metrics.connections.Inc()
	from := peer.Addr().Unmap().WithZone("")
	limit := s.settings.Load().limits.ConnectionsPerClient
	if limit > 0 && s.engine.table.Load().trusts(from) {
		limit = 0
	}
	if !s.engine.visitors.enter(from, limit) {
		s.engine.metrics.refused.Inc()
		unix.Close(fd)
		return
	}
	s.connections.Add(1)
	b := s.branch(l)
	if s.settings.Load().tls != nil { // and another server's listener from now on
		b.stray(parcel{fd: fd, peer: from, secure: true})
		return
	}
	b.welcome(fd, from, nil)
}

// Exhausted implements eventloop.Welcomer: it closes connections that ask for nothing.
func (s *loopServer) Exhausted(l *eventloop.Loop, err error) int {
	s.engine.log.Warn("connections closed for want of descriptors", "address", s.address, "error", err)
	return s.branch(l).makeRoom()
}

// branch returns what the server has on the loop.
func (s *loopServer) branch(l *eventloop.Loop) *branch {
	for _, b := range s.branches {
		if b.lane.loop == l {
			return b
		}
	}
	return nil
}

// each calls f for every branch on its loop and waits for it.
func (s *loopServer) each(f func(*branch)) {
	for _, b := range s.branches {
		b.lane.loop.Do(func() { f(b) })
	}
}

// take implements server.
func (s *loopServer) take(f *os.File, secure bool) error {
	if secure {
		return errors.New("the listener does not speak TLS any more")
	}
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	fd := -1
	if e := raw.Control(func(number uintptr) { fd, err = unix.FcntlInt(number, unix.F_DUPFD_CLOEXEC, 3) }); e != nil {
		return e
	}
	if err != nil {
		return os.NewSyscallError("fcntl", err)
	}
	peer, err := peerOf(fd)
	if err != nil {
		unix.Close(fd)
		return err
	}
	s.engine.metrics.connections.Inc()
	s.connections.Add(1)
	s.engine.visitors.enter(peer, 0)
	if !s.place(parcel{fd: fd, peer: peer}, nil) {
		unix.Close(fd)
		s.forget(peer)
		return errors.New("the listener is being closed")
	}
	return nil
}

// place gives a connection, with the TLS on it if secure is not nil, to the branch whose loop has the fewest. It returns false
// if the server is closing.
func (s *loopServer) place(c parcel, secure *sealing) (placed bool) {
	to := s.branches[0]
	for _, b := range s.branches {
		if b.lane.loop.Connections() < to.lane.loop.Connections() {
			to = b
		}
	}
	to.lane.loop.Do(func() {
		if placed = !to.closing; placed {
			to.welcome(c.fd, c.peer, secure)
		}
	})
	return placed
}

// peerOf returns the address of who is at the other end.
func peerOf(fd int) (netip.Addr, error) {
	address, err := unix.Getpeername(fd)
	if err != nil {
		return netip.Addr{}, os.NewSyscallError("getpeername", err)
	}
	switch a := address.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrFrom4(a.Addr), nil
	case *unix.SockaddrInet6:
		return netip.AddrFrom16(a.Addr).Unmap(), nil
	}
	return netip.Addr{}, fmt.Errorf("it is no TCP connection")
}

// forget takes note that a connection is not the server's any more.
func (s *loopServer) forget(peer netip.Addr) {
	s.engine.visitors.leave(peer)
	if s.connections.Add(-1) > 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.empty != nil && s.connections.Load() == 0 {
		close(s.empty)
		s.empty = nil
	}
}

// left returns a channel that is closed when there are no connections. None may come.
func (s *loopServer) left() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.empty == nil {
		s.empty = make(chan struct{})
	}
	empty := s.empty
	if s.connections.Load() == 0 {
		close(s.empty)
		s.empty = nil
	}
	return empty
}

// stop implements server.
func (s *loopServer) stop(ctx context.Context) {
	s.control.Lock()
	s.stopped = true
	acceptor := s.acceptor
	s.control.Unlock()
	if acceptor != nil {
		acceptor.Close()
	}
	s.Listener.Close()
	s.each((*branch).close)
	left := s.left()
	select {
	case <-left:
	case <-ctx.Done():
		s.each((*branch).cut)
		<-left
	}
}

// A branch is what a server has on one loop. It belongs to that loop.
type branch struct {
	server   *loopServer
	lane     *lane
	sessions *session
	closing  bool          // no request follows those that there are
	parcels  *parcels      // nil: connections stay
	gives    time.Duration // since when they do not, on the lane's clock
	strays   []parcel      // that are to leave as soon as they can

	settings *listenerSettings // that head was made for
	head     http1.Limits
}

func (b *branch) add(s *session) {
	if s.next = b.sessions; s.next != nil {
		s.next.previous = s
	}
	b.sessions = s
}

func (b *branch) remove(s *session) {
	if s.previous != nil {
		s.previous.next = s.next
	} else {
		b.sessions = s.next
	}
	if s.next != nil {
		s.next.previous = s.previous
	}
	s.previous, s.next = nil, nil
}

// settings returns how clients are served now.
func (s *session) settings() *listenerSettings { return s.branch.server.settings.Load() }

// headLimits returns how large a request's header may be.
func (b *branch) headLimits() *http1.Limits {
	if settings := b.server.settings.Load(); settings != b.settings {
		b.settings, b.head = settings, http1.DefaultLimits()
		if n := settings.limits.HeaderSize; n > 0 {
			b.head.Head, b.head.Target = n, n
		}
		if n := settings.limits.HeaderFields; n > 0 {
			b.head.Fields = n
		}
	}
	return &b.head
}

// ends reports whether the connection ends with the response that it gets next: the server stops, or its connections are given
// away, which one of TLS cannot be.
func (s *session) ends() bool { return s.branch.closing || s.secure != nil && s.branch.parcels != nil }

// shed closes at most so many sessions that ask for nothing and returns how many it was.
func (b *branch) shed(most int) (closed int) {
	for s := b.sessions; s != nil && closed < most; {
		next := s.next
		if s.idle() {
			s.close()
			closed++
		}
		s = next
	}
	return closed
}

// makeRoom closes some of the sessions on which no request is under way, and returns how many: first those that have asked for
// nothing for longest, then those that have sent part of a header only.
func (b *branch) makeRoom() int {
	var sessions []*session
	for s := b.sessions; s != nil; s = s.next {
		if s.idle() || s.state == sessionHead {
			sessions = append(sessions, s)
		}
	}
	slices.SortFunc(sessions, func(a, b *session) int {
		return cmp.Or(cmp.Compare(a.state, b.state), cmp.Compare(a.since, b.since))
	})
	some := sessions[:(len(sessions)+7)/8] // so that looking at all of them is seldom done
	for _, s := range some {
		s.close()
	}
	b.server.engine.metrics.evicted.Add(float64(len(some)))
	return len(some)
}

// close ends sessions that ask for nothing. The others end with their response.
func (b *branch) close() {
	b.closing = true
	for _, c := range b.strays {
		unix.Close(c.fd)
		b.server.forget(c.peer)
	}
	b.strays = nil
	b.shed(int(b.server.connections.Load()))
}

// cut ends all sessions and what runs on them.
func (b *branch) cut() {
	b.closing = true
	for s := b.sessions; s != nil; {
		next := s.next
		if s.state == sessionBusy {
			s.x.ended(reasonShutdown)
		}
		s.close()
		s = next
	}
}
