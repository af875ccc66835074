package supervisor

import (
	"context"
	"errors"
	"net"
	"strconv"
	"testing"
	"testing/synctest"
	"time"
)

func TestPortsAreGivenOnceAndReusedLast(t *testing.T) {
	p := newPorts()
	p.free = func(int) bool { return true }
	from, to := ephemeralRange()
	seen := map[int]bool{}
	first, err := p.acquire()
	if err != nil {
		t.Fatal(err)
	}
	p.release(first)
	for range 500 {
		port, err := p.acquire()
		if err != nil {
			t.Fatal(err)
		}
		if port < firstPort || port > lastPort || port >= from && port <= to && !(from <= firstPort && to >= lastPort) {
			t.Fatalf("port %d is out of range", port)
		}
		if seen[port] || port == first {
			t.Fatalf("port %d was given twice", port)
		}
		seen[port] = true
	}
}

func TestPortsRunOut(t *testing.T) {
	p := newPorts()
	free := map[int]bool{20500: true, 20501: true}
	p.free = func(port int) bool { return free[port] }
	a, errA := p.acquire()
	b, errB := p.acquire()
	if errA != nil || errB != nil || a == b || !free[a] || !free[b] {
		t.Fatalf("%d, %v and %d, %v", a, errA, b, errB)
	}
	if c, err := p.acquire(); err == nil {
		t.Fatalf("a third port: %d", c)
	}
	p.release(a) // resting, but there is no other
	if c, err := p.acquire(); err != nil || c != a {
		t.Errorf("%d, %v; want the one that was given back", c, err)
	}
}

func TestPortsInUseAreSkipped(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, s, _ := net.SplitHostPort(l.Addr().String())
	port, _ := strconv.Atoi(s)
	if canBind(port) {
		t.Errorf("port %d is taken for free", port)
	}
}

func TestClaimWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPorts()
		waited := 0
		if err := p.claim(t.Context(), 9001, func() { waited++ }); err != nil || waited != 0 {
			t.Fatalf("a free port: %v, waited %d times", err, waited)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := p.claim(ctx, 9001, func() { waited++ }); !errors.Is(err, context.DeadlineExceeded) || waited != 1 {
			t.Errorf("a port that is held: %v, waited %d times", err, waited)
		}
		time.AfterFunc(time.Second, func() { p.release(9001) })
		if err := p.claim(t.Context(), 9001, func() { waited++ }); err != nil || waited != 2 {
			t.Errorf("a port that is given back: %v, waited %d times", err, waited)
		}
	})
}
