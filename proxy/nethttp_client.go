package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"time"
)

// A client is a client's connection as net/http reads it. Between two requests, when nothing of the next one has been read,
// it can be given to another process: net/http then reads its end, and closes what is only a copy.
type client struct {
	net.Conn // *net.TCPConn
	server   *netHTTPServer
	secure   bool // TLS is spoken on it

	mu       sync.Mutex
	between  bool // net/http waits for a request, or reads the header of one
	waiting  bool // in a Read, with nothing of the next request read
	broken   bool // off from that by interrupt
	given    bool
	boundary boundary
	deadline time.Time // of reads, as net/http wants it
}

func newClient(s *netHTTPServer, conn net.Conn, secure bool) *client {
	return &client{Conn: conn, server: s, secure: secure, between: true}
}

// clientOf returns what is below a connection that net/http has.
func clientOf(conn net.Conn) *client {
	if t, ok := conn.(*tls.Conn); ok {
		conn = t.NetConn()
	}
	return conn.(*client)
}

// clientKey is the key of a client in its requests' contexts.
type clientKey struct{}

func withClient(ctx context.Context, conn net.Conn) context.Context {
	return context.WithValue(ctx, clientKey{}, clientOf(conn))
}

// Read implements net.Conn. It is where a connection is given away.
func (c *client) Read(p []byte) (int, error) {
	for {
		if !c.begin() {
			return 0, io.EOF
		}
		n, err := c.Conn.Read(p)
		if again := c.end(p[:n], err); !again {
			return n, err
		}
	}
}

// begin precedes a read. It returns false if the connection has been given away.
func (c *client) begin() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.given {
		return false
	}
	if !c.between {
		return true
	}
	g := c.server.giver.Load()
	switch {
	case c.boundary.reached():
		if g != nil && c.giveLocked(g) {
			return false
		}
		c.waiting = true
	case g != nil:
		c.hurryLocked()
	}
	return true
}

// end follows a read. It returns true if that was only interrupted.
func (c *client) end(p []byte, err error) (again bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	broken := c.broken
	c.waiting, c.broken = false, false
	if broken {
		_ = c.Conn.SetReadDeadline(c.deadline)
		// begin finds out whether the connection is still to be given away.
		again = len(p) == 0 && isTimeout(err) && (c.deadline.IsZero() || time.Now().Before(c.deadline))
	}
	switch {
	case !c.secure:
		c.boundary.advance(p)
	case len(p) > 0:
		c.boundary.lose() // TLS has its own state from the first byte on
	}
	return again
}

// interrupt makes a read return that waits for a request, so that the connection can be given away.
func (c *client) interrupt() {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.waiting:
		c.broken = true
		_ = c.Conn.SetReadDeadline(time.Unix(1, 0))
	case c.between:
		c.hurryLocked()
	}
}

// hurryLocked lets a client of whom part of a request has been read send the rest, and gives one less time who sent several
// together: of these it cannot be said what has been read.
func (c *client) hurryLocked() {
	if !c.secure {
		limit := time.Now().Add(readHeaderTimeout)
		if c.boundary.phase == phaseLost {
			limit = time.Now().Add(lingerTimeout)
		}
		if c.deadline.IsZero() || limit.Before(c.deadline) {
			_ = c.Conn.SetReadDeadline(limit)
		}
	}
}

func (c *client) giveLocked(g *giver) bool {
	conn, ok := c.Conn.(syscall.Conn)
	c.given = ok && g.sendConn(passed{Listener: c.server.address, Secure: c.secure}, conn)
	return c.given
}

// expect says how long the content of the request is whose header has just been read.
func (c *client) expect(length int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.secure {
		c.boundary.expect(length)
	}
}

// await says whether net/http waits for a request now.
func (c *client) await(between bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.between = between
}

// stays reports whether the connection cannot be given away, so that its client must be told to make another.
func (c *client) stays() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.secure || c.boundary.phase == phaseLost
}

// Write implements net.Conn.
func (c *client) Write(p []byte) (int, error) {
	c.mu.Lock()
	given := c.given
	c.mu.Unlock()
	if given {
		return 0, errors.New("the connection is another process's")
	}
	return c.Conn.Write(p)
}

// SetReadDeadline implements net.Conn.
func (c *client) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadline = t
	return c.Conn.SetReadDeadline(t)
}

// SetDeadline implements net.Conn.
func (c *client) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// Close implements net.Conn. What was given away stays open on the other side.
func (c *client) Close() error {
	c.server.forget(c)
	return c.Conn.Close()
}

// CloseWrite ends the sending direction.
func (c *client) CloseWrite() error { return c.Conn.(*net.TCPConn).CloseWrite() }

// SyscallConn implements syscall.Conn.
func (c *client) SyscallConn() (syscall.RawConn, error) { return c.Conn.(*net.TCPConn).SyscallConn() }
