package proxy

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"mainstay/proxy/http1"
)

// A strictConn is a client's connection as net/http reads HTTP/1 from it. A header section is handed on when it is whole and
// http1 has accepted it, content when its framing is sound, and never a byte beyond the request that net/http asks for: what
// follows is kept until that one is answered. What is refused is answered here. The time that a header section may take is
// measured here too, so that net/http need not.
type strictConn struct {
	net.Conn // the client, or TLS on it
	client   *client

	// These belong to who reads, and to await, which net/http calls when nobody does.
	sieve
	request http1.Request
	body    http1.Body
	content bool      // follows, as body says
	early   int       // bytes of the next request that net/http has already: it looks for one to see that a client is there
	start   time.Time // of the header section that is being read; zero: nothing of it has come
	raw     bool      // everything is handed on
}

// A secureConn is a strictConn on TLS, which net/http tells from others by its state.
type secureConn struct{ *strictConn }

// newStrictConn returns the connection for net/http to read. conn is client or TLS on it.
func newStrictConn(conn net.Conn, c *client) net.Conn {
	s := &strictConn{Conn: conn, client: c, start: time.Now()}
	s.sieve.check = s.check
	c.allow(deadline(s.start, c.limits().HeaderTimeout))
	if conn != net.Conn(c) {
		return &secureConn{s}
	}
	return s
}

// ConnectionState tells net/http what was agreed on.
func (c *secureConn) ConnectionState() tls.ConnectionState {
	return c.Conn.(*tls.Conn).ConnectionState()
}

// deadline returns when a limit ends; a limit of zero never does.
func deadline(from time.Time, limit time.Duration) time.Time {
	if limit <= 0 {
		return time.Time{}
	}
	return from.Add(limit)
}

// await says whether net/http waits for a request now or answers one. Nobody reads meanwhile.
func (c *strictConn) await(between bool) {
	if !between {
		c.client.taking = pace{}
		c.client.await(false, false, time.Time{})
		return
	}
	now, limits := time.Now(), c.client.limits()
	begun := len(c.held)+c.early > 0
	limit := deadline(now, limits.IdleTimeout)
	if c.start = (time.Time{}); begun {
		c.start, limit = now, deadline(now, limits.HeaderTimeout)
	}
	c.client.await(true, begun, limit)
}

// Read implements net.Conn.
func (c *strictConn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for {
		switch {
		case c.ready > 0:
			return c.hand(p), nil
		case c.fault != nil:
			return 0, c.fault
		case c.raw:
			return c.Conn.Read(p)
		case !c.content && !c.client.waits():
			return c.peek(p)
		case c.more:
			c.sift()
			continue
		}
		n, err := c.Conn.Read(p)
		if n == 0 {
			return 0, c.broken(err)
		}
		if n = c.take(p[:n]); n > 0 {
			return n, nil
		}
	}
}

// check is the sieve's.
func (c *strictConn) check(p []byte) (from, to int) {
	if !c.content {
		limits := c.client.limits()
		sizes := requestLimits(limits)
		n, err := c.request.Parse(p, &sizes)
		if n > 0 && err == nil {
			err = checkTarget(&c.request, p)
		}
		switch {
		case err != nil:
			c.fault = c.refuse(p, reasonBadRequest, err)
			return 0, 0
		case n == 0:
			if c.start.IsZero() {
				c.start = time.Now()
				c.client.allow(deadline(c.start, limits.HeaderTimeout))
			}
			return 0, 0
		}
		from, to = emptyLine(p)+c.early, n
		c.early, c.start = 0, time.Time{}
		c.client.allow(time.Time{})
		c.body.Begin(c.request.Framing, c.request.Length, &sizes)
		c.content = !c.body.Done()
		c.request.Reset()
	}
	for c.content && to < len(p) && c.fault == nil {
		_, n, done, err := c.body.Decode(p[to:])
		to += n
		c.content = !done
		if err != nil {
			c.fault = err
		} else if n == 0 {
			break
		}
	}
	c.more = !c.content && to < len(p)
	c.client.ahead.Store(c.more)
	return from, to
}

// checkTarget refuses what net/http would refuse without a word: escapes that are none.
func checkTarget(r *http1.Request, p []byte) error {
	target := r.Target.View(p)
	if r.Form == http1.FormOrigin && strings.IndexByte(target, '%') < 0 {
		return nil
	}
	if r.Form == http1.FormAuthority {
		target = "http://" + target
	}
	if _, err := url.ParseRequestURI(target); err == nil {
		return nil
	}
	if path, _, err := splitTarget(target); err == nil {
		if _, err := normalisePath(path); err != nil {
			return err
		}
	}
	return errTarget
}

var errTarget = &http1.Error{Status: http.StatusBadRequest, Text: "the request target is malformed", Clause: "RFC 3986, section 3"}

// emptyLine returns the length of an empty line at the beginning of p, or of what there is of one.
func emptyLine(p []byte) int {
	switch {
	case len(p) > 1 && p[0] == '\r' && p[1] == '\n':
		return 2
	case len(p) == 1 && p[0] == '\r':
		return 1
	}
	return 0
}

// peek answers net/http while a request is answered: whether its client is still there. A byte of the next one says so too.
func (c *strictConn) peek(p []byte) (int, error) {
	for {
		if at := emptyLine(c.held); c.early == 0 && at < len(c.held) {
			p[0], c.early = c.held[at], 1
			c.client.ahead.Store(true)
			return 1, nil
		}
		n, err := c.Conn.Read(p[:1])
		if n == 0 {
			return 0, err
		}
		c.keep(p[:n])
	}
}

// tunnel hands on everything from now on.
func (c *strictConn) tunnel() {
	c.client.release()
	c.drop(c.early)
	c.early, c.ready, c.raw = 0, len(c.held), true
}

// broken returns what net/http is told of a read that brought nothing.
func (c *strictConn) broken(err error) error {
	if !c.content && isTimeout(err) && emptyLine(c.held) < len(c.held) {
		c.fault = c.refuse(c.held, reasonTimeoutRequest, nil)
		return c.fault
	}
	return err
}

// errRefused is read after a request that was refused. net/http is silent about errors of reading.
var errRefused = &net.OpError{Op: "read", Net: "tcp", Err: errors.New("the request was refused")}

// lingerSize is how much is read of what a refused client still sends, so that it sees the answer.
const lingerSize = 256 << 10

// refuse answers a request whose header section, of which p has come, is not as it should be, and ends the connection. It returns
// what is to be read from it.
func (c *strictConn) refuse(p []byte, why reason, err error) error {
	s := c.client.server
	if !s.requests.enter() {
		return errRefused
	}
	defer s.requests.leave()
	r := c.recordOf(p)
	a := why.answer()
	if err != nil {
		a = misunderstood(err)
	}
	r.Reason, r.Status = why, a.status
	response := refusal(why, a, r.ID)
	head := response.appendHead(nil, time.Now().UTC().Format(http.TimeFormat), "close")
	c.client.allow(time.Now().Add(lingerTimeout))
	if _, err = c.Conn.Write(append(head, response.content...)); err == nil {
		r.BytesOut = int64(len(response.content))
	}
	r.Duration = time.Since(r.Time).Seconds()
	s.engine.metrics.observe(nil, &r)
	if log := s.engine.access.Load(); log != nil {
		log.write(&r)
	}
	if err == nil && c.CloseWrite() == nil {
		_, _ = io.CopyN(io.Discard, c.Conn, lingerSize)
	}
	return errRefused
}

// recordOf returns what is known of a request of which p has come.
func (c *strictConn) recordOf(p []byte) record {
	r := record{
		Time: c.start, ID: c.client.server.engine.newID(), Client: c.client.address.String(), Protocol: "HTTP/1.1", BytesIn: 0,
		Method: string(c.request.Text.Of(p)), Host: string(c.request.Authority.Of(p)),
		UserAgent: string(c.request.Fields.Value(p, http1.NameUserAgent)),
	}
	if r.Time.IsZero() {
		r.Time = time.Now()
	}
	if target := string(c.request.Target.Of(p)); target != "" {
		r.Path, _, _ = strings.Cut(target, "?")
	}
	if t, ok := c.Conn.(*tls.Conn); ok {
		r.TLS = tls.VersionName(t.ConnectionState().Version)
	}
	return r
}

// CloseWrite ends the sending direction; of TLS too.
func (c *strictConn) CloseWrite() error {
	return c.Conn.(interface{ CloseWrite() error }).CloseWrite()
}
