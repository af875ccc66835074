package bus

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"mainstay/topology"
)

func TestMain(m *testing.M) {
	// go-zeromq never ends a publisher's writing goroutine.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/go-zeromq/zmq4.(*pubMWriter).run"))
}

const megabyte = 1 << 20

// relays returns the topology of one relay, named events, on free ports.
func relays(q topology.Queue) *topology.Topology {
	return &topology.Topology{Bus: map[string]topology.Relay{"events": {
		Name: "events", Publishers: "tcp://127.0.0.1:0", Subscribers: "tcp://127.0.0.1:0", Queue: q,
	}}}
}

// start runs a bus with one relay until the test ends.
func start(t *testing.T, q topology.Queue) *Bus {
	t.Helper()
	b := New(testLog(t), prometheus.NewPedanticRegistry(), nil)
	startBus(t, b, relays(q))
	return b
}

func startBus(t *testing.T, b *Bus, to *topology.Topology) {
	t.Helper()
	t.Cleanup(func() { apply(t, b, topology.Empty) })
	apply(t, b, to)
}

func apply(t *testing.T, b *Bus, to *topology.Topology) {
	t.Helper()
	if err := b.Apply(context.Background(), to); err != nil {
		t.Fatalf("apply: %v", err)
	}
}

// testLog is a logger into the test's log, as far as that is still there.
func testLog(t *testing.T) *slog.Logger {
	var mu sync.Mutex
	over := false
	t.Cleanup(func() {
		mu.Lock()
		defer mu.Unlock()
		over = true
	})
	return slog.New(slog.NewTextHandler(writer(func(p []byte) {
		mu.Lock()
		defer mu.Unlock()
		if !over {
			t.Log(string(bytes.TrimSpace(p)))
		}
	}), nil))
}

type writer func(p []byte)

func (w writer) Write(p []byte) (int, error) { w(p); return len(p), nil }

func endpoints(b *Bus) (publishers, subscribers string) {
	s := b.Status()[0]
	return s.Publishers.Address, s.Subscribers.Address
}

// eventually waits until ok, which observes what other processes do.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%s: not within 30 s", what)
		}
	}
}

// scaled is small, or large when the long versions of the tests were asked for.
func scaled(small, large int) string {
	if os.Getenv("MAINSTAY_SOAK") == "1" {
		return strconv.Itoa(large)
	}
	return strconv.Itoa(small)
}

// python starts a script of testdata with libzmq behind it.
func python(t *testing.T, script string, args ...string) *process {
	t.Helper()
	needZeroMQ(t)
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	s := &process{t: t, name: script, cmd: exec.CommandContext(ctx, pythonPath, append([]string{"testdata/" + script}, args...)...)}
	s.cmd.Env = append(os.Environ(), "PYTHONDONTWRITEBYTECODE=1")
	s.cmd.Stderr = &s.errors
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if s.in, err = s.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s.out = bufio.NewScanner(out)
	t.Cleanup(func() { cancel(); s.cmd.Wait() })
	return s
}

const pythonPath = "/usr/bin/python3"

func needZeroMQ(t testing.TB) {
	t.Helper()
	if exec.Command(pythonPath, "-c", "import zmq").Run() == nil {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("%s has no module zmq: install python3-zmq", pythonPath)
	}
	t.Skipf("%s has no module zmq (Debian: python3-zmq)", pythonPath)
}

type process struct {
	t      *testing.T
	name   string
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    *bufio.Scanner
	errors bytes.Buffer
}

// says reads the next thing that the script has to say into v.
func (s *process) says(v any) {
	s.t.Helper()
	if !s.out.Scan() {
		s.cmd.Wait()
		s.t.Fatalf("%s ended without saying anything: %s", s.name, s.errors.String())
	}
	if err := json.Unmarshal(s.out.Bytes(), v); err != nil {
		s.t.Fatalf("%s said %q: %v", s.name, s.out.Text(), err)
	}
}

// proceed answers a script that waits.
func (s *process) proceed() { io.WriteString(s.in, "\n") }
