package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"mainstay/topology"
)

// A client is a client's connection below TLS. It gives those little time who take a response slowly. Between two requests,
// when nothing of the next one has been read, it can be given to another process: who reads from it then reads its end, and
// closes what is only a copy.
type client struct {
	net.Conn // *net.TCPConn
	server   *netHTTPServer
	front    *front // that serves it
	address  netip.Addr
	name     string      // address as text
	secure   bool        // TLS is spoken on it
	ahead    atomic.Bool // more has been read than the request that is being answered
	used     atomic.Bool // a request has come
	slow     atomic.Bool // it was cut because it did not take a response

	mu       sync.Mutex
	between  bool // a request is waited for, or the header of one is being read
	begun    bool // some of that has been read; of TLS, anything
	waiting  bool // in a Read, with nothing of the next request read
	broken   bool // off from that by interrupt
	given    bool
	closed   bool
	deadline time.Time // of reads, as net/http wants it
	limit    time.Time // of reads, as limits want it

	writing struct {
		sync.Mutex           // held while the deadline is set
		deadline   time.Time // of writes, as net/http wants it
		armed      time.Time // that the connection has
		free       bool      // of limits: a tunnel
	}
	taking pace // of the response; belongs to who writes
}

func newClient(s *netHTTPServer, conn net.Conn, secure bool) *client {
	c := &client{Conn: conn, server: s, secure: secure, between: true}
	if tcp, ok := conn.RemoteAddr().(*net.TCPAddr); ok {
		c.address = tcp.AddrPort().Addr().Unmap().WithZone("")
	}
	c.name = c.address.String()
	return c
}

// clientOf returns what is below a connection that net/http has.
func clientOf(conn net.Conn) *client {
	switch c := conn.(type) {
	case *strictConn:
		return c.client
	case *secureConn:
		return c.client
	case *tls.Conn:
		return c.NetConn().(*wire).Conn.(*client)
	}
	return conn.(*client)
}

// A wire is what TLS is spoken over: a client, until a loop takes its place.
type wire struct{ net.Conn }

// clientKey is the key of a client in its requests' contexts.
type clientKey struct{}

func withClient(ctx context.Context, conn net.Conn) context.Context {
	return context.WithValue(ctx, clientKey{}, clientOf(conn))
}

// errGiven is what is read from a connection that has been given away. net/http is silent about errors of reading.
var errGiven = &net.OpError{Op: "read", Net: "tcp", Err: errors.New("the connection is another process's")}

// Read implements net.Conn. It is where a connection is given away.
func (c *client) Read(p []byte) (int, error) {
	for {
		if !c.begin() {
			return 0, errGiven
		}
		n, err := c.Conn.Read(p)
		if again := c.end(n, err); !again {
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
	case !c.begun:
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
func (c *client) end(n int, err error) (again bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	broken := c.broken
	c.waiting, c.broken = false, false
	if broken {
		c.armLocked()
		// begin finds out whether the connection is still to be given away.
		end := earliest(c.deadline, c.limit)
		again = n == 0 && isTimeout(err) && (end.IsZero() || time.Now().Before(end))
	}
	if n > 0 && c.between {
		c.begun = true
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

// hurryLocked lets a client of whom part of a request has been read send the rest.
func (c *client) hurryLocked() {
	if !c.secure {
		c.limit = earliest(c.limit, time.Now().Add(hurryTimeout))
		c.armLocked()
	}
}

func (c *client) giveLocked(g *giver) bool {
	conn, ok := c.Conn.(syscall.Conn)
	c.given = ok && g.sendConn(passed{Listener: c.server.address, Secure: c.secure}, conn)
	return c.given
}

// await says that a request is waited for now, or that one is being answered. begun says that some of it has been read, limit
// until when it may be waited for.
func (c *client) await(between, begun bool, limit time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.between = between
	c.begun = begun || c.secure && c.begun
	c.limit = limit
	c.armLocked()
}

// allow bounds reads until the next await.
func (c *client) allow(limit time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.limit = limit
	c.armLocked()
}

// spare reports whether no request is under way, whether some of the next one has come, and until when it may be waited for.
func (c *client) spare() (begun bool, limit time.Time, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.begun, c.limit, c.between && !c.given && !c.closed
}

// limits returns what holds for the client now.
func (c *client) limits() topology.ClientLimits { return c.server.settings.Load().limits }

// waits reports whether a request is waited for.
func (c *client) waits() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.between
}

// stays reports whether the connection cannot be given away when the request has been answered, so that its client must be
// told to make another.
func (c *client) stays() bool { return c.secure || c.ahead.Load() }

// sendParts is in how many parts the time is measured in which a client takes nothing.
const sendParts = 4

// Write implements net.Conn. It ends with a time-out when the client takes nothing for too long, or too little.
func (c *client) Write(p []byte) (written int, err error) {
	c.mu.Lock()
	given := c.given
	c.mu.Unlock()
	if given {
		return 0, errGiven
	}
	settings := c.server.settings.Load()
	stalled := time.Duration(0)
	for {
		patience := min(c.taking.patience(0, settings.rate), within(settings.limits.SendTimeout)-stalled)
		began := time.Now()
		if patience <= 0 {
			c.slow.Store(true)
		}
		if patience <= 0 || !c.armWrite(began, patience) {
			return written, os.ErrDeadlineExceeded
		}
		n, err := c.Conn.Write(p[written:])
		waited := time.Since(began)
		c.taking.move(waited, n)
		if written += n; n > 0 {
			stalled = 0
		}
		stalled += waited
		if err == nil || !isTimeout(err) {
			return written, err
		}
	}
}

// within returns a limit as a duration that can be compared: zero is none.
func within(limit time.Duration) time.Duration {
	if limit <= 0 {
		return forever
	}
	return limit
}

// armWrite sees to it that a write returns after a part of patience. It returns false if it must not begin.
func (c *client) armWrite(now time.Time, patience time.Duration) bool {
	w := &c.writing
	w.Lock()
	defer w.Unlock()
	if !w.deadline.IsZero() {
		if !now.Before(w.deadline) {
			return false
		}
		w.armed = w.deadline
		_ = c.Conn.SetWriteDeadline(w.deadline)
		return true
	}
	if w.free {
		return true
	}
	if patience == forever {
		if !w.armed.IsZero() {
			w.armed = time.Time{}
			_ = c.Conn.SetWriteDeadline(w.armed)
		}
		return true
	}
	// A deadline that is near enough stays: setting one costs more than all of this.
	slice := patience / sendParts
	if left := w.armed.Sub(now); left < slice/2 || left > patience {
		w.armed = now.Add(slice)
		_ = c.Conn.SetWriteDeadline(w.armed)
	}
	return true
}

// release ends the limits: the connection is a tunnel.
func (c *client) release() {
	c.writing.Lock()
	c.writing.free = true
	c.writing.Unlock()
	_ = c.Conn.SetDeadline(time.Time{})
}

// SetWriteDeadline implements net.Conn.
func (c *client) SetWriteDeadline(t time.Time) error {
	w := &c.writing
	w.Lock()
	defer w.Unlock()
	if t.IsZero() && w.deadline.IsZero() {
		return nil // net/http says so after every request
	}
	w.deadline, w.armed = t, t
	return c.Conn.SetWriteDeadline(t)
}

// SetReadDeadline implements net.Conn.
func (c *client) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadline = t
	return c.armLocked()
}

func (c *client) armLocked() error {
	return c.Conn.SetReadDeadline(earliest(c.deadline, c.limit))
}

// earliest returns the earlier of two deadlines, of which zero is none.
func earliest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// SetDeadline implements net.Conn.
func (c *client) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// Close implements net.Conn. What was given away stays open on the other side.
func (c *client) Close() error {
	c.mu.Lock()
	first := !c.closed
	c.closed = true
	c.mu.Unlock()
	if first {
		c.server.forget(c)
	}
	return c.Conn.Close()
}

// abort makes the client see a reset when the connection is closed.
func (c *client) abort() {
	if t, ok := c.Conn.(*net.TCPConn); ok {
		_ = t.SetLinger(0)
	}
}

// CloseWrite ends the sending direction.
func (c *client) CloseWrite() error { return c.Conn.(*net.TCPConn).CloseWrite() }

// SyscallConn implements syscall.Conn.
func (c *client) SyscallConn() (syscall.RawConn, error) { return c.Conn.(*net.TCPConn).SyscallConn() }
