package supervisor

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"mainstay/topology"
)

func TestInstanceBecomesReadyAndIsStoppedInOrder(t *testing.T) {
	simulate(t, map[string]behaviour{"v1": {readyAfter: 300 * time.Millisecond, stopTime: time.Second}}, func(s *simulation) {
		s.inFlight = 2 * time.Second
		s.apply(web("v1", 1))
		s.wantState("web", ServiceStarting, 0)
		s.pass(time.Second)
		s.wantState("web", ServiceReady, 1)
		s.apply()
		s.wantHappened([]string{
			"start web/1 v1", "admit web/1.1", "drain web/1.1", "drained web/1.1", "signal web/1 v1 terminated", "end web/1 v1",
		}, "")
	})
}

func TestStopEscalates(t *testing.T) {
	simulate(t, map[string]behaviour{"v1": {ignoreTerm: true}}, func(s *simulation) {
		s.inFlight = time.Hour
		s.apply(web("v1", 1))
		s.pass(time.Second)
		s.forget()
		begin := time.Now()
		s.apply()
		s.wantHappened([]string{"drain web/1.1", "abort web/1.1", "signal web/1 v1 terminated", "signal web/1 v1 killed", "end web/1 v1"}, "")
		if took := time.Since(begin); took != 20*time.Second {
			t.Errorf("stop took %s, want the grace period for the requests and again for the process", took)
		}
	})
}

func TestApplyKillsWhenItsTimeIsUp(t *testing.T) {
	simulate(t, map[string]behaviour{"v1": {ignoreTerm: true}}, func(s *simulation) {
		s.inFlight = time.Hour
		s.apply(web("v1", 2), with(web("v1", 1), named("api"), needs("web", topology.ConditionReady)))
		s.pass(time.Second)
		ctx, cancel := context.WithTimeout(s.t.Context(), time.Second)
		defer cancel()
		begin := time.Now()
		if err := s.Apply(ctx, topology.Empty); err != nil {
			t.Errorf("taking away failed: %v", err)
		}
		if took := time.Since(begin); took != time.Second {
			t.Errorf("took %s, want no longer than its context", took)
		}
	})
}

func TestCrashRestartsWithBackoff(t *testing.T) {
	simulate(t, map[string]behaviour{"v1": {dieAfter: time.Second, status: 3}}, func(s *simulation) {
		s.apply(web("v1", 1))
		s.pass(2 * time.Minute)
		starts := s.times("start web/1 v1")
		want := 500 * time.Millisecond
		for n := 1; n < len(starts); n++ {
			pause := starts[n] - starts[n-1] - time.Second
			if pause < want*9/10 || pause > want*11/10 {
				t.Errorf("pause %d was %s, want %s ± 10 %%", n, pause, want)
			}
			want = min(2*want, 30*time.Second)
		}
		if len(starts) < 7 {
			t.Errorf("%d starts in two minutes: it was given up", len(starts))
		}
		st := s.service("web")
		if i := st.Instances[0]; st.State != ServiceDegraded || i.State != StateWaiting || i.Restarts != len(starts)-1 ||
			!strings.Contains(st.Reason, "exited with status 3") || i.PID != 0 {
			t.Errorf("a crash loop looks like %+v", st)
		}
	})
}

func TestBackoffBeginsAnewAfterAStableRun(t *testing.T) {
	simulate(t, map[string]behaviour{"v1": {dieAfter: 40 * time.Second}}, func(s *simulation) {
		s.apply(web("v1", 1))
		s.pass(3 * time.Minute)
		starts := s.times("start web/1 v1")
		for n := 1; n < len(starts); n++ {
			if pause := starts[n] - starts[n-1] - 40*time.Second; pause > 550*time.Millisecond {
				t.Errorf("pause %d was %s, want the first one again", n, pause)
			}
		}
	})
}

func TestCrashLeavesTheRotationAtOnce(t *testing.T) {
	simulate(t, nil, func(s *simulation) {
		s.inFlight = time.Hour
		s.apply(web("v1", 2))
		s.pass(time.Second)
		s.forget()
		s.kill("web/2 v1")
		s.wantState("web", ServiceDegraded, 1)
		if !strings.Contains(s.service("web").Reason, "killed by SIGSEGV") {
			t.Errorf("reason %q does not tell the signal", s.service("web").Reason)
		}
		s.pass(time.Second)
		s.wantState("web", ServiceReady, 2)
		got := s.happened("")
		if len(got) != 4 || got[0] != "end web/2 v1" || !strings.HasPrefix(got[1], "drain web/2.") || got[2] != "start web/2 v1" ||
			!strings.HasPrefix(got[3], "admit web/2.") || got[1][6:] == got[3][6:] {
			t.Errorf("happened: %q", got)
		}
	})
}

func TestSpawnErrorIsAState(t *testing.T) {
	simulate(t, map[string]behaviour{"v1": {refuse: errors.New("exec ./web: no such file or directory")}}, func(s *simulation) {
		s.apply(web("v1", 1))
		s.pass(20 * time.Second)
		st := s.service("web")
		if st.State != ServiceDegraded || !strings.Contains(st.Reason, "no such file") || st.Instances[0].State != StateWaiting {
			t.Errorf("a program that is missing looks like %+v", st)
		}
		if n := len(s.happened("refuse")); n < 4 || n > 6 {
			t.Errorf("tried %d times in 20 s, want a back-off", n)
		}
		s.mu.Lock()
		s.behaviour["v1"] = behaviour{}
		s.mu.Unlock()
		s.pass(30 * time.Second)
		s.wantState("web", ServiceReady, 1)
	})
}

func TestRestartPolicies(t *testing.T) {
	tests := []struct {
		policy topology.RestartPolicy
		status int
		starts int // in nine seconds
		state  string
		life   State
	}{
		{topology.RestartNever, 0, 1, ServiceCompleted, StateStopped},
		{topology.RestartNever, 1, 1, ServiceFailed, StateFailed},
		{topology.RestartOnFailure, 0, 1, ServiceCompleted, StateStopped},
		{topology.RestartOnFailure, 1, 4, ServiceDegraded, StateWaiting},
		{topology.RestartAlways, 0, 4, ServiceDegraded, StateWaiting},
	}
	for _, tt := range tests {
		simulate(t, map[string]behaviour{"v1": {dieAfter: time.Second, status: tt.status}}, func(s *simulation) {
			s.apply(with(web("v1", 1), worker, policy(tt.policy)))
			s.pass(9 * time.Second)
			st := s.service("web")
			if n := len(s.happened("start")); n != tt.starts || st.State != tt.state || st.Instances[0].State != tt.life {
				t.Errorf("%s and status %d: %d starts, %+v; want %d, %s, %s", tt.policy, tt.status, n, st, tt.starts, tt.state, tt.life)
			}
			if len(s.happened("admit", "drain")) != 0 {
				t.Error("the Router was told of a worker")
			}
		})
	}
}

func TestStopDuringBackoffAndDuringStart(t *testing.T) {
	simulate(t, map[string]behaviour{"dies": {dieAfter: time.Millisecond}, "slow": {neverReady: true}}, func(s *simulation) {
		s.apply(with(web("dies", 1), named("a")), with(web("slow", 1), named("b")), with(web("x", 1), named("c"), needs("b", topology.ConditionReady)))
		s.pass(20 * time.Second)
		begin := time.Now()
		s.apply()
		if took := time.Since(begin); took != 0 {
			t.Errorf("stopping what waits and what starts took %s", took)
		}
		if len(s.happened("start c")) != 0 {
			t.Error("c was started though b was never ready")
		}
	})
}

func TestReadinessNeverKills(t *testing.T) {
	simulate(t, map[string]behaviour{"v1": {sickAfter: 5 * time.Second}}, func(s *simulation) {
		s.inFlight = 2 * time.Hour
		s.apply(web("v1", 1))
		s.pass(2 * time.Second)
		s.wantState("web", ServiceReady, 1)
		s.pass(5*time.Second - time.Millisecond) // failures at 5 s and 6 s
		s.wantState("web", ServiceReady, 1)
		s.pass(time.Second)
		s.wantState("web", ServiceDegraded, 0)
		if st := s.service("web"); !strings.Contains(st.Reason, "readiness probe failed: connection refused") {
			t.Errorf("reason: %q", st.Reason)
		}
		s.pass(time.Hour)
		s.wantHappened([]string{"start web/1 v1"}, "start", "signal")
		s.wantHappened([]string{"admit web/1.1", "drain web/1.1"}, "admit", "drain", "abort")

		p := s.only()
		s.mu.Lock()
		p.sickAfter = 0
		s.mu.Unlock()
		s.pass(time.Second)
		s.wantState("web", ServiceReady, 1)
		s.apply()
		// The requests of both times in the rotation have the grace period to finish, before the signal.
		if got := s.happened(""); len(got) != 9 || got[4] != "drain web/1.2" || got[7] != "signal web/1 v1 terminated" ||
			!slices.Contains(got[5:7], "abort web/1.1") || !slices.Contains(got[5:7], "abort web/1.2") {
			t.Errorf("happened: %q", got)
		}
	})
}

// only returns the one process that lives.
func (s *simulation) only() *simulated {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.live) != 1 {
		s.t.Fatalf("%d processes live, want one", len(s.live))
	}
	for _, p := range s.live {
		return p
	}
	return nil
}

func TestReadinessThresholds(t *testing.T) {
	simulate(t, map[string]behaviour{"v1": {}}, func(s *simulation) {
		spec := web("v1", 1)
		spec.Probes.Readiness = &topology.Probe{
			TCP: "{address}", InitialDelay: 10 * time.Second, Period: time.Second, Timeout: time.Second, FailureThreshold: 1, SuccessThreshold: 3,
		}
		s.apply(spec)
		s.pass(12*time.Second - time.Millisecond)
		s.wantState("web", ServiceStarting, 0)
		s.pass(time.Millisecond) // tries at 10, 11 and 12 s
		s.wantState("web", ServiceReady, 1)
	})
}

func TestLivenessRestartsThroughTheNormalStop(t *testing.T) {
	simulate(t, map[string]behaviour{"v1": {sickAfter: 10 * time.Second, stopTime: time.Second}}, func(s *simulation) {
		s.inFlight = time.Second
		spec := web("v1", 1)
		spec.Probes.Liveness = spec.Probes.Readiness
		spec.Probes.Readiness = nil
		s.apply(spec)
		s.pass(11 * time.Second)
		s.wantHappened([]string{"start web/1 v1", "admit web/1.1"}, "")
		s.pass(4 * time.Second) // failures at 10, 11 and 12 s
		s.wantHappened([]string{
			"start web/1 v1", "admit web/1.1", "drain web/1.1", "drained web/1.1",
			"signal web/1 v1 terminated", "end web/1 v1", "start web/1 v1", "admit web/1.2",
		}, "")
		if i := s.service("web").Instances[0]; i.Restarts != 1 {
			t.Errorf("%d restarts, want 1", i.Restarts)
		}
	})
}

func TestStartupHoldsTheOthersAndGivesUp(t *testing.T) {
	startup := func(spec *topology.Service) {
		spec.Probes.Startup = &topology.Probe{TCP: "{address}", Period: time.Second, Timeout: time.Second, FailureThreshold: 10, SuccessThreshold: 1}
		spec.Probes.Liveness = &topology.Probe{TCP: "{address}", Period: time.Second, Timeout: time.Second, FailureThreshold: 1, SuccessThreshold: 1}
	}
	simulate(t, map[string]behaviour{"slow": {readyAfter: 7 * time.Second}, "never": {neverReady: true}}, func(s *simulation) {
		s.apply(with(web("slow", 1), startup), with(web("never", 1), named("bad"), startup))
		s.pass(8 * time.Second)
		s.wantState("web", ServiceReady, 1)
		s.wantState("bad", ServiceStarting, 0)
		if len(s.happened("signal")) != 0 {
			t.Error("liveness did not wait for startup")
		}
		s.pass(3 * time.Second) // the tenth failure is at 9 s
		s.wantHappened([]string{"start bad/1 never", "signal bad/1 never terminated", "end bad/1 never", "start bad/1 never"}, "start bad", "signal", "end")
	})
}

// A service is ready soon after it can be, not at the next period.
func TestReadinessIsTriedSoonerAtFirst(t *testing.T) {
	simulate(t, map[string]behaviour{"v1": {readyAfter: 200 * time.Millisecond}}, func(s *simulation) {
		spec := web("v1", 1)
		spec.Probes.Readiness.Period = time.Minute
		s.apply(spec)
		s.pass(500 * time.Millisecond)
		s.wantState("web", ServiceReady, 1)
	})
}

func TestFixedPortIsNeverHeldTwice(t *testing.T) {
	simulate(t, map[string]behaviour{"v1": {stopTime: 3 * time.Second}}, func(s *simulation) {
		fixed := func(spec *topology.Service) { spec.Port = 9001 }
		s.apply(with(web("v1", 1), named("a"), fixed))
		s.pass(time.Second)
		done := make(chan struct{})
		go func() {
			defer close(done)
			s.Apply(s.t.Context(), &topology.Topology{Services: map[string]topology.Service{"b": with(web("v1", 1), named("b"), fixed)}})
		}()
		synctest.Wait()
		if st := s.service("b"); !strings.Contains(st.Reason, "waits for port 9001") {
			t.Errorf("b is %+v", st)
		}
		<-done
		s.pass(time.Second)
		s.wantRunning("b/1 v1")
		if s.most != 1 {
			t.Errorf("%d processes were alive at once on one port", s.most)
		}
	})
}

func TestFixedPortThatAnotherProgramHolds(t *testing.T) {
	simulate(t, nil, func(s *simulation) {
		var left atomic.Bool
		s.site.ports.free = func(port int) bool { return port != 9001 || left.Load() }
		s.apply(with(web("v1", 1), func(spec *topology.Service) { spec.Port = 9001 }))
		s.pass(10 * time.Second)
		s.wantRunning()
		if st := s.service("web"); st.State != ServiceDegraded || !strings.Contains(st.Reason, "port 9001: another program listens on it") {
			t.Errorf("web is %+v", st)
		}
		s.wantHappened(nil, "start", "admit")
		left.Store(true)
		s.pass(time.Minute)
		s.wantState("web", ServiceReady, 1)
	})
}
