package proxy

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestFloodLeavesTurns has clients send requests without end that the proxy answers itself. Others must get their turn.
func TestFloodLeavesTurns(t *testing.T) {
	route := route0("web")
	route.PathPrefix = "/app"
	r := newRig(t, route)
	r.instance("web", "web/1", echo)
	var flood sync.WaitGroup
	stop := make(chan struct{})
	for range 4 {
		c, err := net.Dial("tcp", r.address())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		flood.Go(func() {
			for text := []byte(strings.Repeat("GET /x HTTP/1.1\r\nHost: a\r\n\r\n", 10_000)); ; {
				if _, err := c.Write(text); err != nil {
					return
				}
			}
		})
		flood.Go(func() {
			buffer := make([]byte, 1<<20)
			for {
				if _, err := c.Read(buffer); err != nil {
					return
				}
			}
		})
		flood.Go(func() { <-stop; c.Close() })
	}
	defer flood.Wait()
	defer close(stop)
	await(t, "the flood has come", func() bool { return r.metricsTotal() > 5_000 })
	for range 4 {
		c, br := r.dial()
		_ = c.SetDeadline(time.Now().Add(30 * time.Second))
		for range 5 {
			_, _ = io.WriteString(c, "GET /app HTTP/1.1\r\nHost: a\r\n\r\n")
			if _, err := http.ReadResponse(br, nil); err != nil {
				t.Fatalf("another client waits in vain: %v", err)
			}
		}
	}
}

// metricsTotal returns how many requests were answered.
func (r *rig) metricsTotal() (sum float64) {
	families, err := r.reg.Gather()
	if err != nil {
		r.t.Fatal(err)
	}
	for _, f := range families {
		if strings.HasSuffix(f.GetName(), "proxy_requests_total") {
			for _, m := range f.GetMetric() {
				sum += m.GetCounter().GetValue()
			}
		}
	}
	return sum
}

// TestTunnelHalfClosed has a WebSocket's client end its side first and take the rest slowly: all that the instance sends still arrives.
func TestTunnelHalfClosed(t *testing.T) {
	const size = 4 << 20
	r := newRig(t)
	content := bytes.Repeat([]byte("0123456789abcdef"), size/16)
	r.raw("web", "web/1", func(c net.Conn, br *bufio.Reader) {
		if _, err := http.ReadRequest(br); err != nil {
			return
		}
		io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		if _, err := io.Copy(io.Discard, br); err == nil {
			c.Write(content)
		}
	})
	c, br := r.dial()
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	if res, err := http.ReadResponse(br, nil); err != nil || res.StatusCode != 101 {
		t.Fatal(res, err)
	}
	c.(*net.TCPConn).CloseWrite()
	if got, err := io.ReadAll(br); err != nil || !bytes.Equal(got, content) {
		t.Errorf("%d of %d bytes arrived: %v", len(got), size, err)
	}
}

// TestTunnelHalfClosedByInstance is the same the other way round.
func TestTunnelHalfClosedByInstance(t *testing.T) {
	const size = 4 << 20
	r := newRig(t)
	got := make(chan int64, 1)
	r.raw("web", "web/1", func(c net.Conn, br *bufio.Reader) {
		if _, err := http.ReadRequest(br); err != nil {
			return
		}
		io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		c.(*net.TCPConn).CloseWrite()
		n, _ := io.Copy(io.Discard, br)
		got <- n
	})
	c, br := r.dial()
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	if res, err := http.ReadResponse(br, nil); err != nil || res.StatusCode != 101 {
		t.Fatal(res, err)
	}
	if b, err := io.ReadAll(br); err != nil || len(b) > 0 {
		t.Fatalf("%q, %v", b, err)
	}
	if _, err := c.Write(make([]byte, size)); err != nil {
		t.Fatal(err)
	}
	c.Close()
	if n := <-got; n != size {
		t.Errorf("%d of %d bytes arrived", n, size)
	}
}

// TestClientLeavesAtOnce has clients send a request and leave before the proxy has looked: no instance works for them.
func TestClientLeavesAtOnce(t *testing.T) {
	r := newRig(t)
	r.instance("web", "web/1", func(w http.ResponseWriter, req *http.Request) {
		io.Copy(io.Discard, req.Body)
		<-req.Context().Done()
	})
	for _, request := range []string{
		"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nwhole",
		"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
	} {
		for range 20 {
			c, err := net.Dial("tcp", r.address())
			if err != nil {
				t.Fatal(err)
			}
			io.WriteString(c, request)
			c.Close()
		}
	}
	for _, rec := range r.log(60) {
		if rec.Reason != reasonClientAbort {
			t.Errorf("logged %+v", rec)
		}
	}
}

// TestInstanceSpeaksFirst has an instance answer before it was asked, so early that it is seen together with the connection.
func TestInstanceSpeaksFirst(t *testing.T) {
	r := newRig(t)
	r.raw("web", "web/1", func(c net.Conn, br *bufio.Reader) {
		io.WriteString(c, "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbusy")
		io.Copy(io.Discard, br)
	})
	var clients []*bufio.Reader
	release := r.stall()
	for range 40 {
		c, br := r.dial()
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		clients = append(clients, br)
	}
	release()
	for _, br := range clients {
		if res, err := http.ReadResponse(br, nil); err != nil || res.StatusCode != 503 {
			t.Fatalf("%v, %v", res, err)
		}
	}
}
