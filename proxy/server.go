package proxy

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
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

// A server serves the requests of one listener with net/http.
type server struct {
	*listener
	log         *slog.Logger
	engine      *netHTTP
	http        *http.Server
	cancel      context.CancelCauseFunc // ends every request
	connections atomic.Int64
	requests    tracker
	served      chan struct{} // closed when no more connections are accepted

	mu    sync.Mutex
	fresh map[net.Conn]struct{} // connections on which nothing has come yet
}

// newServer returns a server of l that does not accept yet.
func newServer(log *slog.Logger, engine *netHTTP, l *listener) *server {
	ctx, cancel := context.WithCancelCause(context.Background())
	s := &server{listener: l, log: log, engine: engine, cancel: cancel, served: make(chan struct{}), fresh: map[net.Conn]struct{}{}}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	s.http = &http.Server{
		Handler:           s,
		Protocols:         protocols,
		ReadHeaderTimeout: readHeaderTimeout,
		IdleTimeout:       keepAliveTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ConnContext:       withConn,
		ConnState:         s.connState,
		// What net/http logs is what peers do: failed handshakes, resets.
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	s.http.RegisterOnShutdown(s.closeFresh)
	return s
}

// serve accepts connections until stop.
func (s *server) serve() {
	defer close(s.served)
	if err := s.http.Serve(s.listener); err != http.ErrServerClosed {
		s.log.Error("listener stopped accepting", "address", s.address, "error", err)
	}
}

// stop closes the listener and idle connections and waits for the requests in flight, upgraded ones too. When ctx is
// done it ends them.
func (s *server) stop(ctx context.Context) {
	// Its error is ctx's, which decides below.
	_ = s.http.Shutdown(ctx)
	finished := s.requests.close()
	select {
	case <-finished:
	case <-ctx.Done():
	}
	s.cancel(reasonShutdown)
	_ = s.http.Close()
	<-finished
	<-s.served
}

func (s *server) connState(conn net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		s.engine.metrics.connections.Inc()
		s.connections.Add(1)
	case http.StateClosed, http.StateHijacked: // a tunnel counts itself
		s.connections.Add(-1)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if state == http.StateNew {
		s.fresh[conn] = struct{}{}
	} else {
		delete(s.fresh, conn)
	}
}

// closeFresh closes the connections that browsers open in advance. Shutdown would give them five seconds.
func (s *server) closeFresh() {
	<-s.served
	s.mu.Lock()
	defer s.mu.Unlock()
	for conn := range s.fresh {
		conn.Close()
	}
}

// ServeHTTP implements http.Handler.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
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
	if t.finished != nil && t.running == 0 {
		close(t.finished)
	}
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
