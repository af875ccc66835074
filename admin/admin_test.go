package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"mainstay/backup"
	"mainstay/bus"
	"mainstay/engine"
	"mainstay/proxy"
	"mainstay/supervisor"
	"mainstay/topology"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Rooms that tell the window what a test wants it to show.
type (
	fakeSupervisor struct {
		services []supervisor.ServiceStatus
		lines    []supervisor.LogLine
		err      error // after the lines
		query    chan supervisor.LogQuery
	}
	fakeProxy  struct{ status proxy.Status }
	fakeBus    struct{ relays []bus.RelayStatus }
	fakeBackup struct{ err error }
)

func (f *fakeSupervisor) Status() []supervisor.ServiceStatus { return f.services }

func (f *fakeSupervisor) Why(service string, replica int) (supervisor.Explanation, error) {
	if service != "web" || replica > 2 {
		return supervisor.Explanation{}, errors.New("there is no such thing")
	}
	return supervisor.Explanation{Service: service, Sentence: "web/" + strconv.Itoa(replica) + " is well"}, nil
}

func (f *fakeSupervisor) Trigger(job string) (supervisor.Run, error) {
	if job != "report" {
		return supervisor.Run{}, errors.New("trigger " + job + ": it is no job")
	}
	return supervisor.Run{Reason: supervisor.RunTriggered, Result: supervisor.RunRunning}, nil
}

func (f *fakeSupervisor) Logs(ctx context.Context, q supervisor.LogQuery, emit func(supervisor.LogLine) error) error {
	if f.query != nil {
		f.query <- q
	}
	for _, line := range f.lines {
		if err := emit(line); err != nil {
			return err
		}
	}
	if q.Follow {
		<-ctx.Done()
	}
	return f.err
}

func (f *fakeProxy) Status() proxy.Status        { return f.status }
func (f *fakeBus) Status() []bus.RelayStatus     { return f.relays }
func (f *fakeBackup) Status() []backup.JobStatus { return nil }

func (f *fakeBackup) Now(_ context.Context, name string) (*backup.Snapshot, error) {
	if f.err != nil {
		return nil, f.err
	}
	return &backup.Snapshot{ID: "abc", Tags: []string{name}}, nil
}

// A fakeEngine answers as it is told and remembers what it was asked.
type fakeEngine struct {
	topology *topology.Topology
	status   engine.Status
	outcome  engine.Outcome
	changes  []topology.Change
	err      error

	mu    sync.Mutex // guards the field below
	asked []string
}

func (f *fakeEngine) note(what string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, what)
}

func (f *fakeEngine) Reload(_ context.Context, origin string) (engine.Outcome, error) {
	f.note("reload " + origin)
	return f.outcome, f.err
}

func (f *fakeEngine) Rollback(_ context.Context, generation int) (engine.Outcome, error) {
	if generation == 77 {
		return engine.Outcome{}, fmt.Errorf("%w: 77", engine.ErrNoGeneration)
	}
	f.note(fmt.Sprintf("rollback %d", generation))
	return f.outcome, f.err
}

func (f *fakeEngine) Generations() ([]engine.Kept, error) {
	return []engine.Kept{{Generation: 8, Current: true}, {Generation: 7}}, nil
}

func (f *fakeEngine) Plan(context.Context) ([]topology.Change, topology.Problems, error) {
	return f.changes, nil, f.err
}

func (f *fakeEngine) Override(_ context.Context, service string, o engine.Override) error {
	what := "override " + service
	if o.Replicas != nil {
		what += " replicas"
	}
	if o.Stopped != nil {
		what += map[bool]string{true: " stop", false: " start"}[*o.Stopped]
	}
	if o.Restart {
		what += " restart"
	}
	f.note(what)
	return f.err
}

func (f *fakeEngine) Topology() *topology.Topology { return f.topology }
func (f *fakeEngine) Status() engine.Status        { return f.status }

// A house is an Admin with fakes behind it, and what answers on its socket.
type house struct {
	*Admin
	engine     *fakeEngine
	supervisor *fakeSupervisor
	backup     *fakeBackup
	socket     string
}

func newHouse(t *testing.T) *house {
	t.Helper()
	h := &house{
		engine: &fakeEngine{
			topology: &topology.Topology{
				Services: map[string]topology.Service{
					"web":    {Name: "web"},
					"legacy": {Name: "legacy", External: []topology.Upstream{{Address: "127.0.0.1:1"}}},
				},
				Backups: map[string]topology.Backup{"orders": {}},
			},
			status: engine.Status{Name: "shop", Generation: 7, Overrides: map[string]string{"web": "replicas 5 (file: 3)"}},
		},
		supervisor: &fakeSupervisor{services: []supervisor.ServiceStatus{{Name: "web", Desired: 3, State: "ready"}}},
		backup:     &fakeBackup{},
		socket:     filepath.Join(t.TempDir(), "run", "admin.sock"),
	}
	reg := prometheus.NewRegistry()
	h.Admin = New(slog.New(slog.DiscardHandler), prometheus.WrapRegistererWithPrefix("mainstay_", reg), reg, nil,
		Build{Version: "v1", Go: "go1.26", Platform: "linux/amd64"},
		Rooms{Supervisor: h.supervisor, Proxy: &fakeProxy{}, Bus: &fakeBus{}, Backup: h.backup})
	return h
}

// open serves the API until the test ends and returns a client of it.
func (h *house) open(t *testing.T) *Client {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- h.Serve(ctx, h.engine, topology.Admin{Socket: h.socket, Mode: 0o600}) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	await(t, h.socket)
	return NewClient(h.socket)
}

// await waits until something answers on the socket at path.
func await(t *testing.T, path string) {
	t.Helper()
	client := NewClient(path)
	again := time.NewTicker(5 * time.Millisecond)
	defer again.Stop()
	for ; ; <-again.C {
		_, err := client.Status(t.Context())
		if err == nil {
			return
		}
		if !errors.Is(err, ErrUnreachable) {
			t.Fatal(err)
		}
	}
}

// request asks for something that no Client would.
func (h *house) request(t *testing.T, method, path, body string) (status int, answer string) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(context.Context, string, string) (net.Conn, error) { return net.Dial("unix", h.socket) },
	}}
	r, err := http.NewRequestWithContext(t.Context(), method, "http://x"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	response, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, strings.TrimSpace(string(content))
}

func TestStatus(t *testing.T) {
	h := newHouse(t)
	status, err := h.open(t).Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := h.Status()
	want.Status = h.engine.status
	if diff := cmp.Diff(&want, status); diff != "" {
		t.Errorf("status (-want +got):\n%s", diff)
	}
	if status.Service("web").Desired != 3 || status.Service("db") != nil {
		t.Errorf("Service finds web %v, db %v", status.Service("web"), status.Service("db"))
	}
	_, answer := h.request(t, "GET", "/v1/status", "")
	for _, key := range []string{`"instances":[]`, `"bus":[]`, `"backups":[]`, `"routes":[]`, `"generation":7`} {
		if !strings.Contains(answer, key) {
			t.Errorf("status lacks %s: %s", key, answer)
		}
	}
}

func TestVerbs(t *testing.T) {
	h := newHouse(t)
	client := h.open(t)
	ctx := t.Context()
	for verb, call := range map[string]func() (*Overridden, error){
		"override web restart":  func() (*Overridden, error) { return client.Restart(ctx, "web") },
		"override web stop":     func() (*Overridden, error) { return client.Stop(ctx, "web") },
		"override web start":    func() (*Overridden, error) { return client.Start(ctx, "web") },
		"override web replicas": func() (*Overridden, error) { return client.Scale(ctx, "web", 5) },
	} {
		h.engine.asked = nil
		answer, err := call()
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{verb}, h.engine.asked); diff != "" {
			t.Errorf("asked (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff(&Overridden{Service: "web", Override: "replicas 5 (file: 3)"}, answer); diff != "" {
			t.Errorf("%s (-want +got):\n%s", verb, diff)
		}
	}
	h.engine.outcome = engine.Outcome{Result: engine.ResultApplied, Generation: 8}
	outcome, err := client.Reload(ctx)
	if err != nil || outcome.Generation != 8 {
		t.Errorf("Reload: %v, %v", outcome, err)
	}
	h.engine.asked = nil
	outcome, err = client.Rollback(ctx, 3)
	if diff := cmp.Diff([]string{"rollback 3"}, h.engine.asked); err != nil || outcome.Generation != 8 || diff != "" {
		t.Errorf("Rollback: %v, %v, asked (-want +got):\n%s", outcome, err, diff)
	}
	list, err := client.Generations(ctx)
	if diff := cmp.Diff([]engine.Kept{{Generation: 8, Current: true}, {Generation: 7}}, list); err != nil || diff != "" {
		t.Errorf("Generations: %v (-want +got):\n%s", err, diff)
	}
	h.engine.changes = []topology.Change{{Path: "services.web.replicas", Class: topology.ClassScale}}
	plan, err := client.Plan(ctx)
	if diff := cmp.Diff(&Plan{Generation: 7, Changes: h.engine.changes}, plan); err != nil || diff != "" {
		t.Errorf("Plan: %v (-want +got):\n%s", err, diff)
	}
	snapshot, err := client.Backup(ctx, "orders")
	if err != nil || snapshot.ID != "abc" {
		t.Errorf("Backup: %v, %v", snapshot, err)
	}
}

// A fakeUpgrader says that it has begun.
type fakeUpgrader struct{ asked []UpgradeRequest }

func (f *fakeUpgrader) Begin(_ context.Context, q UpgradeRequest) (Upgrade, error) {
	f.asked = append(f.asked, q)
	return Upgrade{ID: "a", State: UpgradeRunning}, nil
}

func (f *fakeUpgrader) Last() *Upgrade { return &Upgrade{ID: "a", State: UpgradeDone, Kept: 12} }

func TestUpgrade(t *testing.T) {
	h, upgrader := newHouse(t), new(fakeUpgrader)
	h.rooms.Upgrader = upgrader
	client := h.open(t)
	begun, err := client.Upgrade(t.Context(), UpgradeRequest{Binary: "/bin/next", DrainSeconds: 3})
	if err != nil || begun.ID != "a" {
		t.Errorf("Upgrade: %v, %v", begun, err)
	}
	if diff := cmp.Diff([]UpgradeRequest{{"/bin/next", 3}}, upgrader.asked); diff != "" {
		t.Errorf("asked (-want +got):\n%s", diff)
	}
	status, err := client.Status(t.Context())
	if err != nil || status.Upgrade == nil || status.Upgrade.Kept != 12 {
		t.Errorf("Status: %+v, %v", status, err)
	}
}

// The socket's group may ask for much, but not for Mainstay to run a program of theirs.
func TestUpgradeToABinaryIsForTheOwner(t *testing.T) {
	h, upgrader := newHouse(t), new(fakeUpgrader)
	h.rooms.Upgrader = upgrader
	a := &api{admin: h.Admin, engine: h.engine}
	for _, c := range []struct {
		uid    any
		body   string
		status int
	}{
		{os.Geteuid() + 1, `{"binary": "/tmp/mine"}`, 409},
		{nil, `{"binary": "/tmp/mine"}`, 409}, // nobody knows who
		{os.Geteuid() + 1, `{}`, 200},
		{os.Geteuid(), `{"binary": "/tmp/mine"}`, 200},
		{0, `{"binary": "/tmp/mine"}`, 200},
	} {
		r := httptest.NewRequest("POST", "/v1/upgrade", strings.NewReader(c.body))
		w := httptest.NewRecorder()
		answer(a.upgrade).ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), peerKey{}, c.uid)))
		if w.Code != c.status {
			t.Errorf("%s of user %v: %d %s, want %d", c.body, c.uid, w.Code, w.Body, c.status)
		}
	}
	if len(upgrader.asked) != 3 {
		t.Errorf("asked: %v", upgrader.asked)
	}
}

func TestErrorsKeepTheirCode(t *testing.T) {
	problems := topology.Problems{{File: "topology.yaml", Line: 14, Column: 5, Severity: "error", Message: "unknown key"}}
	tests := []struct {
		name   string
		err    error
		result string
		want   Code
	}{
		{"invalid", problems, engine.ResultInvalid, CodeInvalid},
		{"unreadable", fs.ErrNotExist, engine.ResultInvalid, CodeInvalid},
		{"refused", errors.New("proxy: bind :80: address already in use"), engine.ResultRefused, CodeRefused},
		{"stopping", engine.ErrStopped, "", CodeRefused},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			h := newHouse(t)
			h.engine.err, h.engine.outcome.Result = test.err, test.result
			_, err := h.open(t).Reload(t.Context())
			var got *Error
			if !errors.As(err, &got) {
				t.Fatalf("Reload: %v, want an Error", err)
			}
			if got.Code != test.want {
				t.Errorf("code %s, want %s", got.Code, test.want)
			}
			if test.name == "invalid" {
				if diff := cmp.Diff(problems, got.Problems); diff != "" {
					t.Errorf("problems (-want +got):\n%s", diff)
				}
			}
		})
	}
	t.Run("no such service", func(t *testing.T) {
		h := newHouse(t)
		h.engine.err = engine.ErrNoService
		_, err := h.open(t).Restart(t.Context(), "db")
		if got := new(Error); !errors.As(err, &got) || got.Code != CodeNotFound {
			t.Errorf("Restart: %v, want %s", err, CodeNotFound)
		}
	})
}

func TestBadRequests(t *testing.T) {
	h := newHouse(t)
	h.open(t)
	tests := []struct {
		method, path, body string
		status             int
		answer             string // part of
	}{
		{"GET", "/v1/nothing", "", 404, `"code":"not_found"`},
		{"GET", "/", "", 404, `"code":"not_found"`},
		{"GET", "/v1/reload", "", 405, `the method is POST`},
		{"POST", "/v1/status", "", 405, `the method is GET`},
		{"POST", "/v1/scale", `{"service": "web", "replica": 3}`, 400, `unknown field`},
		{"POST", "/v1/scale", `{"service": "web"}`, 400, `replicas: want a number`},
		{"POST", "/v1/scale", `{"service": "web", "replicas": -1}`, 400, `replicas: want a number`},
		{"POST", "/v1/scale", `{"service": "web", "replicas": 1} {}`, 400, `more than one value`},
		{"POST", "/v1/scale", `{"service": "web", "replicas": `, 400, `unexpected EOF`},
		{"POST", "/v1/scale", `[`, 400, `"code":"bad_request"`},
		{"POST", "/v1/stop", ``, 400, `service: want the name`},
		{"POST", "/v1/stop", `{"service": "` + strings.Repeat("x", 65<<10) + `"}`, 413, `"code":"too_large"`},
		{"POST", "/v1/reload", `{"force": true}`, 400, `unknown field`},
		{"POST", "/v1/rollback", `{"generation": 77}`, 404, `no such generation: 77`},
		{"POST", "/v1/rollback", `{"generation": -1}`, 400, `generation: want its number`},
		{"POST", "/v1/backup/now", `{"backup": "web"}`, 404, `no backup`},
		{"GET", "/v1/logs?service=nobody", "", 404, `no service`},
		{"GET", "/v1/why?service=web&replica=2", "", 200, `"sentence":"web/2 is well"`},
		{"GET", "/v1/why?service=web&replica=3", "", 404, `no such thing`},
		{"GET", "/v1/why?service=web&replica=x", "", 400, `parameter replica`},
		{"GET", "/v1/why", "", 400, `parameter service`},
		{"GET", "/v1/why?service=web&colour=red", "", 400, `unknown parameter`},
		{"GET", "/v1/logs?service=legacy", "", 404, `runs elsewhere`},
		{"GET", "/v1/logs?service=web&since=1h", "", 400, `no such value`},
		{"GET", "/v1/logs?service=web&colour=red", "", 400, `unknown parameter`},
		{"GET", "/v1/logs?instance=web", "", 200, ``},
		{"GET", "/v1/logs?instance=web/0", "", 400, `no such value`},
		{"GET", "/v1/logs?grep=(", "", 400, `no such value`},
		{"GET", "/v1/logs?replica=2", "", 400, `of one service`},
		{"GET", "/v1/logs?service=web&tail=x", "", 400, `no such value`},
		{"GET", "/v1/logs?service=web&replica=-1", "", 400, `parameter replica`},
	}
	for _, test := range tests {
		status, answer := h.request(t, test.method, test.path, test.body)
		if status != test.status || !strings.Contains(answer, test.answer) {
			t.Errorf("%s %s %.60s: %d %s, want %d …%s…", test.method, test.path, test.body, status, answer, test.status, test.answer)
		}
	}
	if len(h.engine.asked) > 0 {
		t.Errorf("the engine was asked: %v", h.engine.asked)
	}
}

// TestBodyThatNeverComes has a bad request answered although the rest of its body is still to come.
func TestBodyThatNeverComes(t *testing.T) {
	h := newHouse(t)
	h.open(t)
	conn, err := net.Dial("unix", h.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	io.WriteString(conn, "POST /v1/stop HTTP/1.1\r\nHost: mainstay\r\nContent-Length: 100\r\n\r\n{web")
	answer, err := io.ReadAll(conn)
	if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 400 ") {
		t.Errorf("%q, %v", answer, err)
	}
}

func TestLogs(t *testing.T) {
	lines := []supervisor.LogLine{
		{Instance: "web/1", Stream: "stdout", Text: "one"},
		{Instance: "web/2", Stream: "stderr", Text: "two <b>"},
	}
	t.Run("once", func(t *testing.T) {
		h := newHouse(t)
		h.supervisor.lines, h.supervisor.query = lines, make(chan supervisor.LogQuery, 1)
		q := supervisor.LogQuery{Of: []supervisor.LogSource{{Service: "web", Replica: 2}}, Tail: 10}
		var got []supervisor.LogLine
		err := h.open(t).Logs(t.Context(), q, func(line supervisor.LogLine) error {
			got = append(got, line)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(lines, got); diff != "" {
			t.Errorf("lines (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff(q, <-h.supervisor.query, cmpopts.IgnoreUnexported(supervisor.LogQuery{})); diff != "" {
			t.Errorf("query (-want +got):\n%s", diff)
		}
	})
	t.Run("follow until the reader leaves", func(t *testing.T) {
		h := newHouse(t)
		h.supervisor.lines = lines
		ctx, cancel := context.WithCancel(t.Context())
		seen := 0
		err := h.open(t).Logs(ctx, supervisor.LogQuery{Of: []supervisor.LogSource{{Service: "web"}}, Follow: true}, func(supervisor.LogLine) error {
			if seen++; seen == len(lines) {
				cancel()
			}
			return nil
		})
		if err != nil || seen != len(lines) {
			t.Errorf("Logs: %v after %d lines", err, seen)
		}
	})
	t.Run("what goes wrong in between is told", func(t *testing.T) {
		h := newHouse(t)
		h.supervisor.lines, h.supervisor.err = lines, errors.New("disk gone")
		seen := 0
		err := h.open(t).Logs(t.Context(), supervisor.LogQuery{Of: []supervisor.LogSource{{Service: "web"}}}, func(supervisor.LogLine) error {
			seen++
			return nil
		})
		if err == nil || err.Error() != "disk gone" || seen != len(lines) {
			t.Errorf("Logs: %v after %d lines", err, seen)
		}
	})
}

func TestUnreachable(t *testing.T) {
	_, err := NewClient(filepath.Join(t.TempDir(), "admin.sock")).Status(t.Context())
	if !errors.Is(err, ErrUnreachable) {
		t.Errorf("Status: %v, want ErrUnreachable", err)
	}
}

// It is upgraded while it has a request.
func TestUnanswered(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	var accepting sync.WaitGroup
	defer accepting.Wait()
	defer l.Close()
	accepting.Go(func() {
		for conn, err := l.Accept(); err == nil; conn, err = l.Accept() {
			_, _ = conn.Read(make([]byte, 1))
			conn.Close()
		}
	})
	if _, err := NewClient(socket).Scale(t.Context(), "web", 3); err == nil || !strings.Contains(err.Error(), "before it answered") {
		t.Errorf("Scale: %v", err)
	}
}

func TestSocketPermissions(t *testing.T) {
	h := newHouse(t)
	h.open(t)
	info, err := os.Lstat(h.socket)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := info.Mode(), fs.ModeSocket|0o600; got != want {
		t.Errorf("mode %v, want %v", got, want)
	}
	entries, err := os.ReadDir(filepath.Dir(h.socket))
	if err != nil || len(entries) != 1 {
		t.Errorf("beside the socket: %v, %v", entries, err)
	}
}

func TestSocketAlreadyThere(t *testing.T) {
	at := func(h *house) topology.Admin { return topology.Admin{Socket: h.socket, Mode: 0o600} }
	t.Run("live", func(t *testing.T) {
		h := newHouse(t)
		client := h.open(t)
		err := h.Serve(t.Context(), h.engine, at(h))
		if err == nil || !strings.Contains(err.Error(), "in use") {
			t.Errorf("Serve: %v, want in use", err)
		}
		if _, err := client.Status(t.Context()); err != nil {
			t.Errorf("the first no longer answers: %v", err)
		}
	})
	t.Run("stale", func(t *testing.T) {
		h := newHouse(t)
		os.MkdirAll(filepath.Dir(h.socket), 0o755)
		stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: h.socket, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		stale.SetUnlinkOnClose(false) // as when it was killed
		stale.Close()
		if _, err := NewClient(h.socket).Status(t.Context()); !errors.Is(err, ErrUnreachable) {
			t.Fatalf("the socket is not stale: %v", err)
		}
		h.open(t)
	})
	t.Run("no socket", func(t *testing.T) {
		h := newHouse(t)
		os.MkdirAll(filepath.Dir(h.socket), 0o755)
		os.WriteFile(h.socket, []byte("precious"), 0o600)
		if err := h.Serve(t.Context(), h.engine, at(h)); err == nil {
			t.Error("Serve replaced a file that is no socket")
		}
		if content, _ := os.ReadFile(h.socket); string(content) != "precious" {
			t.Errorf("the file now holds %q", content)
		}
	})
	t.Run("too long", func(t *testing.T) {
		h := newHouse(t)
		h.socket = filepath.Join(t.TempDir(), strings.Repeat("x", 120), "s")
		if err := h.Serve(t.Context(), h.engine, at(h)); err == nil || !strings.Contains(err.Error(), "admin.socket") {
			t.Errorf("Serve: %v, want what to do", err)
		}
	})
}

func TestSocketGoesWithTheServer(t *testing.T) {
	h := newHouse(t)
	t.Run("serve", func(t *testing.T) { h.open(t) })
	if _, err := os.Lstat(h.socket); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
}
