package proxy

import (
	"bufio"
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"mainstay/topology"
)

// TestLargeResponses checks that much content arrives as it was sent, however it is framed, over plain connections and TLS, to clients that
// take it at once and to those that take it slowly, and that the connection then serves another request.
func TestLargeResponses(t *testing.T) {
	r := newRig(t)
	r.topology.Proxy.Listeners = maps.Clone(r.topology.Proxy.Listeners) // what runs has the other
	r.topology.Proxy.Listeners["secure"] = topology.Listener{Name: "secure", Address: "localhost:0", TLS: writeCertificate(t, t.TempDir(), 1)}
	r.apply()
	content := make([]byte, 4<<20)
	rand.NewChaCha8([32]byte{1}).Read(content)
	want := sha256.Sum256(content)
	r.raw("web", "web/1", func(c net.Conn, br *bufio.Reader) {
		for {
			req, err := http.ReadRequest(br)
			if err != nil {
				return
			}
			switch req.URL.Path {
			case "/length":
				fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", len(content))
				c.Write(content)
			case "/chunked":
				io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
				for rest := content; len(rest) > 0; {
					n := min(len(rest), 300_000)
					fmt.Fprintf(c, "%x\r\n%s\r\n", n, rest[:n])
					rest = rest[n:]
				}
				io.WriteString(c, "0\r\n\r\n")
			default:
				io.WriteString(c, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
				c.Write(content)
				return
			}
		}
	})
	for _, listener := range []string{"http", "secure"} {
		for _, slow := range []bool{false, true} {
			conn, err := net.Dial("tcp", r.listener(listener).Address)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(30 * time.Second))
			if slow {
				conn.(*net.TCPConn).SetReadBuffer(64 << 10)
			}
			if listener == "secure" {
				conn = tls.Client(conn, &tls.Config{InsecureSkipVerify: true})
			}
			br := bufio.NewReader(conn)
			for _, path := range []string{"/length", "/chunked", "/length", "/close"} {
				name := fmt.Sprintf("%s%s, slow %v", listener, path, slow)
				fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: a\r\n\r\n", path)
				res, err := http.ReadResponse(br, nil)
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				sum := sha256.New()
				n, err := io.Copy(struct{ io.Writer }{sum}, res.Body)
				if err != nil || [32]byte(sum.Sum(nil)) != want {
					t.Fatalf("%s: %d bytes arrived, %v", name, n, err)
				}
			}
		}
	}
	for _, rec := range r.log(16) {
		if rec.BytesOut != int64(len(content)) || rec.Reason != reasonNone {
			t.Errorf("%s: %d bytes are logged, reason %q", rec.Path, rec.BytesOut, rec.Reason)
		}
	}
}

// TestLargeResponseCut checks that a client is not made to believe that content is whole of which the instance sent only a part.
func TestLargeResponseCut(t *testing.T) {
	r := newRig(t)
	r.raw("web", "web/1", func(c net.Conn, br *bufio.Reader) {
		if _, err := http.ReadRequest(br); err == nil {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 4000000\r\n\r\n"+strings.Repeat("x", 3_000_000))
		}
	})
	res, err := http.Get(r.url("/"))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if n, err := io.Copy(io.Discard, res.Body); err == nil {
		t.Errorf("%d bytes arrived, as if they were all", n)
	}
	if rec := r.log(1)[0]; rec.Reason != reasonIncomplete {
		t.Errorf("the reason is %q", rec.Reason)
	}
}
