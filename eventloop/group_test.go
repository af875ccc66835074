//go:build linux

package eventloop

import (
	"bytes"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// newGroup returns a started group of n loops that stops with the test.
func newGroup(t testing.TB, n int) *Group {
	t.Helper()
	g := New(n, func(_ *Loop, in any, value any, stack []byte) { t.Errorf("%T panicked: %v\n%s", in, value, stack) })
	if err := g.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Stop)
	return g
}

// listen returns a listening socket on the loopback and its address.
func listen(t testing.TB) (int, string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	file, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	return duplicate(t, int(file.Fd())), l.Addr().String()
}

// An echo sends back what it reads.
type echo struct {
	Socket
	loop   *Loop
	output Output
}

func (e *echo) Ready(Events) {
	b := e.loop.Buffer(SmallBuffer)
	defer b.Release()
	if e.output.Flush(&e.Socket) != nil {
		e.end()
		return
	}
	for e.Readable() && !e.output.Full() {
		n, err := e.Fill(b)
		switch {
		case err == io.EOF:
			if e.output.Size() == 0 {
				e.end()
			}
			return
		case err != nil, n > 0 && e.output.Write(&e.Socket, b.Bytes()) != nil:
			e.end()
			return
		}
		b.Discard(n)
	}
}

func (e *echo) end() {
	e.output.Drop()
	e.Close()
}

// echoes welcomes connections with echoes.
type echoes struct{ t testing.TB }

func (w echoes) Welcome(l *Loop, fd int, peer netip.AddrPort) {
	e := &echo{loop: l}
	if err := l.Adopt(&e.Socket, fd, e); err != nil {
		w.t.Error(err)
	}
	if !peer.Addr().IsLoopback() {
		w.t.Errorf("the peer is %v", peer)
	}
}

func (w echoes) Exhausted(*Loop, error) int { return 0 }

func TestEcho(t *testing.T) {
	g := newGroup(t, 2)
	fd, address := listen(t)
	acceptor, err := g.Accept(fd, echoes{t})
	if err != nil {
		t.Fatal(err)
	}
	defer acceptor.Close()
	var clients sync.WaitGroup
	for i := range 20 {
		clients.Go(func() {
			c, err := net.Dial("tcp", address)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(10 * time.Second))
			sent := bytes.Repeat([]byte{byte(i), 1, 2, 3}, 1<<18)
			go func() {
				c.Write(sent)
				c.(*net.TCPConn).CloseWrite()
			}()
			received, err := io.ReadAll(c)
			if err != nil || !bytes.Equal(received, sent) {
				t.Errorf("received %d bytes, %v, want the %d that were sent", len(received), err, len(sent))
			}
		})
	}
	clients.Wait()
}

// duplicate returns another descriptor of what fd is.
func duplicate(t testing.TB, fd int) int {
	t.Helper()
	other, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		t.Fatal(err)
	}
	return other
}
