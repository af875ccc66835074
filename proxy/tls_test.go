package proxy

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"testing"

	"mainstay/topology"
)

// TestTLSHalfClose has a client of TLS that ends its own direction: of a tunnel that is passed on and the other goes on, within
// content it has left, and between requests the proxy ends with close_notify too.
func TestTLSHalfClose(t *testing.T) {
	r := newLimitedRig(t, topology.ClientLimits{})
	r.secure(t)
	r.drop("web", "web/1")
	r.raw("web", "web/2", func(c net.Conn, br *bufio.Reader) {
		req, err := http.ReadRequest(br)
		if err != nil {
			return
		}
		if req.Header.Get("Upgrade") == "" {
			io.Copy(io.Discard, req.Body)
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
			return
		}
		io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		said, _ := io.ReadAll(br)
		io.WriteString(c, "you said "+string(said))
	})
	const get = "GET / HTTP/1.1\r\nHost: a\r\n"
	c := r.over("https").(*tls.Conn)
	br := bufio.NewReader(c)
	io.WriteString(c, get+"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n")
	if res, err := http.ReadResponse(br, nil); err != nil || res.StatusCode != 101 {
		t.Fatalf("%v, %v", res, err)
	}
	io.WriteString(c, "hello")
	c.CloseWrite()
	if b, err := io.ReadAll(br); string(b) != "you said hello" || err != nil {
		t.Errorf("after the half close: %q, %v", b, err)
	}
	c = r.over("https").(*tls.Conn)
	br = bufio.NewReader(c)
	io.WriteString(c, get+"\r\n")
	res, err := http.ReadResponse(br, nil)
	if err != nil {
		t.Fatal(err)
	}
	io.Copy(io.Discard, res.Body)
	c.CloseWrite()
	if b, err := io.ReadAll(br); len(b) != 0 || err != nil {
		t.Errorf("between requests: %q, %v", b, err)
	}
	c = r.over("https").(*tls.Conn)
	io.WriteString(c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf")
	c.CloseWrite()
	if line := r.log(3)[2]; line.Reason != reasonClientAbort || line.Status != 499 {
		t.Errorf("within content: logged %+v", line)
	}
}
