package supervisor

import (
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"mainstay/topology"
)

func TestApplyTwiceDoesNothing(t *testing.T) {
	simulate(t, nil, func(s *simulation) {
		spec := with(web("v1", 2), func(s *topology.Service) {
			s.Environment = map[string]topology.Text{"A": topology.Secret("b")}
		})
		s.apply(spec)
		s.pass(10 * time.Second)
		s.forget()
		before := s.Status()
		spec.Environment = map[string]topology.Text{"A": topology.Secret("b")}
		s.applyAs(&topology.Topology{Generation: 9, Services: map[string]topology.Service{"web": spec}})
		s.pass(time.Minute)
		s.wantHappened(nil, "")
		if diff := cmp.Diff(before, s.Status()); diff != "" {
			t.Error(diff)
		}
	})
}

func TestUpdateStartFirst(t *testing.T) {
	simulate(t, map[string]behaviour{"v1": {stopTime: time.Second}, "v2": {readyAfter: 2 * time.Second}}, func(s *simulation) {
		s.inFlight = time.Second
		s.apply(web("v1", 2))
		s.pass(10 * time.Second)
		s.forget()
		s.applyAs(&topology.Topology{Generation: 7, Services: map[string]topology.Service{"web": web("v2", 2)}})
		s.pass(3 * time.Second)
		s.wantState("web", ServiceUpdating, 2)
		s.pass(time.Minute)
		s.wantState("web", ServiceReady, 2)
		s.wantHappened([]string{
			"start web/1 v2", "admit web/1.2", "drain web/1.1", "drained web/1.1", "signal web/1 v1 terminated", "end web/1 v1",
			"start web/2 v2", "admit web/2.2", "drain web/2.1", "drained web/2.1", "signal web/2 v1 terminated", "end web/2 v1",
		}, "")
		if s.most != 3 {
			t.Errorf("%d processes lived at once, want one more than the replicas", s.most)
		}
		admitted, drained := s.times("admit web/1.2")[0], s.times("drain web/1.1")[0]
		if drained-admitted != 5*time.Second {
			t.Errorf("the old one was drained %s after the new one was ready, want min_ready", drained-admitted)
		}
		for _, i := range s.service("web").Instances {
			if i.Generation != 7 {
				t.Errorf("%s is of generation %d, want 7", i.ID, i.Generation)
			}
		}
	})
}

func TestUpdateInParallel(t *testing.T) {
	simulate(t, nil, func(s *simulation) {
		parallel := func(s *topology.Service) { s.Update.Parallelism = 2 }
		s.apply(with(web("v1", 4), parallel))
		s.pass(10 * time.Second)
		s.forget()
		s.apply(with(web("v2", 4), parallel))
		s.pass(time.Second)
		s.wantRunning("web/1 v1", "web/1 v2", "web/2 v1", "web/2 v2", "web/3 v1", "web/4 v1")
		s.pass(10 * time.Second)
		s.wantRunning("web/1 v2", "web/2 v2", "web/3 v2", "web/4 v2")
		if s.most != 6 {
			t.Errorf("%d lived at once, want 6", s.most)
		}
	})
}

func TestUpdateStopFirst(t *testing.T) {
	simulate(t, map[string]behaviour{"v1": {stopTime: 3 * time.Second}}, func(s *simulation) {
		stopFirst := func(s *topology.Service) { s.Update.Order = topology.StopFirst }
		s.apply(with(web("v1", 2), stopFirst))
		s.pass(10 * time.Second)
		s.forget()
		s.apply(with(web("v2", 2), stopFirst))
		s.pass(time.Minute)
		s.wantHappened([]string{
			"drain web/1.1", "drained web/1.1", "signal web/1 v1 terminated", "end web/1 v1", "start web/1 v2", "admit web/1.2",
			"drain web/2.1", "drained web/2.1", "signal web/2 v1 terminated", "end web/2 v1", "start web/2 v2", "admit web/2.2",
		}, "")
		if s.most != 2 {
			t.Errorf("%d lived at once, want never more than the replicas", s.most)
		}
	})
}

// An update that fails is given up: the old instances were never fewer, and the service says why.
func TestUpdateIsGivenUp(t *testing.T) {
	tests := []struct {
		name string
		bad  behaviour
		why  string
		by   time.Duration
	}{
		{"never ready", behaviour{neverReady: true}, "not ready after 1m0s: readiness probe failed: connection refused", 61 * time.Second},
		{"dies before min_ready", behaviour{dieAfter: 4 * time.Second, status: 2}, "ready for 4s only: exited with status 2", 4100 * time.Millisecond},
		{"dies before it is ready", behaviour{neverReady: true, dieAfter: 4 * time.Second, status: 2}, "it ended 3 times: exited with status 2", 16 * time.Second},
		{"is no longer ready before min_ready", behaviour{sickAfter: 1500 * time.Millisecond}, "ready for 4s only: readiness probe failed: connection refused", 5 * time.Second},
		{"cannot be started", behaviour{refuse: errNoProgram}, "it ended 3 times: no such program", 4 * time.Second},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			simulate(t, map[string]behaviour{"bad": tt.bad}, func(s *simulation) {
				s.apply(web("v1", 2))
				s.pass(10 * time.Second)
				s.forget()
				s.applyAs(&topology.Topology{Generation: 3, Services: map[string]topology.Service{"web": web("bad", 2)}})
				s.pass(tt.by)
				s.wantState("web", ServiceDegraded, 2)
				if st := s.service("web"); !strings.Contains(st.Reason, "generation 3 was given up: web/1: "+tt.why) {
					t.Errorf("reason: %s", st.Reason)
				}
				if got := s.happened("drain web/1.1", "drain web/2.1", "signal web/1 v1", "signal web/2 v1"); len(got) != 0 {
					t.Errorf("the old instances were touched: %q", got)
				}
				s.wantRunning("web/1 v1", "web/2 v1")

				// The same again is not tried again, not even with another number of replicas.
				s.forget()
				s.apply(web("bad", 3))
				s.pass(time.Hour)
				s.wantRunning("web/1 v1", "web/2 v1", "web/3 v1")
				s.wantState("web", ServiceDegraded, 3)
				// A restart asked for by hand is.
				s.apply(with(web("bad", 3), func(s *topology.Service) { s.Epoch = 1 }))
				s.pass(100 * time.Millisecond)
				if n := len(s.happened("start web/1 bad", "refuse web/1 bad")); n != 1 {
					t.Errorf("another epoch was tried %d times", n)
				}
				// And what is right at last replaces everything.
				s.apply(web("v2", 2))
				s.pass(time.Minute)
				s.wantRunning("web/1 v2", "web/2 v2")
				s.wantState("web", ServiceReady, 2)
			})
		})
	}
}

// What was replaced before the update was given up goes back to what it was.
func TestUpdateIsRolledBack(t *testing.T) {
	for _, order := range []topology.UpdateOrder{topology.StartFirst, topology.StopFirst} {
		simulate(t, nil, func(s *simulation) {
			in := func(s *topology.Service) { s.Update.Order = order }
			s.apply(with(web("v1", 2), in))
			s.pass(10 * time.Second)
			s.apply(with(web("v2", 2), in))
			s.pass(5500 * time.Millisecond)
			if got := s.running(); !slices.Contains(got, "web/1 v2") || slices.Contains(got, "web/1 v1") {
				t.Fatalf("%s: %v is not half an update", order, got)
			}
			for range 4 {
				s.kill("web/2 v2")
				s.pass(2500 * time.Millisecond)
			}
			s.pass(time.Minute)
			s.wantRunning("web/1 v1", "web/2 v1")
			s.wantState("web", ServiceDegraded, 2)
		})
	}
}

// A newer specification in the middle of an update takes over: no instance is left over, and there are never more
// than one beyond the replicas.
func TestUpdateIsSuperseded(t *testing.T) {
	simulate(t, map[string]behaviour{"v1": {stopTime: 2 * time.Second}, "v2": {stopTime: 2 * time.Second}}, func(s *simulation) {
		s.inFlight = time.Second
		s.apply(web("v1", 3))
		s.pass(10 * time.Second)
		s.forget()
		s.apply(web("v2", 3))
		s.pass(10 * time.Second) // web/1 is replaced, web/2 is on trial
		s.apply(web("v3", 3))
		s.pass(time.Minute)
		s.wantRunning("web/1 v3", "web/2 v3", "web/3 v3")
		s.wantState("web", ServiceReady, 3)
		if s.most != 4 {
			t.Errorf("%d processes lived at once, want at most 4", s.most)
		}
		if got := s.happened("start web/3"); !slices.Equal(got, []string{"start web/3 v3"}) {
			t.Errorf("web/3: %q", got)
		}
	})
}

// Going back in the middle of an update touches only what had been replaced.
func TestUpdateIsTakenBack(t *testing.T) {
	simulate(t, nil, func(s *simulation) {
		s.apply(web("v1", 3))
		s.pass(10 * time.Second)
		s.apply(web("v2", 3))
		s.pass(8 * time.Second)
		s.forget()
		s.apply(web("v1", 3))
		s.pass(time.Minute)
		s.wantRunning("web/1 v1", "web/2 v1", "web/3 v1")
		if got := s.happened("start web"); !slices.Equal(got, []string{"start web/1 v1"}) {
			t.Errorf("started: %q", got)
		}
	})
}

func TestRestartsByHandCoalesce(t *testing.T) {
	simulate(t, map[string]behaviour{"v1": {stopTime: time.Second}}, func(s *simulation) {
		s.apply(web("v1", 2))
		s.pass(10 * time.Second)
		for epoch := range 20 {
			s.apply(with(web("v1", 2), func(s *topology.Service) { s.Epoch = epoch + 1 }))
			s.pass(300 * time.Millisecond)
		}
		s.pass(time.Minute)
		s.wantRunning("web/1 v1", "web/2 v1")
		s.wantState("web", ServiceReady, 2)
		if s.most > 3 {
			t.Errorf("%d processes lived at once", s.most)
		}
	})
}

// What never worked is replaced at once: there is nothing to lose and nothing to go back to.
func TestFirstDeployIsCorrected(t *testing.T) {
	simulate(t, map[string]behaviour{"bad": {dieAfter: time.Second, status: 1}, "worse": {neverReady: true}}, func(s *simulation) {
		s.apply(web("bad", 2))
		s.pass(5 * time.Minute)
		s.wantState("web", ServiceDegraded, 0)
		s.apply(web("worse", 2))
		s.pass(5 * time.Minute)
		s.wantRunning("web/1 worse", "web/2 worse")
		s.apply(web("v1", 2))
		s.pass(time.Second)
		s.wantRunning("web/1 v1", "web/2 v1")
		s.wantState("web", ServiceReady, 2)
	})
}

func TestHotFieldsTouchNoProcess(t *testing.T) {
	simulate(t, map[string]behaviour{"v1": {ignoreTerm: true}}, func(s *simulation) {
		s.apply(web("v1", 2))
		s.pass(10 * time.Second)
		s.forget()
		s.apply(with(web("v1", 2), func(s *topology.Service) {
			s.Probes.Readiness = &topology.Probe{TCP: "elsewhere:1", Period: time.Second, Timeout: time.Second, FailureThreshold: 2, SuccessThreshold: 1}
			s.Restart.Policy = topology.RestartNever
			s.Restart.Backoff.Initial = time.Second
			s.Update = topology.Update{Order: topology.StopFirst, Parallelism: 3, FailureAction: topology.FailurePause, Canary: &topology.Canary{Weight: 5}}
			s.Description, s.StopSignal = "hot", syscall.SIGINT
			s.Output = topology.Output{MaxSize: 1 << 20, MaxFiles: 2}
			s.WhenUnavailable.Hold = topology.Hold{For: time.Second, Requests: 1, Bytes: 1}
			s.StopGracePeriod = time.Minute
			s.DependsOn = map[string]topology.Condition{"nothing": topology.ConditionReady}
		}))
		s.pass(500 * time.Millisecond)
		s.wantState("web", ServiceReady, 2)
		s.wantHappened(nil, "")
		s.pass(2 * time.Second) // and the new probe is in force
		s.wantState("web", ServiceDegraded, 0)
		s.wantHappened(nil, "start", "signal")
		begin := time.Now()
		s.apply()
		if took := time.Since(begin); took != time.Minute {
			t.Errorf("stop took %s, want the new grace period", took)
		}
	})
}

// Probes that come with a new command are not asked of the old one.
func TestOldInstancesKeepTheirProbes(t *testing.T) {
	simulate(t, map[string]behaviour{"v2": {neverReady: true}}, func(s *simulation) {
		s.apply(web("v1", 2))
		s.pass(10 * time.Second)
		s.apply(with(web("v2", 2), func(s *topology.Service) {
			s.Probes.Readiness = &topology.Probe{TCP: "elsewhere:1", Period: time.Second, Timeout: time.Second, FailureThreshold: 1, SuccessThreshold: 1}
		}))
		s.pass(30 * time.Second)
		s.wantState("web", ServiceUpdating, 2)
		s.pass(time.Minute)
		s.wantState("web", ServiceDegraded, 2)
	})
}

func TestScaleByTheDifference(t *testing.T) {
	simulate(t, nil, func(s *simulation) {
		s.apply(web("v1", 2))
		s.pass(10 * time.Second)
		s.forget()
		s.apply(web("v1", 5))
		s.pass(time.Second)
		s.wantRunning("web/1 v1", "web/2 v1", "web/3 v1", "web/4 v1", "web/5 v1")
		if n := len(s.happened("start")); n != 3 {
			t.Errorf("%d were started, want the difference", n)
		}
		s.wantHappened(nil, "signal")
		s.wantState("web", ServiceReady, 5)
		s.forget()
		s.apply(web("v1", 1))
		s.pass(time.Second)
		s.wantRunning("web/1 v1")
		s.wantHappened(nil, "start")
		s.apply(with(web("v1", 3), func(s *topology.Service) { s.Stopped = true }))
		s.pass(time.Second)
		s.wantRunning()
		s.wantState("web", ServiceStopped, 0)
		s.apply(web("v1", 3))
		s.pass(time.Second)
		s.wantState("web", ServiceReady, 3)
	})
}

// A place that is wanted again while its instance still stops is filled once that is gone.
func TestScaleDownAndUpAgain(t *testing.T) {
	simulate(t, map[string]behaviour{"v1": {stopTime: 5 * time.Second}}, func(s *simulation) {
		s.apply(web("v1", 2))
		s.pass(10 * time.Second)
		s.apply(web("v1", 1))
		s.pass(time.Second)
		s.apply(web("v1", 2))
		s.pass(10 * time.Second)
		s.wantRunning("web/1 v1", "web/2 v1")
		if s.most != 2 {
			t.Errorf("%d lived at once", s.most)
		}
	})
}

func TestDependencies(t *testing.T) {
	simulate(t, map[string]behaviour{"db": {readyAfter: 3 * time.Second}, "migrate": {dieAfter: 2 * time.Second}}, func(s *simulation) {
		s.apply(
			with(web("db", 1), named("db")),
			with(web("migrate", 1), named("migrate"), worker, policy(topology.RestartNever), needs("db", topology.ConditionReady)),
			with(web("api", 1), named("api"), needs("migrate", topology.ConditionCompleted)),
			with(web("log", 1), named("log"), needs("db", topology.ConditionStarted)),
		)
		s.pass(time.Second)
		s.wantRunning("db/1 db", "log/1 log")
		if st := s.service("api"); st.Reason != "api/1: waits for migrate to complete" || st.Instances[0].State != StatePending {
			t.Errorf("api: %+v", st)
		}
		s.pass(10 * time.Second)
		s.wantHappened([]string{"start db/1 db", "start log/1 log", "start migrate/1 migrate", "start api/1 api"}, "start")
		s.wantState("migrate", ServiceCompleted, 0)

		// Later restarts wait for nothing.
		s.apply(
			with(web("db", 1), named("db"), func(s *topology.Service) { s.Stopped = true }),
			with(web("migrate", 1), named("migrate"), worker, policy(topology.RestartNever), needs("db", topology.ConditionReady)),
			with(web("api", 1), named("api"), needs("migrate", topology.ConditionCompleted)),
			with(web("log", 1), named("log"), needs("db", topology.ConditionStarted)),
		)
		s.pass(time.Second)
		s.kill("api/1 api")
		s.pass(time.Second)
		s.wantRunning("api/1 api", "log/1 log")
	})
}

func TestDependencyThatFailedIsNamed(t *testing.T) {
	simulate(t, map[string]behaviour{"migrate": {dieAfter: time.Second, status: 4}}, func(s *simulation) {
		s.apply(
			with(web("migrate", 1), named("migrate"), worker, policy(topology.RestartNever)),
			with(web("api", 1), named("api"), needs("migrate", topology.ConditionCompleted)),
		)
		s.pass(time.Hour)
		s.wantRunning()
		if st := s.service("api"); st.Reason != "api/1: waits for migrate to complete (exited with status 4)" {
			t.Errorf("api: %+v", st)
		}
		s.wantState("migrate", ServiceFailed, 0)
	})
}

// A dependency that crashes before it is ready only takes longer.
func TestDependencyThatRecovers(t *testing.T) {
	simulate(t, map[string]behaviour{"db": {dieAfter: 100 * time.Millisecond, neverReady: true}}, func(s *simulation) {
		s.apply(with(web("db", 1), named("db")), with(web("api", 1), named("api"), needs("db", topology.ConditionReady)))
		s.pass(10 * time.Second)
		if n := len(s.happened("start api")); n != 0 {
			t.Error("api was started before db was ready")
		}
		s.mu.Lock()
		s.behaviour["db"] = behaviour{}
		s.mu.Unlock()
		s.pass(time.Minute)
		s.wantRunning("api/1 api", "db/1 db")
	})
}

func TestStopIsInReverseOrderOfDependencies(t *testing.T) {
	simulate(t, map[string]behaviour{"v1": {stopTime: time.Second}}, func(s *simulation) {
		s.apply(
			with(web("v1", 1), named("a")),
			with(web("v1", 1), named("b"), needs("a", topology.ConditionReady)),
			with(web("v1", 1), named("c"), needs("a", topology.ConditionReady)),
			with(web("v1", 1), named("d"), func(s *topology.Service) {
				s.DependsOn = map[string]topology.Condition{"b": topology.ConditionReady, "c": topology.ConditionReady}
			}),
		)
		s.pass(10 * time.Second)
		s.apply()
		ends := s.happened("end")
		if len(ends) != 4 || ends[0] != "end d/1 v1" || ends[3] != "end a/1 v1" {
			t.Errorf("ended: %q", ends)
		}
		if drain := s.times("drain a/1.1"); len(drain) != 1 || drain[0] < s.times("end b/1 v1")[0] || drain[0] < s.times("end c/1 v1")[0] {
			t.Error("a was drained before those that depend on it were gone")
		}
	})
}

func TestOneShotRunsAgainWhenChanged(t *testing.T) {
	simulate(t, map[string]behaviour{"m1": {dieAfter: time.Second}, "m2": {dieAfter: time.Second}, "bad": {dieAfter: time.Second, status: 1}}, func(s *simulation) {
		migrate := func(program string) topology.Service {
			return with(web(program, 1), named("migrate"), worker, policy(topology.RestartNever))
		}
		s.apply(migrate("m1"))
		s.pass(10 * time.Second)
		s.apply(migrate("m2"))
		s.pass(10 * time.Second)
		s.wantState("migrate", ServiceCompleted, 0)
		api := with(web("api", 1), named("api"), needs("migrate", topology.ConditionCompleted))
		s.apply(migrate("bad"), api)
		s.pass(10 * time.Second)
		s.wantHappened([]string{"start migrate/1 m1", "start migrate/1 m2", "start migrate/1 bad"}, "start")
		st := s.service("migrate")
		if st.State != ServiceDegraded || !strings.Contains(st.Reason, "exited with status 1") {
			t.Errorf("migrate: %+v", st)
		}
		if why := s.service("api").Reason; !strings.Contains(why, "exited with status 1") {
			t.Errorf("api: %s", why)
		}
		s.apply(migrate("m1"), api)
		s.pass(10 * time.Second)
		s.wantState("migrate", ServiceCompleted, 0)
		s.wantState("api", ServiceReady, 1)
	})
}

func TestExternalInstancesAreProbedAndAdjusted(t *testing.T) {
	simulate(t, map[string]behaviour{"10.0.0.5:80": {}, "10.0.0.6:80": {neverReady: true}, "10.0.0.7:80": {}}, func(s *simulation) {
		external := func(upstreams ...topology.Upstream) topology.Service {
			return with(web("", 0), func(s *topology.Service) { s.Command, s.External = nil, upstreams })
		}
		five, six, seven := topology.Upstream{Address: "10.0.0.5:80", Weight: 2}, topology.Upstream{Address: "10.0.0.6:80", Weight: 1}, topology.Upstream{Address: "10.0.0.7:80", Weight: 1}
		s.apply(external(five, six))
		s.pass(time.Second)
		s.wantState("web", ServiceStarting, 1)
		s.wantHappened([]string{"admit web/1.1 with 2"}, "")
		if i := s.service("web").Instances[0]; i.PID != 0 || i.Address != "10.0.0.5:80" {
			t.Errorf("instance: %+v", i)
		}
		s.forget()
		s.apply(external(five, seven))
		s.pass(10 * time.Second)
		s.wantHappened([]string{"admit web/3.1"}, "admit")
		if got := s.happened("drain web/1."); len(got) != 0 {
			t.Errorf("what did not change was touched: %q", got)
		}
		s.wantState("web", ServiceReady, 2)

		// Another weight is told, and nothing else happens.
		s.forget()
		five.Weight = 3
		s.apply(external(five, seven))
		s.pass(time.Minute)
		s.wantHappened([]string{"admit web/1.1 with 3"}, "")

		// The fleet moves here, and away again.
		s.apply(web("v1", 2))
		s.pass(time.Minute)
		s.wantRunning("web/1 v1", "web/2 v1")
		s.wantState("web", ServiceReady, 2)
		s.apply(external(five))
		s.pass(time.Minute)
		s.wantRunning()
		s.wantState("web", ServiceReady, 1)
	})
}

func TestRemovedServicesAreForgotten(t *testing.T) {
	simulate(t, map[string]behaviour{"v1": {stopTime: 3 * time.Second}}, func(s *simulation) {
		s.apply(web("v1", 1), with(web("v1", 1), named("old")))
		s.pass(10 * time.Second)
		s.forget()
		begin := time.Now()
		s.apply(web("v1", 1), with(web("v2", 1), named("new")))
		if took := time.Since(begin); took != 3*time.Second {
			t.Errorf("Apply took %s, want as long as the removed service's stop", took)
		}
		synctest.Wait()
		s.wantRunning("new/1 v2", "web/1 v1")
		s.wantHappened([]string{"drain old/1.1", "drained old/1.1", "signal old/1 v1 terminated", "end old/1 v1"}, "drain", "signal", "end")
	})
}

// A migration between the database and the api: while the new one fails, the api that fits the old one goes on.
func TestFailedMigrationKeepsTheOldAPI(t *testing.T) {
	simulate(t, map[string]behaviour{"m1": {dieAfter: time.Second}, "bad": {dieAfter: time.Second, status: 1}, "m3": {dieAfter: time.Second}}, func(s *simulation) {
		deploy := func(migration, program string) {
			s.apply(
				with(web("db", 1), named("db")),
				with(web(migration, 1), named("migrate"), worker, policy(topology.RestartNever), needs("db", topology.ConditionReady)),
				with(web(program, 2), named("api"), needs("migrate", topology.ConditionCompleted)),
			)
		}
		deploy("m1", "v1")
		s.pass(time.Minute)
		s.wantRunning("api/1 v1", "api/2 v1", "db/1 db")

		s.forget()
		deploy("bad", "v2")
		s.pass(time.Hour)
		s.wantRunning("api/1 v1", "api/2 v1", "db/1 db")
		s.wantHappened([]string{"start migrate/1 bad", "end migrate/1 bad"}, "start", "end", "drain")
		st := s.service("api")
		if st.Ready != 2 || !strings.Contains(st.Reason, "waits for migrate to complete") || !strings.Contains(st.Reason, "exited with status 1") {
			t.Errorf("api: %+v", st)
		}

		deploy("m3", "v3")
		s.pass(time.Minute)
		s.wantRunning("api/1 v3", "api/2 v3", "db/1 db")
		s.wantState("migrate", ServiceCompleted, 0)
		s.wantState("api", ServiceReady, 2)
	})
}

// Dependencies that fork and join: each starts once all before it are what it waits for, and not before.
func TestDependenciesThatForkAndJoin(t *testing.T) {
	simulate(t, map[string]behaviour{"left": {readyAfter: 2 * time.Second}, "right": {readyAfter: 9 * time.Second}}, func(s *simulation) {
		after := func(names ...string) func(*topology.Service) {
			return func(s *topology.Service) {
				s.DependsOn = map[string]topology.Condition{}
				for _, n := range names {
					s.DependsOn[n] = topology.ConditionReady
				}
			}
		}
		s.apply(
			with(web("top", 1), named("top")),
			with(web("left", 1), named("left"), after("top")),
			with(web("right", 1), named("right"), after("top")),
			with(web("bottom", 1), named("bottom"), after("left", "right")),
		)
		s.pass(30 * time.Second)
		got := s.happened("start")
		slices.Sort(got[1:3])
		if diff := cmp.Diff([]string{"start top/1 top", "start left/1 left", "start right/1 right", "start bottom/1 bottom"}, got); diff != "" {
			t.Error(diff)
		}
		if at, ready := s.times("start bottom/1 bottom")[0], s.times("admit right/1.1")[0]; at < ready {
			t.Errorf("bottom started at %s, right was ready at %s", at, ready)
		}
	})
}
