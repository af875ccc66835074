//go:build linux

package proxy

import (
	"io"
	"net/http"
	"testing"

	"mainstay/topology"
)

// TestEvict holds that of the connections on which no request is under way some are closed when room is needed, and counted.
func TestEvict(t *testing.T) {
	r := newLimitedRig(t, topology.ClientLimits{})
	c, br := r.dial()
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	if _, err := http.ReadResponse(br, nil); err != nil {
		t.Fatal(err)
	}
	s := r.serving[r.topology.Proxy.Listeners["http"].Address].server
	await(t, "the connection was closed", func() bool { return evict(s) == 1 }) // the request may not have ended yet
	if got := ended(t, c); got != "" {
		t.Errorf("got %q", got)
	}
	if n := metric(t, r.reg, "proxy_shed_connections_total", "how", "evicted"); n != 1 {
		t.Errorf("%v were counted", n)
	}
	if n := evict(s); n != 0 {
		t.Errorf("%d more were closed", n)
	}
}

// evict has a server make room and returns how many connections it closed for that.
func evict(s server) (closed int) {
	switch s := s.(type) {
	case *loopServer:
		s.each(func(b *branch) { closed += b.makeRoom() })
	case *netHTTPServer:
		closed = s.shed()
	}
	return closed
}
