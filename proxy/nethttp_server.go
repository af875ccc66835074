package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// These keep a client from holding what others need.
const (
	readHeaderTimeout = 10 * time.Second // from a request's first byte, or the connection's start, to its header's end
	keepAliveTimeout  = 75 * time.Second // between requests
	bodyStallTimeout  = 60 * time.Second // without a byte of a request's content that is waited for
	lingerTimeout     = time.Second      // for content that nobody wants, so that the client sees the response
	maxHeaderBytes    = 28 << 10         // net/http adds 4 KiB
)

// A netHTTPServer serves the requests of one listener with net/http.
type netHTTPServer struct {
	*listener
	log         *slog.Logger
	engine      *netHTTP
	connections atomic.Int64 // open ones
	requests    tracker
	giver       atomic.Pointer[giver] // to whom connections go that are between two requests; nil: they stay
	accepted    chan struct{}         // closed when nothing is accepted any more

	mu      sync.Mutex
	front   *front
	older   []*front // before it, that may still have connections
	clients map[*client]struct{}
	fresh   map[net.Conn]struct{} // of them, as net/http has them, those on which no request has come yet
	empty   chan struct{}         // nil, or closed when there are no clients
	closing bool
	pausing bool
	parked  chan struct{} // closed when a pause has begun
	changed chan struct{} // closed and made anew at the end of a pause
}

// newNetHTTPServer returns a server of l that does not accept yet.
func newNetHTTPServer(log *slog.Logger, engine *netHTTP, l *listener) *netHTTPServer {
	s := &netHTTPServer{
		listener: l, log: log, engine: engine, accepted: make(chan struct{}), changed: make(chan struct{}),
		clients: map[*client]struct{}{}, fresh: map[net.Conn]struct{}{},
	}
	s.front = newFront(s)
	return s
}

// serve implements server.
func (s *netHTTPServer) serve() {
	defer close(s.accepted)
	s.current().start()
	for wait := time.Duration(0); ; {
		if !s.proceed(wait) {
			return
		}
		conn, err := s.Accept()
		switch {
		case err == nil:
			wait = 0
			if s.admit(conn, s.settings.Load().tls != nil) != nil {
				conn.Close()
			}
		case isTimeout(err): // a pause
		case errors.Is(err, net.ErrClosed):
			return
		default: // no descriptors left, say
			wait = min(max(2*wait, 5*time.Millisecond), time.Second)
			s.log.Error("connection not accepted", "address", s.address, "error", err)
		}
	}
}

// proceed waits for so long, and while there is a pause, and returns false when the server stops.
func (s *netHTTPServer) proceed(wait time.Duration) bool {
	for {
		s.mu.Lock()
		closing, pausing, changed := s.closing, s.pausing, s.changed
		if pausing && s.parked != nil {
			close(s.parked)
			s.parked = nil
		}
		s.mu.Unlock()
		switch {
		case closing:
			return false
		case pausing:
			<-changed
		case wait > 0:
			timer := time.NewTimer(wait)
			select {
			case <-timer.C:
			case <-changed:
			}
			timer.Stop()
			return true
		default:
			return true
		}
	}
}

// take implements server.
func (s *netHTTPServer) take(f *os.File, secure bool) error {
	conn, err := openTCP(f)
	if err != nil {
		return err
	}
	return s.admit(conn, secure)
}

// admit serves a connection; secure says that TLS is to be spoken on it.
func (s *netHTTPServer) admit(conn net.Conn, secure bool) error {
	var config *tls.Config
	if secure {
		if config = s.settings.Load().tls; config == nil {
			return errors.Join(errors.New("the listener does not speak TLS any more"), conn.Close())
		}
	}
	c := newClient(s, conn, secure)
	s.mu.Lock()
	f := s.front
	s.clients[c] = struct{}{}
	s.mu.Unlock()
	var taken bool
	if secure {
		taken = f.secure.offer(tls.Server(c, config))
	} else {
		taken = f.plain.offer(c)
	}
	if !taken {
		return errors.Join(errors.New("the listener is being closed"), c.Close())
	}
	return nil
}

// forget takes note of a connection that is closed.
func (s *netHTTPServer) forget(c *client) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.clients, c)
	if s.empty != nil && len(s.clients) == 0 {
		close(s.empty)
		s.empty = nil
	}
}

// left returns a channel that is closed when there are no clients. None may come.
func (s *netHTTPServer) left() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.empty == nil {
		s.empty = make(chan struct{})
	}
	empty := s.empty
	if len(s.clients) == 0 {
		close(s.empty)
		s.empty = nil
	}
	return empty
}

func (s *netHTTPServer) current() *front {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.front
}

// paused reports whether connections are not accepted for now.
func (s *netHTTPServer) paused() bool { return s.giver.Load() != nil }

// bound implements server.
func (s *netHTTPServer) bound() *listener { return s.listener }

// connected implements server.
func (s *netHTTPServer) connected() int { return int(s.connections.Load()) }

// stop implements server.
func (s *netHTTPServer) stop(ctx context.Context) {
	s.mu.Lock()
	f := s.front
	s.closing = true
	close(s.changed)
	s.changed = make(chan struct{})
	s.mu.Unlock()
	s.Listener.Close()
	<-s.accepted
	f.shutdown(ctx, s.closeFresh)
	finished := s.requests.close()
	select {
	case <-finished:
	case <-ctx.Done():
	}
	s.cut()
	<-finished
}

// cut ends all connections and what runs on them.
func (s *netHTTPServer) cut() {
	s.mu.Lock()
	for _, f := range append(s.older, s.front) {
		f.cancel(reasonShutdown)
	}
	s.older = nil
	clients := slices.Collect(maps.Keys(s.clients))
	s.mu.Unlock()
	for _, c := range clients {
		c.Close()
	}
}

func (s *netHTTPServer) connState(conn net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		s.engine.metrics.connections.Inc()
		s.connections.Add(1)
	case http.StateClosed, http.StateHijacked: // a tunnel counts itself
		s.connections.Add(-1)
	}
	clientOf(conn).await(state == http.StateNew || state == http.StateIdle)
	s.mu.Lock()
	defer s.mu.Unlock()
	if state == http.StateNew {
		s.fresh[conn] = struct{}{}
	} else {
		delete(s.fresh, conn)
	}
}

// closeFresh closes the connections that browsers open in advance. net/http would give them five seconds.
func (s *netHTTPServer) closeFresh() {
	s.mu.Lock()
	fresh := slices.Collect(maps.Keys(s.fresh))
	s.mu.Unlock()
	for _, conn := range fresh {
		conn.Close()
	}
}

// ServeHTTP implements http.Handler.
func (s *netHTTPServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !s.requests.enter() {
		panic(http.ErrAbortHandler)
	}
	defer s.requests.leave()
	if c, ok := r.Context().Value(clientKey{}).(*client); ok {
		c.expect(r.ContentLength)
	}
	defer func() {
		// A bug ends the one request; net/http would tell it where nobody looks.
		if v := recover(); v != nil {
			if v != http.ErrAbortHandler {
				s.log.Error("request panicked", "panic", v, "stack", string(debug.Stack()))
			}
			panic(http.ErrAbortHandler)
		}
	}()
	s.engine.serve(s, w, r)
}

// A tracker counts what runs, so that its end can be waited for.
type tracker struct {
	mu       sync.Mutex
	running  int
	finished chan struct{} // nil until close
	quiet    chan struct{} // nil, or closed when none runs
}

// enter reports whether one more may run; if so, leave must follow.
func (t *tracker) enter() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.finished != nil {
		return false
	}
	t.running++
	return true
}

func (t *tracker) leave() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.running--
	if t.running > 0 {
		return
	}
	if t.finished != nil {
		close(t.finished)
	}
	if t.quiet != nil {
		close(t.quiet)
		t.quiet = nil
	}
}

// idle returns a channel that is closed when none runs for a moment.
func (t *tracker) idle() <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.quiet == nil {
		t.quiet = make(chan struct{})
	}
	quiet := t.quiet
	if t.running == 0 {
		close(t.quiet)
		t.quiet = nil
	}
	return quiet
}

// close lets no more run and returns a channel that is closed when none does. It must be called once.
func (t *tracker) close() <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.finished = make(chan struct{})
	if t.running == 0 {
		close(t.finished)
	}
	return t.finished
}
