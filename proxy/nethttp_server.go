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

	"mainstay/proxy/http1"
)

// These keep a client from holding what others need.
const (
	lingerTimeout = time.Second      // for content that nobody wants, so that the client sees the response
	hurryTimeout  = 10 * time.Second // for the rest of a request's header when connections are given away
)

// A netHTTPServer serves the requests of one listener with net/http.
type netHTTPServer struct {
	*listener
	log        *slog.Logger
	engine     *netHTTP
	portText   string // that is bound
	requests   tracker
	handshakes sync.WaitGroup
	carrying   sync.RWMutex          // held while a client goes to the carrier
	giver      atomic.Pointer[giver] // to whom connections go that are between two requests; nil: they stay
	accepted   chan struct{}         // closed when nothing is accepted any more

	mu      sync.Mutex
	front   *front   // nil: nobody has come yet
	older   []*front // before it, that may still have connections
	carrier carrier  // nil: nobody was carried yet
	clients map[*client]struct{}
	empty   chan struct{} // nil, or closed when there are no clients
	closing bool
	pausing bool
	parked  chan struct{} // closed when a pause has begun
	changed chan struct{} // closed and made anew at the end of a pause
}

// newNetHTTPServer returns a server of l that does not accept yet.
func newNetHTTPServer(log *slog.Logger, engine *netHTTP, l *listener) *netHTTPServer {
	s := &netHTTPServer{
		listener: l, log: log, engine: engine, portText: l.port(), accepted: make(chan struct{}), changed: make(chan struct{}),
		clients: map[*client]struct{}{},
	}
	return s
}

// serve implements server.
func (s *netHTTPServer) serve() {
	defer close(s.accepted)
	for wait := time.Duration(0); ; {
		if !s.proceed(wait) {
			return
		}
		conn, err := s.Accept()
		switch {
		case err == nil:
			wait = 0
			if s.makeRoom(conn) {
				s.accept(conn)
			} else {
				s.engine.metrics.turnedAway.Inc()
				conn.Close()
			}
		case isTimeout(err): // a pause
		case errors.Is(err, net.ErrClosed):
			return
		default: // no descriptors left, say
			if s.shed() > 0 {
				continue
			}
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
	c := newClient(s, conn, secure)
	s.engine.visitors.enter(c.address, 0)
	return s.admit(c)
}

// accept serves a new connection, or closes it at once if its client has as many as it may have.
func (s *netHTTPServer) accept(conn net.Conn) {
	settings := s.settings.Load()
	c := newClient(s, conn, settings.tls != nil)
	limit := settings.limits.ConnectionsPerClient
	if s.engine.table.Load().trusts(c.address) {
		limit = 0
	}
	s.engine.metrics.connections.Inc()
	if !s.engine.visitors.enter(c.address, limit) {
		s.engine.metrics.refused.Inc()
		conn.Close()
		return
	}
	_ = s.admit(c) // the listener is being closed
}

// admit serves a connection that has been counted, and closes it if it cannot.
func (s *netHTTPServer) admit(c *client) error {
	config := s.settings.Load().tls
	if c.secure && config == nil {
		s.engine.visitors.leave(c.address)
		return errors.Join(errors.New("the listener does not speak TLS any more"), c.Conn.Close())
	}
	s.mu.Lock()
	s.clients[c] = struct{}{}
	s.mu.Unlock()
	if c.secure {
		s.handshakes.Go(func() { s.handshake(c, config) })
		return nil
	}
	return s.offer(c, newStrictConn(c, c))
}

// offer gives a client's connection, as net/http is to read it, to the front. If that is not possible any more, it is closed.
func (s *netHTTPServer) offer(c *client, conn net.Conn) error {
	for f, last := s.frontFor(c), (*front)(nil); f != last; last, f = f, s.frontFor(c) {
		if f.offer(c.secure, conn) {
			return nil
		}
	}
	return errors.Join(errors.New("the listener is being closed"), conn.Close())
}

// frontFor returns the front for a client, which is another than before if the limits are others. It is nil if there was none and
// the server stops.
func (s *netHTTPServer) frontFor(c *client) *front {
	limits := c.limits()
	s.mu.Lock()
	var former *front
	if !s.closing && (s.front == nil || s.front.limits != limits && !s.pausing) {
		former, s.front = s.front, newFront(s, limits)
		s.front.start()
	}
	if c.front != nil {
		s.leaveLocked(c.front)
	}
	f := s.front
	if _, open := s.clients[c]; open && f != nil {
		c.front = f
		f.clients++
	}
	if former != nil && former.clients > 0 {
		s.older = append(s.older, former)
	}
	s.mu.Unlock()
	if former != nil {
		former.retire()
	}
	return f
}

// leaveLocked takes note that a front has one client less.
func (s *netHTTPServer) leaveLocked(f *front) {
	if f.clients--; f.clients == 0 {
		s.older = slices.DeleteFunc(s.older, func(o *front) bool { return o == f })
	}
}

// handshake agrees on TLS with the client and on what is spoken over it. Who takes too long is cut.
func (s *netHTTPServer) handshake(c *client, config *tls.Config) {
	c.allow(deadline(time.Now(), c.limits().HeaderTimeout))
	w := &wire{c}
	conn := tls.Server(w, config)
	if err := conn.Handshake(); err != nil {
		s.log.Debug("TLS handshake failed", "client", c.address, "error", err)
		s.refusePlain(c, err)
		conn.Close()
		return
	}
	c.allow(time.Time{})
	var served net.Conn = conn
	if conn.ConnectionState().NegotiatedProtocol != "h2" {
		if s.carry(c, conn, w) {
			return
		}
		served = newStrictConn(conn, c)
	}
	_ = s.offer(c, served) // the listener is being closed
}

// refusePlain answers a client that speaks HTTP where TLS is spoken.
func (s *netHTTPServer) refusePlain(c *client, err error) {
	var header tls.RecordHeaderError
	if errors.As(err, &header) && header.Conn != nil && looksLikeHTTP(header.RecordHeader) {
		plain := &strictConn{Conn: c, client: c}
		_ = plain.refuse(nil, reasonBadRequest, errPlain)
	}
}

// looksLikeHTTP reports whether a connection begins like one without TLS.
func looksLikeHTTP(begin [5]byte) bool {
	switch string(begin[:]) {
	case "GET /", "HEAD ", "POST ", "PUT /", "OPTIO", "PATCH", "DELET":
		return true
	}
	return false
}

// errPlain is answered to a client that does not speak TLS.
var errPlain = &http1.Error{Status: http.StatusBadRequest, Text: "this port speaks TLS", Clause: "RFC 9110, section 4.2.2"}

// forget takes note of a connection that is closed.
func (s *netHTTPServer) forget(c *client) {
	s.engine.visitors.leave(c.address)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.clients, c)
	if c.front != nil {
		s.leaveLocked(c.front)
		c.front = nil
	}
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

// paused reports whether connections are not accepted for now.
func (s *netHTTPServer) paused() bool { return s.giver.Load() != nil }

// bound implements server.
func (s *netHTTPServer) bound() *listener { return s.listener }

// connected implements server.
func (s *netHTTPServer) connected() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.clients)
	if s.carrier != nil {
		n += s.carrier.connected()
	}
	return n
}

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
	var carried sync.WaitGroup
	if c := s.carried(); c != nil {
		carried.Go(func() {
			c.stop(ctx)
			s.engine.loops.closed()
		})
	}
	defer carried.Wait()
	if f != nil {
		f.shutdown(ctx, s.closeFresh)
	}
	s.closeFresh()
	s.handshakes.Wait()
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
		if f != nil {
			f.cancel(reasonShutdown)
		}
	}
	s.older = nil
	clients := slices.Collect(maps.Keys(s.clients))
	s.mu.Unlock()
	for _, c := range clients {
		c.Close()
	}
}

func (s *netHTTPServer) connState(conn net.Conn, state http.ConnState) {
	switch c := conn.(type) {
	case interface{ await(between bool) }:
		if state == http.StateActive || state == http.StateIdle {
			c.await(state == http.StateIdle)
		}
	case *tls.Conn: // of HTTP/2, whose time-outs are net/http's
		clientOf(c).await(state == http.StateNew || state == http.StateIdle, true, time.Time{})
	}
	if state == http.StateActive {
		clientOf(conn).used.Store(true)
	}
}

// closeFresh closes the connections that browsers open in advance. net/http would give them five seconds.
func (s *netHTTPServer) closeFresh() {
	s.mu.Lock()
	clients := slices.Collect(maps.Keys(s.clients))
	s.mu.Unlock()
	for _, c := range clients {
		if !c.used.Load() {
			c.Close()
		}
	}
}

// ServeHTTP implements http.Handler.
func (s *netHTTPServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !s.requests.enter() {
		panic(http.ErrAbortHandler)
	}
	defer s.requests.leave()
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
