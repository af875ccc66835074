package supervisor

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"mainstay/topology"
)

// The test binary is the service under test too: with this variable set it behaves as its arguments say.
const serviceVariable = "MAINSTAY_TEST_SERVICE"

func TestMain(m *testing.M) {
	Become()
	if os.Getenv(machineVariable) != "" {
		beMachine(os.Args[1:])
		return
	}
	if os.Getenv(serviceVariable) != "" {
		beService(os.Args[1:])
		return
	}
	if scenario, stateDir, ok := strings.Cut(os.Getenv(mainstayVariable), ":"); ok {
		beMainstay(scenario, stateDir)
		return
	}
	goleak.VerifyTestMain(m)
}

// beService is a service with every bad habit.
func beService(args []string) {
	f := flag.NewFlagSet("service", flag.ExitOnError)
	var (
		listen     = f.Bool("listen", false, "serve HTTP at HOST:PORT")
		listenFD   = f.Bool("listen-fd", false, "say our pid to each connection of the socket that we are given")
		stopAfter  = f.Duration("stop-after", 0, "take so long to stop, and no connection meanwhile")
		readyAfter = f.Duration("ready-after", 0, "answer /readyz with 503 until then")
		dieAfter   = f.Duration("die-after", 0, "exit by itself")
		status     = f.Int("exit", 0, "status of that exit")
		ignoreTerm = f.Bool("ignore-term", false, "do nothing on SIGTERM")
		child      = f.String("child", "", "leave a child behind: term (ignores SIGTERM), output (holds the output), setsid (in a session of its own)")
		slow       = f.Duration("slow", 0, "answer only after so long")
		say        = f.String("say", "", "write this to stdout")
		spew       = f.Int("spew", 0, "write so many lines")
		long       = f.Int("long-line", 0, "write a line so long")
		binary     = f.Bool("binary", false, "write bytes that are no text, without an end of line")
		environ    = f.Bool("environ", false, "write the environment")
	)
	f.Parse(args)
	begin := time.Now()
	terms := make(chan os.Signal, 1)
	signal.Notify(terms, syscall.SIGTERM)

	switch *child {
	case "term":
		leave(`trap "" TERM; while :; do sleep 0.1; done`, false, false)
	case "output":
		leave(`trap "" TERM; while :; do sleep 0.1; done`, true, false)
	case "setsid":
		leave(`exec sleep 300`, true, true)
	}
	out := io.Writer(os.Stdout)
	if *say != "" {
		fmt.Fprintln(out, *say)
	}
	for i := range *spew {
		fmt.Fprintf(out, "line %d\n", i)
	}
	if *long > 0 {
		chunk := bytes.Repeat([]byte("x"), 1<<20)
		for left := *long; left > 0; left -= len(chunk) {
			out.Write(chunk[:min(left, len(chunk))])
		}
		fmt.Fprintln(out)
	}
	if *binary {
		out.Write([]byte("nul \x00 bad \xff\xfe end"))
	}
	if *environ {
		for _, kv := range os.Environ() {
			fmt.Fprintln(out, kv)
		}
	}
	var given net.Listener
	if *listenFD {
		l, err := net.FileListener(os.NewFile(3, "socket"))
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		given = l
		go func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				fmt.Fprint(conn, os.Getpid())
				conn.Close()
			}
		}()
	}
	if *listen {
		go http.ListenAndServe(net.JoinHostPort(os.Getenv("HOST"), os.Getenv("PORT")), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			<-time.After(*slow)
			if r.URL.Path == "/readyz" && time.Since(begin) < *readyAfter {
				http.Error(w, "not yet", http.StatusServiceUnavailable)
			}
		}))
	}
	die := make(<-chan time.Time)
	if *dieAfter > 0 {
		die = time.After(*dieAfter)
	}
	for {
		select {
		case <-die:
			os.Exit(*status)
		case <-terms:
			if !*ignoreTerm {
				if given != nil {
					given.Close()
				}
				<-time.After(*stopAfter)
				os.Exit(0)
			}
		}
	}
}

// leave starts a shell in the background.
func leave(script string, output, setsid bool) {
	c := exec.Command("/bin/sh", "-c", script)
	if output {
		c.Stdout = os.Stdout
	}
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: setsid}
	if err := c.Start(); err != nil {
		fmt.Println(err)
	}
	fmt.Println("child", c.Process.Pid)
}

// A fleet is a Supervisor on this machine.
type fleet struct {
	*Supervisor
	t     *testing.T
	state string
	seen  sync.Map // pids of processes ever seen, which lead their groups
}

// noRouter lets everyone in and has nothing in flight.
type noRouter struct{}

func (noRouter) Admit(topology.Instance)                              {}
func (noRouter) Drain(ctx context.Context, _ topology.Instance) error { return ctx.Err() }

func (noRouter) Traffic(topology.Instance) topology.Traffic { return topology.Traffic{} }

func newFleet(t *testing.T) *fleet {
	t.Helper()
	f := &fleet{t: t, state: t.TempDir(), Supervisor: New(slog.New(slog.DiscardHandler), nil, noRouter{})}
	t.Cleanup(func() {
		f.apply()
		f.Apply(context.Background(), topology.Empty)
		if st := f.Status(); len(st) != 0 {
			t.Errorf("after Empty: %+v", st)
		}
		f.seen.Range(func(pid, _ any) bool {
			for _, other := range pids() {
				if s, ok := readStat(other); ok && s.group == pid.(int) && !s.dead() {
					t.Errorf("process %d of group %d is still there", other, pid)
				}
			}
			return true
		})
	})
	return f
}

func (f *fleet) apply(services ...topology.Service) {
	f.t.Helper()
	t := &topology.Topology{StateDir: f.state, Services: map[string]topology.Service{}}
	for _, s := range services {
		t.Services[s.Name] = s
	}
	if len(services) == 0 {
		t = topology.Empty
	}
	if err := f.Apply(context.Background(), t); err != nil {
		f.t.Fatalf("Apply: %v", err)
	}
}

// eventually fails the test unless ok becomes true in time.
func (f *fleet) eventually(what string, ok func() bool) {
	f.t.Helper()
	limit := time.After(30 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		for _, s := range f.Status() {
			for _, i := range s.Instances {
				if i.PID != 0 {
					f.seen.Store(i.PID, true)
				}
			}
		}
		if ok() {
			return
		}
		select {
		case <-tick.C:
		case <-limit:
			f.t.Fatalf("not in time: %s; status: %+v", what, f.Status())
		}
	}
}

// only returns the status of the only instance of service.
func (f *fleet) only(service string) InstanceStatus {
	for _, s := range f.Status() {
		if s.Name == service && len(s.Instances) == 1 {
			return s.Instances[0]
		}
	}
	return InstanceStatus{}
}

func (f *fleet) ready(service string) InstanceStatus {
	f.t.Helper()
	f.eventually(service+" is ready", func() bool { return f.only(service).State == StateReady })
	return f.only(service)
}

// logs returns the texts of what is kept of service.
func (f *fleet) logs(service string) []string {
	f.t.Helper()
	var texts []string
	err := f.Logs(context.Background(), LogQuery{Of: []LogSource{{Service: service}}, Tail: -1}, func(l LogLine) error {
		texts = append(texts, l.Text)
		return nil
	})
	if err != nil {
		f.t.Fatal(err)
	}
	return texts
}

func (f *fleet) said(service, text string) {
	f.t.Helper()
	f.eventually(service+" says "+text, func() bool { return strings.Contains(strings.Join(f.logs(service), "\n"), text) })
}

// program returns a worker that runs the test service with args.
func program(name string, args ...string) topology.Service {
	self, err := os.Executable()
	if err != nil {
		panic(err)
	}
	s := with(web("", 1), named(name), worker, func(s *topology.Service) {
		s.Environment = map[string]topology.Text{serviceVariable: topology.Plain("1")}
		s.Restart.Backoff = topology.Backoff{Initial: 20 * time.Millisecond, Max: time.Second, ResetAfter: time.Minute}
	})
	s.Command = []topology.Text{topology.Plain(self)}
	for _, a := range args {
		s.Command = append(s.Command, topology.Plain(a))
	}
	return s
}

// shell returns a worker that runs a script.
func shell(name, script string) topology.Service {
	s := program(name)
	s.Command = []topology.Text{topology.Plain("/bin/sh"), topology.Plain("-c"), topology.Plain(script)}
	return s
}

func grace(d time.Duration) func(*topology.Service) {
	return func(s *topology.Service) { s.StopGracePeriod = d }
}

// children returns the pids that service has said it left behind.
func (f *fleet) children(service string) []int {
	var pids []int
	for _, text := range f.logs(service) {
		if s, ok := strings.CutPrefix(text, "child "); ok {
			pid, _ := strconv.Atoi(s)
			pids = append(pids, pid)
		}
	}
	return pids
}

// alive reports whether a process lives; one that only waits to be reaped does not.
func alive(pid int) bool {
	s, ok := readStat(pid)
	return ok && !s.dead()
}

func write(t *testing.T, path, content string, mode os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
}

// quietLog returns a logger that writes to w.
func quietLog(w io.Writer) *slog.Logger { return slog.New(slog.NewTextHandler(w, nil)) }

// newTestMachine returns this machine after changes, open for the test.
func newTestMachine(t *testing.T, changes ...func(*machine)) *machine {
	t.Helper()
	m := newMachine(slog.New(slog.DiscardHandler))
	for _, change := range changes {
		change(m)
	}
	m.open()
	t.Cleanup(m.close)
	return m
}
