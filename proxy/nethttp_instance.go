package proxy

import (
	"errors"
	"net"
	"sync"
	"sync/atomic"

	"mainstay/proxy/http1"
)

// An instanceConn is a connection to an instance as net/http reads responses from it. A header section is handed on when it is
// whole and http1 has accepted it, content when its framing is sound. What comes when no response is awaited ends the connection,
// so that it is never taken for the response to the next request.
type instanceConn struct {
	net.Conn
	written atomic.Int64

	mu       sync.Mutex // guards the rest but sieve, which belongs to who reads
	awaited  bool       // a response is, or the rest of one
	toHead   bool       // the request is HEAD
	base     int64      // what had been written before that
	content  bool       // follows, as body says
	raw      bool       // everything is handed on
	spoilt   bool       // there was something that was not awaited
	response http1.Response
	body     http1.Body
	sieve    sieve
}

func newInstanceConn(conn net.Conn) *instanceConn {
	c := &instanceConn{Conn: conn}
	c.sieve.check = c.check
	return c
}

var errUnsolicited = errors.New("the instance sent what was not awaited")

// malformed is what net/http reads instead of a header section that was refused.
const malformed = "\r\n"

// expect says that a request is about to be written.
func (c *instanceConn) expect(toHead bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.awaited, c.toHead, c.base = true, toHead, c.written.Load()
}

// Write implements net.Conn.
func (c *instanceConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	spoilt := c.spoilt
	c.mu.Unlock()
	if spoilt {
		return 0, errUnsolicited // net/http chooses another connection, as nothing was written
	}
	// Counted before, so that who asks when the connection was closed knows of all that went out.
	c.written.Add(int64(len(p)))
	n, err := c.Conn.Write(p)
	c.written.Add(int64(n - len(p)))
	return n, err
}

// Read implements net.Conn.
func (c *instanceConn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	s := &c.sieve
	for {
		switch {
		case s.ready > 0:
			return s.hand(p), nil
		case s.fault != nil:
			return 0, s.fault
		case s.more:
			s.sift()
			continue
		}
		n, err := c.Conn.Read(p)
		switch {
		case n > 0:
			if n = s.take(p[:n]); n > 0 {
				return n, nil
			}
		case len(s.held) > 0: // net/http finds out that it is not whole
			s.ready, s.fault = len(s.held), err
		default:
			return 0, err
		}
	}
}

// check is the sieve's.
func (c *instanceConn) check(p []byte) (from, to int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for to < len(p) && c.sieve.fault == nil {
		switch {
		case c.raw:
			to = len(p)
		case c.content:
			_, n, done, err := c.body.Decode(p[to:])
			to += n
			c.content, c.awaited = !done, !done
			if c.sieve.fault = err; err == nil && n == 0 {
				return 0, to
			}
		case !c.awaited || c.written.Load() == c.base:
			c.spoilt, c.sieve.fault = true, errUnsolicited
		case to > 0: // another header section after an interim one
			c.sieve.more = true
			return 0, to
		default:
			limits := responseLimits()
			n, err := c.response.Parse(p, &limits, c.toHead)
			if err != nil {
				c.sieve.instead, c.sieve.fault = malformed, err
				return 0, 0
			}
			if to = n; n == 0 {
				return 0, 0
			}
			c.follow(&limits)
		}
	}
	return 0, to
}

// follow begins what comes after the header section.
func (c *instanceConn) follow(limits *http1.Limits) {
	switch {
	case c.response.Status == 101:
		c.raw = true
	case !c.response.Interim():
		c.body.Begin(c.response.Framing, c.response.Length, limits)
		c.content = !c.body.Done()
		c.awaited = c.content
	}
	c.response.Reset()
}

// CloseWrite ends the sending direction.
func (c *instanceConn) CloseWrite() error { return c.Conn.(*net.TCPConn).CloseWrite() }
