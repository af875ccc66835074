package supervisor

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"mainstay/topology"
)

// With this variable set, the test binary is a Mainstay that runs one of outliving: SCENARIO:STATEDIR.
const mainstayVariable = "MAINSTAY_TEST_MAINSTAY"

// outliving are services for tests in which one Mainstay ends and another comes. On SIGUSR1 it goes on to those whose name has a + more.
var outliving = map[string]func() []topology.Service{
	"few": func() []topology.Service {
		return []topology.Service{
			with(program("web", "-listen"), served, func(s *topology.Service) { s.Replicas = 2 }),
			shell("chatty", `i=0; while :; do i=$((i+1)); echo line $i; echo line $i >&2; sleep 0.01; done`),
			program("leaver", "-child", "setsid"),
		}
	},
	"one": func() []topology.Service { return []topology.Service{program("one", "-say", "up")} },
	"many": func() []topology.Service {
		return []topology.Service{with(shell("many", `exec sleep 1000`), func(s *topology.Service) { s.Replicas = 100 })}
	},
	"rolled":  func() []topology.Service { return []topology.Service{rolled()} },
	"rolled+": func() []topology.Service { return []topology.Service{rolled("-ready-after", "1s")} },
	"watched": func() []topology.Service {
		probe := &topology.Probe{
			HTTPGet: &topology.HTTPGet{Address: "{address}", Path: "/readyz"}, Period: 20 * time.Millisecond, Timeout: time.Second,
			FailureThreshold: 1, SuccessThreshold: 1,
		}
		return []topology.Service{with(program("watched", "-listen", "-slow", "100ms"), served, func(s *topology.Service) {
			startup := *s.Probes.Readiness
			startup.FailureThreshold = 1000 // it is not what is seen here, and a busy machine takes its time
			s.Replicas, s.Probes.Startup, s.Probes.Liveness = 4, &startup, probe
		})}
	},
}

// served makes a service one that is given a port and asked for /readyz there.
func served(s *topology.Service) {
	s.Port = topology.PortAuto
	s.Probes.Readiness = &topology.Probe{
		HTTPGet: &topology.HTTPGet{Address: "{address}", Path: "/readyz"}, Period: 100 * time.Millisecond, Timeout: time.Second,
		FailureThreshold: 3, SuccessThreshold: 1,
	}
}

// rolled returns a service whose updates have little time.
func rolled(args ...string) topology.Service {
	return with(program("rolled", append(args, "-listen")...), served, func(s *topology.Service) {
		s.Update.Deadline, s.Update.MinReady = 1500*time.Millisecond, 100*time.Millisecond
	})
}

// beMainstay runs a scenario until it is killed, and prints the status all the time.
func beMainstay(scenario, stateDir string) {
	os.Unsetenv(mainstayVariable) // it is none of the services'
	s := New(slog.New(slog.NewTextHandler(os.Stderr, nil)), nil, noRouter{})
	apply := func() {
		t := &topology.Topology{StateDir: stateDir, Services: map[string]topology.Service{}}
		for _, svc := range outliving[scenario]() {
			t.Services[svc.Name] = svc
		}
		if err := s.Apply(context.Background(), t); err != nil {
			panic(err)
		}
	}
	next := make(chan os.Signal, 1)
	signal.Notify(next, syscall.SIGUSR1)
	apply()
	for tick := time.Tick(20 * time.Millisecond); ; {
		select {
		case <-next:
			scenario += "+"
			apply()
		case <-tick:
			json.NewEncoder(os.Stdout).Encode(s.Status())
		}
	}
}

// A neighbour is a Mainstay in a process of its own.
type neighbour struct {
	*exec.Cmd
	t     *testing.T
	state string

	mu   sync.Mutex // guards the field below
	last []ServiceStatus
	log  strings.Builder
	read sync.WaitGroup
}

// startNeighbour starts one and waits until all its services are ready.
func startNeighbour(t *testing.T, scenario, state string) *neighbour {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	n := &neighbour{Cmd: exec.Command(self), t: t, state: state}
	n.Env = append(os.Environ(), mainstayVariable+"="+scenario+":"+state)
	n.Stderr = &n.log
	out, err := n.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Start(); err != nil {
		t.Fatal(err)
	}
	n.read.Go(func() {
		for lines := bufio.NewScanner(bufio.NewReaderSize(out, 1<<20)); lines.Scan(); {
			var all []ServiceStatus
			if json.Unmarshal(lines.Bytes(), &all) == nil {
				n.mu.Lock()
				n.last = all
				n.mu.Unlock()
			}
		}
	})
	t.Cleanup(n.kill)
	n.until("all is ready", func(s ServiceStatus) bool { return s.State == ServiceReady })
	return n
}

// until waits until ok is true of every service.
func (n *neighbour) until(what string, ok func(ServiceStatus) bool) {
	n.t.Helper()
	within(n.t, what, func() bool {
		n.mu.Lock()
		defer n.mu.Unlock()
		return len(n.last) > 0 && !slices.ContainsFunc(n.last, func(s ServiceStatus) bool { return !ok(s) })
	})
}

// processes returns its services' processes, by instance.
func (n *neighbour) processes() map[string]int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return processesOf(n.last)
}

// within fails the test unless ok becomes true in time.
func within(t *testing.T, what string, ok func() bool) {
	t.Helper()
	limit := time.After(30 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("not in time: %s", what)
		}
	}
}

// kill ends the Mainstay alone, at once.
func (n *neighbour) kill() {
	n.Process.Kill()
	n.read.Wait()
	n.Wait()
	if n.t.Failed() {
		n.t.Logf("log of the Mainstay that was killed:\n%s", n.log.String())
	}
}

// processesOf returns the processes of a status, by instance.
func processesOf(all []ServiceStatus) map[string]int {
	m := map[string]int{}
	for _, s := range all {
		for _, i := range s.Instances {
			m[i.ID] = i.PID
		}
	}
	return m
}

// killed runs a scenario under a Mainstay that is killed, and returns its processes and another Mainstay at the same place, which has
// applied nothing yet.
func killed(t *testing.T, scenario string) (*fleet, map[string]int) {
	t.Helper()
	f := newFleet(t)
	n := startNeighbour(t, scenario, f.state)
	n.kill()
	before := n.processes()
	for id, pid := range before {
		if !alive(pid) {
			t.Errorf("process %d of %s has ended with Mainstay", pid, id)
		}
		t.Cleanup(func() { syscall.Kill(-pid, syscall.SIGKILL) }) // in case it is not taken over
	}
	return f, before
}

func (f *fleet) wantPids(before map[string]int) {
	f.t.Helper()
	after := processesOf(f.Status())
	for id, pid := range before {
		if after[id] != pid {
			f.t.Errorf("the process of %s was %d and is %d", id, pid, after[id])
		}
	}
	if len(after) != len(before) {
		f.t.Errorf("there were %d instances and are %d", len(before), len(after))
	}
}

func TestKilledMainstayLeavesItsServices(t *testing.T) {
	f, before := killed(t, "few")
	f.apply(outliving["few"]()...)
	f.wantPids(before)
	for _, s := range f.Status() {
		if s.State != ServiceReady {
			t.Errorf("%s is %s when Apply returns: %s", s.Name, s.State, s.Reason)
		}
	}

	// What was written meanwhile is there, and nothing is torn.
	last := func() int {
		all := f.logs("chatty")
		n, _ := strconv.Atoi(strings.TrimPrefix(all[len(all)-1], "line "))
		return n
	}
	first := last()
	f.eventually("more is written", func() bool { return last() > first+100 })
	counts := map[int]int{}
	most, missing := 0, 0
	for _, line := range f.logs("chatty") {
		n, err := strconv.Atoi(strings.TrimPrefix(line, "line "))
		if err != nil {
			t.Errorf("torn line: %q", line)
		}
		counts[n]++
		most = max(most, n)
	}
	for n := 1; n < most; n++ {
		missing += max(0, 2-counts[n])
		if counts[n] > 2 {
			t.Errorf("line %d is there %d times", n, counts[n])
		}
	}
	if missing > 10 { // those that it had read and not written
		t.Errorf("%d of %d lines are missing", missing, 2*most)
	}

	// Its end is noticed at once.
	begin := time.Now()
	syscall.Kill(before["chatty/1"], syscall.SIGKILL)
	f.eventually("the chatty one is started again", func() bool {
		i := f.only("chatty")
		return i.PID != 0 && i.PID != before["chatty/1"]
	})
	if took := time.Since(begin); took > time.Second {
		t.Errorf("it took %s", took)
	}
	if i := f.only("chatty"); i.Restarts != 1 {
		t.Errorf("it was restarted %d times", i.Restarts)
	}
	// And a stop leaves nothing, wherever it went.
	left := f.children("leaver")
	f.apply()
	for id, pid := range before {
		if alive(pid) {
			t.Errorf("process %d of %s is still there", pid, id)
		}
	}
	for _, pid := range left {
		if alive(pid) {
			t.Errorf("process %d, which left the group, is still there", pid)
		}
	}
	if runs, _ := filepath.Glob(filepath.Join(f.state, "run", "*.*")); len(left) == 0 || len(runs) != 0 {
		t.Errorf("processes that left: %v; directories: %v", left, runs)
	}
}

func TestKilledTwice(t *testing.T) {
	f, before := killed(t, "few")
	again := startNeighbour(t, "few", f.state)
	again.kill()
	f.apply(outliving["few"]()...)
	f.wantPids(before)
}

func TestKilledMainstayOfManyInstances(t *testing.T) {
	f, before := killed(t, "many")
	begin := time.Now()
	f.apply(outliving["many"]()...)
	t.Logf("%d taken over in %s", len(before), time.Since(begin))
	f.wantPids(before)
	if st := f.Status()[0]; st.Ready != 100 {
		t.Errorf("%d are ready", st.Ready)
	}
}

func TestEndedWhileNoMainstayRan(t *testing.T) {
	f, before := killed(t, "one")
	syscall.Kill(before["one/1"], syscall.SIGKILL)
	within(t, "it has ended", func() bool { return !alive(before["one/1"]) })
	f.apply(outliving["one"]()...)
	f.eventually("another is ready", func() bool {
		i := f.only("one")
		return i.State == StateReady && i.PID != before["one/1"] && i.Restarts == 1
	})
}

// spoil changes one field of what is noted of the only process's identity.
func spoil(t *testing.T, state string, change func(fields map[string]any)) {
	t.Helper()
	path, content := whoIs(t, state)
	fields := map[string]any{}
	if err := json.Unmarshal(content, &fields); err != nil {
		t.Fatal(err)
	}
	before := fmt.Sprint(fields)
	change(fields)
	if fmt.Sprint(fields) == before {
		t.Fatalf("nothing was changed in %s", content)
	}
	b, err := json.Marshal(fields)
	if err != nil {
		t.Fatal(err)
	}
	write(t, path, string(b), 0o600)
}

func whoIs(t *testing.T, state string) (path string, content []byte) {
	t.Helper()
	paths, _ := filepath.Glob(filepath.Join(state, "run", "*", "process.json"))
	if len(paths) != 1 {
		t.Fatalf("identities: %v", paths)
	}
	content, err := os.ReadFile(paths[0])
	if err != nil {
		t.Fatal(err)
	}
	return paths[0], content
}

func TestRecycledPidIsNotSignalled(t *testing.T) {
	for name, old := range map[string]string{"same boot": "", "another boot": "00000000-0000-0000-0000-000000000000"} {
		t.Run(name, func(t *testing.T) {
			f, before := killed(t, "one")
			syscall.Kill(-before["one/1"], syscall.SIGKILL)
			within(t, "it has ended", func() bool { return !alive(before["one/1"]) })
			stranger := exec.Command("sleep", "1000")
			stranger.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
			if err := stranger.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() { stranger.Process.Kill(); stranger.Wait() }()
			spoil(t, f.state, func(fields map[string]any) {
				fields["pid"] = stranger.Process.Pid
				if old != "" {
					fields["boot_id"] = old
				}
			})
			f.apply(outliving["one"]()...)
			f.ready("one")
			f.apply()
			if !alive(stranger.Process.Pid) {
				t.Error("a process that was given the same number was ended")
			}
		})
	}
}

func TestTornRecords(t *testing.T) {
	for _, name := range []string{"process.json", recordFile} {
		t.Run(name, func(t *testing.T) {
			f, before := killed(t, "one")
			path, _ := whoIs(t, f.state)
			path = filepath.Join(filepath.Dir(path), name)
			content, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			write(t, path, string(content[:len(content)/2]), 0o600)
			f.apply(outliving["one"]()...)
			f.eventually("another is ready", func() bool {
				i := f.only("one")
				return i.State == StateReady && i.PID != before["one/1"]
			})
			if name == recordFile && alive(before["one/1"]) {
				t.Error("the one that nothing is known of is still there")
			}
		})
	}
}

func TestStoppedMainstayKillsNobody(t *testing.T) {
	t.Parallel()
	n := startNeighbour(t, "watched", t.TempDir())
	before := n.processes()
	for _, pid := range before {
		t.Cleanup(func() { syscall.Kill(-pid, syscall.SIGKILL) })
	}
	for _, stopped := range []time.Duration{1050 * time.Millisecond, 1500 * time.Millisecond} { // little longer than the timeout, and much
		syscall.Kill(n.Process.Pid, syscall.SIGSTOP)
		pause(t, stopped)
		syscall.Kill(n.Process.Pid, syscall.SIGCONT)
		pause(t, 300*time.Millisecond)
	}
	after := n.processes()
	for id, pid := range before {
		if after[id] != pid {
			t.Errorf("the process of %s was %d and is %d", id, pid, after[id])
		}
	}
}

func TestStoppedMainstayGivesNoUpdateUp(t *testing.T) {
	t.Parallel()
	n := startNeighbour(t, "rolled", t.TempDir())
	t.Cleanup(func() {
		for _, pid := range n.processes() {
			syscall.Kill(-pid, syscall.SIGKILL)
		}
	})
	syscall.Kill(n.Process.Pid, syscall.SIGUSR1)
	n.until("the new one is started", func(s ServiceStatus) bool { return len(s.Instances) == 2 && s.Instances[1].PID != 0 })
	syscall.Kill(n.Process.Pid, syscall.SIGSTOP)
	pause(t, 4*time.Second)
	syscall.Kill(n.Process.Pid, syscall.SIGCONT)
	n.until("the update is over", func(s ServiceStatus) bool { return s.State != ServiceUpdating })
	n.until("it was not given up", func(s ServiceStatus) bool { return s.State == ServiceReady && s.Reason == "" })
}

// pause lets real time pass, where it is the passing of time that is tested.
func pause(t *testing.T, d time.Duration) {
	t.Helper()
	<-time.After(d)
}
