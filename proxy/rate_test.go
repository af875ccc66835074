package proxy

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"mainstay/topology"
)

// newRatedRig returns a rig whose clients must move so much a second that they can only be slower, what the kernel takes at once
// included, which they may be for a fifth of one.
func newRatedRig(t *testing.T, limits topology.ClientLimits) *rig {
	t.Helper()
	limits.MinimumRate = 64 << 20
	r := newLimitedRig(t, limits)
	r.grace = 200 * time.Millisecond
	r.secure(t)
	return r
}

// over returns a connection to the listener, for which little waits.
func (r *rig) over(listener string) net.Conn {
	c, err := net.Dial("tcp", r.listener(listener).Address)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	_ = c.(*net.TCPConn).SetReadBuffer(8 << 10)
	if listener == "https" {
		return tls.Client(c, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})
	}
	return c
}

// TestRateOfContent has clients that trickle content, which no time-out notices, and ones that send it at once.
func TestRateOfContent(t *testing.T) {
	r := newRatedRig(t, topology.ClientLimits{})
	lines := 0
	for _, listener := range []string{"http", "https"} {
		for framing, part := range map[string]string{"Content-Length: 1000000": "x", "Transfer-Encoding: chunked": "1\r\nx\r\n"} {
			c := r.over(listener)
			io.WriteString(c, "POST / HTTP/1.1\r\nHost: a\r\n"+framing+"\r\n\r\n")
			stop, stopped := make(chan struct{}), make(chan struct{})
			go func() {
				defer close(stopped)
				tick := time.NewTicker(5 * time.Millisecond)
				defer tick.Stop()
				for {
					select {
					case <-stop:
						return
					case <-tick.C:
						if _, err := io.WriteString(c, part); err != nil {
							return
						}
					}
				}
			}()
			res, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil || res.StatusCode != 408 || !res.Close {
				t.Errorf("%s, %s: %v, %v", listener, framing, res, err)
			}
			close(stop)
			<-stopped
			lines++
			if line := r.log(lines)[lines-1]; line.Reason != reasonTimeoutBody || line.Status != 408 {
				t.Errorf("%s, %s: logged %+v", listener, framing, line)
			}
		}
		c := r.over(listener)
		const size = 100_000
		go io.WriteString(c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: "+strconv.Itoa(size)+"\r\n\r\n"+strings.Repeat("x", size))
		res, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil || res.StatusCode != 200 {
			t.Fatalf("%s: %v, %v", listener, res, err)
		}
		if n, err := io.Copy(io.Discard, res.Body); n != size || err != nil {
			t.Errorf("%s: %d bytes came back, %v", listener, n, err)
		}
		lines++
	}
}

// TestRateOfResponse has clients that take a response a little at a time, however it is framed and moved, and an instance that sends
// one so, for which a client is not to blame.
func TestRateOfResponse(t *testing.T) {
	r := newRatedRig(t, topology.ClientLimits{})
	r.drop("web", "web/1")
	r.instance("web", "web/2", func(w http.ResponseWriter, req *http.Request) {
		const parts = 64
		if req.URL.Path == "/slow" {
			tick := time.NewTicker(10 * time.Millisecond)
			defer tick.Stop()
			for range 40 {
				<-tick.C
				io.WriteString(w, "x")
				w.(http.Flusher).Flush()
			}
			return
		}
		if req.URL.Path == "/length" {
			w.Header().Set("Content-Length", strconv.Itoa(parts<<20))
		}
		for chunk, n := make([]byte, 1<<20), 0; n < parts; n++ {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	})
	lines := 0
	for _, listener := range []string{"http", "https"} {
		for _, path := range []string{"/length", "/chunked"} {
			c := r.over(listener)
			io.WriteString(c, "GET "+path+" HTTP/1.1\r\nHost: a\r\n\r\n")
			tick := time.NewTicker(2 * time.Millisecond)
			for got, one := 0, make([]byte, 1); ; got++ {
				<-tick.C
				if _, err := c.Read(one); err != nil {
					break
				}
				if rest := r.records(); len(rest) > lines {
					break
				}
			}
			tick.Stop()
			lines++
			if line := r.log(lines)[lines-1]; line.Reason != reasonTimeoutSend || line.Status != 200 || line.BytesOut >= 64<<20 {
				t.Errorf("%s%s: logged %+v", listener, path, line)
			}
			c.Close()
		}
		c := r.over(listener)
		io.WriteString(c, "GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
		res, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(res.Body); len(b) != 40 || err != nil {
			t.Errorf("%s: of a slow instance %d bytes came, %v", listener, len(b), err)
		}
		lines++
	}
}

// TestRateOfWebSocket holds that WebSockets may be as slow as they like, over TLS too.
func TestRateOfWebSocket(t *testing.T) {
	limits := topology.ClientLimits{BodyTimeout: 50 * time.Millisecond, SendTimeout: 50 * time.Millisecond, IdleTimeout: 50 * time.Millisecond, HeaderTimeout: time.Second}
	r := newRatedRig(t, limits)
	r.drop("web", "web/1")
	r.instance("web", "web/2", func(w http.ResponseWriter, req *http.Request) {
		c, err := websocket.Accept(w, req, nil)
		if err != nil {
			return
		}
		defer c.CloseNow()
		for {
			kind, message, err := c.Read(req.Context())
			if err != nil || c.Write(req.Context(), kind, message) != nil {
				return
			}
		}
	})
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	defer transport.CloseIdleConnections()
	for listener, scheme := range map[string]string{"http": "ws", "https": "wss"} {
		ws, _, err := websocket.Dial(t.Context(), scheme+"://"+r.listener(listener).Address, &websocket.DialOptions{HTTPClient: &http.Client{Transport: transport}})
		if err != nil {
			t.Fatal(err)
		}
		tick := time.NewTicker(70 * time.Millisecond)
		for n := range 5 {
			<-tick.C
			said := strings.Repeat(strconv.Itoa(n), 20_000)
			if err := ws.Write(t.Context(), websocket.MessageText, []byte(said)); err != nil {
				t.Fatalf("%s: %v", scheme, err)
			}
			if _, heard, err := ws.Read(t.Context()); string(heard) != said || err != nil {
				t.Fatalf("%s: heard %d bytes, %v", scheme, len(heard), err)
			}
		}
		tick.Stop()
		ws.Close(websocket.StatusNormalClosure, "")
	}
	for _, line := range r.log(2) {
		if line.Status != 101 || line.Reason != reasonNone {
			t.Errorf("logged %+v", line)
		}
	}
}
