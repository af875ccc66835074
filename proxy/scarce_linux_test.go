package proxy

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"mainstay/topology"
)

// stall keeps the event loops from doing anything until the function that it returns is called.
func (r *rig) stall() (release func()) {
	ended := make(chan struct{})
	var stalled, done sync.WaitGroup
	for _, l := range r.engines[engineLoop].engine.(*loopEngine).running() {
		stalled.Add(1)
		done.Go(func() { l.loop.Do(func() { stalled.Done(); <-ended }) })
	}
	stalled.Wait()
	return func() { close(ended); done.Wait() }
}

// TestGiveRefused has nobody take the connections that a server gives: it must not try without a pause.
func TestGiveRefused(t *testing.T) {
	t.Setenv("PROXY_ENGINE", string(topology.EngineAuto)) // net/http tries when a client sends something
	r := newRig(t)
	r.instance("web", "web/1", echo)
	c, br := r.dial()
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	if _, err := http.ReadResponse(br, nil); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	var tries atomic.Int32
	g := &giver{stop: func() {}, pass: func(passed, int) (bool, error) { tries.Add(1); return false, nil }}
	r.current()[0].server.give(ctx, g)
	if n := tries.Load(); n < 2 || n > 10 {
		t.Errorf("the connection was offered %d times in 300 ms", n)
	}
	r.Resume()
}

// TestNameOutOfDescriptors holds that an instance with a name is not blamed for what the proxy lacks.
func TestNameOutOfDescriptors(t *testing.T) {
	r := newRig(t)
	known := r.instance("elsewhere", "elsewhere/1", echo)
	_, port, err := net.SplitHostPort(known.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	r.Admit(topology.Instance{Service: "web", ID: "web/1", Address: "localhost:" + port, Weight: 1})
	c, br := r.dial()
	ask := func(br *bufio.Reader) int {
		io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\n\r\n")
		res, err := http.ReadResponse(br, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, res.Body)
		return res.StatusCode
	}
	if status := ask(br); status != 200 {
		t.Fatal(status)
	}
	r.drop("web", "web/1") // and so the idle connection
	r.Admit(topology.Instance{Service: "web", ID: "web/1", Address: "localhost:" + port, Weight: 1})
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 0, Max: limit.Max}); err != nil {
		t.Fatal(err)
	}
	status := ask(br)
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if u, _ := r.upstream("web/1"); status != 502 || u.Failures != 0 {
		t.Errorf("%d; instance %+v", status, u)
	}
}

// TestEndlessTimeouts has limits that no clock reaches.
func TestEndlessTimeouts(t *testing.T) {
	route := route0("web")
	route.Timeouts = topology.Timeouts{Connect: forever, ResponseHeader: forever, Idle: forever}
	r := newRig(t, route)
	r.instance("web", "web/1", func(w http.ResponseWriter, req *http.Request) {
		<-time.After(50 * time.Millisecond) // longer than the timers are coarse
	})
	if res, _ := r.do("GET", "/", nil); res.StatusCode != 200 {
		t.Error(res.Status)
	}
}

// TestTurnedAway holds that a connection is closed, and counted, that has come when descriptors are scarce and no other can be closed for
// it. The limit leaves a quarter to everybody else, this test's own side of connections too, so that nothing in the process is without.
func TestTurnedAway(t *testing.T) {
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	r := newLimitedRig(t, topology.ClientLimits{})
	const limit = 400
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: limit, Max: before.Max}); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &before); err != nil {
			t.Error(err)
		}
	}()
	var files []*os.File
	release := func() {
		for _, f := range files {
			f.Close()
		}
		files = nil
	}
	defer release()
	for {
		f, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		if files = append(files, f); scarce(int(f.Fd())) {
			break
		}
	}
	for n := 1; n <= 3; n++ {
		c, _ := r.dial()
		if got := ended(t, c); got != "" {
			t.Errorf("got %q", got)
		}
		if counted := metric(t, r.reg, "proxy_shed_connections_total", "how", "turned_away"); counted != float64(n) {
			t.Errorf("%v were counted of %d", counted, n)
		}
	}
	if n := r.listener("http").Connections; n != 0 {
		t.Errorf("%d connections are left", n)
	}
	release()
	if res, _ := r.do("GET", "/", nil); res.StatusCode != 200 {
		t.Error(res.Status)
	}
}
