//go:build linux

package main

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A load is what the generator sends. It is a process of its own, so that it can be given its own cores.
type load struct {
	Address     string
	Path        string
	BodyFile    string        // what every response's content must be
	Echo        int           // bytes of a WebSocket message; 0 is HTTP
	Connections int           // at the same time, kept alive
	Rate        float64       // arrivals a second; 0 is a closed loop, in which each connection sends when it was answered
	Warm        time.Duration // that is not measured
	Time        time.Duration // that is
	Idle        time.Duration // after one request on each connection nothing is sent for so long, and then each must answer one more
	Threads     int
	Seed        uint64
}

// A loadResult is what came of it.
type loadResult struct {
	Requests   int     // answered rightly while it was measured
	Total      int     // answered rightly, the warm-up's too
	Seconds    float64 // that were measured
	Errors     int     // wrong status, wrong length, wrong content, broken connections; the warm-up's too
	FirstError string
	Unanswered int     // arrivals that were not answered two seconds after the end
	Compared   int     // responses of which every byte was compared
	P50        float64 // milliseconds; with a rate from the moment the request was due, whether or not a connection was free then
	P99        float64
	P999       float64
	Max        float64
	LateP99    float64 // milliseconds that the generator itself was late, where a connection was free
}

// runLoad is the process: it prints "begin" when the measurement begins, "end" when it ends, and then the result as JSON.
func runLoad(l load, out io.Writer) error {
	debug.SetGCPercent(400)
	generators := make([]*generator, l.Threads)
	for i := range generators {
		g, err := newGenerator(l, i)
		if err != nil {
			return err
		}
		defer g.close()
		generators[i] = g
	}
	if l.Idle > 0 {
		for _, g := range generators {
			if err := g.onceEach(); err != nil {
				return err
			}
		}
		fmt.Fprintln(out, "begin")
		time.Sleep(l.Idle)
		fmt.Fprintln(out, "end")
		time.Sleep(l.Idle / 10) // in which it is looked at
		for _, g := range generators {
			if err := g.onceEach(); err != nil {
				return fmt.Errorf("use an idle connection again: %w", err)
			}
		}
		return json.NewEncoder(out).Encode(collect(generators, l))
	}
	start := time.Now()
	done := make(chan error)
	for _, g := range generators {
		go func() {
			runtime.LockOSThread()
			done <- g.run(start)
		}()
	}
	time.Sleep(time.Until(start.Add(l.Warm)))
	fmt.Fprintln(out, "begin")
	var failed error
	for range generators {
		failed = errors.Join(failed, <-done)
	}
	if failed != nil {
		return failed
	}
	fmt.Fprintln(out, "end")
	return json.NewEncoder(out).Encode(collect(generators, l))
}

// collect adds up what the threads have seen.
func collect(generators []*generator, l load) loadResult {
	var r loadResult
	var latencies, late []int64
	for _, g := range generators {
		r.Requests += g.measured
		r.Total += g.total
		r.Errors += g.errors
		r.Unanswered += g.unanswered
		r.Compared += g.compared
		if r.FirstError == "" && g.firstError != nil {
			r.FirstError = g.firstError.Error()
		}
		r.Seconds = max(r.Seconds, float64(g.end-g.from)/1e9)
		latencies = append(latencies, g.latencies...)
		late = append(late, g.late...)
	}
	slices.Sort(latencies)
	slices.Sort(late)
	r.P50, r.P99, r.P999, r.Max = percentile(latencies, 50), percentile(latencies, 99), percentile(latencies, 99.9), percentile(latencies, 100)
	r.LateP99 = percentile(late, 99)
	return r
}

// percentile returns the value, in milliseconds, that p per cent of sorted nanoseconds do not exceed, and 0 of none.
func percentile(sorted []int64, p float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	i := int(float64(len(sorted))*p/100+0.9999999) - 1
	return float64(sorted[max(0, min(i, len(sorted)-1))]) / 1e6
}

// A generator is one thread of the load: its connections and what it has seen.
type generator struct {
	load     load
	epoll    int
	clients  []*client
	request  []byte
	expected []byte // of a response's content, or of a message with its frame
	buffer   []byte
	random   *mathrand.Rand

	free    []*client // connections that wait for an arrival, the longest first
	pending []int64   // arrivals that wait for a connection, by when they were due
	live    int       // requests that are under way

	start, from, end int64 // nanoseconds since zero
	zero             time.Time
	stopping         bool

	measured, total, errors, unanswered, compared int
	firstError                                    error
	latencies, late                               []int64
}

// A client is one connection.
type client struct {
	fd        int
	due       int64 // when the request was due, or was sent
	unsent    []byte
	head      []byte // of a response, as far as it has come
	inBody    bool
	remaining int
	at        int // of the content
	compare   bool
	closing   bool // the response says so
}

func newGenerator(l load, index int) (*generator, error) {
	g := &generator{load: l, zero: time.Now(), buffer: make([]byte, 256<<10), random: mathrand.New(mathrand.NewPCG(l.Seed, uint64(index)))}
	g.load.Rate /= float64(l.Threads)
	count := l.Connections / l.Threads
	if index < l.Connections%l.Threads {
		count++
	}
	if l.Echo > 0 {
		payload := bytes.Repeat([]byte("echo"), l.Echo/4+1)[:l.Echo]
		g.request, g.expected = maskedFrame(payload), plainFrame(payload)
	} else {
		body, err := os.ReadFile(l.BodyFile)
		if err != nil {
			return nil, fmt.Errorf("read what responses must be: %w", err)
		}
		g.expected = body
		g.request = fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n", l.Path, l.Address)
	}
	expect := int(max(l.Rate, 100_000/float64(l.Threads)) * l.Time.Seconds() * 1.2)
	g.latencies, g.late = make([]int64, 0, expect), make([]int64, 0, expect)
	var err error
	if g.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, fmt.Errorf("make epoll: %w", err)
	}
	for range count {
		c, err := g.connect()
		if err != nil {
			g.close()
			return nil, err
		}
		g.clients = append(g.clients, c)
		g.free = append(g.free, c)
	}
	return g, nil
}

func (g *generator) close() {
	for _, c := range g.clients {
		unix.Close(c.fd)
	}
	unix.Close(g.epoll)
}

// connect opens a connection, blocking; a WebSocket has then been agreed upon.
func (g *generator) connect() (*client, error) {
	conn, err := net.DialTimeout("tcp", g.load.Address, 5*time.Second)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	defer conn.Close()
	if g.load.Echo > 0 {
		if err := handshake(conn, g.load.Address, g.load.Path); err != nil {
			return nil, err
		}
	}
	file, err := conn.(*net.TCPConn).File()
	if err != nil {
		return nil, fmt.Errorf("take the connection's descriptor: %w", err)
	}
	defer file.Close()
	fd, err := unix.FcntlInt(file.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("take the connection's descriptor: %w", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("take the connection's descriptor: %w", err)
	}
	c := &client{fd: fd}
	if err := g.watch(unix.EPOLL_CTL_ADD, c, len(g.clients), unix.EPOLLIN); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return c, nil
}

func (g *generator) watch(operation int, c *client, index int, events uint32) error {
	// The index stands where the kernel keeps the descriptor, as that is all that is handed back.
	event := unix.EpollEvent{Events: events, Fd: int32(index)}
	if err := unix.EpollCtl(g.epoll, operation, c.fd, &event); err != nil {
		return fmt.Errorf("watch a connection: %w", err)
	}
	return nil
}

func (g *generator) now() int64 { return int64(time.Since(g.zero)) }

// run sends from start on until the time is up and what is under way has been answered.
func (g *generator) run(start time.Time) error {
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("ask for exact timers: %w", err)
	}
	g.start = int64(start.Sub(g.zero))
	g.from = g.start + int64(g.load.Warm)
	g.end = g.from + int64(g.load.Time)
	const patience = int64(2 * time.Second)
	events := make([]unix.EpollEvent, 256)
	next := g.start
	if g.load.Rate == 0 {
		next = 1 << 62
		for _, c := range g.takeAll() {
			g.send(c, g.now())
		}
	}
	for {
		now := g.now()
		for next <= now && next < g.end {
			g.arrive(next, now)
			next += int64(g.random.ExpFloat64() / g.load.Rate * 1e9)
		}
		if now >= g.end {
			g.stopping = true
			if g.live == 0 && len(g.pending) == 0 || now > g.end+patience {
				g.finish(now)
				return nil
			}
		}
		wake := g.end
		if g.stopping {
			wake = g.end + patience
		} else if next < wake {
			wake = next
		}
		n, err := g.wait(events, wake-now)
		if err != nil {
			return err
		}
		for _, event := range events[:n] {
			g.ready(int(event.Fd), event.Events)
		}
	}
}

// takeAll returns all connections that wait.
func (g *generator) takeAll() []*client {
	all := g.free
	g.free = nil
	return all
}

// finish counts what was not answered, for as long as it has waited.
func (g *generator) finish(now int64) {
	for _, due := range g.pending {
		g.unanswered++
		if due >= g.from {
			g.latencies = append(g.latencies, now-due)
		}
	}
	g.unanswered += g.live
	if g.load.Rate == 0 || g.live+len(g.pending) > 0 {
		g.end = now // what was answered after the end has been counted, so has its time
	}
}

// wait waits for events for so many nanoseconds.
func (g *generator) wait(events []unix.EpollEvent, nanoseconds int64) (int, error) {
	const sysEpollPwait2 = 441 // on every architecture
	timeout := unix.NsecToTimespec(max(0, nanoseconds))
	n, _, errno := unix.Syscall6(sysEpollPwait2, uintptr(g.epoll), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)),
		uintptr(unsafe.Pointer(&timeout)), 0, 0)
	if errno == unix.EINTR {
		return 0, nil
	}
	if errno != 0 {
		return 0, fmt.Errorf("wait for events: %w", errno)
	}
	return int(n), nil
}

// arrive sends a request that was due, or has it wait for a connection.
func (g *generator) arrive(due, now int64) {
	if len(g.free) == 0 {
		g.pending = append(g.pending, due)
		return
	}
	c := g.free[0]
	g.free = g.free[1:]
	if due >= g.from {
		g.late = append(g.late, now-due)
	}
	g.send(c, due)
}

func (g *generator) send(c *client, due int64) {
	c.due, c.unsent, c.head, c.inBody = due, g.request, c.head[:0], false
	g.live++
	g.flush(c)
}

// flush writes what is unsent. A request is small: what does not fit at once is waited for by being tried again with the next event.
func (g *generator) flush(c *client) {
	n, err := unix.Write(c.fd, c.unsent)
	if err == unix.EAGAIN {
		n = 0
	} else if err != nil {
		g.fail(c, fmt.Errorf("write: %w", err))
		return
	}
	c.unsent = c.unsent[n:]
	if len(c.unsent) > 0 {
		g.fail(c, errors.New("write: a request did not fit into the socket"))
	}
}

// ready reads what has come for the connection of this index.
func (g *generator) ready(index int, events uint32) {
	c := g.clients[index]
	n, err := unix.Read(c.fd, g.buffer)
	switch {
	case err == unix.EAGAIN || err == unix.EINTR:
		return
	case err != nil:
		g.fail(c, fmt.Errorf("read: %w", err))
		return
	case n == 0:
		g.fail(c, errors.New("read: the connection was closed"))
		return
	}
	if c.due == 0 {
		g.fail(c, errors.New("read: bytes that nobody asked for"))
		return
	}
	if err := g.take(c, g.buffer[:n]); err != nil {
		g.fail(c, err)
	}
}

// take reads p, the next bytes of a response.
func (g *generator) take(c *client, p []byte) error {
	if !c.inBody {
		if g.load.Echo > 0 {
			c.remaining, c.compare, c.closing = len(g.expected), true, false
		} else {
			if len(c.head) > 0 {
				c.head = append(c.head, p...)
				p = c.head
			}
			head, err := parseHead(p)
			if err != nil {
				return err
			}
			if head.size == 0 { // more is needed
				if len(c.head) == 0 {
					c.head = append(c.head, p...)
				}
				if len(c.head) > 64<<10 {
					return errors.New("a header of more than 64 KiB")
				}
				return nil
			}
			if head.status/100 != 2 {
				return fmt.Errorf("status %d", head.status)
			}
			if head.length != len(g.expected) {
				return fmt.Errorf("Content-Length %d, want %d", head.length, len(g.expected))
			}
			p = p[head.size:]
			c.remaining, c.closing = head.length, head.close
			c.compare = len(g.expected) <= 1024 || g.total%16 == 0
		}
		c.inBody, c.at = true, 0
	}
	if len(p) > c.remaining {
		return fmt.Errorf("%d bytes after the end of a response", len(p)-c.remaining)
	}
	if c.compare && !bytes.Equal(p, g.expected[c.at:c.at+len(p)]) {
		return errors.New("wrong content")
	}
	c.at += len(p)
	c.remaining -= len(p)
	if c.remaining == 0 {
		return g.answered(c)
	}
	return nil
}

// answered counts a response and sends the next request, if one is due.
func (g *generator) answered(c *client) error {
	now := g.now()
	g.live--
	g.total++
	if c.compare {
		g.compared++
	}
	// A request counts if its answer comes while CPU time is measured; its latency if it was due then.
	if now >= g.from {
		g.measured++
	}
	if c.due >= g.from {
		g.latencies = append(g.latencies, now-c.due)
	}
	c.due = 0
	if c.closing {
		g.live++ // which fail takes back
		return errors.New("the response said Connection: close")
	}
	g.goOn(c, now)
	return nil
}

// goOn gives the connection its next request.
func (g *generator) goOn(c *client, now int64) {
	switch {
	case g.load.Rate == 0 && !g.stopping && g.load.Idle == 0:
		g.send(c, now)
	case len(g.pending) > 0:
		due := g.pending[0]
		g.pending = g.pending[1:]
		g.send(c, due)
	default:
		g.free = append(g.free, c)
	}
}

// fail counts an error and connects again.
func (g *generator) fail(c *client, err error) {
	g.errors++
	if g.firstError == nil {
		g.firstError = err
	}
	if c.due != 0 || c.closing {
		g.live--
	}
	index := slices.Index(g.clients, c)
	waiting := slices.Index(g.free, c)
	if waiting >= 0 {
		g.free = slices.Delete(g.free, waiting, waiting+1)
	}
	unix.Close(c.fd)
	c.due, c.closing, c.inBody, c.unsent, c.fd = 0, false, false, nil, -1
	fresh, err := g.connect()
	if err != nil {
		return // one connection fewer from now on; the error has been counted
	}
	c.fd = fresh.fd
	if err := g.watch(unix.EPOLL_CTL_MOD, c, index, unix.EPOLLIN); err != nil {
		return
	}
	if g.load.Rate == 0 && !g.stopping && g.errors > 1000 {
		return // do not hammer at who refuses everything
	}
	g.goOn(c, g.now())
}

// onceEach sends one request on each connection, one after the other.
func (g *generator) onceEach() error {
	events := make([]unix.EpollEvent, 16)
	for _, c := range g.clients {
		g.free = nil
		g.send(c, g.now())
		for until := g.now() + int64(5*time.Second); g.live > 0; {
			n, err := g.wait(events, int64(time.Second))
			if err != nil {
				return err
			}
			for _, event := range events[:n] {
				g.ready(int(event.Fd), event.Events)
			}
			if g.now() > until {
				return errors.New("one of the idle connections was not answered")
			}
		}
		if g.firstError != nil {
			return g.firstError
		}
	}
	return nil
}

// handshake makes conn a WebSocket.
func handshake(conn net.Conn, host, path string) error {
	nonce := make([]byte, 16)
	rand.Read(nonce)
	key := base64.StdEncoding.EncodeToString(nonce)
	conn.SetDeadline(time.Now().Add(5 * time.Second))
	defer conn.SetDeadline(time.Time{})
	request := "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n\r\n"
	if _, err := fmt.Fprintf(conn, request, path, host, key); err != nil {
		return fmt.Errorf("ask for a WebSocket: %w", err)
	}
	// Byte by byte, as what follows the header belongs to the WebSocket.
	var head []byte
	for one := make([]byte, 1); !bytes.HasSuffix(head, []byte("\r\n\r\n")); head = append(head, one[0]) {
		if _, err := io.ReadFull(conn, one); err != nil {
			return fmt.Errorf("agree upon a WebSocket: %w", err)
		}
	}
	if !bytes.HasPrefix(head, []byte("HTTP/1.1 101 ")) || !bytes.Contains(head, []byte(acceptKey(key))) {
		return fmt.Errorf("agree upon a WebSocket: %q", head)
	}
	return nil
}
