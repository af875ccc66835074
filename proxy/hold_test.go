package proxy

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/prometheus/client_golang/prometheus"

	"mainstay/topology"
)

// hold makes the rig hold requests for "web".
func (r *rig) hold(w topology.WhenUnavailable) {
	r.t.Helper()
	r.topology.Services = map[string]topology.Service{"web": {Name: "web", Replicas: 1, WhenUnavailable: w}}
	r.apply()
}

func holdFor(d time.Duration) topology.WhenUnavailable {
	return topology.WhenUnavailable{Hold: topology.Hold{For: d, Requests: 1000, Bytes: 64 << 20}}
}

func (r *rig) held() int {
	for _, s := range r.Status().Services {
		if s.Service == "web" {
			return s.Held
		}
	}
	return 0
}

func (r *rig) awaitHeld(n int) {
	r.t.Helper()
	await(r.t, fmt.Sprintf("%d requests are held", n), func() bool { return r.held() == n })
}

// Requests of every kind wait for the first instance, and all of them are served by it.
func TestHold(t *testing.T) {
	r := newRig(t)
	r.hold(holdFor(20 * time.Second))
	upload := strings.Repeat("x", 1<<20)
	var clients sync.WaitGroup
	for i := range 90 {
		clients.Go(func() {
			switch i % 3 {
			case 0:
				if res, body := r.do("GET", "/", nil); res.StatusCode != 200 || body != "" {
					t.Errorf("GET: %s %q", res.Status, body)
				}
			case 1:
				if res, body := r.do("POST", "/", strings.NewReader(upload)); res.StatusCode != 200 || body != upload {
					t.Errorf("POST: %s, %d bytes", res.Status, len(body))
				}
			default:
				c, _, err := websocket.Dial(t.Context(), "ws"+strings.TrimPrefix(r.url("/ws"), "http"), nil)
				if err != nil {
					t.Errorf("WebSocket: %v", err)
					return
				}
				c.Close(websocket.StatusNormalClosure, "")
			}
		})
	}
	r.awaitHeld(90)
	r.instance("web", "web/1", func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path == "/ws" {
			c, err := websocket.Accept(w, req, nil)
			if err != nil {
				return
			}
			c.Read(req.Context())
			return
		}
		echo(w, req)
	})
	clients.Wait()
	r.awaitHeld(0)
	for _, rec := range r.log(90) {
		if rec.Reason != reasonNone || rec.Held == 0 {
			t.Errorf("logged %+v", rec)
		}
	}
	if n := metric(t, r.reg, "proxy_held_requests_total", "outcome", "served"); n != 90 {
		t.Errorf("%v were counted as served", n)
	}
}

func TestHoldEnds(t *testing.T) {
	r := newRig(t)
	w := holdFor(1500 * time.Millisecond)
	w.Hold.Requests = 2
	r.hold(w)
	began := time.Now()
	var clients sync.WaitGroup
	for range 2 {
		clients.Go(func() {
			res, _ := r.do("GET", "/", nil)
			if res.StatusCode != 503 || res.Header.Get("Retry-After") == "" || !strings.Contains(res.Header.Get("Proxy-Status"), "error=destination_unavailable") {
				t.Errorf("%s %v", res.Status, res.Header)
			}
		})
	}
	r.awaitHeld(2)
	if res, body := r.do("GET", "/full", nil); res.StatusCode != 503 || !strings.Contains(body, "too many requests wait") {
		t.Errorf("with no room: %s %q", res.Status, body)
	}
	clients.Wait()
	if took := time.Since(began); took < 1500*time.Millisecond || took > 10*time.Second {
		t.Errorf("they were held for %v", took)
	}
	want := map[reason]int{reasonHoldFull: 1, reasonHoldExpired: 2}
	for _, rec := range r.log(3) {
		want[rec.Reason]--
	}
	if want[reasonHoldFull] != 0 || want[reasonHoldExpired] != 0 {
		t.Errorf("reasons: %v", want)
	}
	w = holdFor(time.Minute)
	w.Hold.Bytes = 28 << 10
	r.hold(w)
	if res, _ := r.do("GET", "/", nil, "X-Long", strings.Repeat("x", 5000)); res.StatusCode != 503 {
		t.Errorf("with no room for its fields: %s", res.Status)
	}

	// Who leaves is forgotten, with content that has not been read too.
	for _, request := range []string{"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 500000\r\n\r\nabc"} {
		c, _ := r.dial()
		io.WriteString(c, request)
		r.awaitHeld(1)
		c.Close()
		r.awaitHeld(0)
	}

	// Changed while they wait: no instance is to come.
	done := make(chan bool)
	go func() {
		defer close(done)
		if res, _ := r.do("GET", "/", nil); res.StatusCode != 503 {
			t.Errorf("for a service that was stopped: %s", res.Status)
		}
	}()
	r.awaitHeld(1)
	web := r.topology.Services["web"]
	web.Stopped = true
	r.topology.Services = map[string]topology.Service{"web": web}
	r.apply()
	<-done
	if res, _ := r.do("GET", "/", nil); res.StatusCode != 503 {
		t.Errorf("for a stopped service: %s", res.Status)
	}
}

// An instance that refuses connections is tried again, by one request for all, until it takes them or another comes.
func TestHoldBesideRefusal(t *testing.T) {
	r := newRig(t)
	r.hold(holdFor(20 * time.Second))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	r.Admit(topology.Instance{Service: "web", ID: "web/1", Address: address, Weight: 1})
	var clients sync.WaitGroup
	send := func() {
		clients.Go(func() {
			if res, body := r.do("POST", "/", strings.NewReader("content")); res.StatusCode != 200 || body != "content" {
				t.Errorf("%s %q", res.Status, body)
			}
		})
	}
	for range 40 {
		send()
	}
	r.awaitHeld(40)
	if l, err = net.Listen("tcp", address); err != nil {
		t.Skipf("the address was taken meanwhile: %v", err)
	}
	s := &http.Server{Handler: http.HandlerFunc(echo)}
	served := make(chan bool)
	go func() {
		defer close(served)
		s.Serve(l)
	}()
	clients.Wait()
	r.awaitHeld(0)
	s.Close()
	<-served

	r.drop("web", "web/1")
	r.dead("web", "web/2")
	send()
	r.awaitHeld(1)
	r.instance("web", "web/3", echo)
	clients.Wait()
}

// The only instance dies with requests on it that may be sent again: all of them wait for the next, however many there are.
func TestHoldAfterDeath(t *testing.T) {
	r := newRig(t)
	r.hold(holdFor(20 * time.Second))
	const requests = 20
	arrived, die := make(chan bool, requests), make(chan bool)
	r.raw("web", "web/1", func(_ net.Conn, br *bufio.Reader) {
		if _, err := http.ReadRequest(br); err == nil {
			arrived <- true
			<-die
		}
	})
	var clients sync.WaitGroup
	for range requests {
		clients.Go(func() {
			if res, body := r.do("PUT", "/", strings.NewReader("content")); res.StatusCode != 200 || body != "content" {
				t.Errorf("%s %q", res.Status, body)
			}
		})
	}
	for range requests {
		<-arrived
	}
	close(die)
	r.awaitHeld(requests)
	r.drop("web", "web/1")
	r.instance("web", "web/2", echo)
	clients.Wait()
}

func TestHoldHTTP2(t *testing.T) {
	r := newRig(t)
	r.topology.Proxy.Listeners["http"] = topology.Listener{Name: "http", Address: free(t), TLS: writeCertificate(t, t.TempDir(), 1)}
	r.hold(holdFor(20 * time.Second))
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	url := "https://" + r.address() + "/"
	ctx, leave := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	for i := range 20 {
		clients.Go(func() {
			ctx := ctx
			if i > 0 {
				ctx = t.Context()
			}
			req, _ := http.NewRequestWithContext(ctx, "POST", url, strings.NewReader("content"))
			res, err := client.Do(req)
			if err != nil {
				if i > 0 {
					t.Error(err)
				}
				return
			}
			defer res.Body.Close()
			if b, _ := io.ReadAll(res.Body); string(b) != "content" || res.ProtoMajor != 2 {
				t.Errorf("%s %s %q", res.Proto, res.Status, b)
			}
		})
	}
	r.awaitHeld(20)
	leave()
	r.awaitHeld(19)
	r.instance("web", "web/1", echo)
	clients.Wait()
}

func TestFallback(t *testing.T) {
	r := newRig(t)
	r.instance("static", "static/1", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "back soon") })
	r.topology.Services = map[string]topology.Service{
		"web":    {Name: "web", Replicas: 1, WhenUnavailable: topology.WhenUnavailable{Fallback: "static"}},
		"static": {Name: "static", Replicas: 1, WhenUnavailable: topology.WhenUnavailable{Fallback: "other"}},
	}
	r.instance("other", "other/1", func(http.ResponseWriter, *http.Request) { t.Error("the fallback's fallback was asked") })
	r.apply()
	for range 2 { // without an instance, and with one that refuses
		res, body := r.do("GET", "/", nil)
		if res.StatusCode != 200 || body != "back soon" || !strings.Contains(res.Header.Get("Proxy-Status"), "destination_unavailable") {
			t.Errorf("%s %q %v", res.Status, body, res.Header)
		}
		r.dead("web", "web/1")
	}
	r.drop("static", "static/1")
	if res, _ := r.do("GET", "/", nil); res.StatusCode != 503 {
		t.Errorf("without a fallback either: %s", res.Status)
	}
	for i, rec := range r.log(3) {
		if i < 2 && (rec.Fallback != "static" || rec.Service != "web" || rec.Instance != "static/1" || rec.Reason != reasonNone) {
			t.Errorf("logged %+v", rec)
		}
	}
	if n := metric(t, r.reg, "proxy_fallback_requests_total", "fallback", "static"); n != 3 {
		t.Errorf("%v fallbacks were counted", n)
	}

	r.topology.Services = map[string]topology.Service{"web": {Name: "web", Replicas: 1, WhenUnavailable: topology.WhenUnavailable{
		Response: &topology.Response{Status: 429, ContentType: "text/html", Body: "<p>later"},
	}}}
	r.apply()
	res, body := r.do("GET", "/", nil)
	if res.StatusCode != 429 || body != "<p>later" || res.Header.Get("Content-Type") != "text/html" || res.Header.Get("Proxy-Status") == "" {
		t.Errorf("%s %q %v", res.Status, body, res.Header)
	}
	if rec := r.log(4)[3]; rec.Reason != reasonConnectFailure || rec.Status != 429 {
		t.Errorf("logged %+v", rec)
	}
	if res, body := r.do("HEAD", "/", nil); res.StatusCode != 429 || body != "" {
		t.Errorf("HEAD: %s %q", res.Status, body)
	}
}

// The only instance is replaced again and again, the old one gone before the next one comes.
func TestHoldOverRestarts(t *testing.T) {
	r := newRig(t)
	r.hold(holdFor(20 * time.Second))
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var clients sync.WaitGroup
	r.instance("web", "web/1.0", echo)
	for i := range 16 {
		clients.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				content := fmt.Sprint(i, n)
				if res, body := r.do([]string{"GET", "POST"}[n%2], "/", strings.NewReader(content)); res.StatusCode != 200 || body != content {
					t.Errorf("%s %q", res.Status, body)
					return
				}
			}
		})
	}
	for n := range 10 {
		if err := r.Drain(t.Context(), topology.Instance{Service: "web", ID: fmt.Sprint("web/1.", n)}); err != nil {
			t.Fatal(err)
		}
		r.awaitHeld(16)
		next := topology.Instance{Service: "web", ID: fmt.Sprint("web/1.", n+1)}
		r.instance("web", next.ID, echo)
		await(t, "the next one serves", func() bool { return r.Traffic(next).Requests > 50 })
	}
	stop()
	clients.Wait()
}

// A callee owns a waiter and tells when it was called.
type callee struct {
	number int
	order  chan int
}

func (c callee) called() { c.order <- c.number }

// First come, first called: a few at once, more as these are connected, and newcomers after them.
func TestHoldKeepsOrder(t *testing.T) {
	p := newTestPool(func(string) {})
	hold := holdFor(time.Minute).Hold
	order := make(chan int, 100)
	var waiters []*waiter
	for i := range 60 {
		w := &waiter{owner: callee{i, order}}
		waiters = append(waiters, w)
		w.begin(p, hold, 0)
		w.mayTry()
		if got := w.join(time.Now()); got != waitStanding || p.queued.Load() != int64(i+1) {
			t.Fatalf("joining ended with %v, %d wait", got, p.queued.Load())
		}
	}
	for at := 0; at < 60; {
		called := 2
		if at == 0 {
			called = holdBurst
			p.admit(topology.Instance{ID: "web/1"})
			p.mu.Lock()
			p.line.retry.Stop() // nobody is called for the time that has passed
			p.mu.Unlock()
			late := &waiter{}
			late.begin(p, hold, 0)
			if late.mayTry() {
				t.Error("a newcomer may try before those who wait")
			}
		} else {
			waiters[at-1].reached()
		}
		group := map[int]bool{}
		for range min(called, 60-at) {
			group[<-order] = true
		}
		for ; len(group) > 0; at++ {
			if !group[at] {
				t.Fatalf("%v were called when it was the turn of %d", group, at)
			}
			delete(group, at)
		}
	}
	for _, w := range waiters {
		if got := w.answer(); got != waitCalled {
			t.Errorf("waiting ended with %v", got)
		}
		w.leave()
	}
	if p.line.held != 0 || p.line.bytes != 0 || p.queued.Load() != 0 {
		t.Errorf("in the end %d are held with %d bytes", p.line.held, p.line.bytes)
	}
}

// metric returns the sum of a counter where a label has the value.
func metric(t *testing.T, reg *prometheus.Registry, name, label, value string) (sum float64) {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if l.GetName() == label && l.GetValue() == value {
					sum += m.GetCounter().GetValue()
				}
			}
		}
	}
	return sum
}
