package proxy

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"mainstay/topology"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A rig is a proxy on a real socket with a topology that tests change.
type rig struct {
	*Proxy
	t        *testing.T
	reg      *prometheus.Registry
	topology topology.Topology
	client   *http.Client
}

// newRig returns a proxy that listens on a free port and sends everything to service "web".
func newRig(t *testing.T, routes ...topology.Route) *rig {
	t.Helper()
	reg := prometheus.NewRegistry()
	r := &rig{Proxy: New(slog.New(slog.DiscardHandler), reg, nil), t: t, reg: reg}
	if len(routes) == 0 {
		routes = []topology.Route{route0("web")}
	}
	r.topology = topology.Topology{
		StateDir: t.TempDir(),
		Proxy: topology.Proxy{
			Engine:    topology.ProxyEngine(os.Getenv("PROXY_ENGINE")), // auto if it is empty
			AccessLog: true,
			Listeners: map[string]topology.Listener{"http": {Name: "http", Address: "127.0.0.1:0"}},
			Routes:    routes,
		},
	}
	transport := &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 100}
	r.client = &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := r.Apply(ctx, topology.Empty); err != nil {
			t.Errorf("apply empty: %v", err)
		}
		for _, s := range r.Status().Services {
			for _, i := range s.Instances {
				if i.InFlight != 0 {
					t.Errorf("instance %s has %d requests in flight in the end", i.ID, i.InFlight)
				}
				r.drop(s.Service, i.ID)
			}
		}
	})
	r.apply()
	return r
}

// route0 is a route of everything to the service with the usual policies.
func route0(service string) topology.Route {
	return topology.Route{
		PathPrefix: "/", Service: service,
		Timeouts: topology.Timeouts{Connect: time.Second, ResponseHeader: 30 * time.Second, Idle: 30 * time.Second},
		Retries: topology.Retries{
			Attempts: 2, On: []topology.RetryCondition{topology.RetryConnectFailure, topology.RetryReset},
		},
	}
}

func (r *rig) apply() {
	r.t.Helper()
	next := r.topology
	if err := r.Apply(r.t.Context(), &next); err != nil {
		r.t.Fatalf("apply: %v", err)
	}
}

// address returns where the listener "http" is bound.
func (r *rig) address() string { return r.listener("http").Address }

func (r *rig) listener(name string) ListenerStatus {
	for _, l := range r.Status().Listeners {
		if l.Name == name {
			return l
		}
	}
	r.t.Fatalf("no listener %s", name)
	return ListenerStatus{}
}

func (r *rig) url(path string) string { return "http://" + r.address() + path }

// instance starts an instance and admits it.
func (r *rig) instance(service, id string, h http.HandlerFunc) *httptest.Server {
	s := httptest.NewServer(h)
	r.t.Cleanup(s.Close)
	r.Admit(topology.Instance{Service: service, ID: id, Address: s.Listener.Addr().String(), Weight: 1})
	return s
}

// echo answers with the request's content.
func echo(w http.ResponseWriter, r *http.Request) {
	b, _ := io.ReadAll(r.Body)
	w.Write(b)
}

// raw starts an instance that answers each connection by hand.
func (r *rig) raw(service, id string, serve func(net.Conn, *bufio.Reader)) net.Addr {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		r.t.Fatal(err)
	}
	done := make(chan struct{})
	var conns tracker
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			conns.enter()
			go func() {
				defer conns.leave()
				defer c.Close()
				serve(c, bufio.NewReader(c))
			}()
		}
	}()
	r.t.Cleanup(func() {
		r.drop(service, id)
		l.Close()
		<-done
		<-conns.close()
	})
	r.Admit(topology.Instance{Service: service, ID: id, Address: l.Addr().String(), Weight: 1})
	return l.Addr()
}

// drop drains an instance without waiting.
func (r *rig) drop(service, id string) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_ = r.Drain(ctx, topology.Instance{Service: service, ID: id})
}

// dead admits an instance that nobody listens for.
func (r *rig) dead(service, id string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		r.t.Fatal(err)
	}
	l.Close()
	r.Admit(topology.Instance{Service: service, ID: id, Address: l.Addr().String(), Weight: 1})
}

// do sends a request and returns the response with its whole body.
func (r *rig) do(method, path string, body io.Reader, header ...string) (*http.Response, string) {
	r.t.Helper()
	req, err := http.NewRequest(method, r.url(path), body)
	if err != nil {
		r.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		if header[i] == "Host" {
			req.Host = header[i+1]
		}
		req.Header.Add(header[i], header[i+1])
	}
	res, err := r.client.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return res, string(b)
}

// dial opens a connection to the proxy.
func (r *rig) dial() (net.Conn, *bufio.Reader) {
	c, err := net.Dial("tcp", r.address())
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	return c, bufio.NewReader(c)
}

// send writes raw bytes and reads one response.
func (r *rig) send(request string) (*http.Response, string) {
	r.t.Helper()
	c, br := r.dial()
	defer c.Close()
	if _, err := io.WriteString(c, request); err != nil {
		r.t.Fatal(err)
	}
	method, _, _ := strings.Cut(request, " ")
	res, err := http.ReadResponse(br, &http.Request{Method: method})
	if err != nil {
		r.t.Fatalf("read response to %q: %v", request, err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return res, string(b)
}

// await waits until f is true, looking each time that there may be something new to see.
func await(t *testing.T, what string, f func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(20 * time.Second)
	for !f() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

// upstream returns the status of an instance.
func (r *rig) upstream(id string) (u UpstreamStatus, ok bool) {
	for _, s := range r.Status().Services {
		for _, i := range s.Instances {
			if i.ID == id {
				return i, true
			}
		}
	}
	return u, false
}

// records returns the lines that the access log has.
func (r *rig) records() (records []record) {
	b, _ := os.ReadFile(filepath.Join(r.topology.StateDir, "logs", "access.log"))
	for line := range strings.Lines(string(b)) {
		var rec record
		if err := json.Unmarshal([]byte(line), &rec); err != nil {
			break // half written
		}
		records = append(records, rec)
	}
	return records
}

// log waits until the access log has n lines and returns them.
func (r *rig) log(n int) (records []record) {
	r.t.Helper()
	await(r.t, fmt.Sprintf("the access log has %d lines", n), func() bool {
		records = r.records()
		return len(records) >= n
	})
	return records
}
