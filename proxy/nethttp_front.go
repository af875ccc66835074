package proxy

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"sync"

	"mainstay/topology"
)

// A front is what a server reads requests with: net/http twice, because only TLS connections, which cannot be given to another
// process, are to be told to go when the others are given away. It cannot be used again after a shutdown.
type front struct {
	plain, secure *intake
	cancel        context.CancelCauseFunc // ends every request
	limits        topology.ClientLimits   // that net/http holds to itself, for HTTP/2
	clients       int                     // that it serves; the server's mu guards it
}

func newFront(s *netHTTPServer, limits topology.ClientLimits) *front {
	ctx, cancel := context.WithCancelCause(context.Background())
	return &front{plain: newIntake(s, ctx, limits), secure: newIntake(s, ctx, limits), cancel: cancel, limits: limits}
}

// start begins to serve.
func (f *front) start() {
	f.plain.start()
	f.secure.start()
}

// shutdown closes connections when they have no request, and those that fresh closes, and waits for the others until ctx is done.
func (f *front) shutdown(ctx context.Context, fresh func()) {
	var closing sync.WaitGroup
	for _, i := range [...]*intake{f.plain, f.secure} {
		closing.Go(func() { i.shutdown(ctx) })
	}
	<-f.plain.served
	<-f.secure.served
	fresh()
	closing.Wait()
}

// retire takes no more connections. Those that there are go on.
func (f *front) retire() {
	for _, i := range [...]*intake{f.plain, f.secure} {
		i.Close()
		<-i.served
	}
}

// An intake is an http.Server and its listener, which is given its connections.
type intake struct {
	http   *http.Server
	addr   net.Addr
	conns  chan net.Conn
	closed chan struct{}
	served chan struct{} // closed when no more connections are taken
	once   sync.Once
}

func newIntake(s *netHTTPServer, ctx context.Context, limits topology.ClientLimits) *intake {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	return &intake{
		http: &http.Server{
			Handler: s,
			// Nobody but us answers: not OPTIONS of everything either.
			DisableGeneralOptionsHandler: true,
			Protocols:                    protocols,
			// Of HTTP/1 strictConn has seen to the time that it takes and to its size. These are for HTTP/2.
			IdleTimeout:    limits.IdleTimeout,
			MaxHeaderBytes: headerBytes(limits.HeaderSize),
			HTTP2:          &http.HTTP2Config{WriteByteTimeout: limits.SendTimeout},
			BaseContext:    func(net.Listener) context.Context { return ctx },
			ConnContext:    withClient,
			ConnState:      s.connState,
			// What net/http logs is what peers do: failed handshakes, resets.
			ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		},
		addr: s.Addr(), conns: make(chan net.Conn), closed: make(chan struct{}), served: make(chan struct{}),
	}
}

// headerBytes returns what net/http is told of the size of a header. It counts a little less than what is sent.
func headerBytes(size int) int {
	if size <= 0 {
		return 16 << 20
	}
	return size
}

func (i *intake) start() {
	go func() {
		defer close(i.served)
		_ = i.http.Serve(i) // it ends with the intake
	}()
}

// shutdown takes no more connections, tells clients to go and waits for them until ctx is done.
func (i *intake) shutdown(ctx context.Context) {
	// Its error is ctx's, and what is left is cut by the caller.
	_ = i.http.Shutdown(ctx)
	<-i.served
}

// offer gives a connection to net/http. It reports whether it was taken; if not, it is still the caller's.
func (f *front) offer(secure bool, conn net.Conn) bool {
	if secure {
		return f.secure.offer(conn)
	}
	return f.plain.offer(conn)
}

// offer gives the intake a connection. It reports whether it was taken; if not, it is still the caller's.
func (i *intake) offer(conn net.Conn) bool {
	select {
	case i.conns <- conn:
		return true
	case <-i.closed:
		return false
	}
}

// Accept implements net.Listener.
func (i *intake) Accept() (net.Conn, error) {
	select {
	case conn := <-i.conns:
		return conn, nil
	case <-i.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (i *intake) Close() error {
	i.once.Do(func() { close(i.closed) })
	return nil
}

// Addr implements net.Listener.
func (i *intake) Addr() net.Addr { return i.addr }
