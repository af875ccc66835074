package proxy

import (
	"context"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"mainstay/proxy/http1"
)

// An instancePool is the idle connections to one instance.
type instancePool struct {
	address string

	guards sync.WaitGroup

	mu      sync.Mutex
	idle    []*instanceConn // the one that was used last at the end
	timer   *time.Timer     // nil: none was idle yet
	armed   bool
	retired bool
}

// guardAfter is how long a connection is idle before it is guarded. One that is used again at once is not worth a goroutine.
const guardAfter = time.Second

// connect implements engine.
func (e *netHTTP) connect(address string) conns { return &instancePool{address: address} }

// take returns the connection that was used last of those on which nothing has come since, nil if there is none. What has come is an
// end, or the response to nothing (RFC 9112, section 9.2).
func (p *instancePool) take() *instanceConn {
	for {
		p.mu.Lock()
		last := len(p.idle) - 1
		if last < 0 {
			p.mu.Unlock()
			return nil
		}
		c := p.idle[last]
		p.idle[last] = nil
		p.idle = p.idle[:last]
		p.mu.Unlock()
		c.dismiss()
		if c.silent() {
			return c
		}
		c.Close()
	}
}

// A dialError is a connection that was not established.
type dialError struct{ error }

// Unwrap tells why.
func (e dialError) Unwrap() error { return e.error }

// dial establishes a connection. Its error is a dialError.
func (p *instancePool) dial(ctx context.Context) (*instanceConn, error) {
	dialer := net.Dialer{KeepAlive: dialKeepAlive}
	conn, err := dialer.DialContext(ctx, "tcp", p.address)
	if err != nil {
		return nil, dialError{err}
	}
	c := &instanceConn{TCPConn: conn.(*net.TCPConn), pool: p}
	if c.raw, err = c.SyscallConn(); err != nil {
		c.Close()
		return nil, dialError{err}
	}
	c.look = func(fd uintptr) {
		_, _, err := unix.Recvfrom(int(fd), c.peek[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		c.heard = err != unix.EAGAIN
	}
	return c, nil
}

// put keeps a connection for another request.
func (p *instancePool) put(c *instanceConn) {
	c.used, c.since = true, time.Now()
	p.mu.Lock()
	keep := !p.retired && len(p.idle) < upstreamIdleLimit
	if keep {
		p.idle = append(p.idle, c)
		if !p.armed {
			p.armLocked()
		}
	}
	p.mu.Unlock()
	if !keep {
		c.Close()
	}
}

func (p *instancePool) armLocked() {
	p.armed = true
	if p.timer == nil {
		p.timer = time.AfterFunc(guardAfter, p.watch)
	} else {
		p.timer.Reset(guardAfter)
	}
}

// watch has the connections guarded that have been idle for some time.
func (p *instancePool) watch() {
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.armed = false
	if p.retired {
		return
	}
	for i := len(p.idle) - 1; i >= 0 && p.idle[i].guard == nil; i-- { // those below have been idle for longer
		if c := p.idle[i]; now.Sub(c.since) >= guardAfter/2 {
			c.guard = make(chan struct{})
			_ = c.SetReadDeadline(c.since.Add(upstreamIdleTimeout))
			p.guards.Go(func() { p.guard(c) })
		} else if !p.armed {
			p.armLocked()
		}
	}
}

// guard closes c when something comes, or when it has been idle for too long; or ends when it is taken.
func (p *instancePool) guard(c *instanceConn) {
	defer close(c.guard)
	_ = c.raw.Read(func(fd uintptr) bool {
		c.look(fd)
		return c.heard
	})
	p.mu.Lock()
	at := slices.Index(p.idle, c)
	if at >= 0 {
		p.idle = slices.Delete(p.idle, at, at+1)
	}
	p.mu.Unlock()
	if at >= 0 {
		c.Close()
	}
}

// CloseIdleConnections implements conns. None is kept from then on.
func (p *instancePool) CloseIdleConnections() {
	p.mu.Lock()
	idle := p.idle
	p.idle, p.retired = nil, true
	if p.timer != nil {
		p.timer.Stop()
	}
	p.mu.Unlock()
	for _, c := range idle {
		c.Close()
	}
	p.guards.Wait()
}

// An instanceConn is a connection to an instance. It belongs to the exchange that has it; only interrupt and Write may be called
// from other goroutines.
type instanceConn struct {
	*net.TCPConn
	pool     *instancePool
	outgoing http1.Outgoing
	used     bool      // it has carried a request before
	since    time.Time // when it became idle

	written atomic.Int64 // of the request
	heard   bool         // something of a response has come
	room    []byte       // that is read into
	rest    []byte       // of it, that was read and not yet understood
	full    bool         // the last read filled it

	raw  syscall.RawConn
	look func(fd uintptr)
	peek [1]byte

	guard chan struct{} // closed when its guard has ended; nil: it has none
}

// silent reports whether nothing has come, not even an end.
func (c *instanceConn) silent() bool { return c.raw.Control(c.look) == nil && !c.heard }

// dismiss ends its guard.
func (c *instanceConn) dismiss() {
	if c.guard == nil {
		return
	}
	_ = c.SetReadDeadline(time.Unix(1, 0))
	<-c.guard
	c.guard = nil
	_ = c.SetReadDeadline(time.Time{})
}

// begin makes it ready for a request, and for reading the response into room.
func (c *instanceConn) begin(m http1.Method, webSocket bool, room []byte) {
	c.outgoing.Begin(m, webSocket)
	c.written.Store(0)
	c.heard, c.room, c.rest = false, room, nil
}

// Write implements net.Conn.
func (c *instanceConn) Write(p []byte) (int, error) {
	// Counted before, so that who asks when the connection was closed knows of all that went out.
	c.written.Add(int64(len(p)))
	n, err := c.TCPConn.Write(p)
	c.written.Add(int64(n - len(p)))
	return n, err
}

// interrupt ends reads and writes for good.
func (c *instanceConn) interrupt() { _ = c.SetDeadline(time.Unix(1, 0)) }

// head reads the next header section. It is valid until more is read.
func (c *instanceConn) head(limits *http1.Limits) ([]byte, error) {
	for {
		if len(c.rest) > 0 {
			n, err := c.outgoing.Head(c.rest, limits)
			if n > 0 || err != nil {
				head := c.rest[:n]
				c.rest = c.rest[n:]
				return head, err
			}
		}
		if err := c.more(); err != nil {
			return nil, err
		}
	}
}

// more reads, after what is left.
func (c *instanceConn) more() error {
	left := len(c.rest)
	if left == len(c.room) {
		c.room = make([]byte, 2*left)
	}
	copy(c.room, c.rest)
	n, err := c.TCPConn.Read(c.room[left:])
	c.rest = c.room[:left+n]
	c.heard, c.full = c.heard || n > 0, left+n == len(c.room)
	if n > 0 {
		return nil
	}
	return err
}

// Read implements io.Reader, once the protocol has been switched.
func (c *instanceConn) Read(p []byte) (int, error) {
	if len(c.rest) > 0 {
		n := copy(p, c.rest)
		c.rest = c.rest[n:]
		return n, nil
	}
	return c.TCPConn.Read(p)
}
