package proxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"mainstay/topology"
)

// TestRetryConnectFailure has one instance refuse connections: no request may fail, whatever its method and content.
func TestRetryConnectFailure(t *testing.T) {
	r := newRig(t)
	r.dead("web", "web/1")
	r.instance("web", "web/2", echo)
	var clients sync.WaitGroup
	for i := range 16 {
		clients.Go(func() {
			for range 50 {
				method, size := []string{"GET", "POST", "PATCH"}[i%3], []int{0, 10, 200_000}[i/3%3]
				res, body := r.do(method, "/", strings.NewReader(strings.Repeat("x", size)))
				if res.StatusCode != 200 || len(body) != size {
					t.Errorf("%s of %d bytes: %s, %d bytes", method, size, res.Status, len(body))
				}
			}
		})
	}
	clients.Wait()
	records := r.log(800)
	attempts, first := 0, 0
	for _, rec := range records {
		attempts += rec.Attempts
		if rec.Attempts > 1 {
			first++
		}
	}
	if u, _ := r.upstream("web/1"); first == 0 || attempts != len(records)+first || int(u.Failures) != first || u.State != "ejected" {
		t.Errorf("%d attempts of %d requests, %d more than one; %+v", attempts, len(records), first, u)
	}
}

func TestRetryPolicy(t *testing.T) {
	none, connectOnly := route0("web"), route0("web")
	none.PathPrefix, none.Retries.Attempts = "/none", 0
	connectOnly.PathPrefix, connectOnly.Retries.On = "/connect", []topology.RetryCondition{topology.RetryConnectFailure}
	for _, c := range []struct {
		method, path, key string
		size              int
		status            int
		reason            reason
	}{
		{"GET", "/", "", 0, 200, ""},
		{"PUT", "/", "", 1000, 200, ""},
		{"DELETE", "/", "", 0, 200, ""},
		{"PUT", "/", "", replayLimit + 1, 502, reasonReset},
		{"POST", "/", "", 10, 502, reasonReset},
		{"POST", "/", "k1", 10, 200, ""},
		{"PATCH", "/", "", 0, 502, reasonReset},
		{"GET", "/none", "", 0, 502, reasonReset},
		{"GET", "/connect", "", 0, 502, reasonReset},
	} {
		t.Run(fmt.Sprintf("%s %s %s %d", c.method, c.path, c.key, c.size), func(t *testing.T) {
			r := newRig(t, none, connectOnly, route0("web"))
			r.raw("web", "web/1", func(c net.Conn, br *bufio.Reader) { // takes the request and dies
				req, err := http.ReadRequest(br)
				if err != nil {
					return
				}
				io.Copy(io.Discard, req.Body)
			})
			r.instance("web", "web/2", echo)
			var header []string
			if c.key != "" {
				header = []string{"Idempotency-Key", c.key}
			}
			res, body := r.do(c.method, c.path, strings.NewReader(strings.Repeat("x", c.size)), header...)
			rec := r.log(1)[0]
			if res.StatusCode != c.status || rec.Reason != c.reason || c.status == 200 && (len(body) != c.size || rec.Attempts != 2 || rec.Instance != "web/2") {
				t.Errorf("%s, %d bytes, %+v", res.Status, len(body), rec)
			}
		})
	}
}

func TestAllInstancesDead(t *testing.T) {
	r := newRig(t)
	r.dead("web", "web/1")
	r.dead("web", "web/2")
	for range 2 { // the second time all are ejected
		res, _ := r.do("POST", "/", strings.NewReader("x"))
		if got := res.Header.Get("Proxy-Status"); res.StatusCode != 502 || !strings.HasPrefix(got, "mainstay; error=connection_refused;") {
			t.Errorf("%s, %q", res.Status, got)
		}
	}
	if rec := r.log(2)[1]; rec.Reason != reasonConnectFailure || rec.Attempts != 2 {
		t.Errorf("logged %+v", rec)
	}
}

func TestTimeouts(t *testing.T) {
	route := route0("web")
	route.Timeouts.ResponseHeader, route.Timeouts.Idle = 500*time.Millisecond, 500*time.Millisecond
	r := newRig(t, route)
	r.instance("web", "web/1", func(w http.ResponseWriter, req *http.Request) {
		io.Copy(io.Discard, req.Body)
		if req.URL.Path == "/stream" {
			w.Write([]byte("begin"))
			w.(http.Flusher).Flush()
		}
		<-req.Context().Done()
	})
	res, _ := r.do("GET", "/", nil)
	if got := res.Header.Get("Proxy-Status"); res.StatusCode != 504 || !strings.HasPrefix(got, "mainstay; error=http_response_timeout;") {
		t.Errorf("%s, %q", res.Status, got)
	}
	res, err := r.client.Get(r.url("/stream"))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if b, err := io.ReadAll(res.Body); string(b) != "begin" || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("stream gave %q, %v", b, err)
	}
	records := r.log(2)
	if records[0].Reason != reasonTimeoutHeader || records[1].Reason != reasonTimeoutIdle || records[1].Status != 200 {
		t.Errorf("logged %+v", records)
	}
}

// TestTimeoutAnswers has many requests run out of time at once: each is still answered.
func TestTimeoutAnswers(t *testing.T) {
	route := route0("web")
	route.Timeouts.ResponseHeader = time.Millisecond
	r := newRig(t, route)
	r.instance("web", "web/1", func(w http.ResponseWriter, req *http.Request) { <-req.Context().Done() })
	var clients sync.WaitGroup
	for range 8 {
		clients.Go(func() {
			for range 100 {
				if res, _ := r.do("GET", "/", nil); res.StatusCode != 504 {
					t.Errorf("got %s", res.Status)
				}
			}
		})
	}
	clients.Wait()
}

// TestTimeoutUpload has an instance that takes nothing of a large request.
func TestTimeoutUpload(t *testing.T) {
	route := route0("web")
	route.Timeouts.Idle = 50 * time.Millisecond
	r := newRig(t, route)
	release := make(chan struct{})
	r.raw("web", "web/1", func(c net.Conn, br *bufio.Reader) { <-release })
	defer close(release)
	res, _ := r.do("POST", "/", strings.NewReader(strings.Repeat("x", 64<<20)))
	if got := res.Header.Get("Proxy-Status"); res.StatusCode != 504 || !strings.HasPrefix(got, "mainstay; error=connection_read_timeout;") {
		t.Errorf("%s, %q", res.Status, got)
	}
}

// TestTimeoutClientStalls has a client that reads nothing of a large response: neither side may be held.
func TestTimeoutClientStalls(t *testing.T) {
	route := route0("web")
	route.Timeouts.Idle = 50 * time.Millisecond
	r := newRig(t, route)
	r.instance("web", "web/1", func(w http.ResponseWriter, req *http.Request) {
		for chunk := make([]byte, 1<<20); ; {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	})
	c, _ := r.dial()
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	if rec := r.log(1)[0]; rec.Reason != reasonTimeoutIdle {
		t.Errorf("logged %+v", rec)
	}
}

// TestSlowButSteady sends and receives slower than every limit, but with progress.
func TestSlowButSteady(t *testing.T) {
	route := route0("web")
	route.Timeouts.Idle, route.Timeouts.ResponseHeader = time.Second, time.Second
	r := newRig(t, route)
	r.instance("web", "web/1", func(w http.ResponseWriter, req *http.Request) {
		http.NewResponseController(w).EnableFullDuplex()
		b := make([]byte, 1)
		for {
			if _, err := io.ReadFull(req.Body, b); err != nil {
				return
			}
			w.Write(b)
			w.(http.Flusher).Flush()
		}
	})
	pr, pw := io.Pipe()
	go func() {
		tick := time.NewTicker(75 * time.Millisecond)
		defer tick.Stop()
		for range 20 {
			<-tick.C
			pw.Write([]byte("x"))
		}
		pw.Close()
	}()
	if res, body := r.do("POST", "/", pr); res.StatusCode != 200 || len(body) != 20 {
		t.Errorf("%s, %d bytes", res.Status, len(body))
	}
}

// TestClientAbort has clients go away while the instance works, while they send and while they receive.
func TestClientAbort(t *testing.T) {
	r := newRig(t)
	working, gone := make(chan struct{}), make(chan struct{})
	r.instance("web", "web/1", func(w http.ResponseWriter, req *http.Request) {
		working <- struct{}{}
		if req.URL.Path == "/stream" {
			w.Write([]byte("x"))
			w.(http.Flusher).Flush()
		}
		io.Copy(io.Discard, req.Body)
		<-req.Context().Done()
		gone <- struct{}{}
	})
	for i, request := range []string{
		"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n",
		"POST /send HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf",
		"GET /stream HTTP/1.1\r\nHost: a\r\n\r\n",
	} {
		c, br := r.dial()
		io.WriteString(c, request)
		<-working
		if strings.Contains(request, "stream") {
			if _, err := http.ReadResponse(br, nil); err != nil {
				t.Fatal(err)
			}
		}
		c.Close()
		<-gone
		rec := r.log(i + 1)[i]
		want := statusClientClosedRequest
		if strings.Contains(request, "stream") {
			want = 200
		}
		if rec.Reason != reasonClientAbort || rec.Status != want {
			t.Errorf("%q: logged %+v", request, rec)
		}
	}
	if u, _ := r.upstream("web/1"); u.Failures != 0 || u.InFlight != 0 {
		t.Errorf("instance %+v", u)
	}
}

// TestInstanceCutsResponse never lets a client take half a response for a whole one.
func TestInstanceCutsResponse(t *testing.T) {
	r := newRig(t)
	r.raw("web", "web/1", func(c net.Conn, br *bufio.Reader) {
		req, err := http.ReadRequest(br)
		if err != nil {
			return
		}
		io.WriteString(c, map[string]string{
			"/length":  "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
			"/chunked": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
			"/chunk":   "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nz\r\nhalf\r\n",
		}[req.URL.Path])
	})
	for i, path := range []string{"/length", "/chunked", "/chunk"} {
		res, err := r.client.Get(r.url(path))
		if err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(res.Body); err == nil {
			t.Errorf("%s ended cleanly with %q", path, b)
		}
		res.Body.Close()
		if rec := r.log(i + 1)[i]; rec.Reason != reasonIncomplete || rec.Status != 200 {
			t.Errorf("%s: logged %+v", path, rec)
		}
	}
}

func TestInstanceBadResponse(t *testing.T) {
	r := newRig(t)
	r.raw("web", "web/1", func(c net.Conn, br *bufio.Reader) {
		req, err := http.ReadRequest(br)
		if err != nil {
			return
		}
		io.WriteString(c, map[string]string{
			"/garbage": "SSH-2.0-OpenSSH\r\n\r\n",
			"/status":  "HTTP/1.1 099 Low\r\n\r\n",
			"/length":  "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
			"/huge":    "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", maxResponseHeaderBytes) + "\r\n\r\n",
			"/half":    "HTTP/1.1 200 O",
		}[req.URL.Path])
	})
	for i, path := range []string{"/garbage", "/status", "/length", "/huge", "/half"} {
		res, _ := r.do("GET", path, nil)
		if rec := r.log(i + 1)[i]; res.StatusCode != 502 || rec.Reason != reasonBadResponse {
			t.Errorf("%s: %s, logged %+v", path, res.Status, rec)
		}
	}
}

// TestInstanceKilled kills an instance under load: only what was in flight on it may fail.
func TestInstanceKilled(t *testing.T) {
	r := newRig(t)
	ok := echo
	victim := r.instance("web", "web/1", ok)
	r.instance("web", "web/2", ok)
	ctx, stop := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	for i := range 8 {
		clients.Go(func() {
			for ctx.Err() == nil {
				method, body := "GET", ""
				if i%3 > 0 { // so that the budget is enough for the others
					method, body = "POST", "x"
				}
				res, got := r.do(method, "/", strings.NewReader(body))
				// A POST that the instance may have seen is not repeated.
				if res.StatusCode != 200 && method == "GET" || res.StatusCode == 200 && got != body {
					t.Errorf("%s: %s, %q", method, res.Status, got)
				}
			}
		})
	}
	requests := func(id string) uint64 { u, _ := r.upstream(id); return u.Requests }
	await(t, "both have work", func() bool { return requests("web/1") > 50 && requests("web/2") > 50 })
	victim.Listener.Close()
	victim.CloseClientConnections()
	now := requests("web/2")
	await(t, "the other goes on", func() bool { return requests("web/2") > now+200 })
	stop()
	clients.Wait()
	failed := 0
	for _, rec := range r.log(1) {
		if rec.Status != 200 {
			failed++
			if rec.Reason != reasonReset {
				t.Errorf("logged %+v", rec)
			}
		}
	}
	if failed > 8 {
		t.Errorf("%d requests failed with 8 clients", failed)
	}
}

// TestEarlyAnswer answers before the request has come whole. What comes later must not be taken for another request.
func TestEarlyAnswer(t *testing.T) {
	none := topology.Route{PathPrefix: "/none", Service: "none"}
	r := newRig(t, none, route0("web"))
	r.raw("web", "web/1", func(c net.Conn, br *bufio.Reader) {
		req, err := http.ReadRequest(br)
		if err != nil {
			return
		}
		if req.Method == "GET" {
			t.Error("content became a request")
			return
		}
		if _, err := io.ReadFull(req.Body, make([]byte, 1)); err == nil {
			io.WriteString(c, "HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\nno")
			io.Copy(io.Discard, br)
		}
	})
	const late = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
	for _, framing := range []string{fmt.Sprintf("Content-Length: %d\r\n\r\nx", 1+len(late)), "Content-Length: 1000000\r\n\r\nx", "Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n"} {
		for path, want := range map[string]int{"/none": 503, "/": 413} {
			c, br := r.dial()
			fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: a\r\n%s", path, framing)
			res, err := http.ReadResponse(br, nil)
			if err != nil {
				t.Fatal(err)
			}
			if b, err := io.ReadAll(res.Body); res.StatusCode != want || !res.Close || len(b) == 0 || err != nil {
				t.Errorf("%s %q: %s, close %t, %q, %v", path, framing, res.Status, res.Close, b, err)
			}
			io.WriteString(c, late)
			if b, _ := io.ReadAll(br); len(b) != 0 {
				t.Errorf("%s %q: then came %q", path, framing, b)
			}
			c.Close()
		}
	}
}

// TestBugEndsOneRequest has the engine panic: the request is aborted, everything it held is given back.
func TestBugEndsOneRequest(t *testing.T) {
	r := newRig(t)
	r.pool("web").connect = noConns // not what the engine put there
	r.Admit(topology.Instance{Service: "web", ID: "web/1", Address: "127.0.0.1:1"})
	if res, err := r.client.Get(r.url("/")); err == nil {
		res.Body.Close()
		t.Errorf("got %s", res.Status)
	}
	if rec := r.log(1)[0]; rec.Reason != reasonInternalFailure || rec.Status != 500 {
		t.Errorf("logged %+v", rec)
	}
	if u, _ := r.upstream("web/1"); u.InFlight != 0 || u.Requests != 1 {
		t.Errorf("instance %+v", u)
	}
}
