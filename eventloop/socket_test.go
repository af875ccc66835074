//go:build linux

package eventloop

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A probe is a socket whose handler is a function.
type probe struct {
	Socket
	ready func(Events)
}

func (p *probe) Ready(e Events) {
	if p.ready != nil {
		p.ready(e)
	}
}

// adopt has a loop adopt one end of a new TCP connection and returns the other.
func adopt(t testing.TB, l *Loop, p *probe) *net.TCPConn {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	client, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	server, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	client.SetDeadline(time.Now().Add(20 * time.Second))
	fd := descriptor(t, server.(*net.TCPConn))
	do(t, l, func() { err = l.Adopt(&p.Socket, fd, p) })
	if err != nil {
		t.Fatal(err)
	}
	return client.(*net.TCPConn)
}

// descriptor returns a descriptor of the connection, besides its own.
func descriptor(t testing.TB, conn *net.TCPConn) int {
	t.Helper()
	file, err := conn.File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	return duplicate(t, int(file.Fd()))
}

// do runs f on the loop.
func do(t testing.TB, l *Loop, f func()) {
	t.Helper()
	if !l.Do(f) {
		t.Fatal("the loop is stopped")
	}
}

// await fails the test if nothing comes for long.
func await[T any](t testing.TB, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(20 * time.Second):
		t.Fatal("nothing came")
		panic("unreachable")
	}
}

// until waits until f, called on the loop, returns true.
func until(t testing.TB, l *Loop, what string, f func() bool) {
	t.Helper()
	ticker := time.NewTicker(time.Millisecond)
	defer ticker.Stop()
	for range 20_000 {
		var is bool
		do(t, l, func() { is = f() })
		if is {
			return
		}
		<-ticker.C
	}
	t.Fatal("waited in vain until " + what)
}

func TestReadAndWrite(t *testing.T) {
	g := newGroup(t, 1)
	l := g.Loops()[0]
	got := make(chan string, 10)
	p := &probe{}
	p.ready = func(e Events) {
		var b [4]byte
		for p.Readable() {
			n, err := p.Read(b[:])
			if err != nil {
				got <- err.Error()
				p.CloseWrite()
				return
			}
			if n > 0 {
				got <- string(b[:n])
			}
		}
	}
	c := adopt(t, l, p)
	io.WriteString(c, "abcdef")
	if s := await(t, got) + await(t, got); s != "abcdef" {
		t.Errorf("read %q", s)
	}
	do(t, l, func() {
		if n, err := p.Read(make([]byte, 1)); n != 0 || err != nil || p.Readable() {
			t.Errorf("nothing is there, but Read returns %d, %v", n, err)
		}
		if n, err := p.Writev([]byte("gh"), nil, []byte("i")); n != 3 || err != nil {
			t.Errorf("Writev returns %d, %v", n, err)
		}
	})
	c.CloseWrite()
	if s := await(t, got); s != "EOF" {
		t.Errorf("at the end Read returns %q", s)
	}
	if all, err := io.ReadAll(c); string(all) != "ghi" || err != nil {
		t.Errorf("written was %q, %v", all, err)
	}
	do(t, l, func() {
		if !p.PeerClosed() {
			t.Error("the peer has not closed")
		}
		p.Close()
		p.Close()
		if _, err := p.Read(make([]byte, 1)); !errors.Is(err, errClosed) {
			t.Errorf("reading a closed socket returns %v", err)
		}
		if _, err := p.Write([]byte("x")); !errors.Is(err, errClosed) {
			t.Errorf("writing a closed socket returns %v", err)
		}
		if p.FD() != -1 || p.IsOpen() || l.Connections() != 0 {
			t.Error("a closed socket is open")
		}
	})
}

// TestEndBehindData checks that the end of what a peer sends is seen when it arrives together with the last of it.
func TestEndBehindData(t *testing.T) {
	g := newGroup(t, 1)
	l := g.Loops()[0]
	for range 50 {
		ended := make(chan string, 1)
		var read []byte
		p := &probe{}
		p.ready = func(Events) {
			b := make([]byte, 100)
			for p.Readable() {
				n, err := p.Read(b)
				read = append(read, b[:n]...)
				if err != nil {
					ended <- string(read) + " " + err.Error()
					p.Close()
				}
			}
		}
		c := adopt(t, l, p)
		io.WriteString(c, "all")
		c.Close()
		if s := await(t, ended); s != "all EOF" {
			t.Fatalf("got %q", s)
		}
	}
}

func TestReset(t *testing.T) {
	g := newGroup(t, 1)
	l := g.Loops()[0]
	failed := make(chan error, 1)
	p := &probe{}
	p.ready = func(e Events) {
		if e&Failed != 0 {
			_, err := p.Read(make([]byte, 1))
			failed <- err
			p.Close()
		}
	}
	c := adopt(t, l, p)
	c.SetLinger(0)
	c.Close()
	if err := await(t, failed); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("after a reset Read returns %v", err)
	}
	c = adopt(t, l, p)
	do(t, l, p.Reset)
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("what was reset reads as %v", err)
	}
}

// TestStaleEvent checks that a socket is not told what was meant for another that had its descriptor.
func TestStaleEvent(t *testing.T) {
	g := newGroup(t, 1)
	l := g.Loops()[0]
	for range 100 {
		var p, q, late probe
		var spare net.Conn
		told := Events(0)
		handler := func(mine, other *probe) func(Events) {
			return func(e Events) {
				if e&Readable == 0 || late.IsOpen() {
					return
				}
				fd := other.FD()
				other.Close()
				if err := unix.Dup3(descriptor(t, spare.(*net.TCPConn)), fd, unix.O_CLOEXEC); err != nil {
					t.Error(err)
				}
				late.ready = func(e Events) { told |= e }
				if err := l.Adopt(&late.Socket, fd, &late); err != nil {
					t.Error(err)
				}
			}
		}
		p.ready, q.ready = handler(&p, &q), handler(&q, &p)
		a, b := adopt(t, l, &p), adopt(t, l, &q)
		var idle probe
		spare = adopt(t, l, &idle)
		do(t, l, func() { // both become ready in one turn
			a.Write([]byte("x"))
			b.Write([]byte("x"))
		})
		until(t, l, "the second was replaced", func() bool { return late.IsOpen() })
		until(t, l, "it is writable", func() bool { return told != 0 })
		if told&Readable != 0 {
			t.Fatal("a new socket is told that the former one with its descriptor is readable")
		}
		do(t, l, func() {
			for _, s := range []*probe{&p, &q, &late, &idle} {
				s.Close()
			}
		})
	}
}

// TestAgain checks that a connection that always has more to read does not keep others waiting.
func TestAgain(t *testing.T) {
	g := newGroup(t, 1)
	l := g.Loops()[0]
	busy := &probe{}
	var resumed atomic.Int64
	busy.ready = func(e Events) {
		b := l.Buffer(SmallBuffer)
		defer b.Release()
		if n, err := busy.Fill(b); err != nil || n == 0 {
			return
		}
		resumed.Add(int64(e & Resumed / Resumed))
		l.Again(&busy.Socket)
		l.Again(&busy.Socket)
	}
	stuffed := adopt(t, l, busy)
	go io.Copy(stuffed, forever{})
	quiet := &echo{loop: l}
	c := adopt(t, l, &probe{})
	do(t, l, func() {
		for _, s := range l.slots {
			if s != nil && s != &busy.Socket {
				fd := s.Detach()
				if err := l.Adopt(&quiet.Socket, fd, quiet); err != nil {
					t.Error(err)
				}
			}
		}
	})
	for range 200 {
		before := resumed.Load()
		io.WriteString(c, "?")
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		if between := resumed.Load() - before; between > 1_000_000 {
			t.Fatalf("the busy connection was served %d times before the other", between)
		}
	}
	if resumed.Load() == 0 {
		t.Error("the busy connection was never resumed")
	}
	stuffed.Close()
}

type forever struct{}

func (forever) Read(p []byte) (int, error) { return len(p), nil }

// TestPanic checks that a panic ends its socket, tells whose it is, and nothing else.
func TestPanic(t *testing.T) {
	told := make(chan any, 10)
	g := New(1, func(_ *Loop, in any, value any, stack []byte) {
		if !strings.Contains(string(stack), "socket_test.go") || value != "bug" {
			t.Errorf("panic %v at %s", value, stack)
		}
		told <- in
		panic("another")
	})
	if err := g.Start(); err != nil {
		t.Fatal(err)
	}
	defer g.Stop()
	l := g.Loops()[0]
	bad := &probe{}
	bad.ready = func(e Events) {
		if e&Readable != 0 {
			panic("bug")
		}
	}
	good := &echo{loop: l}
	c, d := adopt(t, l, bad), adopt(t, l, &probe{})
	do(t, l, func() {
		for _, s := range l.slots {
			if s != nil && s != &bad.Socket {
				l.Adopt(&good.Socket, s.Detach(), good)
			}
		}
	})
	do(t, l, func() {
		c.Write([]byte("x"))
		d.Write([]byte("y"))
	})
	if in := await(t, told); in != bad {
		t.Errorf("the panic was in %v", in)
	}
	if _, err := io.ReadFull(d, make([]byte, 1)); err != nil {
		t.Errorf("the other connection: %v", err)
	}
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("the connection goes on after a panic")
	}
	o := &panicking{}
	o.Address(o)
	l.Post(&o.Note)
	if in := await(t, told); in != o {
		t.Errorf("the panic was in %v", in)
	}
	do(t, l, func() { l.SetTimer(&o.Timer, 0, o) })
	if in := await(t, told); in != o {
		t.Errorf("the panic was in %v", in)
	}
	do(t, l, func() {})
}

type panicking struct {
	Note
	Timer
}

func (*panicking) Receive(*Note) { panic("bug") }
func (*panicking) Expire(*Timer) { panic("bug") }

func TestConnect(t *testing.T) {
	g := newGroup(t, 1)
	l := g.Loops()[0]
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := &unix.SockaddrInet4{Port: listener.Addr().(*net.TCPAddr).Port, Addr: [4]byte{127, 0, 0, 1}}
	p := &probe{}
	events := make(chan Events, 10)
	p.ready = func(e Events) { events <- e }
	connect := func() Events {
		do(t, l, func() {
			if err := l.Connect(&p.Socket, address, p); err != nil {
				t.Error(err)
			}
		})
		return await(t, events)
	}
	if e := connect(); e&(Connected|Writable|Failed) != Connected|Writable {
		t.Errorf("connecting is told as %b", e)
	}
	do(t, l, func() {
		if err := p.Err(); err != nil || l.Connections() != 0 {
			t.Errorf("connected: %v, %d connections", err, l.Connections())
		}
		if err := l.Connect(&p.Socket, address, p); err == nil {
			t.Error("a socket has two connections")
		}
		p.Close()
	})
	listener.Close()
	if e := connect(); e&(Connected|Failed) != Failed {
		t.Errorf("being refused is told as %b", e)
	}
	do(t, l, func() {
		if err := p.Err(); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("refused: %v", err)
		}
		p.Close()
	})
	do(t, l, func() {
		err := l.Connect(&p.Socket, &unix.SockaddrUnix{Name: t.TempDir() + "/none"}, p)
		if !errors.Is(err, os.ErrNotExist) {
			t.Errorf("no unix socket: %v", err)
		}
	})
}

// TestDetach moves a connection from loop to loop, with what was not read.
func TestDetach(t *testing.T) {
	g := newGroup(t, 2)
	a, b := g.Loops()[0], g.Loops()[1]
	p := &probe{}
	c := adopt(t, a, p)
	io.WriteString(c, "before")
	fd := -1
	until(t, a, "there is something to read", p.Readable)
	do(t, a, func() {
		a.Again(&p.Socket)
		fd = p.Detach()
		if p.Detach() != -1 {
			t.Error("detached twice")
		}
	})
	e := &echo{loop: b}
	do(t, b, func() {
		if err := b.Adopt(&e.Socket, fd, e); err != nil {
			t.Error(err)
		}
	})
	io.WriteString(c, "after")
	all := make([]byte, 11)
	if _, err := io.ReadFull(c, all); err != nil || string(all) != "beforeafter" {
		t.Errorf("echoed %q, %v", all, err)
	}
	if a.Connections() != 0 || b.Connections() != 1 {
		t.Errorf("the loops have %d and %d connections", a.Connections(), b.Connections())
	}
}

// TestOutput checks that a peer that does not read is waited for, that the marks hold, and that what arrives is what was written.
func TestOutput(t *testing.T) {
	g := newGroup(t, 1)
	l := g.Loops()[0]
	random := rand.New(rand.NewPCG(1, 2))
	var output Output
	var written []byte
	drained := make(chan bool, 1)
	p := &probe{}
	p.ready = func(Events) {
		if err := output.Flush(&p.Socket); err != nil {
			t.Error(err)
		}
		if output.Size() == 0 && len(written) > 0 {
			select {
			case drained <- true:
			default:
			}
		}
	}
	c := adopt(t, l, p)
	do(t, l, func() {
		for !output.Full() {
			part := make([]byte, random.IntN(100_000))
			for i := range part {
				part[i] = byte(random.Uint32())
			}
			written = append(written, part...)
			var err error
			if random.IntN(2) == 0 {
				err = output.Write(&p.Socket, part)
			} else {
				b := l.Buffer(len(part))
				b.Append(part)
				err = output.WriteBuffer(&p.Socket, b)
			}
			if err != nil {
				t.Error(err)
				return
			}
		}
		if output.Drained() || p.Writable() {
			t.Error("the output is full and drained, or the socket takes more")
		}
	})
	received := make([]byte, len(written))
	if _, err := io.ReadFull(c, received); err != nil || !bytes.Equal(received, written) {
		t.Errorf("what arrived is not what was written (%v)", err)
	}
	await(t, drained)
	do(t, l, func() {
		output.Append(l, make([]byte, 100_000))
		output.Drop()
		if output.Size() != 0 || output.first != nil || output.last != nil {
			t.Errorf("something is left of what was dropped: %+v", output)
		}
	})
}

// TestNothingIsAllocated checks that a wake-up with a read and a write allocates nothing.
func TestNothingIsAllocated(t *testing.T) {
	g := newGroup(t, 1)
	l := g.Loops()[0]
	e := &echo{loop: l}
	c := adopt(t, l, &probe{})
	do(t, l, func() { l.Adopt(&e.Socket, l.slots[0].Detach(), e) })
	p := make([]byte, 100)
	exchange := func() {
		if _, err := c.Write(p); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, p); err != nil {
			t.Fatal(err)
		}
	}
	exchange()
	// Not testing.AllocsPerRun: it takes all processors but one, which the loop holds.
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	const exchanges = 1000
	for range exchanges {
		exchange()
	}
	runtime.ReadMemStats(&after)
	if n := after.Mallocs - before.Mallocs; n > exchanges/10 { // other goroutines may allocate a little
		t.Errorf("%d allocations in %d exchanges", n, exchanges)
	}
}

// TestCollection checks that neither a collection nor a goroutine waits for a loop that is between two events.
func TestCollection(t *testing.T) {
	g := newGroup(t, 2)
	e := &echo{loop: g.Loops()[0]}
	c := adopt(t, e.loop, &probe{})
	do(t, e.loop, func() { e.loop.Adopt(&e.Socket, e.loop.slots[0].Detach(), e) })
	start := time.Now()
	const rounds = 20
	for range rounds {
		io.WriteString(c, "x") // the loop waits with its P from now on
		io.ReadFull(c, make([]byte, 1))
		runtime.GC()
	}
	t.Logf("an event and a collection take %v", time.Since(start)/rounds)
}

// TestIdle checks that a loop with nothing to do does nothing: it blocks, and is not woken by timers that are far away.
func TestIdle(t *testing.T) {
	g := newGroup(t, 1)
	l := g.Loops()[0]
	timers := make([]expirer, 1000)
	do(t, l, func() {
		for i := range timers {
			l.SetTimer(&timers[i].Timer, time.Hour, &timers[i])
		}
		l.Buffer(1).Release()
	})
	until(t, l, "what is kept is given up", l.pool.empty)
	turns := func() (n uint64) {
		do(t, l, func() { n = l.turns })
		return n
	}
	before := turns()
	<-time.After(300 * time.Millisecond)
	if n := turns() - before; n > 3 { // two for the notes, one for the end of holding the P
		t.Errorf("the idle loop has turned %d times", n)
	}
}
