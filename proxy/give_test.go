package proxy

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"mainstay/handover"
	"mainstay/sockets"
	"mainstay/topology"
)

// A relay is two proxies on the same listening sockets that take turns.
type relay struct {
	t       *testing.T
	proxies [2]*Proxy
	served  atomic.Int64
}

// newRelay returns two proxies before one instance. The first accepts.
func newRelay(t *testing.T, listeners map[string]topology.Listener, handler http.HandlerFunc) (*relay, map[string]string) {
	t.Helper()
	r := &relay{t: t}
	instance := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.served.Add(1)
		handler(w, req)
	}))
	topo := &topology.Topology{Proxy: topology.Proxy{Listeners: listeners, Routes: []topology.Route{route0("web")}}}
	var addresses map[string]string
	var sets [2]*sockets.Set
	for i := range r.proxies {
		if sets[i] = sockets.New(); i == 1 {
			if err := sets[0].Hold(); err != nil {
				t.Fatal(err)
			}
			sets[i] = sockets.New(sets[0].Held()...)
		}
		p := New(slog.New(slog.DiscardHandler), nil, sets[i])
		r.proxies[i] = p
		p.Admit(topology.Instance{Service: "web", ID: "web/1", Address: instance.Listener.Addr().String(), Weight: 1})
		if err := p.Apply(t.Context(), topo); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			addresses = map[string]string{}
			for _, l := range p.Status().Listeners {
				addresses[l.Name] = l.Address
			}
		}
	}
	t.Cleanup(func() {
		for _, p := range r.proxies {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			if err := p.Apply(ctx, topology.Empty); err != nil {
				t.Error(err)
			}
			_ = p.Drain(ctx, topology.Instance{Service: "web", ID: "web/1"})
			cancel()
		}
		sets[0].Release()
		instance.Close()
	})
	r.proxies[1].pause(t)
	return r, addresses
}

// pause makes a proxy leave the listening sockets alone.
func (p *Proxy) pause(t *testing.T) {
	t.Helper()
	c, other := pair(t)
	go io.Copy(io.Discard, other)
	if err := p.Give(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	c.Close()
}

// pair returns both ends of a socket.
func pair(t *testing.T) (a, b *net.UnixConn) {
	t.Helper()
	a, f, err := handover.Pair()
	if err != nil {
		t.Fatal(err)
	}
	if b, err = handover.Open(f); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		a.Close()
		b.Close()
	})
	return a, b
}

// pass makes the connections of from go to to.
func (r *relay) pass(ctx context.Context, from, to *Proxy) {
	r.t.Helper()
	c, other := pair(r.t)
	defer c.Close()
	defer other.Close()
	to.Resume()
	var taking sync.WaitGroup
	taking.Go(func() {
		if err := to.Take(context.Background(), other); err != nil {
			r.t.Errorf("take: %v", err)
		}
	})
	if err := from.Give(ctx, c); err != nil {
		r.t.Errorf("give: %v", err)
	}
	c.Close() // where it failed, nobody else tells who takes
	taking.Wait()
	for _, l := range from.Status().Listeners {
		await(r.t, "no connection is left", func() bool { return from.listenerStatus(l.Name).Connections == 0 })
	}
}

func (p *Proxy) listenerStatus(name string) (l ListenerStatus) {
	for _, l = range p.Status().Listeners {
		if l.Name == name {
			break
		}
	}
	return l
}

// free returns an address that can be listened on.
func free(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// TestGiveUnderLoad passes all connections to and fro while clients use them as fast as they can: GETs, POSTs, some that send
// several requests together. Each request is answered once, in order, on the connection that it came on.
func TestGiveUnderLoad(t *testing.T) {
	address := free(t)
	r, _ := newRelay(t, map[string]topology.Listener{"http": {Name: "http", Address: address}}, func(w http.ResponseWriter, req *http.Request) {
		b, _ := io.ReadAll(req.Body)
		fmt.Fprintf(w, "%s %s", req.URL.Path, b)
	})
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var clients sync.WaitGroup
	var sent atomic.Int64
	for i := range 24 {
		clients.Go(func() {
			c := &keepAlive{t: t, address: address, pipelines: i == 0}
			defer c.close()
			for n := 0; ctx.Err() == nil && !t.Failed(); n++ {
				sent.Add(int64(c.exchange(fmt.Sprintf("/%d/%d", i, n))))
				if i%2 == 1 {
					timer := time.NewTimer(time.Duration(rand.IntN(3000)) * time.Microsecond)
					<-timer.C
				}
			}
		})
	}
	rounds := 10
	switch {
	case os.Getenv("MAINSTAY_SOAK") != "":
		rounds = 1000
	case testing.Short():
		rounds = 6
	}
	for n := range rounds {
		before := sent.Load()
		limited, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		r.pass(limited, r.proxies[n%2], r.proxies[(n+1)%2])
		if limited.Err() != nil {
			t.Error("not all connections were passed in time")
		}
		cancel()
		await(t, "requests go on", func() bool { return sent.Load() > before+100 || t.Failed() })
	}
	stop()
	clients.Wait()
	if sent.Load() != r.served.Load() {
		t.Errorf("%d requests were sent, %d served", sent.Load(), r.served.Load())
	}
	t.Logf("%d requests", sent.Load())
}

// A keepAlive is a client that uses one connection as long as it is told to, and never sends twice.
type keepAlive struct {
	t         *testing.T
	address   string
	pipelines bool
	conn      net.Conn
	br        *bufio.Reader
	opened    int
}

func (c *keepAlive) close() {
	if c.conn != nil {
		c.conn.Close()
	}
}

// exchange sends a request, or two together, and returns how many.
func (c *keepAlive) exchange(path string) int {
	if c.conn == nil {
		conn, err := net.Dial("tcp", c.address)
		if err != nil {
			c.t.Error(err)
			return 0
		}
		c.conn, c.br = conn, bufio.NewReader(conn)
		c.opened++
	}
	content := strings.Repeat("x", rand.IntN(3)*rand.IntN(3000))
	request := fmt.Sprintf("GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path)
	switch {
	case content != "" && len(content)%2 == 0:
		request = fmt.Sprintf("POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", path, len(content), content)
	case content != "":
		request = fmt.Sprintf("POST %s HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", path, len(content), content)
	}
	times := 1
	if c.pipelines {
		times = 2
	}
	_ = c.conn.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := io.WriteString(c.conn, strings.Repeat(request, times)); err != nil {
		c.t.Errorf("send %s: %v", path, err)
		return 0
	}
	for n := range times {
		res, err := http.ReadResponse(c.br, nil)
		if err != nil {
			c.t.Errorf("%s, number %d on its connection: %v", path, n, err)
			return n
		}
		b, err := io.ReadAll(res.Body)
		if want := path + " " + content; res.StatusCode != 200 || string(b) != want || err != nil {
			c.t.Errorf("%s: %s, %d bytes, %v", path, res.Status, len(b), err)
		}
		if res.Close { // what was sent after this request is not answered, and not served
			if !c.pipelines {
				c.t.Error("a client that could have been passed was told to go")
			}
			c.close()
			c.conn = nil
			return n + 1
		}
	}
	return times
}

// TestGiveTLS: who speaks TLS or HTTP/2 is told to connect anew, and does so without seeing an error.
func TestGiveTLS(t *testing.T) {
	address := free(t)
	certificate := writeCertificate(t, t.TempDir(), 1)
	r, _ := newRelay(t, map[string]topology.Listener{
		"https": {Name: "https", Address: address, TLS: certificate},
	}, func(w http.ResponseWriter, req *http.Request) { io.Copy(w, req.Body) })
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var clients sync.WaitGroup
	var sent atomic.Int64
	for i := range 4 {
		clients.Go(func() {
			transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: i%2 == 0}
			defer transport.CloseIdleConnections()
			client := &http.Client{Transport: transport}
			for ctx.Err() == nil {
				res, err := client.Post("https://"+address+"/", "text/plain", strings.NewReader("content"))
				if err != nil {
					t.Errorf("client %d: %v", i, err)
					return
				}
				b, _ := io.ReadAll(res.Body)
				res.Body.Close()
				if string(b) != "content" {
					t.Errorf("client %d: %s %q", i, res.Status, b)
				}
				sent.Add(1)
			}
		})
	}
	for n := range 4 {
		// This one has said nothing yet.
		fresh, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer fresh.Close()
		before := sent.Load()
		r.pass(t.Context(), r.proxies[n%2], r.proxies[(n+1)%2])
		await(t, "requests go on", func() bool { return sent.Load() > before+20 || t.Failed() })
		secure := tls.Client(fresh, &tls.Config{InsecureSkipVerify: true})
		if err := secure.HandshakeContext(t.Context()); err != nil {
			t.Errorf("a connection that was passed untouched: %v", err)
		}
		secure.Close()
	}
	stop()
	clients.Wait()
}

// TestGiveCuts: what does not end is cut when the time is up; what is under way before that is finished.
func TestGiveCuts(t *testing.T) {
	address := free(t)
	entered, proceed := make(chan bool), make(chan bool)
	r, _ := newRelay(t, map[string]topology.Listener{"http": {Name: "http", Address: address}}, func(w http.ResponseWriter, req *http.Request) {
		switch req.URL.Path {
		case "/ws":
			c, err := websocket.Accept(w, req, nil)
			if err == nil {
				defer c.CloseNow()
				c.Read(req.Context())
			}
		case "/slow":
			entered <- true
			<-proceed
			io.WriteString(w, "slow")
		}
	})
	ws, _, err := websocket.Dial(t.Context(), "ws://"+address+"/ws", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer ws.CloseNow()
	slow := make(chan string)
	go func() {
		res, err := http.Get("http://" + address + "/slow")
		if err != nil {
			slow <- err.Error()
			return
		}
		defer res.Body.Close()
		b, _ := io.ReadAll(res.Body)
		slow <- string(b)
	}()
	<-entered
	ctx, cancel := context.WithCancel(t.Context())
	given := make(chan bool)
	go func() {
		defer close(given)
		r.pass(ctx, r.proxies[0], r.proxies[1])
	}()
	await(t, "the other accepts", func() bool { return paused(r.proxies[0]) })
	close(proceed)
	if got := <-slow; got != "slow" {
		t.Errorf("what was under way: %q", got)
	}
	select {
	case <-given:
		t.Error("it did not wait for the WebSocket")
	default:
	}
	cancel()
	<-given
	read, stop := context.WithTimeout(t.Context(), 5*time.Second)
	defer stop()
	if _, _, err := ws.Read(read); err == nil || read.Err() != nil {
		t.Error("the WebSocket is still there")
	}
	http.DefaultClient.CloseIdleConnections()
}

// TestGiveFails: the other side vanishes. What was not passed is served on, and after Resume new connections are.
func TestGiveFails(t *testing.T) {
	address := free(t)
	r, _ := newRelay(t, map[string]topology.Listener{"http": {Name: "http", Address: address}}, func(w http.ResponseWriter, req *http.Request) {
		b, _ := io.ReadAll(req.Body)
		fmt.Fprintf(w, "%s %s", req.URL.Path, b)
	})
	client := &keepAlive{t: t, address: address}
	defer client.close()
	get := func(path string) {
		t.Helper()
		_ = client.conn.SetDeadline(time.Now().Add(10 * time.Second))
		fmt.Fprintf(client.conn, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path)
		res, err := http.ReadResponse(client.br, nil)
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		b, _ := io.ReadAll(res.Body)
		if string(b) != path+" " || res.Close {
			t.Fatalf("%s: %q, %v", path, b, res.Header)
		}
	}
	client.exchange("/first")
	ctx, stop := context.WithCancel(t.Context())
	var others sync.WaitGroup
	for range 3 {
		others.Go(func() {
			for ctx.Err() == nil {
				other := &keepAlive{t: t, address: address}
				other.exchange("/other")
				other.close()
			}
		})
	}
	for n := range 30 {
		c, other := pair(t)
		other.Close()
		if err := r.proxies[0].Give(t.Context(), c); err == nil {
			t.Fatal("nobody takes, and Give returned nil")
		}
		get(fmt.Sprint("/after/", n))
		r.proxies[0].Resume()
		get(fmt.Sprint("/resumed/", n))
		second := &keepAlive{t: t, address: address}
		second.exchange("/second")
		second.close()
	}
	stop()
	others.Wait()
	if client.opened != 1 {
		t.Errorf("it connected %d times", client.opened)
	}
}

// TestGiveToNobody: the other side vanishes while only what is never between two requests is left. That is noticed at once.
func TestGiveToNobody(t *testing.T) {
	address := free(t)
	r, _ := newRelay(t, map[string]topology.Listener{"http": {Name: "http", Address: address}}, func(w http.ResponseWriter, req *http.Request) {
		if c, err := websocket.Accept(w, req, nil); err == nil {
			defer c.CloseNow()
			c.Read(req.Context())
		}
	})
	ws, _, err := websocket.Dial(t.Context(), "ws://"+address+"/ws", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer ws.CloseNow()
	c, other := pair(t)
	given := make(chan error)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	go func() { given <- r.proxies[0].Give(ctx, c) }()
	await(t, "nothing is accepted", func() bool { return paused(r.proxies[0]) })
	other.Close()
	if err := <-given; err == nil || ctx.Err() != nil {
		t.Errorf("it gave until %v, with %v", ctx.Err(), err)
	}
	read, stop := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer stop()
	if _, _, err := ws.Read(read); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the WebSocket is not there any more: %v", err)
	}
	r.proxies[0].Resume()
}

// TestGiveBeforeServe: a server that has given everything away accepts nothing, even if it comes to accepting only then. After resume
// it does.
func TestGiveBeforeServe(t *testing.T) {
	r := newRig(t)
	for kind, e := range r.engines {
		if e == nil {
			continue
		}
		var servers [2]server
		for i := range servers {
			var l *listener
			var err error
			if i == 0 {
				l, err = bind(t.Context(), r.sockets, topology.Listener{Name: "http", Address: "127.0.0.1:0"}, nil)
			} else {
				l, err = servers[0].bound().share(r.sockets)
			}
			if err != nil {
				t.Fatal(err)
			}
			l.settings.Store(&listenerSettings{})
			if servers[i], err = e.open(l); err != nil {
				t.Fatal(err)
			}
			defer e.closed()
			defer servers[i].stop(t.Context())
		}
		given := make(chan bool)
		go func() {
			defer close(given)
			servers[0].give(t.Context(), &giver{stop: func() {}})
		}()
		await(t, "nothing is accepted", func() bool { return servers[0].(interface{ paused() bool }).paused() })
		go servers[1].serve()
		go servers[0].serve()
		<-given
		const count = 50
		dial := func() {
			for range count {
				c, err := net.Dial("tcp", servers[0].bound().Addr().String())
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { c.Close() })
			}
		}
		dial()
		await(t, "connections are accepted", func() bool { return servers[0].connected()+servers[1].connected() == count })
		if n := servers[0].connected(); n > 0 {
			t.Errorf("engine %d: %d connections were accepted after all had been given", kind, n)
		}
		go servers[1].give(t.Context(), &giver{stop: func() {}, pass: func(passed, int) (bool, error) { return true, nil }})
		await(t, "all are gone", func() bool { return servers[1].connected() == 0 })
		servers[0].resume()
		dial()
		await(t, "connections are accepted again", func() bool { return servers[0].connected() >= count })
	}
}

// paused reports whether the proxy's only server has stopped accepting to give its connections away.
func paused(p *Proxy) bool { return p.current()[0].server.(interface{ paused() bool }).paused() }
