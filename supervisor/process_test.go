package supervisor

import (
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"mainstay/topology"
)

func TestProcessIsStoppedBySignal(t *testing.T) {
	f := newFleet(t)
	f.apply(with(shell("web", `trap "echo bye; exit 0" INT; echo up; while :; do sleep 0.05; done`), func(s *topology.Service) { s.StopSignal = syscall.SIGINT }))
	f.said("web", "up")
	pid := f.ready("web").PID
	f.apply(shell("other", "exec sleep 100"))
	if alive(pid) {
		t.Error("it lives after Apply has returned")
	}
	b, err := os.ReadFile(filepath.Join(f.state, "logs", "web", "1.log"))
	if err != nil || !strings.HasSuffix(string(b), " stdout F bye\n") {
		t.Errorf("log: %q, %v", b, err)
	}
}

func TestProcessThatIgnoresItsSignalIsKilledWithItsGroup(t *testing.T) {
	f := newFleet(t)
	f.apply(with(program("web", "-ignore-term", "-child", "term", "-say", "up"), grace(200*time.Millisecond)))
	f.said("web", "up")
	pid, child := f.ready("web").PID, f.children("web")[0]
	if !alive(child) {
		t.Fatal("the child is not there")
	}
	f.apply()
	if alive(pid) || alive(child) {
		t.Errorf("alive after stop: leader %t, child %t", alive(pid), alive(child))
	}
}

// The leader leaves at once, but its children are still at work: they have the whole grace period.
func TestStopWaitsForTheGroupWithinTheGracePeriod(t *testing.T) {
	f := newFleet(t)
	done := filepath.Join(t.TempDir(), "done")
	f.apply(shell("web", `(trap "sleep 0.3; echo finished > `+done+`; exit" TERM; echo up; while :; do sleep 0.05; done) & trap "exit 0" TERM; wait`))
	f.said("web", "up")
	f.apply()
	if _, err := os.Stat(done); err != nil {
		t.Errorf("the child was not let finish: %v", err)
	}
}

func TestGrandchildThatHoldsTheOutputDelaysNothing(t *testing.T) {
	for _, kind := range []string{"output", "setsid"} {
		t.Run(kind, func(t *testing.T) {
			f := newFleet(t)
			f.apply(program("web", "-child", kind, "-die-after", "50ms", "-exit", "7"))
			t.Cleanup(func() {
				for _, pid := range f.children("web") {
					if alive(pid) {
						syscall.Kill(pid, syscall.SIGKILL)
					}
				}
			})
			f.eventually("web was restarted", func() bool { return f.only("web").Restarts >= 2 })
			f.eventually("its exit is told", func() bool { return strings.Contains(f.only("web").Reason, "exited with status 7") })
			if kind == "output" { // of the group, so gone before the restart
				if first := f.children("web")[0]; alive(first) {
					t.Error("the first child outlived the restart")
				}
			}
		})
	}
}

func TestCrashTellsItsCauseAndLastWords(t *testing.T) {
	f := newFleet(t)
	f.apply(with(shell("web", `echo one; echo two; echo three >&2; printf 'the very last words'; kill -SEGV $$`), policy(topology.RestartNever)))
	f.eventually("web failed", func() bool { return f.only("web").State == StateFailed })
	why := f.only("web").Reason
	if !strings.HasPrefix(why, "killed by SIGSEGV: ") || !strings.Contains(why, "the very last words") {
		t.Errorf("reason: %q", why)
	}
}

func TestSpawnErrorsSayWhy(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/plain", "x", 0o644)
	write(t, dir+"/garbage", "\x7fnothing", 0o755)
	write(t, dir+"/script", "#!/no/such/shell -e\n", 0o755)
	tests := []struct {
		name   string
		change func(*topology.Service)
		want   string
	}{
		{"missing", func(s *topology.Service) { s.Command[0] = topology.Plain(dir + "/missing") }, "no such file or directory"},
		{"not in PATH", func(s *topology.Service) { s.Command[0] = topology.Plain("no-such-program") }, "exec no-such-program: not found in PATH"},
		{"not executable", func(s *topology.Service) { s.Command[0] = topology.Plain(dir + "/plain") }, "permission denied"},
		{"no program", func(s *topology.Service) { s.Command[0] = topology.Plain(dir + "/garbage") }, "exec format error"},
		{"no interpreter", func(s *topology.Service) { s.Command[0] = topology.Plain(dir + "/script") }, "it is there, but what it needs to run is not (a script's #! line"},
		{"directory", func(s *topology.Service) { s.Directory = dir + "/gone" }, "change directory: stat " + dir + "/gone: no such file"},
		{"user", func(s *topology.Service) { s.User = "nobody-by-that-name" }, "unknown user nobody-by-that-name"},
		{"group", func(s *topology.Service) { s.Group = "nobody-by-that-name" }, "unknown group nobody-by-that-name"},
	}
	f := newFleet(t)
	var services []topology.Service
	for i, tt := range tests {
		services = append(services, with(shell("s"+strconv.Itoa(i), "true"), tt.change))
	}
	f.apply(services...)
	for i, tt := range tests {
		name := "s" + strconv.Itoa(i)
		f.eventually(tt.name, func() bool { return f.only(name).State == StateWaiting })
		if why := f.only(name).Reason; !strings.Contains(why, tt.want) {
			t.Errorf("%s: %q, want it to say %q", tt.name, why, tt.want)
		}
	}
}

// A program that is being written cannot be executed. That is waited out, not counted.
func TestProgramThatIsBeingWritten(t *testing.T) {
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Skip("no sleep here")
	}
	content, err := os.ReadFile(sleep)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "web")
	write(t, path, string(content), 0o755)
	busy, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := newTestMachine(t).start(command{argv: []string{path, "100"}, line: func(string, []byte, bool) {}}); !errors.Is(err, syscall.ETXTBSY) {
		t.Skipf("this kernel does not refuse to run what is written to: %v", err)
	}
	f := newFleet(t)
	s := shell("web", "")
	s.Command = []topology.Text{topology.Plain(path), topology.Plain("100")}
	f.apply(s)
	time.AfterFunc(100*time.Millisecond, func() { busy.Close() })
	if i := f.ready("web"); i.Restarts != 0 {
		t.Errorf("%d restarts, want none", i.Restarts)
	}
}

func TestEnvironmentAndPlaceholders(t *testing.T) {
	t.Setenv("INHERITED", "yes")
	t.Setenv("PORT", "1")
	f := newFleet(t)
	s := with(shell("web", `echo "{service} {replica} {address} {host} {port}"; env; exec sleep 100`), func(s *topology.Service) {
		s.Port = topology.PortAuto
		s.Environment = map[string]topology.Text{
			"URL":  topology.Plain("http://{address}/"),
			"KEY":  topology.Secret("hush{port}"),
			"BOTH": topology.Plain("a=b"),
		}
	})
	f.Apply(t.Context(), &topology.Topology{StateDir: f.state, Generation: 12, Services: map[string]topology.Service{"web": s}})
	f.said("web", "MAINSTAY_GENERATION=12")
	f.said("web", "INHERITED=yes")
	i := f.ready("web")
	port := strings.TrimPrefix(i.Address, "127.0.0.1:")
	got := f.logs("web")
	for _, want := range []string{
		"web 1 " + i.Address + " 127.0.0.1 " + port, "URL=http://" + i.Address + "/", "KEY=hush{port}", "BOTH=a=b",
		"PORT=" + port, "HOST=127.0.0.1", "MAINSTAY_SERVICE=web", "MAINSTAY_REPLICA=1",
	} {
		if !slices.Contains(got, want) {
			t.Errorf("no line %q in %q", want, got)
		}
	}
	if n, _ := strconv.Atoi(port); n < firstPort || n > lastPort {
		t.Errorf("port %s is not from the range", port)
	}
}

func TestProcessInheritsNothingItShouldNot(t *testing.T) {
	signal.Ignore(syscall.SIGHUP, syscall.SIGUSR1)
	defer signal.Reset(syscall.SIGHUP, syscall.SIGUSR1)
	f := newFleet(t)
	f.apply(shell("web", `grep SigIgn /proc/self/status; grep SigBlk /proc/self/status; readlink /proc/self/fd/0; ls /proc/self/fd | tr '\n' ' '; echo; ps -o pgid= -p $$ | tr -d ' '; echo $$; exec sleep 100`))
	i := f.ready("web")
	f.said("web", strconv.Itoa(i.PID))
	f.eventually("all is said", func() bool { return len(f.logs("web")) == 6 })
	got := f.logs("web")
	mask, _ := strconv.ParseUint(strings.TrimSpace(strings.TrimPrefix(got[0], "SigIgn:")), 16, 64)
	if mask&(1<<(syscall.SIGHUP-1)|1<<(syscall.SIGUSR1-1)) != 0 {
		t.Errorf("signals are ignored: %s", got[0])
	}
	if got[1] != "SigBlk:\t0000000000000000" {
		t.Errorf("signals are blocked: %s", got[1])
	}
	if got[2] != "/dev/null" {
		t.Errorf("stdin is %s", got[2])
	}
	if got[3] != "0 1 2 3 " { // 3: the directory that ls reads
		t.Errorf("descriptors: %s", got[3])
	}
	if got[4] != got[5] {
		t.Errorf("the group is %s, the process %s", got[4], got[5])
	}
}

func TestProcessRunsAsAnotherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can")
	}
	f := newFleet(t)
	f.apply(
		with(shell("user", `id -un; id -gn; echo home $HOME; exec sleep 100`), func(s *topology.Service) { s.User, s.Directory = "nobody", "/" }),
		with(shell("both", `id -u; id -g; pwd; exec sleep 100`), func(s *topology.Service) { s.User, s.Group, s.Directory = "4321", "8765", "/tmp" }),
	)
	f.said("user", "home ")
	f.said("both", "/tmp")
	if got := f.logs("user"); got[0] != "nobody" || strings.HasSuffix(got[2], "root") {
		t.Errorf("user: %q", got)
	}
	if got := f.logs("both"); !slices.Equal(got, []string{"4321", "8765", "/tmp"}) {
		t.Errorf("both: %q", got)
	}
}

func TestRelativeProgramIsFoundInItsDirectory(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/bin/web", "#!/bin/sh\necho found\nexec sleep 100\n", 0o755)
	f := newFleet(t)
	s := with(shell("web", ""), func(s *topology.Service) { s.Directory = dir })
	s.Command = []topology.Text{topology.Plain("./bin/web")}
	named := with(shell("named", ""), func(s *topology.Service) {
		s.Environment = map[string]topology.Text{"PATH": topology.Plain(dir + "/bin:/bin:/usr/bin")}
	})
	named.Command = []topology.Text{topology.Plain("web")}
	f.apply(s, named)
	f.said("web", "found")
	f.said("named", "found")
}

// The name mainstay is the running binary, which here is the test service.
func TestOwnBinaryByName(t *testing.T) {
	f := newFleet(t)
	s := program("web", "-say", "it is me")
	s.Command[0] = topology.Plain("mainstay")
	f.apply(s)
	f.said("web", "it is me")
}

// Many restarts at once, some in the middle of others, leave one process in each place, and no descriptor behind.
func TestManyRestartsLeaveOneProcess(t *testing.T) {
	f := newFleet(t)
	quick := func(s *topology.Service) { s.Update.MinReady = 10 * time.Millisecond; s.Replicas = 2 }
	script := `echo start $MAINSTAY_REPLICA $$; exec sleep 100`
	f.apply(with(shell("web", script), quick))
	settled := func() bool {
		st := f.Status()[0]
		return st.State == ServiceReady && len(st.Instances) == 2
	}
	f.eventually("web is ready", settled)
	f.said("web", "start 1") // its files are open then
	f.said("web", "start 2")
	before := descriptors(t)
	for epoch := range 20 {
		f.apply(with(shell("web", script), quick, func(s *topology.Service) { s.Epoch = epoch + 1 }))
	}
	f.eventually("web is ready again", settled)
	var pids []int
	for _, i := range f.Status()[0].Instances {
		pids = append(pids, i.PID)
	}
	living := 0
	for _, text := range f.logs("web") {
		fields := strings.Fields(text)
		if pid, _ := strconv.Atoi(fields[2]); alive(pid) {
			living++
			if !slices.Contains(pids, pid) {
				t.Errorf("%d is alive but in no place", pid)
			}
		}
	}
	if living != 2 {
		t.Errorf("%d processes live, want 2", living)
	}
	f.eventually("the pipes of old processes are closed", func() bool { return descriptors(t) <= before })
}

func descriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func TestCrashesLeakNothing(t *testing.T) {
	f := newFleet(t)
	f.apply(with(shell("web", "exit 1"), func(s *topology.Service) {
		s.Restart.Backoff = topology.Backoff{Initial: time.Millisecond, Max: time.Millisecond}
	}))
	f.eventually("web was restarted", func() bool { return f.only("web").Restarts > 5 })
	before := descriptors(t)
	f.eventually("web was restarted often", func() bool { return f.only("web").Restarts > 150 })
	if after := descriptors(t); after > before+16 { // a process or two more or less, with their pipes
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}
