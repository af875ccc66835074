package supervisor

import (
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"mainstay/topology"
)

// grpcServer returns the path of the real gRPC server with a health service.
func grpcServer(t *testing.T) string {
	t.Helper()
	path, err := filepath.Abs("../build/grpchealth")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		missing(t, "no gRPC server (make peers): "+err.Error())
	}
	return path
}

// missing skips a test for which a peer is not there, unless this machine is one that has to have it.
func missing(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(what)
	}
	t.Skip(what)
}

func asksHealth(service string) *topology.Probe {
	return &topology.Probe{
		GRPC:   &topology.GRPC{Address: "{address}", Service: service},
		Period: 50 * time.Millisecond, Timeout: 5 * time.Second, FailureThreshold: 1, SuccessThreshold: 1,
	}
}

func TestGRPCProbeOfARealServer(t *testing.T) {
	server := grpcServer(t)
	f := newFleet(t)
	of := func(name string, p *topology.Probe, args ...string) topology.Service {
		s := program(name)
		s.Command = []topology.Text{topology.Plain(server)}
		for _, a := range args {
			s.Command = append(s.Command, topology.Plain(a))
		}
		s.Port, s.Probes.Readiness = topology.PortAuto, p
		return s
	}
	f.apply(of("well", asksHealth("")), of("sick", asksHealth("sick")), of("unknown", asksHealth("orders")), of("bare", asksHealth(""), "bare"))
	says := func(service, want string) {
		t.Helper()
		f.eventually(service+" says "+want, func() bool {
			i := f.only(service)
			return i.State == StateStarting && strings.Contains(i.Reason, want)
		})
	}
	well := f.ready("well")
	says("sick", "sick: NOT_SERVING")
	says("unknown", `SERVICE_UNKNOWN: the server knows no service "orders"`)
	says("bare", "UNIMPLEMENTED: the server has no health service, grpc.health.v1.Health")
	syscall.Kill(well.PID, syscall.SIGUSR1)
	says("well", ": NOT_SERVING")
	syscall.Kill(well.PID, syscall.SIGUSR1)
	if again := f.ready("well"); again.PID != well.PID {
		t.Errorf("readiness restarted it: pid %d, then %d", well.PID, again.PID)
	}
}

func TestGRPCProbeOfWhatIsNoGRPCServer(t *testing.T) {
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	// h2 returns the address of a server that speaks HTTP/2 without TLS and answers as handler says.
	h2 := func(handler http.HandlerFunc) string {
		s := httptest.NewUnstartedServer(handler)
		s.Config.Protocols = new(http.Protocols)
		s.Config.Protocols.SetUnencryptedHTTP2(true)
		s.Start()
		t.Cleanup(s.Close)
		return s.Listener.Addr().String()
	}
	// ends returns a server whose call ends with a status in its trailers, after body.
	ends := func(status, message string, body []byte) string {
		return h2(func(w http.ResponseWriter, r *http.Request) {
			sent, _ := io.ReadAll(r.Body)
			if r.Method != "POST" || r.URL.Path != healthPath || r.Header.Get("Te") != "trailers" || string(sent) != "\x00\x00\x00\x00\x08\x0a\x06orders" {
				status, message = "3", "asked as no client would"
			}
			w.Header().Set("Content-Type", "application/grpc")
			w.Header().Set("Trailer", "Grpc-Status, Grpc-Message")
			w.Write(body)
			if status != "" {
				w.Header().Set("Grpc-Status", status)
			}
			w.Header().Set("Grpc-Message", message)
		})
	}
	message := func(b ...byte) []byte {
		return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(b))), b...)
	}
	tests := []struct{ name, address, want string }{
		{"serving", ends("0", "", message(0x08, 1)), "good"},
		{"serving, and fields of a newer protocol", ends("0", "", message(0x12, 2, 'h', 'i', 0x08, 1, 0x1d, 1, 2, 3, 4)), "good"},
		{"not serving", ends("0", "", message(0x08, 2)), ": NOT_SERVING"},
		{"unknown, which is not sent", ends("0", "", message()), ": UNKNOWN"},
		{"a status of its own", ends("0", "", message(0x08, 9)), ": status 9"},
		{"an error with a message", ends("14", "the%20database%0Ais gone", nil), "UNAVAILABLE: the database is gone"},
		{"an error nobody knows", ends("99", "", nil), `status "99"`},
		{"no status", ends("", "", message(0x08, 1)), "ended without a gRPC status"},
		{"no message", ends("0", "", nil), "no HealthCheckResponse"},
		{"a message that is longer than it says", ends("0", "", append(message(0x08, 1), 0)), "no HealthCheckResponse"},
		{"a field that is longer than the message", ends("0", "", message(0x12, 0xff, 0xff, 0xff, 0xff, 0x0f)), "no HealthCheckResponse"},
		{"an endless answer", ends("0", "", make([]byte, 1<<20)), "too long"},
		{"HTTP/2 but not gRPC", h2(func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("hello")) }), "this is no gRPC server: it answers 200 OK"},
		{"HTTP/1.1", plain.Listener.Addr().String(), "does not speak HTTP/2"},
		{"a server that says nothing", silent.Addr().String(), "no answer in time"},
		{"nobody", "127.0.0.1:1", "connection refused"},
	}
	for _, tt := range tests {
		limit := 10 * time.Second
		if strings.Contains(tt.want, "in time") {
			limit = 100 * time.Millisecond
		}
		if got := tryCheck(t, check{grpc: tt.address, service: "orders"}, limit); !strings.Contains(got, tt.want) {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}

func FuzzHealthStatus(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, 2, 8, 1})
	f.Add([]byte{0, 0, 0, 0, 7, 0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01})
	f.Fuzz(func(t *testing.T, body []byte) {
		if status, err := healthStatus(body); (status == "") != (err != nil) {
			t.Errorf("%q and %v", status, err)
		}
	})
}
