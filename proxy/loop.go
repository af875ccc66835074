//go:build linux

package proxy

import (
	"runtime"
	"runtime/debug"
	"sync"

	"mainstay/eventloop"
	"mainstay/proxy/http1"
)

// A loopEngine is the engine that forwards HTTP/1.1 with event loops.
//
// A client's connection (session), the request that it is at (loopExchange) and the connection to an instance that carries it (link)
// belong to one loop for all of their time, and so do the idle links: nothing of theirs is locked. What loops share, beside
// the policies, pools and counters that both engines have: this struct's lanes (guarded by mu), what a loopServer says it
// shares, an exchange's aborts (a mutex), and whether an instance is gone (atomic, in its origin).
type loopEngine struct {
	*policies
	size   int          // how many loops
	limits http1.Limits // of what instances send

	diallings sync.WaitGroup

	mu    sync.Mutex
	group *eventloop.Group
	lanes []*lane // nil while the engine is stopped
}

func newLoopEngine(p *policies) *loopEngine {
	limits := http1.DefaultLimits()
	limits.Head, limits.Fields, limits.Interim = maxResponseHeaderBytes, 0, maxInterim
	return &loopEngine{policies: p, size: min(runtime.NumCPU(), runtime.GOMAXPROCS(0)), limits: limits}
}

// start implements engine.
func (e *loopEngine) start() error {
	group := eventloop.New(e.size, e.panicked)
	lanes := make([]*lane, e.size)
	for i, l := range group.Loops() {
		lanes[i] = newLane(e, i, l)
	}
	if err := group.Start(); err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.group, e.lanes = group, lanes
	return nil
}

// stop implements engine.
func (e *loopEngine) stop() {
	e.mu.Lock()
	group, lanes := e.group, e.lanes
	e.group, e.lanes = nil, nil
	e.mu.Unlock()
	for _, l := range lanes {
		l.loop.Do(l.close)
	}
	group.Stop()
	e.diallings.Wait()
}

// running returns the lanes, none if the engine is stopped.
func (e *loopEngine) running() []*lane {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.lanes
}

// panicked is told of a bug; it ends the one connection.
func (e *loopEngine) panicked(loop *eventloop.Loop, in, value any, stack []byte) {
	e.log.Error("request panicked", "panic", value, "stack", string(stack))
	for _, l := range e.running() {
		if l.loop == loop {
			l.empty()
		}
	}
	switch v := in.(type) {
	case *session:
		e.end(v)
	case *link:
		if v.x != nil {
			e.end(v.x.session)
		}
		v.close()
	case *loopExchange:
		if v.session != nil {
			e.end(v.session)
		}
	}
}

// end ends what a bug has left of a session, even if that meets the bug again.
func (e *loopEngine) end(s *session) {
	defer func() {
		if v := recover(); v != nil {
			e.log.Error("request panicked while it was ended", "panic", v, "stack", string(debug.Stack()))
			s.discard()
		}
	}()
	s.broken()
}
