package proxy

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// An outlook sees how much the proxy has read of what is sent to it: it finds the proxy's end of a connection among this
// process's own descriptors. So bytes come in as many reads as they are written in, whatever the engine, and without waiting for longer
// than it takes.
type outlook struct {
	local, remote netip.AddrPort
	fd            int // -1: not found yet
}

func newOutlook(c net.Conn) *outlook {
	return &outlook{
		local: c.LocalAddr().(*net.TCPAddr).AddrPort(), remote: c.RemoteAddr().(*net.TCPAddr).AddrPort(), fd: -1,
	}
}

// is reports whether fd is the other end.
func (o *outlook) is(fd int) bool {
	return addressOf(unix.Getpeername(fd)) == o.local && addressOf(unix.Getsockname(fd)) == o.remote
}

func addressOf(a unix.Sockaddr, err error) netip.AddrPort {
	if err == nil {
		switch a := a.(type) {
		case *unix.SockaddrInet4:
			return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
		case *unix.SockaddrInet6:
			return netip.AddrPortFrom(netip.AddrFrom16(a.Addr).Unmap(), uint16(a.Port))
		}
	}
	return netip.AddrPort{}
}

// find reports whether the other end is open.
func (o *outlook) find() bool {
	if o.fd >= 0 && o.is(o.fd) {
		return true
	}
	o.fd = -1
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return false
	}
	for _, e := range entries {
		if fd, err := strconv.Atoi(e.Name()); err == nil && o.is(fd) {
			o.fd = fd
			return true
		}
	}
	return false
}

// taken waits until everything was read that was sent, or for a while that is longer than any reader takes who reads at all.
func (o *outlook) taken() {
	known := o.fd >= 0
	soon(20*time.Millisecond, func() bool {
		if !o.find() {
			return known // it was closed
		}
		known = true
		n, err := unix.IoctlGetInt(o.fd, unix.TIOCINQ)
		return err != nil || n == 0
	})
}

// closed waits until the other end is closed.
func (o *outlook) closed(limit time.Duration) bool {
	return soon(limit, func() bool { return !o.find() })
}

// soon reports whether f becomes true within limit.
func soon(limit time.Duration, f func() bool) bool {
	for range 20 {
		if f() {
			return true
		}
		runtime.Gosched()
	}
	tick := time.NewTicker(100 * time.Microsecond)
	defer tick.Stop()
	for end := time.Now().Add(limit); time.Now().Before(end); <-tick.C {
		if f() {
			return true
		}
	}
	return f()
}

// A cut says where what a peer sends is split. It counts over all that the peer sends.
type cut struct {
	at    int // -1: nowhere
	every bool
}

// send writes p, of which sent bytes went before, in the parts that the cut makes.
func (k cut) send(c net.Conn, o *outlook, sent int, p []byte) error {
	if k.every {
		for i := range p {
			if _, err := c.Write(p[i : i+1]); err != nil {
				return err
			}
			o.taken()
		}
		return nil
	}
	if at := k.at - sent; 0 < at && at < len(p) {
		if _, err := c.Write(p[:at]); err != nil {
			return err
		}
		o.taken()
		p = p[at:]
	}
	_, err := c.Write(p)
	return err
}

// A puppet is an instance that does what it is told, and remembers what it saw.
type puppet struct {
	t        testing.TB
	listener *net.TCPListener
	wait     sync.WaitGroup

	mu      sync.Mutex
	conns   map[*net.TCPConn]struct{}
	acts    []act  // that are still to be done
	path    string // what the acts are for; a request for another is of an earlier play, whose client has left
	cut     cut
	sent    int
	heads   int
	seen    []sight
	running int // acts
	heard   func(text []byte) bool
}

// A sight is a request that an instance saw, and the connection on which it came.
type sight struct {
	message
	link *outlook
}

func newPuppet(t testing.TB) *puppet {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &puppet{t: t, listener: l.(*net.TCPListener), conns: map[*net.TCPConn]struct{}{}, cut: cut{at: -1}}
	p.wait.Go(func() {
		for {
			c, err := p.listener.AcceptTCP()
			if err != nil {
				return
			}
			p.mu.Lock()
			p.conns[c] = struct{}{}
			p.mu.Unlock()
			p.wait.Go(func() { p.serve(c) })
		}
	})
	return p
}

// close ends everything and waits for it.
func (p *puppet) close() {
	p.listener.Close()
	p.mu.Lock()
	for c := range p.conns {
		c.Close()
	}
	p.mu.Unlock()
	p.wait.Wait()
}

// disconnect closes the connections that there are and waits until the proxy has, too.
func (p *puppet) disconnect() {
	p.mu.Lock()
	var ends []*outlook
	for c := range p.conns {
		if o := newOutlook(c); o.find() {
			ends = append(ends, o)
		}
		c.Close()
	}
	p.mu.Unlock()
	for _, o := range ends {
		o.closed(30 * time.Second)
	}
}

// play tells what is to be done from now on for requests whose line has path. heard reports whether a text has come at the client.
func (p *puppet) play(path string, acts []act, k cut, heard func([]byte) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.path, p.acts, p.cut, p.sent, p.heads, p.seen, p.heard = path, acts, k, 0, 0, nil, heard
}

// done reports whether n requests have ended and no act runs.
func (p *puppet) done(n int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.seen) >= n && p.running == 0
}

func (p *puppet) sights() []sight {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.seen
}

func (p *puppet) headed(n int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.heads >= n
}

// serve reads requests and does an act for each until the connection ends.
func (p *puppet) serve(c *net.TCPConn) {
	defer func() {
		p.mu.Lock()
		delete(p.conns, c)
		p.mu.Unlock()
		c.Close()
	}()
	o := newOutlook(c)
	var in []byte
	for {
		head, err := p.readHead(c, &in)
		if err != nil {
			return
		}
		a := p.begin(head)
		if a.early && !p.perform(c, o, a, &in) {
			p.end(sight{p.readRest(c, &in), o}, a.early)
			return
		}
		m := p.readRest(c, &in)
		if a.early {
			p.end(sight{m, o}, true)
		} else if m.cut {
			p.end(sight{m, o}, false)
			return
		}
		if !a.early {
			p.see(sight{m, o})
			goOn := p.perform(c, o, a, &in)
			p.finish()
			if !goOn {
				return
			}
		}
		if m.cut {
			return
		}
	}
}

// readHead reads until there is a head in in, and returns it.
func (p *puppet) readHead(c net.Conn, in *[]byte) (message, error) {
	for {
		if at := bytes.Index(*in, []byte("\r\n\r\n")); at >= 0 {
			m := message{line: strings.SplitN(string((*in)[:at]), "\r\n", 2)[0]}
			return m, nil
		}
		if err := readMore(c, in); err != nil {
			return message{}, err
		}
	}
}

// readRest reads the request to its end.
func (p *puppet) readRest(c net.Conn, in *[]byte) message {
	for {
		m, n, err := readMessage(*in, "", false)
		if err == nil {
			*in = (*in)[n:]
			return m
		}
		if err != errMore {
			m.line = fmt.Sprintf("malformed: %v: %q", err, *in)
			m.cut = true
			return m
		}
		if readMore(c, in) != nil {
			m.cut = true
			return m
		}
	}
}

func readMore(c net.Conn, in *[]byte) error {
	var b [4096]byte
	n, err := c.Read(b[:])
	*in = append(*in, b[:n]...)
	if n > 0 {
		return nil
	}
	return err
}

// begin takes the next act.
func (p *puppet) begin(head message) act {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.running++
	ours := strings.Contains(head.line, p.path)
	if ours {
		p.heads++
	}
	if !ours || len(p.acts) == 0 || strings.Contains(head.line, " /probe ") {
		text := "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
		if strings.HasPrefix(head.line, "HEAD ") {
			text = strings.TrimSuffix(text, "ok")
		}
		return act{steps: []step{{do: "send", text: []byte(text)}}}
	}
	a := p.acts[0]
	p.acts = p.acts[1:]
	return a
}

func (p *puppet) see(s sight) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s.cut || strings.Contains(s.line, p.path) {
		p.seen = append(p.seen, s)
	}
}

func (p *puppet) finish() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.running--
}

func (p *puppet) end(s sight, _ bool) {
	p.see(s)
	p.finish()
}

// perform does an act and reports whether the connection goes on.
func (p *puppet) perform(c *net.TCPConn, o *outlook, a act, in *[]byte) bool {
	for _, s := range a.steps {
		switch s.do {
		case "send":
			p.mu.Lock()
			k, sent := p.cut, p.sent
			p.sent += len(s.text)
			p.mu.Unlock()
			if k.send(c, o, sent, s.text) != nil {
				return false
			}
		case "wait":
			p.mu.Lock()
			heard := p.heard
			p.mu.Unlock()
			if !soon(30*time.Second, func() bool { return heard(s.text) }) {
				p.t.Errorf("the client was not sent %q", s.text)
			}
		case "read":
			for !bytes.Contains(*in, s.text) {
				if readMore(c, in) != nil {
					p.t.Errorf("the instance read %q instead of %q", *in, s.text)
					return false
				}
			}
		case "left":
			o.closed(30 * time.Second)
			return false
		case "close":
			o.taken()
			c.Close()
			o.closed(30 * time.Second)
			return false
		case "reset":
			o.taken()
			_ = c.SetLinger(0)
			c.Close()
			o.closed(30 * time.Second)
			return false
		}
	}
	return true
}

// A caller is a client that does what it is told.
type caller struct {
	*net.TCPConn
	outlook *outlook

	mu    sync.Mutex
	got   []byte
	ended bool
	reset bool
	done  chan struct{}
}

// newCaller connects; what comes is read at once.
func newCaller(t testing.TB, address string) *caller {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	c := &caller{TCPConn: conn.(*net.TCPConn), done: make(chan struct{})}
	c.outlook = newOutlook(conn)
	go c.read()
	return c
}

func (c *caller) read() {
	defer close(c.done)
	b := make([]byte, 16<<10)
	for {
		n, err := c.Read(b)
		c.mu.Lock()
		c.got = append(c.got, b[:n]...)
		c.ended = err != nil
		c.reset = errors.Is(err, unix.ECONNRESET)
		c.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// heard reports whether text has come, as it is or in the content of the last response, or nothing comes any more.
func (c *caller) heard(text []byte) bool {
	c.mu.Lock()
	got, ended := c.got, c.ended
	c.mu.Unlock()
	if ended || bytes.Contains(got, text) {
		return true
	}
	for {
		m, n, err := readMessage(got, "GET", false)
		if err != nil || n == 0 {
			return strings.Contains(m.content, string(text))
		}
		got = got[n:]
	}
}

// responses returns the final responses to requests of the methods that have come so far, the interim ones between
// them, and what is behind them. An error is that the rest is no response.
func (c *caller) responses(methods []string) (list []message, rest []byte, ended, reset bool, err error) {
	c.mu.Lock()
	got := c.got
	ended, reset = c.ended, c.reset
	c.mu.Unlock()
	for len(got) > 0 && len(methods) > 0 {
		m, n, err := readMessage(got, methods[0], ended && !reset)
		switch {
		case err == errMore && ended && m.line != "":
			m.cut = true
			return append(list, m), nil, ended, reset, nil
		case err == errMore:
			return list, got, ended, reset, nil
		case err != nil:
			return list, got, ended, reset, err
		}
		got = got[n:]
		list = append(list, m)
		if m.line[0] != '1' || m.line == "101" {
			methods = methods[1:]
		}
	}
	return list, got, ended, reset, nil
}

// do does the steps, splitting as the cut says.
func (c *caller) do(steps []step, k cut, p *puppet) {
	sent := 0
	for _, s := range steps {
		switch s.do {
		case "send":
			_ = k.send(c.TCPConn, c.outlook, sent, s.text) // the proxy may have enough
			sent += len(s.text)
		case "wait":
			if !soon(30*time.Second, func() bool { return c.heard(s.text) }) {
				p.t.Errorf("the client was not sent %q", s.text)
			}
		case "head":
			soon(30*time.Second, func() bool { return p.headed(1) })
		case "seen":
			soon(30*time.Second, func() bool { return len(p.sights()) > 0 })
		case "patience": // for a response; only what waits for more gets none
			soon(300*time.Millisecond, func() bool {
				c.mu.Lock()
				defer c.mu.Unlock()
				return c.ended
			})
		case "close":
			c.outlook.taken()
			_ = c.CloseWrite()
		case "reset":
			c.outlook.taken()
			_ = c.SetLinger(0)
			c.Close()
		}
	}
}
