package bus

import (
	"context"
	"errors"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// A listener accepts connections at one endpoint for whichever side it serves. That may change while it
// runs: a relay that takes over another's endpoint takes over its socket.
type listener struct {
	endpoint string   // as asked for
	bound    net.Addr // as bound
	tcp      *net.TCPListener
	side     atomic.Pointer[side]
	closed   chan struct{}
	done     sync.WaitGroup // of the accepting goroutine
}

// listen binds endpoint. Nothing is accepted before serve.
func listen(ctx context.Context, endpoint string) (*listener, error) {
	address, err := hostPort(endpoint)
	if err != nil {
		return nil, err
	}
	tcp, err := listenTCP(ctx, address)
	if err != nil {
		return nil, err
	}
	return &listener{endpoint: endpoint, bound: tcp.Addr(), tcp: tcp, closed: make(chan struct{})}, nil
}

func listenTCP(ctx context.Context, address string) (*net.TCPListener, error) {
	config := net.ListenConfig{KeepAliveConfig: net.KeepAliveConfig{
		Enable: true, Idle: 30 * time.Second, Interval: 10 * time.Second, Count: 3,
	}}
	l, err := config.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return l.(*net.TCPListener), nil
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
	tcp, err := listenTCP(ctx, l.bound.String())
	if err != nil {
		return err
	}
	l.tcp, l.closed = tcp, make(chan struct{})
	l.done.Go(l.accept)
	return nil
}

// overlaps reports whether address, a host:port, has the listener's port.
func (l *listener) overlaps(address string) bool {
	_, port, err := net.SplitHostPort(address)
	return err == nil && port == strconv.Itoa(l.bound.(*net.TCPAddr).Port)
}
