package supervisor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"mainstay/topology"
)

// survive runs test on a simulated machine with a state directory, so that processes can outlive Mainstay.
func survive(t *testing.T, behaviour map[string]behaviour, test func(s *simulation)) {
	t.Helper()
	dir := t.TempDir()
	simulate(t, behaviour, func(s *simulation) {
		s.stateDir = dir
		test(s)
		s.apply()
		if left := s.records(); len(left) != 0 {
			t.Errorf("after everything was stopped there is still %v", left)
		}
	})
}

// records returns the names of the directories of processes.
func (s *simulation) records() []string {
	entries, err := filepath.Glob(filepath.Join(s.stateDir, "run", "*", recordFile))
	if err != nil {
		s.t.Fatal(err)
	}
	for i, e := range entries {
		entries[i] = filepath.Base(filepath.Dir(e))
	}
	return entries
}

// crash ends the Supervisor as if it had been killed now, and puts another in its place, which knows what is on the disk at this moment.
// What happens while none runs happens in away.
func (s *simulation) crash(away func()) {
	s.t.Helper()
	synctest.Wait()
	now := filepath.Join(s.t.TempDir(), "run")
	run := filepath.Join(s.stateDir, "run")
	if err := os.CopyFS(now, os.DirFS(run)); err != nil {
		s.t.Fatal(err)
	}
	if err := s.Suspend(context.Background()); err != nil {
		s.t.Fatal(err)
	}
	if st := s.Status(); len(st) != 0 {
		s.t.Errorf("after Suspend there are still services: %+v", st)
	}
	if err := os.RemoveAll(run); err != nil {
		s.t.Fatal(err)
	}
	if err := os.CopyFS(run, os.DirFS(now)); err != nil {
		s.t.Fatal(err)
	}
	if away != nil {
		away()
	}
	s.replace()
}

// replace puts another Supervisor with another Router in the place of one that does nothing any more.
func (s *simulation) replace() {
	s.routed, s.rotation = map[string]int{}, map[string]rotated{}
	s.forget()
	s.Supervisor = newSupervisor(slog.New(slog.DiscardHandler), nil, s, s)
	s.site.ports.free = s.nobodyListens
	s.site.slots = nil
}

// nobodyListens reports whether no simulated process listens on port.
func (s *simulation) nobodyListens(int) bool { return true }

func TestSurvivorsGoOn(t *testing.T) {
	survive(t, map[string]behaviour{"v1": {}}, func(s *simulation) {
		s.apply(web("v1", 2), with(web("v1", 1), named("worker"), worker))
		s.pass(time.Minute)
		s.kill("web/2 v1")
		s.pass(time.Minute)
		before := s.service("web")
		s.crash(nil)
		s.apply(web("v1", 2), with(web("v1", 1), named("worker"), worker))
		s.wantHappened([]string{"adopt web/1 v1", "adopt web/2 v1", "admit web/1.1", "admit web/2.1"}, "adopt web", "admit", "start", "signal", "end", "drain")
		s.wantState("web", ServiceReady, 2)
		s.wantState("worker", ServiceReady, 1)
		after := s.service("web")
		for i := range before.Instances {
			b, a := before.Instances[i], after.Instances[i]
			if a.PID != b.PID || a.Address != b.Address || a.Restarts != b.Restarts || !a.Since.Equal(b.Since) {
				t.Errorf("instance before %+v, after %+v", b, a)
			}
		}
		// It is looked after as any: a crash is seen at once, and its port is not given away.
		s.kill("web/1 v1")
		s.pass(time.Second)
		s.wantState("web", ServiceReady, 2)
		s.wantRunning("web/1 v1", "web/2 v1", "worker/1 v1")
		ports := map[string]bool{}
		s.apply(web("v1", 4))
		s.pass(time.Minute)
		for _, i := range s.service("web").Instances {
			ports[i.Address] = true
		}
		if len(ports) != 4 {
			t.Errorf("four instances have the addresses %v", ports)
		}
		if n := len(s.records()); n != 4 {
			t.Errorf("four processes have %d directories", n)
		}
	})
}

func TestSurvivorIsAdmittedBeforeApplyReturns(t *testing.T) {
	survive(t, map[string]behaviour{"v1": {}}, func(s *simulation) {
		s.apply(web("v1", 3))
		s.pass(time.Minute)
		s.crash(nil)
		if err := s.Apply(context.Background(), s.topology(web("v1", 3))); err != nil {
			t.Fatal(err)
		}
		s.wantState("web", ServiceReady, 3) // without waiting for anything
		if got := s.happened("admit"); len(got) != 3 {
			t.Errorf("admitted when Apply returned: %v", got)
		}
	})
}

func TestSurvivorThatIsSickIsTakenOutByItsProbe(t *testing.T) {
	survive(t, map[string]behaviour{"v1": {sickAfter: 90 * time.Second}}, func(s *simulation) {
		s.apply(web("v1", 1))
		s.pass(time.Minute)
		s.crash(func() { time.Sleep(time.Minute) })
		s.apply(web("v1", 1))
		s.wantState("web", ServiceReady, 1)
		s.pass(5 * time.Second)
		s.wantState("web", ServiceDegraded, 0)
		s.wantRunning("web/1 v1")
	})
}

func TestSurvivorThatWasNotReadyWaitsForItsProbe(t *testing.T) {
	survive(t, map[string]behaviour{"v1": {readyAfter: 30 * time.Second}}, func(s *simulation) {
		slow := with(web("v1", 1), func(s *topology.Service) {
			s.Probes.Startup = &topology.Probe{TCP: "{address}", Period: time.Second, FailureThreshold: 60, SuccessThreshold: 1}
			s.Probes.Liveness = &topology.Probe{TCP: "{address}", Period: time.Second, FailureThreshold: 2, SuccessThreshold: 1}
		})
		s.apply(slow)
		s.pass(10 * time.Second)
		s.crash(nil)
		s.apply(slow)
		s.pass(10 * time.Second)
		s.wantState("web", ServiceStarting, 0)
		s.pass(11 * time.Second)
		s.wantState("web", ServiceReady, 1)
		s.wantHappened(nil, "start", "signal", "end")
	})
}

func TestSurvivorsAreStoppedAsAny(t *testing.T) {
	survive(t, map[string]behaviour{"v1": {stopTime: 2 * time.Second}, "deaf": {ignoreTerm: true}}, func(s *simulation) {
		s.inFlight = 3 * time.Second
		s.apply(web("v1", 1), with(web("deaf", 1), named("deaf")))
		s.pass(time.Minute)
		s.crash(nil)
		s.apply(web("v1", 1), with(web("deaf", 1), named("deaf")))
		s.pass(time.Minute)
		s.apply()
		s.wantHappened([]string{"drain web/1.1", "drained web/1.1", "signal web/1 v1 terminated", "end web/1 v1"}, "drain web", "drained web", "signal web", "end web")
		s.wantHappened([]string{"signal deaf/1 deaf terminated", "signal deaf/1 deaf killed"}, "signal deaf")
	})
}

func TestCrashInTheMiddleOfAnUpdate(t *testing.T) {
	for name, at := range map[string]time.Duration{"on trial": 2 * time.Second, "one is new": 8 * time.Second, "two are new": 13 * time.Second} {
		t.Run(name, func(t *testing.T) {
			survive(t, map[string]behaviour{"v1": {}, "v2": {readyAfter: time.Second}}, func(s *simulation) {
				s.apply(web("v1", 3))
				s.pass(time.Minute)
				s.apply(web("v2", 3))
				s.pass(at)
				pids := map[int]bool{}
				for _, i := range s.service("web").Instances {
					pids[i.PID] = true
				}
				s.crash(nil)
				s.apply(web("v2", 3))
				if st := s.service("web"); st.State != ServiceUpdating || st.Ready != 3 {
					t.Errorf("after the crash the service is %s with %d ready", st.State, st.Ready)
				}
				for _, i := range s.service("web").Instances {
					if !pids[i.PID] {
						t.Errorf("process %d was not there before", i.PID)
					}
				}
				for range 600 {
					s.pass(100 * time.Millisecond)
					if ready := s.service("web").Ready; ready < 3 {
						t.Fatalf("only %d are ready", ready)
					}
				}
				s.wantRunning("web/1 v2", "web/2 v2", "web/3 v2")
				s.wantState("web", ServiceReady, 3)
				if s.most > 4 {
					t.Errorf("%d processes at once", s.most)
				}
			})
		})
	}
}

func TestCrashWhileWhatIsNewDoesNotWork(t *testing.T) {
	survive(t, map[string]behaviour{"v1": {}, "bad": {neverReady: true}, "v3": {}}, func(s *simulation) {
		s.apply(web("v1", 2))
		s.pass(time.Minute)
		s.apply(web("bad", 2))
		s.pass(10 * time.Second)
		s.crash(nil)
		s.apply(web("bad", 2))
		s.pass(10 * time.Minute)
		if got := s.service("web").Ready; got != 2 {
			t.Errorf("%d are ready, the old ones should all be", got)
		}
		// What worked is known by its recipe: the file that says so again touches no process of it.
		s.forget()
		s.apply(web("v1", 2))
		s.pass(time.Minute)
		s.wantRunning("web/1 v1", "web/2 v1")
		s.wantState("web", ServiceReady, 2)
		s.wantHappened(nil, "start", "signal web/1 v1", "signal web/2 v1")
		// And now it can be started again.
		s.kill("web/1 v1")
		s.pass(time.Minute)
		s.wantState("web", ServiceReady, 2)
	})
}

func TestSurvivorOfAnOlderRevisionThatEndsIsReplaced(t *testing.T) {
	survive(t, map[string]behaviour{"v1": {}, "v2": {readyAfter: 20 * time.Second}}, func(s *simulation) {
		s.apply(web("v1", 1))
		s.pass(time.Minute)
		s.crash(nil)
		s.apply(web("v2", 1))
		s.wantState("web", ServiceUpdating, 1)
		s.pass(10 * time.Second)
		s.kill("web/1 v1")
		s.pass(time.Minute)
		s.wantRunning("web/1 v2")
		s.wantState("web", ServiceReady, 1)
	})
}

// An update keeps what is old where something is missing, and so must not keep what is missing waiting.
func TestSurvivorThatEndsDuringAnUpdateIsReplacedAtOnce(t *testing.T) {
	survive(t, map[string]behaviour{"v1": {}, "v2": {readyAfter: time.Second}}, func(s *simulation) {
		s.apply(web("v1", 4))
		s.pass(time.Minute)
		s.apply(web("v2", 4))
		s.pass(8 * time.Second)
		s.crash(nil)
		s.apply(web("v2", 4))
		s.kill("web/4 v1")
		s.pass(5 * time.Second)
		if !slices.Contains(s.running(), "web/4 v2") {
			t.Errorf("running: %v", s.running())
		}
		s.pass(time.Minute)
		s.wantRunning("web/1 v2", "web/2 v2", "web/3 v2", "web/4 v2")
		s.wantState("web", ServiceReady, 4)
	})
}

func TestSurvivorsThatAreNotWanted(t *testing.T) {
	survive(t, map[string]behaviour{"v1": {stopTime: time.Second}}, func(s *simulation) {
		s.apply(web("v1", 3), with(web("v1", 1), named("gone")), with(web("v1", 1), named("stopped")))
		s.pass(time.Minute)
		s.crash(nil)
		s.apply(web("v1", 1), with(web("v1", 1), named("stopped"), func(s *topology.Service) { s.Stopped = true }))
		s.pass(time.Minute)
		s.wantRunning("web/1 v1")
		s.wantState("web", ServiceReady, 1)
		s.wantHappened([]string{"signal gone/1 v1 terminated"}, "signal gone")
		s.wantState("stopped", ServiceStopped, 0)
	})
}

func TestCrashWhileAnInstanceStops(t *testing.T) {
	survive(t, map[string]behaviour{"v1": {stopTime: 5 * time.Second}, "v2": {}}, func(s *simulation) {
		first := func(s *topology.Service) { s.Update.Order = topology.StopFirst }
		s.apply(with(web("v1", 1), first))
		s.pass(time.Minute)
		s.apply(with(web("v2", 1), first))
		s.pass(time.Second)
		s.crash(nil)
		s.apply(with(web("v2", 1), first))
		s.pass(time.Minute)
		s.wantRunning("web/1 v2")
		if s.most != 1 {
			t.Errorf("%d processes at once of a service that has one writer", s.most)
		}
	})
}

func TestWhatEndedMeanwhileIsStartedAgain(t *testing.T) {
	survive(t, map[string]behaviour{"v1": {}}, func(s *simulation) {
		s.apply(web("v1", 2))
		s.pass(time.Minute)
		s.crash(func() { s.kill("web/2 v1") })
		s.apply(web("v1", 2))
		s.pass(time.Second)
		s.wantState("web", ServiceReady, 2)
		if got := s.service("web").Instances[1].Restarts; got != 1 {
			t.Errorf("it was restarted %d times", got)
		}
		if got := s.records(); len(got) != 2 {
			t.Errorf("two processes have the directories %v", got)
		}
	})
}

func TestOneShotsAfterACrash(t *testing.T) {
	once := func(p topology.RestartPolicy) topology.Service {
		return with(web("once", 1), named("once"), worker, policy(p))
	}
	after := with(web("v1", 1), needs("once", topology.ConditionCompleted))
	programs := map[string]behaviour{"once": {dieAfter: 10 * time.Second}, "v1": {}}

	t.Run("completed before", func(t *testing.T) {
		survive(t, programs, func(s *simulation) {
			s.apply(once(topology.RestartNever), after)
			s.pass(time.Minute)
			s.crash(nil)
			s.apply(once(topology.RestartNever), after)
			s.pass(time.Minute)
			s.wantState("once", ServiceCompleted, 0)
			s.wantState("web", ServiceReady, 1)
			s.wantHappened(nil, "start", "signal")
			// Also a second time, and until the service is another.
			s.crash(nil)
			s.apply(once(topology.RestartNever), after)
			s.pass(time.Minute)
			s.wantHappened(nil, "start", "signal")
			s.apply(with(once(topology.RestartNever), func(s *topology.Service) { s.Epoch = 1 }), after)
			s.pass(time.Minute)
			s.wantHappened([]string{"start once/1 once"}, "start")
			s.wantState("once", ServiceCompleted, 0)
		})
	})
	t.Run("under way", func(t *testing.T) {
		survive(t, programs, func(s *simulation) {
			s.apply(once(topology.RestartNever), after)
			s.pass(5 * time.Second)
			s.crash(nil)
			s.apply(once(topology.RestartNever), after)
			s.pass(time.Minute)
			s.wantHappened([]string{"start web/1 v1"}, "start")
			s.wantState("once", ServiceCompleted, 0)
		})
	})
	t.Run("ended meanwhile, never again", func(t *testing.T) {
		survive(t, programs, func(s *simulation) {
			s.apply(once(topology.RestartNever), after)
			s.pass(5 * time.Second)
			s.crash(func() { time.Sleep(time.Minute) })
			s.apply(once(topology.RestartNever), after)
			s.pass(time.Minute)
			s.wantState("once", ServiceFailed, 0)
			if st := s.service("once"); !strings.Contains(st.Reason, "exit status is unknown") {
				t.Errorf("reason: %s", st.Reason)
			}
			s.wantHappened(nil, "start")
		})
	})
	t.Run("ended meanwhile, again on failure", func(t *testing.T) {
		survive(t, programs, func(s *simulation) {
			s.apply(once(topology.RestartOnFailure), after)
			s.pass(5 * time.Second)
			s.crash(func() { time.Sleep(time.Minute) })
			s.apply(once(topology.RestartOnFailure), after)
			s.pass(time.Minute)
			s.wantHappened([]string{"start once/1 once", "start web/1 v1"}, "start")
		})
	})
	t.Run("failed before", func(t *testing.T) {
		survive(t, map[string]behaviour{"once": {dieAfter: 10 * time.Second, status: 3}, "v1": {}}, func(s *simulation) {
			s.apply(once(topology.RestartNever), after)
			s.pass(time.Minute)
			s.crash(nil)
			s.apply(once(topology.RestartNever), after)
			s.pass(time.Minute)
			s.wantState("once", ServiceFailed, 0)
			if st := s.service("once"); !strings.Contains(st.Reason, "status 3") {
				t.Errorf("reason: %s", st.Reason)
			}
			s.wantHappened(nil, "start")
		})
	})
}

func TestSuspendTouchesNoProcess(t *testing.T) {
	survive(t, map[string]behaviour{"v1": {}, "crashes": {dieAfter: time.Second, status: 1}}, func(s *simulation) {
		all := func() []topology.Service {
			return []topology.Service{web("v1", 2), with(web("crashes", 1), named("loop"), worker),
				with(web("v1", 1), named("waits"), needs("nobody", topology.ConditionReady))}
		}
		s.apply(all()...)
		s.pass(time.Minute)
		s.forget()
		if err := s.Suspend(context.Background()); err != nil {
			t.Fatal(err)
		}
		s.wantHappened(nil, "signal web", "drain", "admit", "end web")
		s.apply(all()...) // does nothing
		if st := s.Status(); len(st) != 0 {
			t.Errorf("Status after Suspend: %+v", st)
		}
		s.replace()
		s.apply(all()...)
		s.wantState("web", ServiceReady, 2)
		s.wantHappened(nil, "start web")
	})
}

func TestSuspendLetsGoOfWhatIsStopping(t *testing.T) {
	survive(t, map[string]behaviour{"v1": {ignoreTerm: true}}, func(s *simulation) {
		s.apply(web("v1", 1))
		s.pass(time.Minute)
		s.apply(with(web("v1", 1), func(s *topology.Service) { s.Stopped = true }))
		s.pass(time.Second)
		s.crash(nil)
		s.wantRunning("web/1 v1")
		s.apply(web("v1", 1))
		s.pass(time.Minute)
		// It was told to stop, so it is stopped, and another takes its place.
		s.wantHappened([]string{"signal web/1 v1 terminated", "signal web/1 v1 killed", "start web/1 v1"}, "signal", "start")
	})
}

func TestWithoutStateDirNothingIsLeft(t *testing.T) {
	simulate(t, map[string]behaviour{"v1": {}}, func(s *simulation) {
		s.apply(web("v1", 2))
		s.pass(time.Minute)
		if err := s.Suspend(context.Background()); err != nil {
			t.Fatal(err)
		}
		s.wantRunning()
	})
}

func TestRecordsThatCannotBeUsed(t *testing.T) {
	for name, spoil := range map[string]func(dir string) string{
		"truncated":   func(string) string { return `{"format":1,"service":"we` },
		"empty":       func(string) string { return "" },
		"of a future": func(s string) string { return strings.Replace(s, `"format":1`, `"format":99`, 1) },
		"of another":  func(s string) string { return strings.Replace(s, `"service":"web"`, `"service":"db"`, 1) },
		"bad port":    func(s string) string { return strings.Replace(s, `"port":`, `"port":99`, 1) },
	} {
		t.Run(name, func(t *testing.T) {
			survive(t, map[string]behaviour{"v1": {}}, func(s *simulation) {
				s.apply(web("v1", 2))
				s.pass(time.Minute)
				s.crash(func() {
					path := filepath.Join(s.stateDir, "run", s.records()[0], recordFile)
					content, err := os.ReadFile(path)
					if err != nil {
						t.Fatal(err)
					}
					if err := os.WriteFile(path, []byte(spoil(string(content))), 0o600); err != nil {
						t.Fatal(err)
					}
				})
				s.apply(web("v1", 2))
				s.pass(time.Minute)
				s.wantState("web", ServiceReady, 2)
				s.wantRunning("web/1 v1", "web/2 v1")
				s.wantHappened([]string{"signal web/1 v1 terminated"}, "signal")
			})
		})
	}
	t.Run("foreign", func(t *testing.T) {
		survive(t, map[string]behaviour{"v1": {}}, func(s *simulation) {
			for _, name := range []string{"foreign", "web.x.1", "web.1.-3", ".1.1", "web.1.7.unreadable", "web.1.8"} {
				if err := os.MkdirAll(filepath.Join(s.stateDir, "run", name), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.WriteFile(filepath.Join(s.stateDir, "run", "web.1.9"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			s.apply(web("v1", 1))
			s.pass(time.Minute)
			s.wantState("web", ServiceReady, 1)
			if got := s.records(); len(got) != 1 || got[0] == "web.1.8" {
				t.Errorf("records: %v", got)
			}
		})
	})
}

// When the machine was restarted, it is a start like the first: what is done once is done again.
func TestRecordsOfAnotherBoot(t *testing.T) {
	survive(t, map[string]behaviour{"v1": {}, "once": {dieAfter: time.Second}, "long": {dieAfter: time.Hour}}, func(s *simulation) {
		all := []topology.Service{web("v1", 2), with(web("once", 1), named("once"), worker, policy(topology.RestartNever)),
			with(web("long", 1), named("long"), worker, policy(topology.RestartNever))}
		s.apply(all...)
		s.pass(time.Minute)
		s.crash(func() {
			for _, name := range s.running() {
				s.kill(name)
			}
			for _, name := range s.records() {
				path := filepath.Join(s.stateDir, "run", name, recordFile)
				content, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				other := strings.Replace(string(content), bootID(), "00000000-0000-0000-0000-000000000000", 1)
				if err := os.WriteFile(path, []byte(other), 0o600); err != nil {
					t.Fatal(err)
				}
			}
		})
		s.apply(all...)
		s.pass(time.Minute)
		if got := s.happened("start"); len(got) != 4 {
			t.Errorf("started: %q", got)
		}
		s.wantState("web", ServiceReady, 2)
		s.wantState("once", ServiceCompleted, 0)
		s.wantState("long", ServiceReady, 1)
		if i := s.service("web").Instances[0]; i.Restarts != 0 {
			t.Errorf("it was restarted %d times", i.Restarts)
		}
	})
}

func TestRunNumbersAreNeverUsedTwice(t *testing.T) {
	dir := t.TempDir()
	log := slog.New(slog.DiscardHandler)
	seen := map[string]bool{}
	for range 3 {
		runs, _ := openRuns(dir, log)
		for range numbers + 3 {
			r := runs.open(record{Service: "web", Replica: 1})
			if r == nil || seen[r.dir] {
				t.Fatalf("run %v was there before", r)
			}
			seen[r.dir] = true
			r.remove()
		}
	}
}

func TestRunIsRemovedWithoutDescriptors(t *testing.T) {
	runs, _ := openRuns(t.TempDir(), slog.New(slog.DiscardHandler))
	r := runs.open(record{Service: "web", Replica: 1})
	if err := os.WriteFile(identityPath(r.dir), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range streamNames {
		if err := unix.Mkfifo(fifoPath(r.dir, name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 0, Max: limit.Max}); err != nil {
		t.Fatal(err)
	}
	r.remove()
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(r.dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the directory is still there: %v", err)
	}
}

// Whatever somebody leaves of the directory, and whatever number it names, the next process is on record.
func TestRunsAreMadeAnew(t *testing.T) {
	for name, spoil := range map[string]func(dir string) error{
		"removed": os.RemoveAll,
		"largest number": func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "number"), []byte("9223372036854775807"), 0o600)
		},
		"largest name": func(dir string) error { return os.Mkdir(filepath.Join(dir, "web.1.9223372036854775807"), 0o700) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			log := slog.New(slog.DiscardHandler)
			runs, _ := openRuns(dir, log)
			runs.open(record{Service: "web", Replica: 1}).remove()
			if err := spoil(runs.dir); err != nil {
				t.Fatal(err)
			}
			if name != "removed" {
				runs, _ = openRuns(dir, log)
			}
			for range numbers + 1 {
				r := runs.open(record{Service: "web", Replica: 1})
				if r == nil {
					t.Fatal("it is not on record")
				}
				if _, _, number, ok := parseRunName(filepath.Base(r.dir)); !ok || number < 0 {
					t.Fatalf("the next Mainstay would not know %s", r.dir)
				}
			}
		})
	}
}

func TestRecordHoldsNoSecret(t *testing.T) {
	secret := topology.Secret("hush-hush")
	spec := with(web("v1", 1), func(s *topology.Service) {
		s.Command = append(s.Command, secret)
		s.Environment = map[string]topology.Text{"PASSWORD": secret}
		s.Probes.Liveness = &topology.Probe{Exec: []topology.Text{topology.Plain("check"), secret}}
	})
	runs, _ := openRuns(t.TempDir(), slog.New(slog.DiscardHandler))
	r := runs.open(record{Service: "web", Replica: 1, Recipe: digestOf(spec), Keep: keepOf(spec)})
	b, err := os.ReadFile(filepath.Join(r.dir, recordFile))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(b), "hush") || strings.Contains(string(b), "check") {
		t.Errorf("in the record: %s", b)
	}
	var back record
	if err := json.Unmarshal(b, &back); err != nil {
		t.Fatal(err)
	}
	old := back.Keep.laidOver(spec)
	if old.Probes.Liveness == nil || len(old.Probes.Liveness.Exec) != 2 || old.Probes.Readiness == nil || old.StopGracePeriod != spec.StopGracePeriod {
		t.Errorf("read back: %+v", old)
	}
}

// Whatever edits follow each other, and whenever Mainstay is killed among them: no place ever holds more than two processes, none is left
// over, the last edit wins, and where nothing but updates that work happens the service is at full strength whenever a Mainstay runs.
func TestAnyCrashesOfMainstay(t *testing.T) {
	programs := map[string]behaviour{
		"v1": {}, "v2": {readyAfter: 3 * time.Second}, "v3": {stopTime: 7 * time.Second}, "never": {neverReady: true},
		"late": {dieAfter: 3 * time.Second, status: 1}, "deaf": {ignoreTerm: true}, "absent": {refuse: errNoProgram},
	}
	names := []string{"v1", "v2", "v3", "deaf", "never", "late", "absent"}
	runs := 10
	if os.Getenv("MAINSTAY_SOAK") != "" {
		runs = 400
	}
	for seed := range runs {
		r := rand.New(rand.NewPCG(uint64(seed), 2))
		survive(t, programs, func(s *simulation) {
			s.inFlight = time.Second
			var done []string
			calm := seed%2 == 0
			good := len(names)
			if calm {
				good = 4
			}
			spec := web("v1", 1+r.IntN(4))
			spec.Update.Parallelism = 1 + r.IntN(2)
			s.apply(spec)
			s.pass(10 * time.Second)
			s.forget()
			for range 10 {
				switch what := r.IntN(5); {
				case what == 0:
					spec.Command = web(names[r.IntN(good)], 1).Command
					done = append(done, spec.Command[1].String())
				case what == 1:
					spec.Epoch++
					done = append(done, "restart")
				case what == 2 && !calm:
					spec.Replicas, spec.Stopped = 1+r.IntN(4), r.IntN(4) == 0
					done = append(done, fmt.Sprint("scale ", spec.Replicas, spec.Stopped))
				default:
					done = append(done, "crash")
					s.crash(func() {
						time.Sleep(time.Duration(r.IntN(5000)) * time.Millisecond)
						if running := s.running(); !calm && len(running) > 0 && r.IntN(2) == 0 {
							s.kill(running[r.IntN(len(running))])
						}
					})
				}
				s.apply(spec)
				s.forget()
				for range r.IntN(20) {
					s.pass(time.Duration(r.IntN(2000)) * time.Millisecond)
					held := map[string]int{}
					for _, name := range s.running() {
						place, _, _ := strings.Cut(name, " ")
						if held[place]++; held[place] > 2 {
							t.Errorf("seed %d: %q: %q", seed, done, s.running())
						}
					}
				}
				if calm {
					s.wantStrength(spec.Replicas)
				}
				if n := len(s.records()); n < len(s.running()) {
					t.Errorf("seed %d: %q: %d directories for %q", seed, done, n, s.running())
				}
				if t.Failed() {
					t.Fatalf("seed %d: %q", seed, done)
				}
			}
			spec.Command, spec.Stopped, spec.Replicas = web("v2", 1).Command, false, 3
			s.apply(spec)
			s.pass(time.Hour)
			s.wantRunning("web/1 v2", "web/2 v2", "web/3 v2")
			s.wantState("web", ServiceReady, 3)
			s.wantUpdate("web", "")
			if t.Failed() {
				t.Errorf("seed %d: %q", seed, done)
			}
		})
		if t.Failed() {
			return
		}
	}
}
