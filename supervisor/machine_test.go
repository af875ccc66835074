package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mainstay/topology"
)

// With this variable set the test binary is a Mainstay that holds one program, a shell script, until it is killed: its arguments are the run
// directory (empty: none) and the script. It writes the program's lines to stdout.
const machineVariable = "MAINSTAY_TEST_MACHINE"

func beMachine(args []string) {
	os.Unsetenv(machineVariable)
	m := newMachine(slog.New(slog.DiscardHandler))
	m.ungrouped = os.Getenv("UNGROUPED") != ""
	m.open()
	p, err := m.start(command{
		argv: []string{"/bin/sh", "-c", args[1]}, env: os.Environ(), run: args[0],
		line: func(_ string, text []byte, _ bool) { fmt.Printf("%s\n", text) },
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	<-p.exited()
	p.sweep(context.Background())
	<-p.silent()
}

// startMachine starts such a Mainstay, from a thread in the state that on leaves it in.
func startMachine(t *testing.T, on func(), env []string, run, script string) (*exec.Cmd, io.Reader) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(self, run, script)
	c.Env = append(append(os.Environ(), machineVariable+"=1"), env...)
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // it ends with the goroutine
		on()
		done <- c.Start()
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Process.Kill()
		c.Wait()
	})
	return c, out
}

// ways are the two ways in which a machine finds what a process has started.
func ways(t *testing.T, test func(t *testing.T, m *machine)) {
	for _, way := range []string{"control groups", "marks"} {
		t.Run(way, func(t *testing.T) {
			m := newTestMachine(t, func(m *machine) { m.ungrouped, m.reapDelay = way == "marks", 0 })
			if m.groups == nil && way == "control groups" {
				t.Skip(m.whyNone)
			}
			test(t, m)
		})
	}
}

// A transcript is what a process has written.
type transcript struct {
	mu   sync.Mutex
	text []string
}

func (s *transcript) add(_ string, text []byte, partial bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	end := "\n"
	if partial {
		end = ""
	}
	s.text = append(s.text, string(text)+end)
}

func (s *transcript) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.text, "")
}

// number returns what follows name and a blank on a line.
func (s *transcript) number(name string) int {
	for line := range strings.Lines(s.String()) {
		if text, ok := strings.CutPrefix(line, name+" "); ok {
			n, _ := strconv.Atoi(strings.TrimSpace(text))
			return n
		}
	}
	return 0
}

func soon(t *testing.T, what string, ok func() bool) {
	t.Helper()
	limit := time.After(time.Minute)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("not in time: %s", what)
		}
	}
}

// started starts a script.
func started(t *testing.T, m *machine, script string, changes ...func(*command)) (*tree, *transcript) {
	t.Helper()
	said := &transcript{}
	c := command{argv: []string{"/bin/sh", "-c", script}, env: os.Environ(), line: said.add}
	for _, change := range changes {
		change(&c)
	}
	p, err := m.launch(c)
	if err != nil {
		t.Fatal(err)
	}
	return p, said
}

func in(run string) func(*command) { return func(c *command) { c.run = run } }

// swept kills p and ends what it left behind, within grace.
func swept(p process, grace time.Duration) {
	p.signal(syscall.SIGKILL)
	<-p.exited()
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	p.sweep(ctx)
	<-p.silent()
}

func TestNobodyGetsAwayBySetsid(t *testing.T) {
	ways(t, func(t *testing.T, m *machine) {
		p, said := started(t, m, `setsid sh -c 'trap "" TERM; echo deaf $$; while :; do sleep 0.1; done' &
			(setsid sh -c 'echo orphan $$; trap "echo told; exit" TERM; while :; do sleep 0.1; done' &) ; wait`)
		soon(t, "both are there", func() bool { return said.number("deaf") > 0 && said.number("orphan") > 0 })
		deaf, orphan := said.number("deaf"), said.number("orphan")
		for _, pid := range []int{p.PID, deaf, orphan} {
			if !p.contains(pid) {
				t.Errorf("%d is not seen to be of it", pid)
			}
		}
		if p.contains(os.Getpid()) {
			t.Error("we are seen to be of it")
		}
		swept(p, 300*time.Millisecond)
		if alive(deaf) || alive(orphan) {
			t.Errorf("alive: deaf %t, orphan %t", alive(deaf), alive(orphan))
		}
		if !strings.Contains(said.String(), "told") {
			t.Errorf("it was not told to end: %q", said)
		}
		if p.cgroup != nil {
			if _, err := os.Stat(p.cgroup.dir); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("its control group is still there: %v", err)
			}
		}
	})
}

// Of many who are swept at once each looks at the machine, all with a few looks.
func TestLooksAreShared(t *testing.T) {
	var c census
	looks := map[*look]bool{}
	var mu sync.Mutex
	var all sync.WaitGroup
	c.mu.Lock()
	for range 200 {
		all.Go(func() {
			l := c.look()
			mu.Lock()
			looks[l] = true
			mu.Unlock()
		})
	}
	soon(t, "somebody waits", func() bool { return c.next.Load() != nil })
	c.mu.Unlock()
	all.Wait()
	if len(looks) > 100 { // two or three, unless the scheduler is unkind
		t.Errorf("%d looks", len(looks))
	}
	if s, ok := c.look().processes[os.Getpid()]; !ok || s.group != syscall.Getpgrp() {
		t.Errorf("it sees us as %+v", s)
	}
}

func TestDescendants(t *testing.T) {
	l := &look{
		processes: map[int]stat{
			10: {pid: 10, parent: 1, group: 10, start: 5, state: 'S'},
			11: {pid: 11, parent: 10, group: 10, start: 6, state: 'S'},
			12: {pid: 12, parent: 11, group: 12, start: 7, state: 'S'}, // without a mark, with a parent
			13: {pid: 13, parent: 1, group: 13, start: 7, state: 'S'},  // with a mark
			14: {pid: 14, parent: 13, group: 14, start: 7, state: 'S'},
			15: {pid: 15, parent: 10, group: 10, start: 7, state: 'Z'},
			20: {pid: 20, parent: 1, group: 20, start: 7, state: 'S'},
		},
		marks: map[int]string{13: "ours", 20: "others"},
	}
	of := func(id identity) []int {
		var list []int
		for _, s := range l.descendants(id) {
			list = append(list, s.pid)
		}
		slices.Sort(list)
		return list
	}
	if got := of(identity{PID: 10, Start: 5, Mark: "ours"}); !slices.Equal(got, []int{10, 11, 12, 13, 14}) {
		t.Errorf("descendants: %v", got)
	}
	if got := of(identity{PID: 10, Start: 4, Mark: "ours"}); !slices.Equal(got, []int{13, 14}) {
		t.Errorf("descendants of what had the pid before: %v", got)
	}
}

// Whoever waits for a child here gets its status, and those that nobody waits for are gone.
func TestReaperTakesOnlyOrphans(t *testing.T) {
	m := newTestMachine(t, func(m *machine) { m.ungrouped, m.reapDelay = true, 0 })
	p, said := started(t, m, `i=0; while [ $i -lt 1000 ]; do (sh -c : &); i=$((i+1)); done; echo done 1; exec sleep 100`)
	var waited sync.WaitGroup
	for n := range 20 {
		waited.Go(func() {
			c := exec.Command("/bin/sh", "-c", "exit "+strconv.Itoa(n))
			c.SysProcAttr = &syscall.SysProcAttr{Setsid: n%2 == 0}
			if err := c.Start(); err != nil {
				t.Error(err)
				return
			}
			soon(t, "the orphans are done", func() bool { return said.number("done") == 1 }) // it is long dead then
			if c.Wait(); c.ProcessState.ExitCode() != n {
				t.Errorf("a child exited with %d, want %d", c.ProcessState.ExitCode(), n)
			}
		})
	}
	waited.Wait()
	soon(t, "no dead child is left", func() bool { return zombies() == 0 })
	if q, err := m.launch(command{argv: []string{"/bin/sh", "-c", "exit 7"}, env: os.Environ(), line: said.add}); err != nil {
		t.Error(err)
	} else if <-q.exited(); q.exit().status != 7 {
		t.Errorf("exit %v", q.exit())
	} else {
		q.sweep(t.Context())
	}
	swept(p, time.Minute)
}

func zombies() int {
	n := 0
	for _, pid := range pids() {
		if s, ok := readStat(pid); ok && s.parent == os.Getpid() && s.dead() {
			n++
		}
	}
	return n
}

// An upgrade: our child stays our child, and what it writes meanwhile is not lost.
func TestReleaseAndAdopt(t *testing.T) {
	ways(t, func(t *testing.T, m *machine) {
		run := t.TempDir()
		if err := unix.Mkfifo(filepath.Join(run, "..", "go"), 0o600); err != nil {
			t.Fatal(err)
		}
		p, said := started(t, m, `printf beg; i=0; while [ $i -lt 2000 ]; do echo "line $i"; i=$((i+1)); [ $i = 1000 ] && read x < `+run+`/../go; done; exit 9`, in(run))
		soon(t, "half is said", func() bool { return strings.Contains(said.String(), "line 999\n") })
		p.release()
		if isClosed(p.exited()) || !isClosed(p.silent()) {
			t.Error("exited or not silent after release")
		}
		write(t, filepath.Join(run, "..", "go"), "", 0)
		other := newTestMachine(t, func(o *machine) { o.ungrouped = m.ungrouped })
		q, err := other.adopt(run, said.add)
		if err != nil {
			t.Fatal(err)
		}
		if q.pid() != p.pid() || !q.contains(p.pid()) {
			t.Errorf("adopted %d, want %d", q.pid(), p.pid())
		}
		<-q.exited()
		if q.exit().String() != "exited with status 9" {
			t.Errorf("exit: %s", q.exit())
		}
		q.sweep(t.Context())
		<-q.silent()
		var want strings.Builder
		want.WriteString("beg")
		for i := range 2000 {
			fmt.Fprintf(&want, "line %d\n", i)
		}
		if said.String() != want.String() {
			t.Errorf("said %d bytes, want %d", len(said.String()), want.Len())
		}
		if _, err := other.adopt(run, said.add); !errors.Is(err, errGone) {
			t.Errorf("a second adoption: %v", err)
		}
	})
}

// What a killed Mainstay leaves goes on writing, is found again, and its end is noticed with how.
func TestKilledMainstayLeavesItsProcess(t *testing.T) {
	for _, way := range []string{"", "yes"} {
		t.Run("ungrouped "+way, func(t *testing.T) {
			unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0) // what it leaves is not to become our child
			run := t.TempDir()
			c, _ := startMachine(t, func() {}, []string{"UNGROUPED=" + way}, run, `setsid sleep 300 & echo child $!; trap "echo bye; exit 4" TERM; while :; do echo still; sleep 0.02; done`)
			var id identity
			soon(t, "it is on record", func() bool { id, _ = readIdentity(run); return id.PID > 0 })
			c.Process.Kill()
			c.Wait()
			said := &transcript{}
			m := newTestMachine(t, func(m *machine) { m.ungrouped = way != "" })
			unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
			p, err := m.adopt(run, said.add)
			if err != nil {
				t.Fatal(err)
			}
			soon(t, "it writes", func() bool { return strings.Count(said.String(), "still") > 2 })
			p.signal(syscall.SIGTERM)
			<-p.exited()
			p.sweep(t.Context())
			<-p.silent()
			if !strings.Contains(said.String(), "bye\n") {
				t.Errorf("its last words are missing: %q", said)
			}
			// Before Linux 6.15 nobody knows if its parent was quicker than we.
			if e := p.exit(); e.clean() || !e.unknown && e.status != 4 {
				t.Errorf("exit: %s", e)
			}
			if l := (&look{}); true {
				l.see()
				if left := l.descendants(id); len(left) > 0 {
					t.Errorf("left: %+v", left)
				}
			}
		})
	}
}

func TestRecycledPIDIsNotAdopted(t *testing.T) {
	ways(t, func(t *testing.T, m *machine) {
		other, _ := started(t, m, "exec sleep 300") // has the pid now
		defer swept(other, 0)
		left, said := started(t, m, `setsid sh -c 'echo left $$; exec sleep 300' & exit 0`)
		soon(t, "something is left", func() bool { return said.number("left") > 0 })
		<-left.exited()

		run := t.TempDir()
		for _, id := range []identity{
			{PID: other.PID, Start: other.Start - 1, Boot: m.boot, Mark: left.Mark, Cgroup: left.Cgroup},
			{PID: other.PID, Start: other.Start, Boot: "another", Mark: other.Mark, Cgroup: other.Cgroup},
			{PID: 0, Boot: m.boot, Mark: newMark()},
		} {
			n, err := newNote(run)
			if err != nil {
				t.Fatal(err)
			}
			if err := n.write(id); err != nil {
				t.Fatal(err)
			}
			n.file.Close()
			if _, err := m.adopt(run, said.add); !errors.Is(err, errGone) {
				t.Errorf("%+v: %v", id, err)
			}
		}
		if !alive(other.PID) {
			t.Error("the program that has the pid now was ended")
		}
		if alive(said.number("left")) {
			t.Error("what the process left behind is still there")
		}
		left.sweep(t.Context())
		if _, err := m.adopt(t.TempDir(), said.add); !errors.Is(err, errGone) {
			t.Errorf("an empty directory: %v", err)
		}
	})
}

func TestStub(t *testing.T) {
	m := newTestMachine(t)
	files := func(n int) func(*command) { return limited(topology.Limits{OpenFiles: n}) }
	p, said := started(t, m, `echo $(ulimit -Sn) $(ulimit -Hn) $(umask) $0 $(cut -d" " -f5 /proc/$$/stat) $$`, files(123), func(c *command) {
		c.argv = append(c.argv, "zero")
		c.directory = "/"
	})
	<-p.exited()
	p.sweep(t.Context())
	<-p.silent()
	if want := fmt.Sprintf("123 123 0022 zero %d %d\n", p.PID, p.PID); said.String() != want {
		t.Errorf("said %q, want %q", said, want)
	}
	before := descriptors(t)
	tests := []struct {
		change func(*command)
		want   string
		errno  syscall.Errno
	}{
		{func(c *command) { c.argv[0] = "/no/such/program" }, "exec /no/such/program: no such file or directory", syscall.ENOENT},
		{func(c *command) { c.argv[0] = "/etc/passwd" }, "exec /etc/passwd: permission denied", syscall.EACCES},
		{func(c *command) { c.limits.OpenFiles = 1 << 40 }, "limits.open_files: set to 1099511627776: operation not permitted", syscall.EPERM},
	}
	for _, tt := range tests {
		c := command{argv: []string{"/bin/true"}, env: os.Environ(), limits: topology.Limits{OpenFiles: 100}}
		tt.change(&c)
		if _, err := m.start(c); err == nil || err.Error() != tt.want || !errors.Is(err, tt.errno) {
			t.Errorf("error %v, want %s", err, tt.want)
		}
	}
	if after := descriptors(t); after != before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

// The service's user could not read the program that the stub is: tests are built in a directory of one's own.
func TestStubOfAnotherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can")
	}
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	m := newTestMachine(t)
	p, said := started(t, m, `echo $(id -u) $(id -g) $(id -G) $(ulimit -Hn)`, func(c *command) {
		c.user, c.group, c.directory = "4321", "8765", "/"
		c.limits.OpenFiles = int(limit.Max)
	})
	<-p.exited()
	p.sweep(t.Context())
	<-p.silent()
	if want := fmt.Sprintf("4321 8765 8765 %d\n", limit.Max); said.String() != want {
		t.Errorf("said %q, want %q", said, want)
	}
}

func TestSocketIsHandedOver(t *testing.T) {
	m := newTestMachine(t)
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	socket, err := l.File()
	l.Close()
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	p, said := started(t, m, `echo $LISTEN_FDS $((LISTEN_PID-$$)); readlink /proc/self/fd/3; exec sleep 300`, func(c *command) {
		c.socket = socket
		c.env = append(c.env, "LISTEN_FDS=3", "LISTEN_PID=1")
	})
	defer swept(p, 0)
	soon(t, "it says what it has", func() bool { return strings.Count(said.String(), "\n") == 2 })
	if !strings.HasPrefix(said.String(), "1 0\nsocket:[") {
		t.Errorf("said %q", said)
	}
	if err := m.owns(p, l.Addr().(*net.TCPAddr).Port); err != nil {
		t.Error(err)
	}
}

// What Mainstay was started with is not what services are started with.
func TestStateOfMainstayIsNotInherited(t *testing.T) {
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	c, out := startMachine(t, func() {
		var mask unix.Sigset_t
		for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGHUP, syscall.SIGCHLD, syscall.SIGUSR1} {
			mask.Val[0] |= 1 << (sig - 1)
		}
		if err := unix.PthreadSigmask(unix.SIG_SETMASK, &mask, nil); err != nil {
			t.Error(err)
		}
	}, nil, "", `umask; grep SigBlk /proc/self/status; env | grep -c MAINSTAY_PROCESS=; [ $MAINSTAY_PROCESS != old ] && echo own`)
	b, err := io.ReadAll(out)
	if err != nil {
		t.Fatal(err)
	}
	c.Wait()
	if want := "0022\nSigBlk:\t0000000000000000\n1\nown\n"; string(b) != want {
		t.Errorf("said %q, want %q", b, want)
	}
}

func TestLimitsThatCannotBeKeptAreRefused(t *testing.T) {
	ways(t, func(t *testing.T, m *machine) {
		tests := []struct {
			controller string
			limits     topology.Limits
		}{
			{"memory", topology.Limits{Memory: 64 << 20}},
			{"cpu", topology.Limits{CPUs: 0.5}},
			{"pids", topology.Limits{Processes: 10}},
		}
		for _, tt := range tests {
			key := map[string]string{"memory": "memory", "cpu": "cpus", "pids": "processes"}[tt.controller]
			p, err := m.start(command{argv: []string{"/bin/true"}, env: os.Environ(), limits: tt.limits, line: new(transcript).add})
			if err == nil { // this machine has it
				<-p.exited()
				p.sweep(t.Context())
				<-p.silent()
				continue
			}
			if !strings.HasPrefix(err.Error(), "limits."+key+": ") || len(err.Error()) < 40 {
				t.Errorf("%s: %v", key, err)
			}
			t.Log(err)
		}
	})
}

func TestOwnership(t *testing.T) {
	m := newTestMachine(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	port := freePort(t)
	listening := func(host string) func(*command) {
		return func(c *command) {
			c.argv = []string{"/bin/sh", "-c", `"$0" -listen & wait`, self} // a child of it listens
			c.env = append(c.env, serviceVariable+"=1", "HOST="+host, "PORT="+strconv.Itoa(port))
		}
	}
	other, _ := started(t, m, "exec sleep 300")
	defer swept(other, 0)
	if err := m.owns(other, port); err != nil {
		t.Errorf("nobody listens: %v", err)
	}
	for _, host := range []string{"127.0.0.1", "0.0.0.0", "::"} {
		p, _ := started(t, m, "", listening(host))
		soon(t, "it listens", func() bool { s, err := listeners(port); return err != nil || len(s) > 0 })
		if err := m.owns(p, port); err != nil {
			t.Errorf("%s: its own: %v", host, err)
		}
		err := m.owns(other, port)
		if err == nil || !strings.HasPrefix(err.Error(), fmt.Sprintf("port %d is listened on by another program: %s, pid ", port, filepath.Base(self))) {
			t.Errorf("%s: another's: %v", host, err)
		}
		table, err := tableListeners(port)
		if err != nil {
			t.Error(err)
		}
		if asked, err := listeners(port); err != nil || !slices.Equal(asked, table) {
			t.Errorf("%s: the kernel says %v (%v), its table %v", host, asked, err, table)
		}
		swept(p, 0)
	}
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func TestAnswering(t *testing.T) {
	parse := func(line string) listening {
		s, ok := parseListening(line, 8080)
		if !ok {
			t.Fatalf("not understood: %s", line)
		}
		return s
	}
	if runtime.GOARCH == "amd64" {
		exact := parse("   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 77 1 0 100 0 0 10 0")
		wild := parse("   1: 00000000000000000000000000000000:1F90 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 78 1 0 100 0 0 10 0")
		if exact.inode != 77 || wild.inode != 78 {
			t.Errorf("inodes %d and %d", exact.inode, wild.inode)
		}
		if got := answering([]listening{wild, exact}); len(got) != 1 || got[0].inode != 77 {
			t.Errorf("the nearest address has the connections: %v", got)
		}
		if got := answering([]listening{wild}); len(got) != 1 {
			t.Errorf("everyone's address is ours too: %v", got)
		}
	}
	for _, line := range []string{
		"  sl  local_address rem_address   st", "",
		"   0: 0100007F:1F91 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 77 1 0 100 0 0 10 0",
		"   0: 0100007F:1F90 00000000:0000 01 00000000:00000000 00:00000000 00000000     0        0 77 1 0 100 0 0 10 0",
	} {
		if s, ok := parseListening(line, 8080); ok {
			t.Errorf("%q is %+v", line, s)
		}
	}
}

// What a killed Mainstay leaves of control groups is removed by the next, except where something lives.
func TestControlGroupsOfTheDeadAreRemoved(t *testing.T) {
	m := newTestMachine(t)
	if m.groups == nil {
		t.Skip(m.whyNone)
	}
	run := filepath.Join(t.TempDir(), "web.1.1")
	if err := os.Mkdir(run, 0o700); err != nil {
		t.Fatal(err)
	}
	c, out := startMachine(t, func() {}, nil, run, `echo up; exec sleep 300`)
	if _, err := io.ReadFull(out, make([]byte, 3)); err != nil {
		t.Fatal(err)
	}
	base := filepath.Join(m.groups.own, baseName(strconv.Itoa(c.Process.Pid)))
	groups, err := filepath.Glob(filepath.Join(base, groupName(run, "*")))
	if err != nil || len(groups) != 1 {
		t.Fatalf("groups %v, %v", groups, err)
	}
	c.Process.Kill()
	c.Wait()
	removeOld(m.groups.own)
	left := &cgroup{dir: groups[0]}
	if !left.populated() {
		t.Error("the group of a living process was removed")
	}
	left.kill()
	soon(t, "it is dead", func() bool { return !left.populated() })
	removeOld(m.groups.own)
	if _, err := os.Stat(base); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("base is still there: %v", err)
	}
}
