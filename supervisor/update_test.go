package supervisor

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"mainstay/topology"
)

func failing(action topology.FailureAction) func(*topology.Service) {
	return func(s *topology.Service) { s.Update.FailureAction = action }
}

func epoch(n int) func(*topology.Service) {
	return func(s *topology.Service) { s.Epoch = n }
}

// wantStrength checks that there have never been fewer instances in the rotation since the record was last forgotten.

func (s *simulation) wantStrength(least int) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fewest < least {
		s.t.Errorf("for a moment there were %d instances in the rotation, want never fewer than %d", s.fewest, least)
	}
}

// wantUpdate checks what is told of the update, as in "paused 1/3"; empty: that there is none.

func (s *simulation) wantUpdate(name, want string) {
	s.t.Helper()
	got := ""
	if u := s.service(name).Update; u != nil {
		got = strings.TrimSpace(u.Phase + " " + string(rune('0'+u.Replaced)) + "/" + string(rune('0'+u.Of)))
	}
	if got != want {
		s.t.Errorf("update: %q, want %q", got, want)
	}
}

// However an update goes, there are at every moment as many instances in the rotation as there should be, and never more

// processes than one beyond that.

func TestStrengthDuringUpdates(t *testing.T) {
	bad := map[string]behaviour{
		"good":             {},
		"slow":             {readyAfter: 25 * time.Second, stopTime: 8 * time.Second},
		"never ready":      {neverReady: true},
		"dies":             {dieAfter: 4 * time.Second},
		"dies early":       {dieAfter: 100 * time.Millisecond, neverReady: true},
		"sickens":          {sickAfter: 2 * time.Second},
		"not to be had":    {refuse: errNoProgram},
		"ignores its stop": {ignoreTerm: true, neverReady: true},
	}
	for name := range bad {
		for _, action := range []topology.FailureAction{topology.FailureRollback, topology.FailurePause, topology.FailureContinue} {
			for _, replicas := range []int{1, 2, 4} {
				simulate(t, bad, func(s *simulation) {
					s.inFlight = 2 * time.Second
					s.apply(with(web("v1", replicas), failing(action)))
					s.pass(10 * time.Second)
					s.forget()
					s.apply(with(web(name, replicas), failing(action)))
					s.pass(10 * time.Minute)
					s.apply(with(web("v3", replicas), failing(action)))
					s.pass(10 * time.Minute)
					s.wantStrength(replicas)
					s.wantState("web", ServiceReady, replicas)
					if s.most > replicas+1 {
						t.Errorf("%d processes lived at once, want one more than the %d replicas", s.most, replicas)
					}
				})
				if t.Failed() {
					t.Fatalf("%s, %s, %d replicas", name, action, replicas)
				}
			}
		}
	}
}

// What was replaced stays, what was not runs on, and nothing happens until somebody says so.

func TestUpdatePauses(t *testing.T) {
	simulate(t, nil, func(s *simulation) {
		in := failing(topology.FailurePause)
		s.apply(with(web("v1", 3), in))
		s.pass(10 * time.Second)
		s.forget()
		s.apply(with(web("v2", 3), in))
		s.pass(5500 * time.Millisecond) // web/1 is replaced
		s.kill("web/2 v2")
		s.pass(time.Hour)
		s.wantRunning("web/1 v2", "web/2 v1", "web/3 v1")
		s.wantState("web", ServiceDegraded, 3)
		s.wantUpdate("web", "paused 1/3")
		if why := s.service("web").Reason; why != "update paused: generation 0: web/2: ready for 500ms only: killed by SIGSEGV" {
			t.Errorf("reason: %s", why)
		}

		// What is added meanwhile is what has worked, and what crashes stays what it was.
		s.apply(with(web("v2", 4), in))
		s.pass(time.Second)
		s.kill("web/1 v2")
		s.pass(time.Minute)
		s.wantRunning("web/1 v2", "web/2 v1", "web/3 v1", "web/4 v1")
		s.wantUpdate("web", "paused 1/4")

		// A restart tries again.
		s.apply(with(web("v2", 4), in, epoch(1)))
		s.pass(time.Minute)
		s.wantRunning("web/1 v2", "web/2 v2", "web/3 v2", "web/4 v2")
		s.wantState("web", ServiceReady, 4)
		s.wantUpdate("web", "")
	})
}

// A pause ends with the next edit: also with one that goes back.

func TestPauseIsEdited(t *testing.T) {
	simulate(t, nil, func(s *simulation) {
		in := failing(topology.FailurePause)
		s.apply(with(web("v1", 2), in))
		s.pass(10 * time.Second)
		s.apply(with(web("v2", 2), in))
		s.pass(5500 * time.Millisecond)
		s.kill("web/2 v2")
		s.pass(time.Minute)
		s.wantUpdate("web", "paused 1/2")
		s.forget()
		s.apply(with(web("v1", 2), in))
		s.pass(time.Minute)
		s.wantRunning("web/1 v1", "web/2 v1")
		s.wantState("web", ServiceReady, 2)
		if got := s.happened("start web"); !slices.Equal(got, []string{"start web/1 v1"}) {
			t.Errorf("started: %q", got)
		}
		s.wantStrength(2)
	})
}

// The place in which it fails is left out, and tried again later.

func TestUpdateContinues(t *testing.T) {
	simulate(t, nil, func(s *simulation) {
		in := failing(topology.FailureContinue)
		s.apply(with(web("v1", 3), in))
		s.pass(10 * time.Second)
		s.forget()
		s.apply(with(web("v2", 3), in))
		s.pass(5500 * time.Millisecond)
		s.kill("web/2 v2")
		s.pass(time.Second)
		s.wantState("web", ServiceDegraded, 3)
		s.wantUpdate("web", "proving 1/3")
		s.pass(10 * time.Second)
		s.wantRunning("web/1 v2", "web/2 v1", "web/3 v2")
		s.wantState("web", ServiceDegraded, 3)
		s.wantUpdate("web", "waiting 2/3")
		if why := s.service("web").Reason; why != "the update to generation 0 could not be made of web/2: ready for 500ms only: killed by SIGSEGV" {
			t.Errorf("reason: %s", why)
		}
		s.pass(time.Minute)
		s.wantRunning("web/1 v2", "web/2 v2", "web/3 v2")
		s.wantState("web", ServiceReady, 3)
		s.wantUpdate("web", "")
		s.wantStrength(3)
	})
}

// With stop-first there is nothing to leave there but what has failed.

func TestUpdateContinuesStopFirst(t *testing.T) {
	simulate(t, map[string]behaviour{"bad": {dieAfter: time.Second, neverReady: true, status: 3}}, func(s *simulation) {
		in := func(s *topology.Service) {
			s.Update.FailureAction, s.Update.Order = topology.FailureContinue, topology.StopFirst
		}
		s.apply(with(web("v1", 2), in))
		s.pass(10 * time.Second)
		s.apply(with(web("bad", 2), in))
		s.pass(10 * time.Minute)
		s.wantState("web", ServiceDegraded, 0)
		if got := s.happened("start web/1 v1"); len(got) != 1 {
			t.Errorf("%q: it went back", got)
		}
		s.apply(with(web("v3", 2), in))
		s.pass(time.Minute)
		s.wantRunning("web/1 v3", "web/2 v3")
		s.wantState("web", ServiceReady, 2)
	})
}

// What has crashed is counted and comes back, and no other is taken away before it is there again.

func TestCrashDuringUpdate(t *testing.T) {
	simulate(t, map[string]behaviour{"v1": {readyAfter: 20 * time.Second}}, func(s *simulation) {
		s.apply(web("v1", 3))
		s.pass(time.Minute)
		s.forget()
		s.apply(web("v2", 3))
		s.pass(4 * time.Second) // web/1 is on trial
		s.kill("web/3 v1")
		s.pass(10 * time.Second)
		s.wantState("web", ServiceUpdating, 3)
		if got := s.happened("drain web/1"); len(got) != 0 {
			t.Error("the old web/1 was taken away while web/3 was down")
		}
		s.pass(2 * time.Minute)
		s.wantRunning("web/1 v2", "web/2 v2", "web/3 v2")
		s.wantState("web", ServiceReady, 3)
		if len(s.happened("start web/3 v1")) != 1 {
			t.Error("the old web/3 was not restarted")
		}
	})
	// One that does not come back does not hold the update up for good: it comes first.
	simulate(t, nil, func(s *simulation) {
		s.apply(web("v1", 3))
		s.pass(time.Minute)
		s.mu.Lock()
		s.behaviour = map[string]behaviour{"v1": {refuse: errNoProgram}}
		s.mu.Unlock()
		s.kill("web/3 v1")
		s.apply(web("v2", 3))
		s.pass(time.Second)
		s.wantRunning("web/1 v1", "web/2 v1", "web/3 v2")
		s.pass(5 * time.Minute)
		s.wantState("web", ServiceReady, 3)
	})
}

// Restarts that come faster than instances can be replaced leave one process in each place.

func TestManyRestartsAtOnce(t *testing.T) {
	simulate(t, map[string]behaviour{"v1": {stopTime: 2 * time.Second}}, func(s *simulation) {
		s.apply(web("v1", 3))
		s.pass(10 * time.Second)
		s.forget()
		for n := range 20 {
			s.apply(with(web("v1", 3), epoch(n+1)))
		}
		s.pass(2 * time.Minute)
		s.wantRunning("web/1 v1", "web/2 v1", "web/3 v1")
		s.wantState("web", ServiceReady, 3)
		s.wantStrength(3)
		if n := len(s.happened("start")); n > 5 || s.most > 4 {
			t.Errorf("%d starts, %d at once", n, s.most)
		}
	})
}

// An edit that follows the first start at once is an update already.

func TestUpdateSoonAfterTheFirstStart(t *testing.T) {
	simulate(t, map[string]behaviour{"bad": {neverReady: true}}, func(s *simulation) {
		s.apply(web("v1", 2))
		s.pass(time.Second)
		s.forget()
		s.apply(web("bad", 2))
		s.pass(2 * time.Minute)
		s.wantRunning("web/1 v1", "web/2 v1")
		s.wantState("web", ServiceDegraded, 2)
		s.wantStrength(2)
	})
}

func TestPhases(t *testing.T) {
	simulate(t, map[string]behaviour{"v1": {stopTime: 3 * time.Second}, "v2": {readyAfter: 3 * time.Second}}, func(s *simulation) {
		s.apply(web("v1", 2))
		s.pass(10 * time.Second)
		s.wantUpdate("web", "")
		s.apply(web("v1", 3))
		s.pass(10 * time.Second)
		s.wantUpdate("web", "")
		s.apply(web("v2", 3))
		begin := time.Now()
		for _, step := range []struct {
			after time.Duration
			want  string
		}{
			{time.Second, "starting 0/3"}, {4 * time.Second, "proving 0/3"}, {9 * time.Second, "draining 1/3"},
			{12 * time.Second, "starting 1/3"}, {16 * time.Second, "proving 1/3"},
		} {
			s.pass(step.after - time.Since(begin))
			s.wantUpdate("web", step.want)
		}
		if u := s.service("web").Update; time.Since(u.Since) > 2*time.Second {
			t.Errorf("proving since %s", time.Since(u.Since))
		}
		s.kill("web/2 v2")
		s.pass(time.Second)
		s.wantUpdate("web", "returning 1/3")
		s.pass(time.Minute)
		s.wantUpdate("web", "")
		s.wantState("web", ServiceDegraded, 3)
		s.wantRunning("web/1 v1", "web/2 v1", "web/3 v1")
	})
}

// The first new instance is judged by its requests; the others follow once it has passed.

// A restart by hand compares nothing with itself, and neither does the way back.

// Another edit takes a canary's place, and has one of its own.

// What the plan calls a roll is what another process is needed for, field by field.

func TestPlanRollsWhatTheSupervisorRolls(t *testing.T) {
	// Changes of these have no class of their own: the name is another service's, the overrides are not in the file, and what runs
	// elsewhere has no process.
	apart := []string{"Name", "Stopped", "Epoch", "External"}
	have := web("v1", 2)
	have.Probes.Readiness, have.DependsOn = nil, nil
	for i := range reflect.TypeFor[topology.Service]().NumField() {
		field := reflect.TypeFor[topology.Service]().Field(i)
		if slices.Contains(apart, field.Name) {
			continue
		}
		next := have
		alter(reflect.ValueOf(&next).Elem().Field(i))
		if reflect.DeepEqual(have, next) {
			t.Fatalf("%s was not changed", field.Name)
		}
		of := func(s topology.Service) *topology.Topology {
			return &topology.Topology{Services: map[string]topology.Service{"web": s}}
		}
		rolls := false
		for _, c := range topology.Plan(of(have), of(next)) {
			rolls = rolls || c.Class == topology.ClassRoll
		}
		if needs := !reflect.DeepEqual(recipe(have), recipe(next)); rolls != needs {
			t.Errorf("%s: the plan says roll: %t, the supervisor needs another process: %t", field.Name, rolls, needs)
		}
	}
}

// alter makes v another value.

func alter(v reflect.Value) {
	switch v.Kind() {
	case reflect.String:
		v.SetString(v.String() + "x")
	case reflect.Int, reflect.Int64:
		v.SetInt(v.Int() + 1)
	case reflect.Float64:
		v.SetFloat(v.Float() + 1)
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[topology.Text]() {
			v.Set(reflect.ValueOf(topology.Plain("x")))
			return
		}
		for i := range v.NumField() {
			alter(v.Field(i))
		}
	case reflect.Slice:
		item := reflect.New(v.Type().Elem()).Elem()
		alter(item)
		v.Set(reflect.Append(reflect.MakeSlice(v.Type(), 0, 1), item))
	case reflect.Map:
		item, key := reflect.New(v.Type().Elem()).Elem(), reflect.New(v.Type().Key()).Elem()
		alter(item)
		alter(key)
		m := reflect.MakeMap(v.Type())
		m.SetMapIndex(key, item)
		v.Set(m)
	case reflect.Pointer:
		item := reflect.New(v.Type().Elem())
		alter(item.Elem())
		v.Set(item)
	case reflect.Bool:
		v.SetBool(!v.Bool())
	}
}

// Whatever a process is ended for, it is out of the rotation and its requests are over before it is signalled; the simulation

// sees to that, here and in every other test.

func TestDrainComesBeforeTheSignal(t *testing.T) {
	live := &topology.Probe{TCP: "{address}", Period: time.Second, Timeout: time.Second, FailureThreshold: 2}
	ways := map[string]func(s *simulation){
		"update":     func(s *simulation) { s.apply(web("v2", 2)) },
		"restart":    func(s *simulation) { s.apply(with(web("v1", 2), epoch(1))) },
		"scale down": func(s *simulation) { s.apply(web("v1", 1)) },
		"stop":       func(s *simulation) { s.apply(with(web("v1", 2), func(s *topology.Service) { s.Stopped = true })) },
		"removal":    func(s *simulation) { s.apply(with(web("v1", 1), named("other"))) },
		"the end":    func(s *simulation) { s.apply() },
		"stop-first": func(s *simulation) {
			s.apply(with(web("v2", 2), func(s *topology.Service) { s.Update.Order = topology.StopFirst }))
		},
		"liveness": func(s *simulation) {
			s.mu.Lock()
			for _, p := range s.live {
				p.sickAfter = time.Nanosecond
			}
			s.mu.Unlock()
			s.apply(with(web("v1", 2), func(s *topology.Service) { s.Probes.Liveness = live }))
		},
		"canary": func(s *simulation) {
			s.apply(with(web("bad", 2), canaryOf(10, time.Minute, 0, 0)))
		},
		"kill": func(s *simulation) {
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			s.Apply(ctx, topology.Empty)
		},
	}
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			simulate(t, map[string]behaviour{"bad": {rate: 10, errors: 1}}, func(s *simulation) {
				s.inFlight = 3 * time.Second
				s.apply(web("v1", 2))
				s.pass(10 * time.Second)
				s.forget()
				way(s)
				s.pass(20 * time.Second)
				if len(s.happened("signal web")) == 0 {
					t.Error("nothing was signalled")
				}
			})
		})
	}
}

// Whatever edits, restarts, crashes and scales follow each other: no place ever holds more than two processes, none is left over, the

// last edit wins, and where nothing but updates happens the service is always at full strength.

func TestAnyEdits(t *testing.T) {
	programs := map[string]behaviour{
		"v1": {}, "v2": {readyAfter: 3 * time.Second}, "v3": {stopTime: 7 * time.Second}, "never": {neverReady: true},
		"early": {neverReady: true, dieAfter: time.Second}, "late": {dieAfter: 3 * time.Second, status: 1}, "deaf": {ignoreTerm: true},
		"wrong": {rate: 5, errors: 0.5}, "absent": {refuse: errNoProgram},
	}
	names := slices.Sorted(maps.Keys(programs))
	runs := 30
	if os.Getenv("MAINSTAY_SOAK") != "" {
		runs = 1500
	}
	for seed := range runs {
		r := rand.New(rand.NewPCG(uint64(seed), 1))
		simulate(t, programs, func(s *simulation) {
			s.inFlight = time.Second
			var done []string
			calm := seed%2 == 0 // nothing but updates
			spec := web("v1", 1+r.IntN(4))
			spec.Update.Parallelism = 1 + r.IntN(2)
			s.apply(spec)
			s.pass(10 * time.Second)
			s.forget()
			for range 12 {
				what := r.IntN(6)
				if calm {
					what = r.IntN(3)
				}
				switch what {
				case 0:
					spec.Command = web(names[r.IntN(len(names))], 1).Command
				case 1:
					spec.Epoch++
				case 2:
					spec.Update.FailureAction = []topology.FailureAction{topology.FailureRollback, topology.FailurePause, topology.FailureContinue}[r.IntN(3)]
					spec.Update.Canary = nil
					spec.Update.Order = topology.StartFirst
					if !calm && r.IntN(3) == 0 {
						spec.Update.Order = topology.StopFirst
					} else if r.IntN(2) == 0 {
						spec.Update.Canary = &topology.Canary{Weight: 10, Duration: 20 * time.Second}
					}
				case 3:
					spec.Replicas = r.IntN(5)
				case 4:
					spec.Stopped = !spec.Stopped
				case 5:
					if running := s.running(); len(running) > 0 {
						s.kill(running[r.IntN(len(running))])
					}
				}
				done = append(done, fmt.Sprint(what, " ", spec.Command[1], " ", spec.Replicas, " ", spec.Stopped))
				s.apply(spec)
				for range r.IntN(30) {
					s.pass(time.Duration(r.IntN(2000)) * time.Millisecond)
					held := map[string]int{}
					for _, name := range s.running() {
						place, _, _ := strings.Cut(name, " ")
						if held[place]++; held[place] > 2 {
							t.Errorf("seed %d: %q: %q", seed, done, s.running())
						}
					}
					if calm && len(s.running()) > spec.Replicas+spec.Update.Parallelism {
						t.Errorf("seed %d: more than %d at once: %q: %q", seed, spec.Update.Parallelism, done, s.running())
					}
				}
			}
			if calm {
				s.wantStrength(spec.Replicas)
			}
			spec.Command, spec.Stopped, spec.Replicas, spec.Update.Canary = web("v2", 1).Command, false, 3, nil
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

// A service that becomes a job in the middle of an update is not in one any more.

func TestUpdateOfWhatBecomesAJob(t *testing.T) {
	simulate(t, nil, func(s *simulation) {
		in := canaryOf(10, time.Minute, 0, 0)
		s.apply(with(web("v1", 1), in))
		s.pass(10 * time.Second)
		s.apply(with(web("v2", 1), in))
		s.pass(10 * time.Second)
		s.wantUpdate("web", "canary 0/1")
		s.apply(with(web("v2", 1), worker, policy(topology.RestartNever), func(s *topology.Service) {
			s.Schedule = &topology.Schedule{Cron: "0 3 * * *", TimeZone: "UTC", Overlap: topology.OverlapSkip, Missed: topology.MissedSkip}
		}))
		s.pass(time.Minute)
		s.wantUpdate("web", "")
		s.wantRunning()
		s.apply(with(web("v2", 1), in))
		s.pass(10 * time.Minute)
		s.wantState("web", ServiceReady, 1)
		s.wantUpdate("web", "")
	})
}

// An update that goes on after Mainstay was killed can fail as any, but what ran before is known no more: it runs on.
func TestResumedUpdateFails(t *testing.T) {
	for why, in := range map[string]func(*topology.Service){
		"web/1: ready for 20s only: exited with status 0 (": func(*topology.Service) {},
		"web/1: as a canary it had errors in 100 %":         canaryOf(10, time.Minute, 0.1, 0),
	} {
		survive(t, map[string]behaviour{"v1": {}, "bad": {dieAfter: 24 * time.Second, readyAfter: 4 * time.Second, rate: 10, errors: 1}}, func(s *simulation) {
			bad := with(web("bad", 2), in, func(s *topology.Service) { s.Update.MinReady = 30 * time.Second })
			s.apply(with(web("v1", 2), in))
			s.pass(time.Minute)
			s.apply(bad)
			s.pass(2 * time.Second)
			s.crash(nil)
			s.apply(bad)
			s.pass(5 * time.Minute)
			s.wantRunning("web/1 v1", "web/2 v1")
			s.wantState("web", ServiceDegraded, 2)
			s.wantUpdate("web", "paused 0/2")
			s.wantHappened(nil, "drain web/1.1", "drain web/2.1")
			if got := s.service("web").Reason; !strings.HasPrefix(got, "update paused: generation 0: "+why) || !strings.HasSuffix(got, "has started it)") {
				t.Errorf("reason: %s", got)
			}
			// One of them that ends is followed by what there is.
			s.kill("web/2 v1")
			s.pass(time.Second)
			s.wantRunning("web/1 v1", "web/2 bad")
			s.apply(with(web("v2", 2), in))
			s.pass(5 * time.Minute)
			s.wantRunning("web/1 v2", "web/2 v2")
			s.wantState("web", ServiceReady, 2)
		})
	}
}
