package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"mainstay/admin"
	"mainstay/backup"
	"mainstay/bus"
	"mainstay/engine"
	"mainstay/proxy"
	"mainstay/supervisor"
	"mainstay/topology"
)

// TestMain is Mainstay itself where a test starts it as a process.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "bridge" {
		os.Exit(Main(os.Args[1:], Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}, nil))
	}
	goleak.VerifyTestMain(m)
}

// ago returns a time that is shown as its age for half a minute to come.
func ago(d time.Duration) time.Time { return time.Now().Add(-d) }

func TestStatusForPeople(t *testing.T) {
	status := &admin.Status{
		Status: engine.Status{
			Name: "shop", Generation: 7, Since: ago(50 * time.Hour), Files: []string{"topology.yaml"},
			LastReload: engine.Outcome{
				Time: time.Date(2026, 11, 23, 12, 4, 5, 0, time.Local), Origin: "watch", Result: engine.ResultInvalid,
				Problems: topology.Problems{{File: "topology.yaml", Line: 14, Column: 5, Severity: "error", Message: `unknown key "replica"`, Suggestion: "replicas"}},
			},
			Overrides: map[string]string{"web": "replicas 5 (file: 3)"},
		},
		Services: []supervisor.ServiceStatus{
			{Name: "orders", Desired: 1, State: "failed", Reason: "exit status 1\npanic: \x1b[2Jno disk", Instances: []supervisor.InstanceStatus{
				{ID: "orders/1", State: supervisor.StateWaiting, Restarts: 12, Since: ago(3 * time.Hour)},
			}},
			{Name: "report", State: "stopped"},
			{Name: "web", Desired: 2, Ready: 1, State: "degraded", Reason: "web/2: GET /readyz: 503", Instances: []supervisor.InstanceStatus{
				{ID: "web/1", State: supervisor.StateReady, PID: 4711, Address: "127.0.0.1:20001", Since: ago(75 * time.Minute)},
				{ID: "web/2", State: supervisor.StateStarting, PID: 4712, Address: "127.0.0.1:20002", Since: ago(30 * time.Hour), Reason: "GET /readyz: 503"},
			}},
		},
		Proxy: proxy.Status{
			Listeners: []proxy.ListenerStatus{{Name: "http", Address: "[::]:80", Connections: 3}},
			Routes:    []proxy.RouteStatus{{Host: "shop.example.com", PathPrefix: "/", Service: "web", Requests: 1234}},
			Services: []proxy.PoolStatus{{Service: "web", Instances: []proxy.UpstreamStatus{
				{ID: "web/1.1", Address: "127.0.0.1:20001", State: "admitted", Requests: 1230},
				{ID: "web/2.2", Address: "127.0.0.1:20002", State: "ejected", Requests: 4},
			}}},
		},
		Bus: []bus.RelayStatus{{
			Name: "events", Received: 10, Delivered: 20, Dropped: 1,
			Publishers:  bus.Side{Address: "tcp://127.0.0.1:5556", Peers: 1},
			Subscribers: bus.Side{Address: "tcp://127.0.0.1:5557", Peers: 2},
		}},
		Backups: []backup.JobStatus{
			{Name: "orders", State: "idle", Runs: 4, Newest: &backup.Snapshot{ID: "0123456789abcdef", Time: ago(26 * time.Hour), Files: 3, Bytes: 1536}},
			{Name: "pages", State: "failed", Failures: 1, Reason: "open repository: wrong password"},
		},
	}
	var out bytes.Buffer
	c := &cli{Streams: Streams{Out: &out}}
	if err := c.showStatus(&out, status); err != nil {
		t.Fatal(err)
	}
	want := `! The file was invalid at 12:04:05 (watch); generation 7 still runs:
!   topology.yaml:14:5: error: unknown key "replica"; did you mean "replicas"?

! web differs from the file: replicas 5 (file: 3)

shop  generation 7 for 2d2h  topology.yaml

SERVICE  STATE     READY  INSTANCE  STATE     FOR    PID   ADDRESS          REQUESTS  RESTARTS
orders   failed    0/1    orders/1  waiting   3h0m   -     -                -         12
report   stopped   0/0    -         -         -      -     -                -         -
web      degraded  1/2    web/1     ready     1h15m  4711  127.0.0.1:20001  1230      0
                          web/2     starting  1d6h   4712  127.0.0.1:20002  4         0
  orders: exit status 1
      panic: �[2Jno disk
  web/2: gets no requests for now: too many have failed
  web/2: GET /readyz: 503

LISTENER  ADDRESS              CONNECTIONS
http      http://localhost:80  3

ROUTE              SERVICE  REQUESTS
shop.example.com/  web      1234

RELAY   PUBLISHERS                 SUBSCRIBERS                RECEIVED  DELIVERED  DROPPED
events  1 at tcp://127.0.0.1:5556  2 at tcp://127.0.0.1:5557  10        20         1

BACKUP  STATE   NEWEST    AGE   FILES  SIZE     NEXT     RUNS  FAILURES
orders  idle    01234567  1d2h  3      1.5 KiB  by hand  4     0
pages   failed  -         -     -      -        by hand  0     1
  pages: open repository: wrong password
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("status (-want +got):\n%s", diff)
	}
}

func TestPlanForPeople(t *testing.T) {
	plan := &admin.Plan{Generation: 3, Changes: []topology.Change{
		{Path: "services.web.replicas", Action: "change", Old: "3", New: "5", Class: topology.ClassScale, Instances: []string{"web/4", "web/5"}, Reason: "exactly the difference is started"},
		{Path: "services.mailer", Action: "add", New: "command: ./mailer --with a very long list\nof arguments", Class: topology.ClassScale, Instances: []string{"mailer/1"}, Reason: "new"},
	}}
	var out bytes.Buffer
	c := &cli{Streams: Streams{Out: &out}, files: []string{"shop.yaml"}}
	c.printPlan(plan)
	want := `   PATH                   FROM  TO                                        CLASS  INSTANCES  REASON
~  services.web.replicas  3     5                                         scale  web/4…5    exactly the difference is started
+  services.mailer        -     command: ./mailer --with a very long li…  scale  mailer/1   new

2 changes from generation 3 to the next. Do it now with: mainstay reload --file shop.yaml
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("plan (-want +got):\n%s", diff)
	}
}

func TestProgress(t *testing.T) {
	services := []supervisor.ServiceStatus{
		{Name: "job", State: "completed"},
		{Name: "mailer", State: "starting", Desired: 1},
		{Name: "orders", State: "failed", Desired: 1, Reason: "exit status 1"},
		{Name: "report", State: "stopped"},
		{Name: "web", State: "ready", Ready: 3, Desired: 3},
		{Name: "worker", State: "degraded", Ready: 1, Desired: 2, Instances: []supervisor.InstanceStatus{
			{State: supervisor.StateReady}, {State: supervisor.StateWaiting},
		}},
		{Name: "returning", State: "degraded", Ready: 1, Desired: 1, Reason: "given up", Update: &supervisor.UpdateStatus{Phase: supervisor.PhaseReturning}},
		{Name: "paused", State: "degraded", Ready: 1, Desired: 1, Reason: "update paused", Update: &supervisor.UpdateStatus{Phase: supervisor.PhasePaused}},
		{Name: "writer", State: "degraded", Ready: 1, Desired: 1, Reason: "update given up", Instances: []supervisor.InstanceStatus{
			{State: supervisor.StateReady},
		}},
	}
	tests := []struct {
		names           []string
		waiting, failed []string
	}{
		{
			nil,
			[]string{"mailer is starting (0 of 1 ready)", "worker is degraded (1 of 2 ready)", "returning is degraded (1 of 1 ready): given up"},
			[]string{"orders is failed (0 of 1 ready): exit status 1", "paused is degraded (1 of 1 ready): update paused", "writer is degraded (1 of 1 ready): update given up"},
		},
		{[]string{"web", "report", "job"}, nil, nil},
		{[]string{"orders"}, nil, []string{"orders is failed (0 of 1 ready): exit status 1"}},
	}
	for _, test := range tests {
		waiting, failed := progress(named(services, test.names))
		if diff := cmp.Diff([][]string{test.waiting, test.failed}, [][]string{waiting, failed}); diff != "" {
			t.Errorf("progress of %v (-want +got):\n%s", test.names, diff)
		}
	}
}

func TestExitCodes(t *testing.T) {
	tests := []struct {
		err  error
		want int
	}{
		{errors.New("any"), ExitFailed},
		{fail(ExitUsage, "wrong"), ExitUsage},
		{fmt.Errorf("run: %w", topology.Problems{{}}), ExitInvalid},
		{&admin.Error{Code: admin.CodeInvalid}, ExitInvalid},
		{&admin.Error{Code: admin.CodeRefused}, ExitRefused},
		{&admin.Error{Code: admin.CodeNotFound}, ExitFailed},
		{fmt.Errorf("%w: dial", admin.ErrUnreachable), ExitUnreachable},
		{context.DeadlineExceeded, ExitTimeout},
	}
	for _, test := range tests {
		if got := exitCode(test.err); got != test.want {
			t.Errorf("exitCode(%v) = %d, want %d", test.err, got, test.want)
		}
	}
}

// TestFullDisk has output that nobody sees not pass for success.
func TestFullDisk(t *testing.T) {
	example := []byte("version: 1\nname: shop\n")
	t.Chdir(t.TempDir())
	for _, args := range [][]string{{"validate"}, {"validate", "-o", "json"}, {"version"}, {"schema"}} {
		full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
		if err != nil {
			t.Skip("there is no /dev/full here")
		}
		var said bytes.Buffer
		code := Main(args, Streams{Out: full, Err: &said}, example)
		if code != ExitFailed || !strings.Contains(said.String(), "no space left on device") {
			t.Errorf("%q: exit %d, %s", args, code, said.String())
		}
		full.Close()
	}
}

func TestWaitWithoutTime(t *testing.T) {
	w := waitFlags{wait: true, timeout: -time.Second}
	err := w.await(t.Context(), io.Discard, admin.NewClient("/nowhere"))
	if exitCode(err) != ExitTimeout || err.Error() != "not ready after -1s" {
		t.Errorf("exit %d, %v", exitCode(err), err)
	}
}

func TestPublishGivesUpWaiting(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	err = publish(t.Context(), "tcp://"+silent.Addr().String(), time.Millisecond, oneMessage([]string{"topic"}))
	if exitCode(err) != ExitTimeout {
		t.Errorf("publish: %v, want a time-out", err)
	}
}

func TestRepositoryFlags(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	for repository, want := range map[string]string{
		"repo":                     "file://" + dir + "/repo",
		"/mnt/repo":                "file:///mnt/repo",
		"file://repo":              "file://" + dir + "/repo",
		"file:///mnt/repo":         "file:///mnt/repo",
		"s3://bucket/prefix?a=b/c": "s3://bucket/prefix?a=b/c",
		"s3:bucket":                "s3:bucket", // which is refused, with how to write it
		"./s3:bucket":              "file://" + dir + "/s3:bucket",
	} {
		spec, err := (&repositoryFlags{repository: repository, passwordFile: "key"}).spec([]string{"data"})
		if err != nil {
			t.Fatal(err)
		}
		if spec.Repository != want || spec.PasswordFile != dir+"/key" || spec.Paths[0] != dir+"/data" {
			t.Errorf("%s: %+v, want repository %s", repository, spec, want)
		}
	}
}

func TestHumanUnits(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "0s", 400 * time.Millisecond: "0s", 59 * time.Second: "59s", 61 * time.Second: "1m1s",
		time.Hour: "1h0m", 49*time.Hour + 30*time.Minute: "2d1h",
	} {
		if got := duration(d); got != want {
			t.Errorf("duration(%v) = %s, want %s", d, got, want)
		}
	}
	for n, want := range map[uint64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1 << 20: "1.0 MiB", 5 << 40: "5.0 TiB"} {
		if got := size(n); got != want {
			t.Errorf("size(%d) = %s, want %s", n, got, want)
		}
	}
}

func TestPrintable(t *testing.T) {
	for frame, want := range map[string]string{"plain text": "plain text", "größe": "größe", "a\nb": `"a\nb"`, "\xff": `"\xff"`, "": ""} {
		if got := printable([]byte(frame)); got != want {
			t.Errorf("printable(%q) = %s, want %s", frame, got, want)
		}
	}
}
