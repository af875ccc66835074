package bus

import (
	"context"
	"errors"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"mainstay/sockets"
)

// A listener accepts connections at one endpoint for whichever side it serves. That may change while it
// runs: a relay that takes over another's endpoint takes over its socket.
type listener struct {
	endpoint string // as asked for
	address  string // of it, host:port
	sockets  *sockets.Set
	bound    net.Addr // as bound
	tcp      *net.TCPListener
	side     atomic.Pointer[side]
	closed   chan struct{}
	done     sync.WaitGroup // of the accepting goroutine
}

// listen binds endpoint. Nothing is accepted before serve.
func listen(ctx context.Context, set *sockets.Set, endpoint string) (*listener, error) {
	address, err := hostPort(endpoint)
	if err != nil {
		return nil, err
	}
	l := &listener{endpoint: endpoint, address: address, sockets: set, closed: make(chan struct{})}
	if err := l.bind(ctx, address); err != nil {
		return nil, err
	}
	return l, nil
}

// bind binds the listener to address.
func (l *listener) bind(ctx context.Context, address string) error {
	bound, err := l.sockets.Listen("tcp", l.address, func() (net.Listener, error) {
		return new(net.ListenConfig).Listen(ctx, "tcp", address)
	})
	if err != nil {
		return err
	}
	l.tcp, l.bound = bound.(*net.TCPListener), bound.Addr()
	return nil
}

// serve gives connections to s from now on.
func (l *listener) serve(s *side) {
	if l.side.Swap(s) == nil {
		l.done.Go(l.accept)
	}
}

func (l *listener) accept() {
	const shortest, longest = 5 * time.Millisecond, time.Second
	pause := shortest
	for {
		conn, err := l.tcp.AcceptTCP()
		switch {
		case err == nil:
			pause = shortest
			// It fails on a connection that has ended, which reading it tells too.
			_ = conn.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: 30 * time.Second, Interval: 10 * time.Second, Count: 3})
			l.side.Load().admit(conn)
			continue
		case errors.Is(err, net.ErrClosed):
			return
		}
		// Out of descriptors, most likely: wait, as the next try would fail as well.
		s := l.side.Load()
		s.relay.complaints.warn(s.log, string(s.role)+"accept", "accept failed", err)
		select {
		case <-time.After(pause):
			pause = min(2*pause, longest)
		case <-l.closed:
			return
		}
	}
}

// close releases the endpoint, unless that was done before; connections already accepted are not touched.
func (l *listener) close() {
	if l.isClosed() {
		return
	}
	close(l.closed)
	l.tcp.Close()
	l.done.Wait()
}

func (l *listener) isClosed() bool {
	select {
	case <-l.closed:
		return true
	default:
		return false
	}
}

// reopen binds the endpoint of a closed listener again and accepts for the same side as before.
func (l *listener) reopen(ctx context.Context) error {
	if err := l.bind(ctx, l.bound.String()); err != nil {
		return err
	}
	l.closed = make(chan struct{})
	l.done.Go(l.accept)
	return nil
}

// overlaps reports whether address, a host:port, has the listener's port.
func (l *listener) overlaps(address string) bool {
	_, port, err := net.SplitHostPort(address)
	return err == nil && port == strconv.Itoa(l.bound.(*net.TCPAddr).Port)
}
