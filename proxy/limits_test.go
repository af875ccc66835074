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

	"mainstay/topology"
)

// newLimitedRig returns a rig with these limits and an instance that echoes.
func newLimitedRig(t *testing.T, limits topology.ClientLimits) *rig {
	t.Helper()
	r := newRig(t)
	r.topology.Proxy.Limits = limits
	r.apply()
	r.instance("web", "web/1", echo)
	return r
}

// ended reads until the connection is closed and returns what came.
func ended(t *testing.T, c net.Conn) string {
	t.Helper()
	b, err := io.ReadAll(c)
	if err != nil && isTimeout(err) {
		t.Fatalf("the connection stays open; it got %q", b)
	}
	return string(b)
}

func TestLimitHeaderTime(t *testing.T) {
	r := newLimitedRig(t, topology.ClientLimits{HeaderTimeout: 50 * time.Millisecond})
	silent, _ := r.dial()
	if got := ended(t, silent); got != "" {
		t.Errorf("who said nothing got %q", got)
	}
	slow, br := r.dial()
	io.WriteString(slow, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	if _, err := http.ReadResponse(br, nil); err != nil {
		t.Fatal(err)
	}
	io.WriteString(slow, "GET / HTTP/1.1\r\nHo")
	if b, err := io.ReadAll(br); err != nil || !strings.HasPrefix(string(b), "HTTP/1.1 408 ") || !strings.Contains(string(b), "\r\nConnection: close\r\n") {
		t.Errorf("half a header: %q, %v", b, err)
	}
	if line := r.log(2)[1]; line.Status != 408 || line.Reason != reasonTimeoutRequest || line.Method != "GET" || line.Path != "/" {
		t.Errorf("logged %+v", line)
	}
	if n := metric(t, r.reg, "proxy_request_failures_total", "reason", string(reasonTimeoutRequest)); n != 1 {
		t.Errorf("%v failures counted", n)
	}
	empty, _ := r.dial()
	io.WriteString(empty, "\r\n")
	if got := ended(t, empty); got != "" {
		t.Errorf("an empty line got %q", got)
	}
}

func TestLimitIdleTime(t *testing.T) {
	r := newLimitedRig(t, topology.ClientLimits{IdleTimeout: 50 * time.Millisecond})
	c, br := r.dial()
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	if _, err := http.ReadResponse(br, nil); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(br); len(b) != 0 || err != nil {
		t.Errorf("%q, %v", b, err)
	}
}

func TestLimitBodyTime(t *testing.T) {
	r := newLimitedRig(t, topology.ClientLimits{BodyTimeout: 50 * time.Millisecond})
	for _, framing := range []string{"Content-Length: 10\r\n\r\nhalf", "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", "Transfer-Encoding: chunked\r\n\r\n4;ext"} {
		res, _ := r.send("POST / HTTP/1.1\r\nHost: a\r\n" + framing)
		if res.StatusCode != 408 || !res.Close {
			t.Errorf("%q: %s, close %t", framing, res.Status, res.Close)
		}
	}
	for _, line := range r.log(3) {
		if line.Reason != reasonTimeoutBody || line.Status != 408 {
			t.Errorf("logged %+v", line)
		}
	}
}

// TestLimitSendTime has a client that takes nothing of a large response.
func TestLimitSendTime(t *testing.T) {
	r := newLimitedRig(t, topology.ClientLimits{SendTimeout: 50 * time.Millisecond})
	r.drop("web", "web/1")
	r.instance("web", "web/2", func(w http.ResponseWriter, _ *http.Request) {
		for chunk := make([]byte, 1<<20); ; {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	})
	c, _ := r.dial()
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	if line := r.log(1)[0]; line.Reason != reasonTimeoutSend || line.Status != 200 {
		t.Errorf("logged %+v", line)
	}
}

func TestLimitHeaderSize(t *testing.T) {
	r := newLimitedRig(t, topology.ClientLimits{HeaderSize: 2000, HeaderFields: 10})
	long := strings.Repeat("x", 2000)
	for request, want := range map[string]int{
		"GET / HTTP/1.1\r\nHost: a\r\nX: " + long[:1900] + "\r\n\r\n":             200,
		"GET / HTTP/1.1\r\nHost: a\r\nX: " + long + "\r\n\r\n":                    431,
		"GET /" + long + " HTTP/1.1\r\nHost: a\r\n\r\n":                           414,
		"GET / HTTP/1.1\r\nHost: a\r\n" + strings.Repeat("X: y\r\n", 9) + "\r\n":  200,
		"GET / HTTP/1.1\r\nHost: a\r\n" + strings.Repeat("X: y\r\n", 10) + "\r\n": 431,
	} {
		if res, _ := r.send(request); res.StatusCode != want {
			t.Errorf("%.60q of %d bytes: %s, want %d", request, len(request), res.Status, want)
		}
	}
}

func TestLimitConnections(t *testing.T) {
	r := newLimitedRig(t, topology.ClientLimits{ConnectionsPerClient: 2})
	answers := func(c net.Conn, br *bufio.Reader) bool {
		io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		res, err := http.ReadResponse(br, nil)
		return err == nil && res.StatusCode == 200
	}
	var open []net.Conn
	for i := range 3 {
		c, br := r.dial()
		if got, want := answers(c, br), i < 2; got != want {
			t.Errorf("connection %d: %t", i+1, got)
		}
		open = append(open, c)
	}
	open[0].Close()
	await(t, "there is room again", func() bool {
		c, br := r.dial()
		return answers(c, br)
	})
	r.topology.Proxy.TrustedProxies = []string{"127.0.0.0/8"}
	r.apply()
	for range 3 {
		if c, br := r.dial(); !answers(c, br) {
			t.Error("a trusted proxy was refused")
		}
	}
}

// TestHandshakeTime has a client that never finishes with TLS, and one that does not speak it.
func TestHandshakeTime(t *testing.T) {
	r := newLimitedRig(t, topology.ClientLimits{HeaderTimeout: 100 * time.Millisecond})
	r.secure(t)
	address := r.listener("https").Address
	for said, want := range map[string]string{"": "", "\x16\x03\x01\x02\x00\x01": "", "GET / HTTP/1.1\r\n\r\n": "HTTP/1.1 400 "} {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		io.WriteString(c, said)
		if got := ended(t, c); !strings.HasPrefix(got, want) || want == "" && len(got) > 10 {
			t.Errorf("%q: %q", said, got)
		}
		c.Close()
	}
}

// secure adds a listener with TLS.
func (r *rig) secure(t *testing.T) {
	r.topology.Proxy.Listeners = map[string]topology.Listener{
		"http":  {Name: "http", Address: "127.0.0.1:0"},
		"https": {Name: "https", Address: free(t), TLS: writeCertificate(t, t.TempDir(), 1)},
	}
	r.apply()
}

// TestTLSRequests sends requests of all sizes over one connection of TLS each, several at once, in pieces, with a half close.
func TestTLSRequests(t *testing.T) {
	r := newLimitedRig(t, topology.ClientLimits{})
	r.secure(t)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		c, err := tls.Dial("tcp", r.listener("https").Address, &tls.Config{InsecureSkipVerify: true, MaxVersion: version, NextProtos: []string{"http/1.1"}})
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		br := bufio.NewReader(c)
		for _, size := range []int{0, 1, 5000, 200_000, 3 << 20, 10} {
			content := strings.Repeat("0123456789", size/10+1)[:size]
			go io.WriteString(c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: "+strconv.Itoa(size)+"\r\n\r\n"+content)
			res, err := http.ReadResponse(br, nil)
			if err != nil {
				t.Fatal(err)
			}
			if b, err := io.ReadAll(res.Body); string(b) != content || err != nil || res.Close {
				t.Fatalf("%d bytes: got %d, %v, %v", size, len(b), err, res.Header)
			}
		}
		for _, b := range []byte("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n") {
			c.Write([]byte{b})
		}
		io.WriteString(c, strings.Repeat("GET /more HTTP/1.1\r\nHost: a\r\n\r\n", 20))
		for n := range 21 {
			res, err := http.ReadResponse(br, nil)
			if err != nil {
				t.Fatalf("request %d of those sent together: %v", n, err)
			}
			io.Copy(io.Discard, res.Body)
		}
		io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
		res, err := http.ReadResponse(br, nil)
		if err != nil || !res.Close {
			t.Fatalf("the last: %v", err)
		}
		if _, err := br.ReadByte(); err != io.EOF {
			t.Errorf("it did not end with close_notify: %v", err)
		}
		c.Close()
	}
	for _, line := range r.log(56) {
		if line.TLS == "" || line.Status != 200 {
			t.Errorf("logged %+v", line)
		}
	}
}
