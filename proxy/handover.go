package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"mainstay/handover"
)

// What is sent from the giving to the taking proxy.
const (
	handConnection = 'c' // a passed, with the connection
	handEnd        = 'e' // there are no more
)

// passed tells what a connection is that changes hands. Nothing of a next request has been read from it, and all
// responses have been written.
type passed struct {
	Listener string `json:"listener"` // its address as in the file
	Secure   bool   `json:"secure"`   // TLS is to be spoken, of which nothing has been read
}

// A giver passes connections to another server, of this process or another. Servers call send at the moment a connection is
// between two requests.
type giver struct {
	// pass gives the other side its own descriptor of a connection, and reports whether the connection is the other side's now.
	pass func(p passed, fd int) (taken bool, err error)
	stop func() // is called when the other side does not take any more

	mu  sync.Mutex
	err error
}

// failed reports whether the other side does not take connections any more.
func (g *giver) failed() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.err != nil
}

// fail takes note that the other side does not take any more.
func (g *giver) fail(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.err == nil {
		g.err = err
		g.stop()
	}
}

// watch notices when the other side of c vanishes, of which there would be no sign before the next connection is passed. The
// function that it returns ends that.
func (g *giver) watch(c *net.UnixConn) func() {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		n, err := c.Read(make([]byte, 1))
		switch {
		case n > 0:
			err = errors.New("who takes connections has nothing to say")
		case errors.Is(err, os.ErrDeadlineExceeded):
			return
		}
		g.fail(err)
	}()
	return func() {
		_ = c.SetReadDeadline(time.Unix(1, 0))
		<-ended
		_ = c.SetReadDeadline(time.Time{})
	}
}

// send passes the connection that fd is and reports whether it is the other side's now. If so, fd is only a copy, which
// no epoll may know any more; if not, the connection is still ours and to be served. It may block.
func (g *giver) send(p passed, fd int) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.err != nil {
		return false
	}
	taken, err := g.pass(p, fd)
	if errors.Is(err, os.ErrDeadlineExceeded) { // the time is up: that is no fault of the other side's
		return false
	}
	if err != nil {
		g.err = err
		g.stop()
	}
	return taken
}

// sendConn is send for a connection of package net.
func (g *giver) sendConn(p passed, conn syscall.Conn) (taken bool) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return false // it was closed
	}
	err = raw.Control(func(fd uintptr) { taken = g.send(p, int(fd)) })
	return taken && err == nil
}

// Give stops accepting and passes the clients' connections over c, each at a moment when it is between two requests, to a
// proxy that calls Take with the other end; the listening sockets stay open, for both. Requests that are under way
// finish first. Clients of TLS and HTTP/2 are told to connect anew, unless nothing has come from them yet. When ctx is done,
// what is left (WebSockets, streams, uploads) is cut. Give returns when no connection is left and no request runs.
//
// Every connection belongs to one of the two at any time. If c breaks, Give returns an error and what has
// not been passed is served on; Resume accepts again. Give must not be called while Apply, Take or Resume runs.
func (p *Proxy) Give(ctx context.Context, c *net.UnixConn) error {
	giving, stop := context.WithCancel(ctx)
	defer stop()
	g := &giver{stop: stop, pass: func(p passed, fd int) (bool, error) {
		body, err := json.Marshal(p)
		if err == nil {
			err = handover.Send(c, handConnection, body, fd)
		}
		return err == nil, err
	}}
	bounded := deadlineWith(ctx, c.SetWriteDeadline)
	watched := g.watch(c)
	for again := true; again; {
		var servers sync.WaitGroup
		for _, s := range p.current() {
			servers.Go(func() { s.give(giving, g) })
		}
		departures := p.departures()
		for _, d := range departures {
			servers.Go(func() { d.give(giving, g) })
		}
		servers.Wait()
		again = len(departures) > 0 && !g.failed() // what these passed on came to a server after it had given all
	}
	watched()
	bounded()
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.err == nil {
		_ = c.SetWriteDeadline(time.Now().Add(lingerTimeout)) // ctx may be done, and this is but one word
		g.err = handover.Send(c, handEnd, nil)
	}
	if g.err != nil {
		return fmt.Errorf("give connections: %w", g.err)
	}
	return nil
}

// GiveNothing tells a Take at the other end of c that nothing comes.
func GiveNothing(c *net.UnixConn) error { return handover.Send(c, handEnd, nil) }

// Take serves the connections that a Give at the other end of c passes, as if it had accepted them on the listener of
// the same address. It returns nil when the giver has no more or has closed c. A connection of a
// listener that is not there is closed.
func (p *Proxy) Take(ctx context.Context, c *net.UnixConn) error {
	defer deadlineWith(ctx, c.SetReadDeadline)()
	for {
		m, err := handover.Receive(c)
		switch {
		case err == io.EOF:
			return nil
		case err != nil && ctx.Err() != nil:
			return fmt.Errorf("take connections: %w", ctx.Err())
		case err != nil:
			return fmt.Errorf("take connections: %w", err)
		case m.Kind == handEnd:
			return nil
		}
		if err := p.take(m); err != nil {
			p.log.Warn("connection not taken over", "error", err)
		}
	}
}

func (p *Proxy) take(m handover.Message) error {
	defer m.Close()
	var what passed
	if err := json.Unmarshal(m.Body, &what); err != nil || m.Kind != handConnection || len(m.Files) != 1 {
		return errors.Join(fmt.Errorf("message of kind %q with %d files is not understood", m.Kind, len(m.Files)), err)
	}
	p.mu.Lock()
	s := p.serving[what.Listener]
	p.mu.Unlock()
	if s.server == nil {
		return fmt.Errorf("there is no listener %s", what.Listener)
	}
	return s.take(m.Files[0], what.Secure)
}

// openTCP returns the connection that f is. f stays open.
func openTCP(f *os.File) (*net.TCPConn, error) {
	conn, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		return tcp, nil
	}
	return nil, errors.Join(errors.New("it is no TCP connection"), conn.Close())
}

// Resume accepts connections again after a Give. So does Apply.
func (p *Proxy) Resume() {
	for _, s := range p.current() {
		s.resume()
	}
}

// current returns the servers that accept connections, or would if they had not been given away.
func (p *Proxy) current() []serving {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Collect(maps.Values(p.serving))
}

// deadlineWith makes a blocking call return when ctx is done. The function that it returns ends that.
func deadlineWith(ctx context.Context, set func(time.Time) error) func() {
	_ = set(time.Time{})
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		_ = set(time.Unix(1, 0))
		close(ended)
	})
	return func() {
		if !stop() {
			<-ended
		}
		_ = set(time.Time{})
	}
}
