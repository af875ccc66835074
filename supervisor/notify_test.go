package supervisor

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"mainstay/topology"
)

// byNotice is a probe that leaves it to the process to tell.
func byNotice(failures int) *topology.Probe {
	return &topology.Probe{Notify: true, Period: time.Second, Timeout: time.Second, FailureThreshold: failures, SuccessThreshold: 1}
}

func notifying(spec *topology.Service) { spec.Probes.Readiness = byNotice(3) }

func TestReadyWhenItSaysSo(t *testing.T) {
	simulate(t, nil, func(s *simulation) {
		s.inFlight = time.Hour
		s.apply(with(web("v1", 1), notifying))
		s.tell("web/1 v1", "STATUS=reads its data: 10 %")
		s.pass(10*time.Second + 300*time.Millisecond)
		s.wantState("web", ServiceStarting, 0)
		i := s.service("web").Instances[0]
		if i.Status != "reads its data: 10 %" || !strings.Contains(i.Reason, "has not said READY=1; its status: reads its data: 10 %") {
			t.Errorf("it is %+v", i)
		}
		s.tell("web/1 v1", "READY=1\nSTATUS=serves")
		s.wantState("web", ServiceReady, 1) // at once, not at the next period
		s.tell("web/1 v1", "RELOADING=1\nMONOTONIC_USEC=1")
		s.pass(time.Minute)
		s.wantState("web", ServiceReady, 1)
		s.tell("web/1 v1", "READY=1")
		s.wantHappened([]string{"start web/1 v1", "admit web/1.1"}, "")

		s.tell("web/1 v1", "STOPPING=1\nSTATUS=says good-bye")
		s.wantState("web", ServiceDegraded, 0)
		if i := s.service("web").Instances[0]; i.Status != "says good-bye" || !strings.Contains(i.Reason, "STOPPING=1") {
			t.Errorf("it is %+v", i)
		}
		s.tell("web/1 v1", "READY=1") // too late
		s.wantState("web", ServiceDegraded, 0)
		s.wantHappened([]string{"start web/1 v1", "admit web/1.1", "drain web/1.1"}, "")
		s.kill("web/1 v1")
		s.pass(time.Second)
		s.tell("web/1 v1", "READY=1")
		s.wantState("web", ServiceReady, 1)
		if i := s.service("web").Instances[0]; i.Status != "" {
			t.Errorf("the status of the process before is still shown: %+v", i)
		}
	})
}

func TestWhoSaysThatItStopsHasToStop(t *testing.T) {
	simulate(t, nil, func(s *simulation) {
		s.apply(with(web("v1", 1), notifying))
		s.tell("web/1 v1", "READY=1")
		s.tell("web/1 v1", "STOPPING=1\nEXTEND_TIMEOUT_USEC=15000000")
		s.pass(15*time.Second - time.Millisecond) // more than the grace period of 10 s
		s.wantRunning("web/1 v1")
		s.wantHappened(nil, "signal")
		s.pass(2 * time.Millisecond)
		s.wantHappened([]string{"signal web/1 v1 terminated"}, "signal")
		if st := s.service("web"); !strings.Contains(st.Reason, "says that it stops, but has not ended after 10s") {
			t.Errorf("web is %+v", st)
		}
	})
}

func TestStartupByNotice(t *testing.T) {
	simulate(t, nil, func(s *simulation) {
		s.apply(with(web("v1", 1), worker, func(spec *topology.Service) { spec.Probes.Startup = byNotice(10) }))
		s.pass(5 * time.Second)
		s.tell("web/1 v1", "EXTEND_TIMEOUT_USEC=20000000") // until 25 s
		s.pass(22 * time.Second)
		s.wantHappened(nil, "signal") // six failures at 0 to 5 s, the others from 25 s on
		s.pass(5 * time.Second)
		s.wantHappened([]string{"signal web/1 v1 terminated"}, "signal")
		s.pass(time.Second)
		s.tell("web/1 v1", "READY=1")
		s.wantState("web", ServiceReady, 1)
	})
}

func TestWatchdog(t *testing.T) {
	guarded := func(spec *topology.Service) { spec.Probes.Liveness = byNotice(2) }
	tests := []struct {
		name string
		tell map[time.Duration]string // after so long
		end  time.Duration            // when it is given up; 0: never
		why  string
	}{
		{"it says nothing", nil, 3 * time.Second, "has not said WATCHDOG=1 for 3s"},
		{"it says it once", map[time.Duration]string{1500 * time.Millisecond: "WATCHDOG=1"}, 4 * time.Second, "for 2.5s"},
		{"it is not well", map[time.Duration]string{500 * time.Millisecond: "WATCHDOG=trigger"}, 500 * time.Millisecond, "WATCHDOG=trigger"},
		{"it asks for more time", map[time.Duration]string{500 * time.Millisecond: "EXTEND_TIMEOUT_USEC=5000000"}, 7 * time.Second, "for 7s"},
		{"it asks for another period", map[time.Duration]string{500 * time.Millisecond: "WATCHDOG_USEC=4000000"}, 9 * time.Second, "for 8.5s"},
	}
	for _, tt := range tests {
		simulate(t, nil, func(s *simulation) {
			s.apply(with(web("v1", 1), guarded))
			begin := time.Now()
			for after := range 200 {
				at := time.Duration(after) * 100 * time.Millisecond
				if said, ok := tt.tell[at]; ok {
					s.tell("web/1 v1", said)
				}
				if len(s.happened("signal")) > 0 {
					break
				}
				s.pass(100 * time.Millisecond)
			}
			took := time.Since(begin).Truncate(100 * time.Millisecond)
			if reason := s.service("web").Reason; took != tt.end || !strings.Contains(reason, tt.why) {
				t.Errorf("%s: given up after %s: %s; want %s and %s", tt.name, took, reason, tt.end, tt.why)
			}
		})
	}
	simulate(t, nil, func(s *simulation) {
		s.apply(with(web("v1", 1), guarded))
		for range 100 {
			s.pass(900 * time.Millisecond)
			s.tell("web/1 v1", "WATCHDOG=1")
		}
		s.wantState("web", ServiceReady, 1)
		s.wantHappened(nil, "signal")
	})
}

func TestStopTakesAsLongAsTheProcessAsksFor(t *testing.T) {
	simulate(t, map[string]behaviour{"v1": {ignoreTerm: true}}, func(s *simulation) {
		s.apply(with(web("v1", 1), notifying))
		s.tell("web/1 v1", "READY=1")
		begin := time.Now()
		time.AfterFunc(8*time.Second, func() { s.tell("web/1 v1", "EXTEND_TIMEOUT_USEC=10000000") })
		s.apply()
		if took := time.Since(begin); took != 18*time.Second {
			t.Errorf("the stop took %s, want 18 s", took)
		}
	})
}

func TestDeadlineOfAnUpdateWaitsForWhoAsksForTime(t *testing.T) {
	simulate(t, nil, func(s *simulation) {
		s.apply(with(web("v1", 1), notifying))
		s.tell("web/1 v1", "READY=1")
		s.pass(time.Minute)
		s.apply(with(web("v2", 1), notifying))
		s.pass(30 * time.Second)
		s.tell("web/1 v2", "EXTEND_TIMEOUT_USEC=60000000")
		s.pass(59 * time.Second)
		s.wantState("web", ServiceUpdating, 1)
		s.tell("web/1 v2", "READY=1")
		s.pass(10 * time.Second)
		s.wantState("web", ServiceReady, 1)
		s.wantRunning("web/1 v2")
	})
}

// A process that was started without a notification socket cannot tell that it is ready, so another is started.
func TestProbeThatBecomesOneByNoticeNeedsAnotherProcess(t *testing.T) {
	simulate(t, nil, func(s *simulation) {
		s.apply(web("v1", 1))
		s.pass(10 * time.Second)
		s.apply(with(web("v1", 1), notifying))
		s.pass(time.Second)
		s.wantRunning("web/1 v1", "web/1 v1")
		s.mu.Lock()
		tells := slices.Collect(maps.Values(s.told))
		s.mu.Unlock()
		for _, tell := range tells {
			tell(notice{phase: ready})
		}
		s.pass(10 * time.Second)
		s.wantState("web", ServiceReady, 1)
		s.wantRunning("web/1 v1")
	})
}

func TestParseNotice(t *testing.T) {
	status := func(s string) *string { return &s }
	tests := []struct {
		datagram string
		want     notice
	}{
		{"READY=1", notice{phase: ready}},
		{"READY=0\nREADY=\nREADY", notice{}},
		{"RELOADING=1\nSTOPPING=1\n", notice{phase: stopping}},
		{"STATUS=", notice{status: status("")}},
		{"STATUS=a=b\x00\x1b[31m\t\xff\u202e", notice{status: status("a=b  [31m \uFFFD")}},
		{"STATUS=" + strings.Repeat("é", 200), notice{status: status(strings.Repeat("é", 128))}},
		{"WATCHDOG=1", notice{ping: true}},
		{"WATCHDOG=trigger\nX_MY=1", notice{trigger: true}},
		{"WATCHDOG_USEC=2000000\nEXTEND_TIMEOUT_USEC=500000", notice{watchdog: 2 * time.Second, extend: 500 * time.Millisecond}},
		{"EXTEND_TIMEOUT_USEC=18446744073709551615", notice{extend: longestDelay}},
		{"EXTEND_TIMEOUT_USEC=-1", notice{refused: []string{"EXTEND_TIMEOUT_USEC=: no number of microseconds"}}},
		{"WATCHDOG_USEC=0", notice{refused: []string{"WATCHDOG_USEC=: the file says whether there is a watchdog, and it is not shorter than 1ms"}}},
		{"MAINPID=77", notice{mainPID: 77}},
		{"MAINPID=-1", notice{refused: []string{"MAINPID=: no process id"}}},
		{"FDSTORE=1\nFDNAME=x", notice{refused: []string{"FDSTORE=1: Mainstay keeps no descriptors for its services"}}},
		{"", notice{}},
	}
	for _, tt := range tests {
		if diff := cmp.Diff(tt.want, parseNotice([]byte(tt.datagram)), cmp.AllowUnexported(notice{})); diff != "" {
			t.Errorf("%q: %s", tt.datagram, diff)
		}
	}
}

func FuzzParseNotice(f *testing.F) {
	f.Add([]byte("READY=1\nSTATUS=x\nMAINPID=1\nEXTEND_TIMEOUT_USEC=1"))
	f.Fuzz(func(t *testing.T, datagram []byte) {
		n := parseNotice(datagram)
		if n.status != nil && (len(*n.status) > 2*statusLimit || strings.ContainsAny(*n.status, "\n\x00\x1b")) {
			t.Errorf("status %q", *n.status)
		}
		if n.extend < 0 || n.extend > longestDelay || n.watchdog < 0 || n.watchdog > longestDelay {
			t.Errorf("%+v", n)
		}
		if told := newTestimony(); len(told.take(n, 7)) > refusalsTold {
			t.Error("it is told of every refusal")
		}
	})
}

func FuzzParseControl(f *testing.F) {
	f.Add(unix.UnixCredentials(&unix.Ucred{Pid: 7}))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0, 2, 0, 0, 0})
	f.Add([]byte{16, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0}) // credentials that are cut off
	f.Fuzz(func(t *testing.T, control []byte) { parseControl(control) })
}

func TestNotificationsOfRealPrograms(t *testing.T) {
	for name, script := range map[string]string{
		"systemd-notify": `systemd-notify --ready --status="serves $WATCHDOG_USEC"; exec sleep 1000`,
		"python3": `exec /usr/bin/python3 -c '
import os, socket, time
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
name = os.environ["NOTIFY_SOCKET"]
s.connect("\0" + name[1:] if name[0] == "@" else name)
assert os.environ["WATCHDOG_PID"] == str(os.getpid())
s.send(b"READY=1\nSTATUS=serves " + os.environ["WATCHDOG_USEC"].encode())
time.sleep(1000)'`,
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := exec.LookPath(name); err != nil {
				missing(t, err.Error())
			}
			t.Setenv("NOTIFY_SOCKET", "/run/not/for/services")
			t.Setenv("WATCHDOG_PID", "1")
			f := newFleet(t)
			s := shell("web", script)
			s.Probes.Readiness, s.Probes.Liveness = byNotice(1), byNotice(60)
			deaf := shell("deaf", "env; exec sleep 1000")
			f.apply(s, deaf)
			f.ready("web")
			f.eventually("its status is shown", func() bool { return f.only("web").Status == "serves 1000000" })
			f.said("deaf", "MAINSTAY_SERVICE=deaf")
			for _, line := range f.logs("deaf") {
				if strings.HasPrefix(line, "NOTIFY_SOCKET=") || strings.HasPrefix(line, "WATCHDOG_") {
					t.Errorf("Mainstay's own %s reached a service", line)
				}
			}
		})
	}
}

// notifier returns what sends datagrams, with descriptors, to a notification socket.
func notifier(t *testing.T, name string) func(datagram string, descriptors ...int) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		err = unix.Connect(fd, &unix.SockaddrUnix{Name: name})
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return func(datagram string, descriptors ...int) {
		t.Helper()
		var control []byte
		if len(descriptors) > 0 {
			control = unix.UnixRights(descriptors...)
		}
		if err := unix.Sendmsg(fd, []byte(datagram), control, nil, 0); err != nil {
			t.Fatal(err)
		}
	}
}

func TestNotificationSocketUnderAttack(t *testing.T) {
	name := "@mainstay/test/" + filepath.Base(t.TempDir()) + fmt.Sprint(os.Getpid())
	var log strings.Builder
	socket, err := (&machine{log: quietLog(&log)}).notify(name)
	if err != nil {
		t.Fatal(err)
	}
	send := notifier(t, name)
	heard := make(chan notice, 2000)
	stranger := make(chan struct{})
	socket.serve(func(pid int) bool {
		select {
		case <-stranger:
			return pid == os.Getpid()
		default:
			return false
		}
	}, func(n notice) { heard <- n })

	open := descriptors(t)
	barrier := func() {
		t.Helper()
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		send("BARRIER=1", int(w.Fd()))
		w.Close()
		r.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, err := r.Read(make([]byte, 1)); err == nil || os.IsTimeout(err) {
			t.Fatalf("the barrier was not lifted: %v", err)
		}
	}
	send("READY=1") // of a stranger
	barrier()
	if len(heard) != 0 {
		t.Errorf("a stranger was believed: %+v", <-heard)
	}
	close(stranger)
	send("")
	send("STATUS=" + strings.Repeat("x", 100<<10))
	many := make([]int, descriptorsSent)
	for i := range many {
		many[i] = int(os.Stderr.Fd())
	}
	for range 20 {
		send("FDSTORE=1", many...)
	}
	for range 1000 {
		send("WATCHDOG=1")
	}
	send("READY=1")
	barrier()
	socket.close()
	close(heard)
	var last notice
	var pings int
	for n := range heard {
		if n.ping {
			pings++
		}
		if n.phase != silent {
			last = n
		}
	}
	if last.phase != ready || pings != 1000 {
		t.Errorf("%d pings and %q were heard", pings, last.phase)
	}
	if now := descriptors(t); now > open {
		t.Errorf("%d descriptors are open, %d were before", now, open)
	}
	if n := strings.Count(log.String(), "\n"); n != 1 || !strings.Contains(log.String(), "stranger") {
		t.Errorf("logged: %s", log.String())
	}
}
