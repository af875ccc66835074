package supervisor

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"mainstay/topology"
)

func tryCheck(t *testing.T, c check, limit time.Duration) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	if err := newTestMachine(t).check(ctx, c); err != nil {
		return err.Error()
	}
	return "good"
}

func TestHTTPCheck(t *testing.T) {
	t.Setenv("http_proxy", "http://127.0.0.1:1")
	other := httptest.NewServer(http.NotFoundHandler())
	defer other.Close()
	var asked []string
	mux := http.NewServeMux()
	mux.HandleFunc("/ok", func(w http.ResponseWriter, r *http.Request) { asked = append(asked, r.Host+" "+r.RemoteAddr) })
	mux.HandleFunc("/bad", func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, "database\nis gone", http.StatusServiceUnavailable)
	})
	mux.HandleFunc("/here", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/bad", http.StatusFound) })
	mux.HandleFunc("/away", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, other.URL, http.StatusFound) })
	mux.HandleFunc("/round", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/round", http.StatusFound) })
	mux.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	server := httptest.NewServer(mux)
	defer server.Close()

	tests := []struct{ path, want string }{
		{"/ok", "good"},
		{"/bad", "GET " + server.URL + "/bad: 503 Service Unavailable: database is gone"},
		{"/here", "GET " + server.URL + "/here: 503 Service Unavailable: database is gone"},
		{"/away", "good"},
		{"/round", "good"},
		{"/slow", "GET " + server.URL + "/slow: no answer in time"},
		{"/ok", "good"},
	}
	for _, tt := range tests {
		limit := 10 * time.Second
		if tt.path == "/slow" {
			limit = 50 * time.Millisecond
		}
		if got := tryCheck(t, check{url: server.URL + tt.path, host: "shop.example"}, limit); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.path, got, tt.want)
		}
	}
	if len(asked) != 2 || !strings.HasPrefix(asked[0], "shop.example ") || asked[0] == asked[1] {
		t.Errorf("asked as %q, want the given host over a new connection each time", asked)
	}
}

func TestTCPCheck(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	if got := tryCheck(t, check{tcp: address}, time.Minute); got != "good" {
		t.Errorf("a listener: %s", got)
	}
	l.Close()
	if got := tryCheck(t, check{tcp: address}, time.Minute); !strings.Contains(got, "connection refused") {
		t.Errorf("no listener: %s", got)
	}
}

func TestExecCheck(t *testing.T) {
	pids := filepath.Join(t.TempDir(), "pids")
	tests := []struct{ name, script, want string }{
		{"good", "true", "good"},
		{"bad", "echo not well; exit 3", "exec /bin/sh: exited with status 3: not well"},
		{"leaves a child behind", "sleep 100 & echo $! >> " + pids + "; exit 1", "exec /bin/sh: exited with status 1"},
		{"takes too long", "sleep 100 & echo $! >> " + pids + "; wait", "exec /bin/sh: no answer in time"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			limit := time.Minute
			if tt.name == "takes too long" {
				limit = 300 * time.Millisecond
			}
			got := tryCheck(t, check{exec: &command{argv: []string{"/bin/sh", "-c", tt.script}, env: os.Environ()}}, limit)
			if got != tt.want {
				t.Errorf("%s, want %s", got, tt.want)
			}
		})
	}
	b, err := os.ReadFile(pids)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range strings.Fields(string(b)) {
		if pid, _ := strconv.Atoi(s); alive(pid) {
			t.Errorf("%d is still there", pid)
		}
	}
}

func TestProbesOfRealProcesses(t *testing.T) {
	sick := filepath.Join(t.TempDir(), "sick")
	f := newFleet(t)
	s := program("web", "-listen", "-ready-after", "300ms")
	s.Port = topology.PortAuto
	s.Probes.Readiness = &topology.Probe{
		HTTPGet: &topology.HTTPGet{Address: "{address}", Path: "/readyz"},
		Period:  100 * time.Millisecond, Timeout: 5 * time.Second, FailureThreshold: 3, SuccessThreshold: 1,
	}
	s.Probes.Liveness = &topology.Probe{
		Exec:   []topology.Text{topology.Plain("/bin/sh"), topology.Plain("-c"), topology.Plain("test ! -e " + sick + " || { rm " + sick + "; echo sick; exit 1; }")},
		Period: 50 * time.Millisecond, Timeout: 5 * time.Second, FailureThreshold: 1, SuccessThreshold: 1,
	}
	f.apply(s)
	f.eventually("it says why it is not ready", func() bool {
		return strings.Contains(f.only("web").Reason, "/readyz: 503 Service Unavailable: not yet")
	})
	first := f.ready("web")
	write(t, sick, "", 0o644)
	f.eventually("web was restarted", func() bool { i := f.only("web"); return i.Restarts == 1 && i.State == StateReady })
	if again := f.only("web"); again.PID == first.PID || alive(first.PID) {
		t.Errorf("first %+v, then %+v", first, again)
	}
}
