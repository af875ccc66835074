package proxy

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/google/go-cmp/cmp"

	"mainstay/topology"
)

// TestReloadUnderLoad swaps routes, other listeners and edits while requests come: none may fail or be torn.
func TestReloadUnderLoad(t *testing.T) {
	r := newRig(t)
	for _, service := range []string{"one", "two"} {
		r.instance(service, service+"/1", func(w http.ResponseWriter, req *http.Request) {
			fmt.Fprint(w, service, " ", req.Header.Get("X-Route"))
		})
	}
	reload := func(service string, others ...topology.Listener) {
		route := route0(service)
		route.RequestHeaders.Set = map[string]string{"X-Route": service}
		r.topology.Proxy.Routes = []topology.Route{route}
		r.topology.Proxy.Listeners = map[string]topology.Listener{"http": {Name: "http", Address: "127.0.0.1:0"}}
		for _, l := range others {
			r.topology.Proxy.Listeners[l.Name] = l
		}
		r.apply()
	}
	reload("one")
	ctx, stop := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	for range 4 {
		clients.Go(func() {
			for ctx.Err() == nil {
				if res, body := r.do("GET", "/", nil); res.StatusCode != 200 || body != "one one" && body != "two two" {
					t.Errorf("%s %q", res.Status, body)
				}
			}
		})
	}
	address := r.address()
	for i := range 60 {
		var others []topology.Listener
		if i%3 == 0 {
			others = append(others, topology.Listener{Name: "other", Address: "localhost:0"})
		}
		reload([]string{"two", "one"}[i%2], others...)
		await(t, "requests take the new route", func() bool { return r.Status().Routes[0].Requests > 0 })
	}
	stop()
	clients.Wait()
	if r.address() != address {
		t.Errorf("the listener moved from %s to %s", address, r.address())
	}
	for _, rec := range r.log(1) {
		if rec.Status != 200 {
			t.Errorf("logged %+v", rec)
		}
	}
}

func TestApplyIsIdempotent(t *testing.T) {
	r := newRig(t)
	before, table := r.Status(), r.table.Load()
	r.apply()
	if d := cmp.Diff(before, r.Status()); d != "" || table != r.table.Load() {
		t.Errorf("applying the same again changed something: %s", d)
	}
}

func TestApplyRollsBack(t *testing.T) {
	r := newRig(t)
	r.instance("web", "web/1", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "old") })
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	free.Close()
	before := r.Status()

	next := r.topology
	next.StateDir = t.TempDir()
	next.Proxy = topology.Proxy{
		AccessLog: true,
		Listeners: map[string]topology.Listener{
			"a": {Address: free.Addr().String()},
			"b": {Address: taken.Addr().String()},
		},
		Routes: []topology.Route{route0("other")},
	}
	err = r.Apply(t.Context(), &next)
	if want := fmt.Sprintf("listen b %s: bind: address already in use", taken.Addr()); err == nil || err.Error() != want {
		t.Errorf("error %q, want %q", err, want)
	}
	next.Proxy.Listeners = map[string]topology.Listener{
		"a": {Address: free.Addr().String()},
		"b": {Address: "127.0.0.1:0", TLS: &topology.TLS{Certificate: "/none.crt", Key: "/none.key"}},
	}
	if err := r.Apply(t.Context(), &next); err == nil || !strings.HasPrefix(err.Error(), "load certificate of listener b: open /none.crt: ") {
		t.Errorf("error %v", err)
	}
	file := filepath.Join(t.TempDir(), "file")
	os.WriteFile(file, nil, 0o600)
	next.Proxy.Listeners, next.StateDir = map[string]topology.Listener{"a": {Address: free.Addr().String()}}, file
	if err := r.Apply(t.Context(), &next); err == nil || !strings.HasPrefix(err.Error(), "open access log: ") {
		t.Errorf("error %v", err)
	}
	if d := cmp.Diff(before, r.Status()); d != "" {
		t.Errorf("refused topologies changed something: %s", d)
	}
	if _, body := r.do("GET", "/", nil); body != "old" {
		t.Errorf("got %q", body)
	}
	if c, err := net.Dial("tcp", free.Addr().String()); err == nil {
		c.Close()
		t.Error("an address of a refused topology is still bound")
	}
}

// TestListenerWidens moves a listener to an address that covers the old one, and back.
func TestListenerWidens(t *testing.T) {
	r := newRig(t)
	r.instance("web", "web/1", echo)
	_, port, _ := net.SplitHostPort(r.address())
	narrow, wide := "127.0.0.1:"+port, ":"+port
	r.topology.Proxy.Listeners = nil
	r.apply()
	for _, address := range []string{narrow, wide, narrow, wide} {
		r.topology.Proxy.Listeners = map[string]topology.Listener{"http": {Address: address}}
		r.apply()
		if res, err := r.client.Get("http://" + narrow); err != nil || res.StatusCode != 200 {
			t.Errorf("%s: %v, %v", address, res, err)
		} else {
			res.Body.Close()
		}
		other := New(slog.New(slog.DiscardHandler), nil, nil)
		if err := other.Apply(t.Context(), &r.topology); err == nil || !strings.HasSuffix(err.Error(), "address already in use") {
			t.Errorf("%s: another proxy got the address: %v", address, err)
		}
	}
}

// TestListenerRemoved lets the requests on a removed listener finish until there is no time left.
func TestListenerRemoved(t *testing.T) {
	r := newRig(t)
	release := make(chan struct{})
	r.instance("web", "web/1", func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path == "/wait" {
			<-release
		} else {
			<-req.Context().Done()
		}
		io.WriteString(w, "done")
	})
	address := r.address()
	idle, _ := r.dial()
	result := make(chan string, 2)
	get := func(path string) {
		res, err := r.client.Get("http://" + address + path)
		if err != nil {
			result <- "error"
			return
		}
		defer res.Body.Close()
		b, _ := io.ReadAll(res.Body)
		result <- res.Status + " " + string(b)
	}
	go get("/wait")
	await(t, "the request is there", func() bool { u, _ := r.upstream("web/1"); return u.InFlight == 1 })
	r.topology = *r.topology.Quiet()
	applied := make(chan error)
	go func() {
		next := r.topology
		applied <- r.Apply(t.Context(), &next)
	}()
	await(t, "the listener is gone", func() bool {
		c, err := net.Dial("tcp", address)
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	select {
	case <-applied:
		t.Error("Apply did not wait for the request")
	default:
	}
	close(release)
	if got := <-result; got != "200 OK done" {
		t.Errorf("got %q", got)
	}
	if err := <-applied; err != nil {
		t.Error(err)
	}
	if _, err := idle.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("an idle connection reads %v", err)
	}

	// Without time, what runs is ended.
	r.topology.Proxy.Listeners = map[string]topology.Listener{"http": {Address: "127.0.0.1:0"}}
	r.apply()
	address = r.address()
	go get("/forever")
	await(t, "the request is there", func() bool { u, _ := r.upstream("web/1"); return u.InFlight == 1 })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.Apply(ctx, topology.Empty); err != nil {
		t.Error(err)
	}
	if got := <-result; got == "200 OK done" {
		t.Errorf("got %q", got)
	}
	if rec := r.log(2)[1]; rec.Reason != reasonShutdown {
		t.Errorf("logged %+v", rec)
	}
}

func (r *rig) websocket(path string) *websocket.Conn {
	r.t.Helper()
	ws, res, err := websocket.Dial(r.t.Context(), "ws://"+r.address()+path, &websocket.DialOptions{HTTPClient: r.client})
	if err != nil {
		r.t.Fatalf("dial: %v, %v", err, res)
	}
	r.t.Cleanup(func() { ws.CloseNow() })
	return ws
}

// say sends a message and expects it back.
func say(t *testing.T, ws *websocket.Conn, message string) {
	t.Helper()
	if err := ws.Write(t.Context(), websocket.MessageText, []byte(message)); err != nil {
		t.Fatal(err)
	}
	if _, b, err := ws.Read(t.Context()); err != nil || string(b) != message {
		t.Fatalf("got %d bytes, %v", len(b), err)
	}
}

func echoWebSocket(w http.ResponseWriter, req *http.Request) {
	ws, err := websocket.Accept(w, req, &websocket.AcceptOptions{InsecureSkipVerify: true})
	if err != nil {
		return
	}
	ws.SetReadLimit(-1)
	defer ws.CloseNow()
	for {
		kind, b, err := ws.Read(req.Context())
		if err != nil {
			return
		}
		if err := ws.Write(req.Context(), kind, b); err != nil {
			return
		}
	}
}

// TestWebSocketSurvivesReload keeps a WebSocket over reloads that do not concern its listener and instance.
func TestWebSocketSurvivesReload(t *testing.T) {
	r := newRig(t)
	r.instance("web", "web/1", echoWebSocket)
	ws := r.websocket("/")
	ws.SetReadLimit(-1)
	say(t, ws, "first")
	for i := range 10 {
		route := route0("other")
		route.PathPrefix = fmt.Sprint("/", i)
		r.topology.Proxy.Routes = append([]topology.Route{route}, r.topology.Proxy.Routes...)
		r.apply()
		say(t, ws, strings.Repeat("x", 100_000*i))
	}
	r.topology.Proxy.Routes = nil // even its own route
	r.apply()
	say(t, ws, "last")
	if u, _ := r.upstream("web/1"); u.InFlight != 1 || r.listener("http").Connections < 1 {
		t.Errorf("instance %+v, listener %+v", u, r.listener("http"))
	}
	if err := ws.Close(websocket.StatusNormalClosure, ""); err != nil {
		t.Error(err)
	}
	rec := r.log(1)[0]
	if rec.Status != 101 || rec.Reason != "" || rec.BytesIn < 4_500_000 || rec.BytesOut < 4_500_000 {
		t.Errorf("logged %+v", rec)
	}
}

func TestWebSocketRefusedIsOrdinary(t *testing.T) {
	r := newRig(t)
	r.instance("web", "web/1", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusForbidden) })
	_, res, err := websocket.Dial(t.Context(), "ws://"+r.address(), &websocket.DialOptions{HTTPClient: r.client})
	if err == nil || res.StatusCode != 403 {
		t.Errorf("got %v, %v", res, err)
	}
}

// TestWebSocketHalfClose lets each side end its sending on its own.
func TestWebSocketHalfClose(t *testing.T) {
	r := newRig(t)
	r.raw("web", "web/1", func(c net.Conn, br *bufio.Reader) {
		if _, err := http.ReadRequest(br); err != nil {
			return
		}
		io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello ")
		b, _ := io.ReadAll(br) // until the client's end
		c.Write(b)
	})
	c, br := r.dial()
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n\r\nearly ")
	res, err := http.ReadResponse(br, nil)
	if err != nil || res.StatusCode != 101 || res.Header.Get("Upgrade") != "websocket" {
		t.Fatalf("%v, %v", res, err)
	}
	io.WriteString(c, "late")
	c.(*net.TCPConn).CloseWrite()
	if b, err := io.ReadAll(br); string(b) != "hello early late" || err != nil {
		t.Errorf("got %q, %v", b, err)
	}
}

func TestWebSocketIdle(t *testing.T) {
	route := route0("web")
	route.Timeouts.Idle = time.Second
	r := newRig(t, route)
	r.instance("web", "web/1", echoWebSocket)
	ws := r.websocket("/")
	say(t, ws, "x")
	if _, _, err := ws.Read(t.Context()); err == nil {
		t.Error("an idle WebSocket goes on")
	}
	if rec := r.log(1)[0]; rec.Reason != reasonTimeoutIdle {
		t.Errorf("logged %+v", rec)
	}
}

// TestDrain drains an instance with a request, a stream and a WebSocket on it, while others go elsewhere.
func TestDrain(t *testing.T) {
	r := newRig(t)
	release := make(chan struct{})
	serve := func(id string) http.HandlerFunc {
		return func(w http.ResponseWriter, req *http.Request) {
			switch req.URL.Path {
			case "/ws":
				echoWebSocket(w, req)
				return
			case "/wait":
				<-release
			case "/stream":
				w.Write([]byte("x"))
				w.(http.Flusher).Flush()
				<-req.Context().Done()
			}
			io.WriteString(w, id)
		}
	}
	var conns sync.Map
	first := httptest.NewUnstartedServer(serve("1"))
	first.Config.ConnState = func(c net.Conn, s http.ConnState) { conns.Store(c, s) }
	first.Start()
	t.Cleanup(first.Close)
	r.Admit(topology.Instance{Service: "web", ID: "web/1", Address: first.Listener.Addr().String()})
	ws := r.websocket("/ws")
	stream, err := r.client.Get(r.url("/stream"))
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Body.Close()
	answer := make(chan string)
	go func() {
		_, body := r.do("GET", "/wait", nil)
		answer <- body
	}()
	await(t, "all are there", func() bool { u, _ := r.upstream("web/1"); return u.InFlight == 3 })
	r.instance("web", "web/2", serve("2"))

	ctx, cancel := context.WithCancel(t.Context())
	drained := make(chan error)
	instance := topology.Instance{Service: "web", ID: "web/1"}
	go func() { drained <- r.Drain(ctx, instance) }()
	await(t, "the instance drains", func() bool { u, _ := r.upstream("web/1"); return u.State == "draining" })
	for range 10 {
		if _, body := r.do("GET", "/", nil); body != "2" {
			t.Errorf("a request went to %q", body)
		}
	}
	say(t, ws, "still here")
	close(release)
	if body := <-answer; body != "1" {
		t.Errorf("got %q", body)
	}
	select {
	case err := <-drained:
		t.Fatalf("drained with requests in flight: %v", err)
	default:
	}
	cancel()
	if err := <-drained; !errors.Is(err, context.Canceled) {
		t.Errorf("drain: %v", err)
	}
	if _, _, err := ws.Read(t.Context()); err == nil {
		t.Error("the WebSocket goes on")
	}
	if _, err := io.ReadAll(stream.Body); err == nil {
		t.Error("the stream ended cleanly")
	}
	await(t, "the instance is gone", func() bool { _, ok := r.upstream("web/1"); return !ok })
	await(t, "no connection to the instance is left", func() bool {
		open := 0
		conns.Range(func(_, s any) bool {
			if s != http.StateClosed && s != http.StateHijacked {
				open++
			}
			return true
		})
		return open == 0
	})
	for _, rec := range r.log(13) {
		if want := map[string]reason{"/ws": reasonDrained, "/stream": reasonDrained}[rec.Path]; rec.Reason != want {
			t.Errorf("logged %+v", rec)
		}
	}
	if err := r.Drain(t.Context(), topology.Instance{Service: "unknown", ID: "unknown/1"}); err != nil {
		t.Errorf("drain what never was: %v", err)
	}
}

// TestDrainAtOnce takes an instance that has died out of rotation, as the supervisor does: requests that it had not
// answered are repeated elsewhere, all that may be.
func TestDrainAtOnce(t *testing.T) {
	r := newRig(t)
	var there atomic.Int64
	r.instance("web", "web/1", func(_ http.ResponseWriter, req *http.Request) {
		io.Copy(io.Discard, req.Body)
		there.Add(1)
		<-req.Context().Done()
	})
	type outcome struct{ method, answer string }
	outcomes := make(chan outcome)
	const each = 10 // more than the budget of retries grants
	for _, method := range []string{"GET", "PUT", "POST"} {
		for range each {
			go func() {
				res, body := r.do(method, "/", strings.NewReader(method))
				outcomes <- outcome{method, res.Status + " " + strings.SplitN(body, "\n", 2)[0]}
			}()
		}
	}
	await(t, "all are there", func() bool { return there.Load() == 3*each })
	r.instance("web", "web/2", echo)
	r.drop("web", "web/1")
	got := map[outcome]int{}
	for range 3 * each {
		got[<-outcomes]++
	}
	want := map[outcome]int{
		{"GET", "200 OK GET"}: each,
		{"PUT", "200 OK PUT"}: each,
		{"POST", "503 Service Unavailable 503 Service Unavailable: the instance was stopped before it responded"}: each,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	for _, rec := range r.log(3 * each) {
		again := rec.Reason == reasonNone && rec.Attempts == 2 && rec.Instance == "web/2"
		if rec.Method == "POST" && (rec.Reason != reasonDrained || rec.Attempts != 1) || rec.Method != "POST" && !again {
			t.Errorf("logged %+v", rec)
		}
	}
}

// TestRollingReplacement replaces the only instance again and again under load, as the supervisor does.
func TestRollingReplacement(t *testing.T) {
	r := newRig(t)
	ok := http.HandlerFunc(echo)
	last := r.instance("web", "web/1.0", ok)
	ctx, stop := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	for i := range 4 {
		clients.Go(func() {
			for ctx.Err() == nil {
				if res, body := r.do([]string{"GET", "POST"}[i%2], "/", strings.NewReader("x")); res.StatusCode != 200 || body != "x" {
					t.Errorf("%s, %q, %s", res.Status, body, res.Header.Get("Proxy-Status"))
				}
			}
		})
	}
	for i := range 20 {
		next := r.instance("web", fmt.Sprintf("web/1.%d", i+1), ok)
		if err := r.Drain(t.Context(), topology.Instance{Service: "web", ID: fmt.Sprintf("web/1.%d", i)}); err != nil {
			t.Error(err)
		}
		last.Listener.Close()
		last.CloseClientConnections()
		last = next
		id := fmt.Sprintf("web/1.%d", i+1)
		await(t, "the next has work", func() bool { u, _ := r.upstream(id); return u.Requests > 5 })
	}
	stop()
	clients.Wait()
	for _, rec := range r.log(1) {
		if rec.Status != 200 {
			t.Errorf("logged %+v", rec)
		}
	}
}

func TestAdmitBeforeTopology(t *testing.T) {
	p := New(slog.New(slog.DiscardHandler), nil, nil)
	p.Admit(topology.Instance{Service: "web", ID: "web/1", Address: "127.0.0.1:1"})
	want := []PoolStatus{{Service: "web", Instances: []UpstreamStatus{{ID: "web/1", Address: "127.0.0.1:1", State: "admitted"}}}}
	if d := cmp.Diff(want, p.Status().Services); d != "" {
		t.Error(d)
	}
	if err := p.Drain(t.Context(), topology.Instance{Service: "web", ID: "web/1"}); err != nil {
		t.Error(err)
	}
	if s := p.Status().Services; len(s) != 0 {
		t.Errorf("left: %+v", s)
	}
}

// writeCertificate writes a self-signed pair for localhost and returns it as the topology names it.
func writeCertificate(t *testing.T, dir string, serial int64) *topology.TLS {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	spec := &topology.TLS{Certificate: filepath.Join(dir, "tls.crt"), Key: filepath.Join(dir, "tls.key")}
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	private := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
	for name, b := range map[string][]byte{spec.Certificate: cert, spec.Key: private} {
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	sum := sha256.Sum256(append(cert, private...))
	spec.Digest = hex.EncodeToString(sum[:])
	return spec
}

func TestTLS(t *testing.T) {
	r := newRig(t)
	dir := t.TempDir()
	r.topology.Proxy.Listeners = map[string]topology.Listener{
		"http":  {Name: "http", Address: "127.0.0.1:0", RedirectHTTPS: true},
		"https": {Name: "https", Address: "localhost:0", TLS: writeCertificate(t, dir, 1)},
	}
	r.apply()
	r.instance("web", "web/1", func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path == "/ws" {
			echoWebSocket(w, req)
			return
		}
		b, _ := io.ReadAll(req.Body)
		w.Header().Set("Trailer", "X-After")
		fmt.Fprint(w, req.Header.Get("X-Forwarded-Proto"), " ", req.Header.Get("Via")[:3], " ", len(b))
		w.Header().Set("X-After", "1")
	})
	_, port, _ := net.SplitHostPort(r.listener("https").Address)
	base := "https://localhost:" + port

	res, _ := r.do("GET", "/a%2Fb?c=d", nil, "Host", "localhost:1")
	if want := base + "/a%2Fb?c=d"; res.StatusCode != 308 || res.Header.Get("Location") != want {
		t.Errorf("%s to %q, want %q", res.Status, res.Header.Get("Location"), want)
	}
	serial := func(client *http.Client, path, want string) int64 {
		t.Helper()
		res, err := client.Post(base+path, "", strings.NewReader("12345"))
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if b, err := io.ReadAll(res.Body); string(b) != want || err != nil || res.Trailer.Get("X-After") != "1" {
			t.Errorf("got %q, %v, trailers %v", b, err, res.Trailer)
		}
		return res.TLS.PeerCertificates[0].SerialNumber.Int64()
	}
	newClient := func(protocols ...string) *http.Client {
		transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, Protocols: new(http.Protocols)}
		transport.Protocols.SetHTTP1(protocols[0] == "1")
		transport.Protocols.SetHTTP2(protocols[0] == "2")
		t.Cleanup(transport.CloseIdleConnections)
		return &http.Client{Transport: transport}
	}
	one, two := newClient("1"), newClient("2")
	if a, b := serial(one, "/", "https 1.1 5"), serial(two, "/", "https 2.0 5"); a != 1 || b != 1 {
		t.Errorf("certificates %d and %d", a, b)
	}
	ws, _, err := websocket.Dial(t.Context(), "wss://localhost:"+port+"/ws", &websocket.DialOptions{HTTPClient: one})
	if err != nil {
		t.Fatal(err)
	}
	defer ws.CloseNow()
	say(t, ws, "before")

	address := r.listener("https").Address
	r.topology.Proxy.Listeners = map[string]topology.Listener{
		"http":  {Name: "http", Address: "127.0.0.1:0", RedirectHTTPS: true},
		"https": {Name: "https", Address: "localhost:0", TLS: writeCertificate(t, dir, 2)},
	}
	r.apply()
	if got := r.listener("https"); got.Address != address || !got.TLS {
		t.Errorf("listener %+v, was at %s", got, address)
	}
	say(t, ws, "after")
	if n := serial(newClient("1"), "/", "https 1.1 5"); n != 2 {
		t.Errorf("certificate %d", n)
	}
	if n := serial(two, "/", "https 2.0 5"); n != 1 {
		t.Errorf("the connection of before has certificate %d", n)
	}
	var versions []string // the engines write their lines side by side
	for _, rec := range r.log(5) {
		if rec.Method == "POST" {
			versions = append(versions, rec.TLS+" "+rec.Protocol)
		}
	}
	slices.Sort(versions)
	if diff := cmp.Diff([]string{"TLS 1.3 HTTP/1.1", "TLS 1.3 HTTP/1.1", "TLS 1.3 HTTP/2.0", "TLS 1.3 HTTP/2.0"}, versions); diff != "" {
		t.Error("logged (-want +got):\n" + diff)
	}
}

// TestHTTP2Failures sees the proxy's own answers over HTTP/2, cut-off responses too.
func TestHTTP2Failures(t *testing.T) {
	route := route0("web")
	route.Timeouts.ResponseHeader, route.Timeouts.Idle = 500*time.Millisecond, 500*time.Millisecond
	r := newRig(t, route)
	r.topology.Proxy.Listeners = map[string]topology.Listener{
		"http": {Name: "http", Address: "127.0.0.1:0", TLS: writeCertificate(t, t.TempDir(), 1)},
	}
	r.apply()
	r.instance("web", "web/1", func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path == "/stream" {
			w.Write([]byte("x"))
			w.(http.Flusher).Flush()
		}
		<-req.Context().Done()
	})
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	for path, status := range map[string]int{"/": 504, "/%00": 400, "/stream": 200} {
		res, err := client.Get("https://" + r.address() + path)
		if err != nil {
			t.Fatal(path, err)
		}
		if _, err := io.ReadAll(res.Body); res.StatusCode != status || res.ProtoMajor != 2 || (err != nil) != (path == "/stream") {
			t.Errorf("%s: %s %s, %v", path, res.Proto, res.Status, err)
		}
		res.Body.Close()
	}
}
