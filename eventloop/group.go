//go:build linux

// Package eventloop runs sockets on event loops: one loop per core, each with its own epoll, its own timers and its own
// buffers. It knows no protocol.
//
// A [Group] owns the [Loop]s and the one goroutine that each has. What is embedded in a protocol's own structs, [Socket],
// [Timer] and [Note], belongs to one loop and is touched only on that loop's goroutine; [Loop.Post] and [Loop.Do] are how anyone else
// gets there. A socket is registered once, edge-triggered, and keeps what it was told until a short read or write says otherwise, so
// the way of a request through a loop is: epoll_wait, Ready, read, write. Whoever has more to do than its share asks for
// [Loop.Again] and is called after the others.
//
// All loops wait on one listening socket (EPOLLEXCLUSIVE), and who accepts gives the connection to the loop that has the fewest. One
// socket for each loop (SO_REUSEPORT) would spread few long connections by chance, reset what waits on a socket that is closed when
// the number of loops changes, and be several descriptors to hand on in an upgrade.
//
// What loops share, all of it: a Loop's inbox and whether it sleeps (atomic; anyone posts), the descriptor that wakes it (a mutex), its count of connections and of those on
// their way to it (atomic; acceptors of other loops read and add), an Acceptor's fields once Accept has returned (read only), its
// state (a mutex), and the Group's lifecycle (a mutex). Everything else belongs to one loop.
package eventloop

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
)

// A Group is a number of loops that start and stop together. It is used once: after Stop it cannot start again.
type Group struct {
	loops     []*Loop
	panicked  func(l *Loop, in any, value any, stack []byte)
	acceptors atomic.Uint32 // ids given

	mu      sync.Mutex // guards the fields below
	state   groupState
	running sync.WaitGroup
}

type groupState uint8

const (
	groupNew groupState = iota
	groupRunning
	groupStopped
)

// New returns a group of n loops, at least one. Nothing runs and nothing is open before Start. When a Handler, a Receiver or an
// Expirer panics, its socket, if it is one, is closed, and panicked is called with it on its loop, to log and to give back what it had;
// the loop goes on. A nil panicked is told nothing.
func New(n int, panicked func(l *Loop, in any, value any, stack []byte)) *Group {
	if panicked == nil {
		panicked = func(*Loop, any, any, []byte) {}
	}
	g := &Group{panicked: panicked}
	for range max(n, 1) {
		g.loops = append(g.loops, newLoop(g))
	}
	return g
}

// Loops returns the loops, always the same ones in the same order. The slice is the group's.
func (g *Group) Loops() []*Loop { return g.loops }

// Start opens what the loops need, adds one to GOMAXPROCS for each and starts their goroutines. On an error nothing runs and nothing is
// open.
func (g *Group) Start() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.state != groupNew {
		return errors.New("start event loops: they were started before")
	}
	for i, l := range g.loops {
		if err := l.open(); err != nil {
			for _, l := range g.loops[:i] {
				l.shut()
			}
			return fmt.Errorf("start event loop: %w", err)
		}
	}
	g.state = groupRunning
	runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + len(g.loops))
	for _, l := range g.loops {
		g.running.Go(l.run)
	}
	return nil
}

// Stop ends the loops, waits for their goroutines and gives back what Start has added to GOMAXPROCS. Notes that were posted before are received; sockets that are still open are
// closed without a word to their handlers. It must not be called on a loop.
func (g *Group) Stop() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.state == groupRunning {
		for _, l := range g.loops {
			l.stop()
		}
		g.running.Wait()
		runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) - len(g.loops))
	}
	g.state = groupStopped
}
