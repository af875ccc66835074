package proxy

import (
	"context"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"

	"mainstay/topology"
)

// An engine carries the requests of listeners to instances and the responses back, by the policies that it was made with. It
// is inert until start, and may be started again after stop.
type engine interface {
	// start makes it ready for servers. stop is the opposite; there is no server then. It waits for what start began.
	start() error
	stop()
	// listen returns a server of l that does not accept yet. It is called between start and stop.
	listen(l *listener) server
	// connect returns the idle connections to the instance at address, of which there are none yet. It may be called at
	// any time, and its result outlives stop.
	connect(address string) conns
}

// A server serves the requests of one listener. Its methods may be called from any goroutine.
type server interface {
	// bound returns the listener. What its settings say holds for requests that come after they were stored.
	bound() *listener
	// serve accepts connections and may block until stop. Of a server on which it was not called nothing is left when its
	// listener is closed.
	serve()
	// stop closes the listening socket and idle connections and waits for the requests in flight, upgraded ones too. When ctx
	// is done it ends them.
	stop(ctx context.Context)
	// give stops accepting, leaves the listening socket open and passes the connections to g, each between two requests,
	// until none is left. When ctx is done it cuts the rest, unless g has failed: then they stay.
	give(ctx context.Context, g *giver)
	// resume accepts again after give.
	resume()
	// take serves a connection that another server gave; secure says that TLS is to be spoken on it. f stays the caller's.
	take(f *os.File, secure bool) error
	// connected returns how many clients are connected.
	connected() int
}

// conns are the idle connections that an engine keeps to one instance.
type conns interface{ CloseIdleConnections() }

// An engineKind says which engine carries the requests of a listener.
type engineKind int

const (
	engineNetHTTP engineKind = iota
	engineLoop
	engineKinds
)

// policies are what every engine serves by.
type policies struct {
	log      *slog.Logger
	metrics  *metrics
	table    atomic.Pointer[table]
	access   atomic.Pointer[accessLog] // nil: none; a request asks for it when it has ended
	visitors visitors
	name     string // of this proxy in Via, unlike any other's
}

// engines are the proxy's. One that this system does not have is nil.
type engines [engineKinds]*engineUse

// choose returns the engine for a listener.
func (e *engines) choose(asked topology.ProxyEngine, l topology.Listener) engineKind {
	if asked == topology.EngineNetHTTP || e[engineLoop] == nil || l.TLS != nil {
		return engineNetHTTP
	}
	return engineLoop
}

// connect returns the connections to an instance, by engine.
func (e *engines) connect(address string) (list [engineKinds]conns) {
	for kind, u := range e {
		if u != nil {
			list[kind] = u.connect(address)
		}
	}
	return list
}

// An engineUse starts an engine with its first server and stops it after the last.
type engineUse struct {
	engine

	mu      sync.Mutex
	servers int
}

// open returns a server of l. closed must be called when it has stopped.
func (u *engineUse) open(l *listener) (server, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.servers == 0 {
		if err := u.start(); err != nil {
			return nil, err
		}
	}
	u.servers++
	return u.listen(l), nil
}

func (u *engineUse) closed() {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.servers--; u.servers == 0 {
		u.stop()
	}
}
