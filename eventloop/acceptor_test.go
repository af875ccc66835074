//go:build linux

package eventloop

import (
	"io"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A keeper keeps connections without a word.
type keeper struct {
	t         testing.TB
	shed      bool // close one when descriptors run out
	mu        sync.Mutex
	kept      []*probe
	exhausted int
}

func (k *keeper) Welcome(l *Loop, fd int, _ netip.AddrPort) {
	p := &probe{}
	if err := l.Adopt(&p.Socket, fd, p); err != nil {
		k.t.Error(err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.kept = append(k.kept, p)
}

func (k *keeper) Exhausted(l *Loop, err error) int {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.exhausted++
	if k.shed {
		for _, p := range k.kept {
			if p.Loop() == l {
				p.Close()
				return 1
			}
		}
	}
	return 0
}

func (k *keeper) counts() (kept, exhausted int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.kept), k.exhausted
}

func dial(t testing.TB, address string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// waitFor polls until f returns true.
func waitFor(t testing.TB, what string, f func() bool) {
	t.Helper()
	ticker := time.NewTicker(time.Millisecond)
	defer ticker.Stop()
	for range 20_000 {
		if f() {
			return
		}
		<-ticker.C
	}
	t.Fatal("waited in vain until " + what)
}

// TestLeastConnections checks that every connection goes to a loop that has the fewest.
func TestLeastConnections(t *testing.T) {
	g := newGroup(t, 3)
	fd, address := listen(t)
	k := &keeper{t: t}
	a, err := g.Accept(fd, k)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	for i := range 30 {
		dial(t, address)
		waitFor(t, "it is accepted", func() bool { kept, _ := k.counts(); return kept == i+1 })
	}
	for i, l := range g.Loops() {
		if l.Connections() != 10 {
			t.Errorf("loop %d has %d of 30 connections", i, l.Connections())
		}
	}
}

func TestPauseAndClose(t *testing.T) {
	g := newGroup(t, 2)
	fd, address := listen(t)
	k := &keeper{t: t}
	a, err := g.Accept(fd, k)
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		a.Pause()
		a.Pause()
		before, _ := k.counts()
		dial(t, address)
		if now, _ := k.counts(); now != before {
			t.Fatal("accepted in a pause")
		}
		if err := a.Resume(); err != nil {
			t.Fatal(err)
		}
		waitFor(t, "it is accepted", func() bool { kept, _ := k.counts(); return kept == before+1 })
	}
	a.Close()
	a.Close()
	if _, err := net.Dial("tcp", address); err == nil {
		t.Error("connected after Close")
	}
	if err := a.Resume(); err != nil {
		t.Error(err)
	}
}

// TestExhaustion takes all descriptors: what comes then waits without anyone spinning, and is accepted when there are some again, or at once if
// others are given up for it.
func TestExhaustion(t *testing.T) {
	g := newGroup(t, 2)
	fd, address := listen(t)
	k := &keeper{t: t}
	a, err := g.Accept(fd, k)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: before.Cur, Max: before.Max})
	}()
	// Both ends of a connection are ours: connect first, while there is no limit, and accept with it.
	a.Pause()
	const waiting = 40
	for range waiting {
		dial(t, address)
	}
	next, err := unix.Dup(fd) // the lowest that is free
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(next)
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: uint64(next + 10), Max: before.Max}); err != nil {
		t.Fatal(err)
	}
	if err := a.Resume(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "descriptors have run out", func() bool { _, exhausted := k.counts(); return exhausted > 0 })
	start := time.Now()
	_, first := k.counts()
	waitFor(t, "a loop has tried again", func() bool { _, exhausted := k.counts(); return exhausted >= first+4 })
	if took := time.Since(start); took < acceptPause {
		t.Errorf("two loops tried four times more in %v", took)
	}
	if kept, _ := k.counts(); kept > 10 {
		t.Errorf("%d connections are there, with 10 descriptors", kept)
	}
	k.mu.Lock()
	k.shed = true
	k.mu.Unlock()
	waitFor(t, "all are accepted", func() bool { kept, _ := k.counts(); return kept == waiting })
}

// TestUnixSocket checks that a listening socket without IP addresses is accepted from as well.
func TestUnixSocket(t *testing.T) {
	g := newGroup(t, 1)
	path := t.TempDir() + "/socket"
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	file, err := listener.(*net.UnixListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	k := &keeper{t: t}
	a, err := g.Accept(duplicate(t, int(file.Fd())), k)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	p, l := &probe{}, g.Loops()[0]
	p.ready = func(e Events) {
		if e&Connected != 0 {
			p.Write([]byte("x"))
		}
	}
	do(t, l, func() {
		if err := l.Connect(&p.Socket, &unix.SockaddrUnix{Name: path}, p); err != nil {
			t.Error(err)
		}
	})
	waitFor(t, "it is accepted", func() bool { kept, _ := k.counts(); return kept == 1 })
	until(t, l, "it has come", func() bool { return k.kept[0].Readable() })
	do(t, l, func() {
		b := make([]byte, 4)
		if n, err := k.kept[0].Read(b); n != 1 || err != nil && err != io.EOF {
			t.Errorf("read %d, %v", n, err)
		}
	})
}
