package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"mainstay/proxy"
	"mainstay/sockets"
	"mainstay/topology"
)

// A ford is a proxy that listens on one address, before one instance.
type ford struct {
	topology *topology.Topology
	instance topology.Instance
	address  string
	served   atomic.Int64
}

func newFord(t *testing.T) *ford {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &ford{address: l.Addr().String()}
	l.Close()
	instance := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.served.Add(1)
		if d, err := time.ParseDuration(r.Header.Get("Take")); err == nil {
			timer := time.NewTimer(d)
			<-timer.C
		}
		io.WriteString(w, r.URL.Path)
	}))
	t.Cleanup(instance.Close)
	f.instance = topology.Instance{Service: "web", ID: "web/1.1", Replica: 1, Address: instance.Listener.Addr().String(), Weight: 7, Share: 12.5}
	f.topology = &topology.Topology{
		StateDir: t.TempDir(),
		Services: map[string]topology.Service{"web": {
			Name: "web", Replicas: 1,
			WhenUnavailable: topology.WhenUnavailable{Hold: topology.Hold{For: time.Second, Requests: 10, Bytes: 1 << 20}, Response: &topology.Response{Status: 503}},
		}},
		Proxy: topology.Proxy{
			AccessLog: true,
			Listeners: map[string]topology.Listener{"http": {Name: "http", Address: f.address}},
			Routes: []topology.Route{{PathPrefix: "/", Service: "web", Timeouts: topology.Timeouts{
				Connect: time.Second, ResponseHeader: 10 * time.Second, Idle: 10 * time.Second,
			}}},
		},
	}
	return f
}

// open returns a proxy that accepts, through set.
func (f *ford) open(t *testing.T, set *sockets.Set) *proxy.Proxy {
	t.Helper()
	p := proxy.New(slog.New(slog.DiscardHandler), nil, set)
	p.Admit(f.instance)
	if err := p.Apply(t.Context(), f.topology); err != nil {
		t.Fatal(err)
	}
	return p
}

func (f *ford) close(t *testing.T, p *proxy.Proxy) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := p.Apply(ctx, topology.Empty); err != nil {
		t.Error(err)
	}
	_ = p.Drain(ctx, f.instance)
}

func (f *ford) start(t *testing.T, p *proxy.Proxy, set *sockets.Set) *bridge {
	t.Helper()
	if err := set.Hold(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	b, err := startBridge(ctx, os.Args[0], newCrossing(f.topology, p.Instances()), set.Held(), logFlags{"text", "warn"})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// request sends one on conn and reads its answer.
func request(conn net.Conn, br *bufio.Reader, path string) error {
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path); err != nil {
		return err
	}
	res, err := http.ReadResponse(br, nil)
	if err != nil {
		return err
	}
	b, err := io.ReadAll(res.Body)
	if res.StatusCode != 200 || string(b) != path || res.Close || err != nil {
		return fmt.Errorf("%s %q, close %v, %w", res.Status, b, res.Close, err)
	}
	return nil
}

// TestBridge replaces a proxy by another, as an upgrade does, under requests of clients that keep their connections. One round goes
// back to the first, and one releases a bridge that has carried nothing.
func TestBridge(t *testing.T) {
	f := newFord(t)
	set := sockets.New()
	p := f.open(t, set)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var clients sync.WaitGroup
	var answered atomic.Int64
	for i := range 10 {
		clients.Go(func() {
			conn, err := net.Dial("tcp", f.address)
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			br := bufio.NewReader(conn)
			pace := time.NewTicker(2 * time.Millisecond) // what the access log takes on any disk
			defer pace.Stop()
			for n := 0; ctx.Err() == nil; n++ {
				<-pace.C
				if err := request(conn, br, fmt.Sprintf("/%d/%d", i, n)); err != nil {
					t.Errorf("client %d, request %d: %v", i, n, err)
					return
				}
				answered.Add(1)
			}
		})
	}
	more := func() {
		t.Helper()
		from := answered.Load()
		awaitUntil(t, "requests are answered", func() bool { return answered.Load() > from+50 || t.Failed() })
	}
	limited := func() context.Context {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		t.Cleanup(cancel)
		return ctx
	}
	for round := range 5 {
		b := f.start(t, p, set)
		more()
		if round != 3 {
			if err := b.carry(limited(), p); err != nil {
				t.Fatal(err)
			}
			more() // by the bridge alone
		}
		if round < 2 { // by another program
			f.close(t, p)
			fd, pid := b.handles()
			other, err := syscall.Dup(fd) // as if execve had closed b
			if err != nil {
				t.Fatal(err)
			}
			b.conn.Close()
			if b, err = findBridge(other, pid); err != nil {
				t.Fatal(err)
			}
			set = sockets.New(set.Held()...)
			p = f.open(t, set)
		} else {
			p.Resume()
		}
		if err := b.release(limited(), p); err != nil {
			t.Fatal(err)
		}
		set.Release()
		more()
		if err := syscall.Kill(b.process.Pid, 0); err == nil {
			t.Errorf("round %d: the bridge's process is still there", round)
		}
	}
	stop()
	clients.Wait()
	f.close(t, p)
	if answered.Load() != f.served.Load() {
		t.Errorf("%d requests were answered, %d served", answered.Load(), f.served.Load())
	}
	files, err := filepath.Glob(filepath.Join(f.topology.StateDir, "logs", "access.log*"))
	if err != nil {
		t.Fatal(err)
	}
	logged := int64(0)
	for _, name := range files {
		file, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(file)) {
			if strings.Contains(line, `"status":200`) {
				logged++
			} else {
				t.Logf("no answer: %s", line)
			}
		}
	}
	if logged != answered.Load() {
		t.Errorf("%d requests were answered, %d are in the access log", answered.Load(), logged)
	}
}

// TestBridgeVanishes: its Mainstay is killed. It finishes what is under way, and leaves the address at once.
func TestBridgeVanishes(t *testing.T) {
	f := newFord(t)
	set := sockets.New()
	p := f.open(t, set)
	b := f.start(t, p, set)
	if err := b.carry(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	f.close(t, p)
	set.Release()
	answer := make(chan error, 1)
	go func() {
		req, _ := http.NewRequest("GET", "http://"+f.address+"/slow", nil)
		req.Header.Set("Take", "400ms")
		req.Close = true
		res, err := http.DefaultClient.Do(req)
		if err == nil {
			res.Body.Close()
			if res.StatusCode != 200 {
				err = fmt.Errorf("%s", res.Status)
			}
		}
		answer <- err
	}()
	awaitUntil(t, "the request is there", func() bool { return f.served.Load() == 1 })
	b.conn.Close()
	awaitUntil(t, "the address is free", func() bool {
		l, err := net.Listen("tcp", f.address)
		if err == nil {
			l.Close()
		}
		return err == nil
	})
	if err := <-answer; err != nil {
		t.Errorf("what was under way: %v", err)
	}
	if state, err := b.process.Wait(); err != nil || state.ExitCode() != ExitFailed {
		t.Errorf("it ended with %v, %v", state, err)
	}
}

func TestBridgeThatCannotBe(t *testing.T) {
	f := newFord(t)
	set := sockets.New()
	p := f.open(t, set)
	defer f.close(t, p)
	defer set.Release()
	c := newCrossing(f.topology, p.Instances())
	logs := logFlags{"text", "error"}
	if _, err := startBridge(t.Context(), os.Args[0], c, nil, logs); err == nil || !strings.Contains(err.Error(), "of 1 listeners only 0 have a socket") {
		t.Errorf("without sockets: %v", err)
	}
	if err := set.Hold(); err != nil {
		t.Fatal(err)
	}
	c.Protocol++
	if _, err := startBridge(t.Context(), os.Args[0], c, set.Held(), logs); err == nil || !strings.Contains(err.Error(), "in the form 2 and knows 1") {
		t.Errorf("of another protocol: %v", err)
	}
	c.Protocol--
	if _, err := startBridge(t.Context(), "/bin/false", c, set.Held(), logs); err == nil || !strings.Contains(err.Error(), "ended before it was ready") && !strings.Contains(err.Error(), "pipe") && !strings.Contains(err.Error(), "reset") {
		t.Errorf("a program that is none: %v", err)
	}
	sleeper := filepath.Join(t.TempDir(), "sleeper")
	if err := os.WriteFile(sleeper, []byte("#!/bin/sh\nexec sleep 100\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := startBridge(ctx, sleeper, c, set.Held(), logs); err == nil || !strings.Contains(err.Error(), "not ready in time") {
		t.Errorf("a program that does nothing: %v", err)
	}
}

// What a bridge is told arrives as it was.
func TestCrossing(t *testing.T) {
	f := newFord(t)
	want := newCrossing(f.topology, []topology.Instance{f.instance})
	body, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	var got crossing
	if err := json.Unmarshal(body, &got); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// awaitUntil waits until f is true.
func awaitUntil(t *testing.T, what string, f func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(20 * time.Second)
	for !f() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("waited in vain until %s", what)
		}
	}
}
