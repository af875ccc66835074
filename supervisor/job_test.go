package supervisor

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"mainstay/schedule"
	"mainstay/topology"
)

// job returns a job of program with the defaults that a file would give it.
func newJobSpec(program, cron string, changes ...func(*topology.Service)) topology.Service {
	spec := with(web(program, 1), worker, policy(topology.RestartNever))
	spec.Name = "report"
	spec.Schedule = &topology.Schedule{Cron: cron, TimeZone: "UTC", Overlap: topology.OverlapSkip, Missed: topology.MissedSkip}
	return with(spec, changes...)
}

// scheduled changes a job's schedule.
func scheduled(change func(*topology.Schedule)) func(*topology.Service) {
	return func(s *topology.Service) {
		own := *s.Schedule
		change(&own)
		s.Schedule = &own
	}
}

func overlap(o topology.Overlap) func(*topology.Service) {
	return scheduled(func(s *topology.Schedule) { s.Overlap = o })
}

// runs returns what became of the job's runs, oldest first, as "when it was due reason result attempts".
func (s *simulation) runs(name string) []string {
	s.t.Helper()
	st := s.service(name)
	if st.Job == nil {
		s.t.Fatalf("%s is no job: %+v", name, st)
	}
	var list []string
	for _, r := range st.Job.Runs {
		list = append([]string{strings.Join([]string{r.Due.Format("15:04"), string(r.Reason), string(r.Result), strings.Repeat("*", r.Attempts)}, " ")}, list...)
	}
	return list
}

func (s *simulation) wantRuns(name string, want ...string) {
	s.t.Helper()
	if diff := cmp.Diff(want, s.runs(name)); diff != "" {
		s.t.Errorf("runs of %s (-want +got): %s", name, diff)
	}
}

func (s *simulation) wantNext(name, want string) {
	s.t.Helper()
	got := ""
	if next := s.service(name).Job.Next; !next.IsZero() {
		got = next.Format("15:04")
	}
	if got != want {
		s.t.Errorf("the next run is at %s, want %s", got, want)
	}
}

// In a bubble it is midnight, 1 January 2000, in UTC.

func TestJobRunsWhenItIsDue(t *testing.T) {
	behave := map[string]behaviour{"v1": {dieAfter: 10 * time.Second}, "v2": {dieAfter: time.Second}}
	simulate(t, behave, func(s *simulation) {
		s.apply(newJobSpec("v1", "15 * * * *"))
		s.wantState("report", ServiceScheduled, 0)
		s.wantNext("report", "00:15")
		s.wantRunning()
		s.pass(15 * time.Minute)
		s.wantState("report", ServiceRunning, 1)
		s.wantRunning("report/1 v1")
		s.wantNext("report", "01:15")
		s.pass(11 * time.Second)
		s.wantState("report", ServiceScheduled, 0)
		s.pass(time.Hour)
		s.wantRuns("report", "00:15 schedule succeeded *", "01:15 schedule succeeded *")
		s.wantHappened([]string{"start report/1 v1", "end report/1 v1", "start report/1 v1", "end report/1 v1"}, "start", "end", "signal")

		// Another command counts from the next run, another schedule from now: neither runs anything.
		s.forget()
		s.apply(newJobSpec("v2", "15 * * * *"))
		s.wantNext("report", "02:15")
		s.apply(newJobSpec("v2", "*/20 * * * *"))
		s.wantNext("report", "01:20")
		s.wantHappened(nil, "start")
		s.pass(5 * time.Minute)
		s.wantHappened([]string{"start report/1 v2", "end report/1 v2"}, "start", "end")
	})
}

func TestJobGoesOnWithItsRunWhenItIsChanged(t *testing.T) {
	simulate(t, map[string]behaviour{"v1": {dieAfter: 30 * time.Minute}, "v2": {dieAfter: time.Minute}}, func(s *simulation) {
		s.apply(newJobSpec("v1", "0 * * * *"))
		s.pass(time.Hour + time.Minute)
		s.apply(newJobSpec("v2", "0 * * * *"))
		s.wantRunning("report/1 v1")
		s.wantState("report", ServiceRunning, 1)
		s.pass(time.Hour)
		s.wantRuns("report", "01:00 schedule succeeded *", "02:00 schedule succeeded *")
		s.wantHappened([]string{"start report/1 v1", "end report/1 v1", "start report/1 v2", "end report/1 v2"}, "start", "end", "signal")
	})
}

func TestJobOverlap(t *testing.T) {
	long := map[string]behaviour{"v1": {dieAfter: 150 * time.Minute, stopTime: 5 * time.Second}}
	for _, c := range []struct {
		overlap topology.Overlap
		want    []string
	}{
		{topology.OverlapSkip, []string{"01:00 schedule succeeded *", "04:00 schedule running *"}},
		{topology.OverlapQueue, []string{"01:00 schedule succeeded *", "02:00 schedule running *"}},
		{topology.OverlapReplace, []string{"01:00 schedule replaced *", "02:00 schedule replaced *", "03:00 schedule replaced *", "04:00 schedule running *"}},
	} {
		simulate(t, long, func(s *simulation) {
			s.apply(newJobSpec("v1", "0 * * * *", overlap(c.overlap)))
			s.pass(4*time.Hour + 10*time.Second)
			s.wantRuns("report", c.want...)
			if s.most != 1 {
				t.Errorf("%s: %d at once", c.overlap, s.most)
			}
			if st := s.service("report").Job; c.overlap == topology.OverlapSkip && st.Skipped != 2 {
				t.Errorf("%d skipped, want 2", st.Skipped)
			}
		})
	}
}

func TestJobFailsAndIsTriedAgain(t *testing.T) {
	simulate(t, map[string]behaviour{"v1": {dieAfter: time.Second, status: 3}}, func(s *simulation) {
		s.apply(newJobSpec("v1", "0 * * * *"))
		s.pass(time.Hour + time.Minute)
		s.wantRuns("report", "01:00 schedule failed *")
		st := s.service("report")
		if st.State != ServiceScheduled || st.Reason != "the last run failed: exited with status 3" || st.Job.Last.Cause != "exited with status 3" {
			t.Errorf("after it failed: %+v", st)
		}

		s.apply(newJobSpec("v1", "0 * * * *", policy(topology.RestartOnFailure)))
		s.pass(59*time.Minute + 2*time.Second)
		s.mu.Lock()
		s.behaviour["v1"] = behaviour{dieAfter: time.Second}
		s.mu.Unlock()
		s.pass(10 * time.Second)
		if runs := s.runs("report"); !strings.HasPrefix(runs[1], "02:00 schedule succeeded **") {
			t.Errorf("tried again: %v", runs)
		}
		if st := s.service("report"); st.Reason != "" || st.Job.LastSuccess.IsZero() {
			t.Errorf("after it succeeded: %+v", st)
		}
	})
}

func TestJobThatCannotBeStarted(t *testing.T) {
	simulate(t, map[string]behaviour{"v1": {refuse: errNoProgram}}, func(s *simulation) {
		s.apply(newJobSpec("v1", "0 * * * *"))
		s.pass(time.Hour + time.Minute)
		s.wantRuns("report", "01:00 schedule failed *")
		s.wantHappened([]string{"refuse report/1 v1"}, "refuse")
	})
}

func TestJobTimeout(t *testing.T) {
	simulate(t, map[string]behaviour{"v1": {stopTime: 2 * time.Second}}, func(s *simulation) {
		s.apply(newJobSpec("v1", "0 * * * *", scheduled(func(s *topology.Schedule) { s.Timeout = 10 * time.Minute })))
		s.pass(time.Hour + 10*time.Minute - time.Second)
		s.wantState("report", ServiceRunning, 1)
		s.pass(2 * time.Second)
		s.wantHappened([]string{"start report/1 v1", "signal report/1 v1 terminated"}, "start", "signal")
		s.pass(2 * time.Second)
		s.wantRuns("report", "01:00 schedule timed-out *")
		if cause := s.service("report").Job.Last.Cause; cause != "stopped at its timeout of 10m0s" {
			t.Errorf("cause %q", cause)
		}
	})
}

func TestJobIsTriggered(t *testing.T) {
	simulate(t, map[string]behaviour{"v1": {dieAfter: time.Minute}}, func(s *simulation) {
		s.apply(newJobSpec("v1", "0 * * * *"), with(web("v1", 1), worker))
		r, err := s.Trigger("report")
		if err != nil || r.Result != RunRunning {
			t.Errorf("trigger: %+v, %v", r, err)
		}
		synctest.Wait()
		s.wantRuns("report", "00:00 trigger running *")
		s.wantNext("report", "01:00")
		if _, err := s.Trigger("report"); err == nil || !strings.Contains(err.Error(), "a run is under way since 00:00:00, and report's overlap is skip") {
			t.Errorf("the second: %v", err)
		}
		s.apply(newJobSpec("v1", "0 * * * *", overlap(topology.OverlapQueue)))
		if r, err := s.Trigger("report"); err != nil || r.Result != RunQueued {
			t.Errorf("queued: %+v, %v", r, err)
		}
		s.pass(3 * time.Minute)
		s.wantRuns("report", "00:00 trigger succeeded *", "00:00 trigger succeeded *")
		s.apply(with(newJobSpec("v1", "0 * * * *"), func(s *topology.Service) { s.Stopped = true }), with(web("v1", 1), worker))
		s.wantState("report", ServiceStopped, 0)
		s.wantNext("report", "")
		for name, want := range map[string]string{"report": "stopped", "web": "no job", "nobody": "no such service"} {
			if _, err := s.Trigger(name); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("trigger %s: %v, want %s", name, err, want)
			}
		}
	})
}

func TestJobIsStopped(t *testing.T) {
	simulate(t, map[string]behaviour{"v1": {dieAfter: 30 * time.Minute}}, func(s *simulation) {
		spec := newJobSpec("v1", "0 * * * *")
		s.apply(spec)
		s.pass(time.Hour + time.Minute)
		s.apply(with(spec, func(s *topology.Service) { s.Stopped = true }))
		s.wantRuns("report", "01:00 schedule stopped *")
		s.pass(3 * time.Hour)
		s.apply(spec) // what was due meanwhile was not missed
		s.wantNext("report", "05:00")
		s.pass(time.Minute)
		s.wantRunning()
	})
}

func TestServiceBecomesAJobAndBack(t *testing.T) {
	simulate(t, map[string]behaviour{"v1": {dieAfter: 0}}, func(s *simulation) {
		service := with(web("v1", 2), named("report"), worker)
		s.apply(service)
		s.wantState("report", ServiceReady, 2)
		s.apply(newJobSpec("v1", "0 * * * *"))
		s.pass(time.Minute)
		s.wantRunning()
		s.pass(time.Hour)
		s.wantRunning("report/1 v1")
		s.apply(service)
		s.pass(time.Minute)
		s.wantState("report", ServiceReady, 2)
		if st := s.service("report"); st.Job != nil {
			t.Errorf("it is a service again: %+v", st)
		}
		if s.most > 2 {
			t.Errorf("%d at once", s.most)
		}
	})
}

func TestJobWhateverTheClockDoes(t *testing.T) {
	simulate(t, map[string]behaviour{"v1": {dieAfter: time.Minute}}, func(s *simulation) {
		var moved atomic.Int64
		system := s.site.clock
		s.site.clock = func() schedule.Moment {
			now := system()
			return schedule.Moment{Wall: now.Wall.Add(time.Duration(moved.Load())), Elapsed: now.Elapsed}
		}
		s.apply(newJobSpec("v1", "0 * * * *", scheduled(func(s *topology.Schedule) { s.Missed = topology.MissedOnce })))
		s.pass(65 * time.Minute) // 01:05
		s.wantRuns("report", "01:00 schedule succeeded *")
		moved.Store(int64(time.Hour)) // 02:05
		s.pass(10 * time.Minute)
		s.wantRuns("report", "01:00 schedule succeeded *")
		s.wantNext("report", "03:00")
		moved.Store(0) // 01:15
		s.pass(70 * time.Minute)
		s.wantRuns("report", "01:00 schedule succeeded *")
		s.pass(40 * time.Minute) // 03:05
		s.wantRuns("report", "01:00 schedule succeeded *", "03:00 schedule succeeded *")
		moved.Store(-int64(time.Hour))
		s.pass(50 * time.Minute) // 02:55
		s.wantNext("report", "04:00")
		s.pass(70 * time.Minute)
		s.wantRuns("report", "01:00 schedule succeeded *", "03:00 schedule succeeded *", "04:00 schedule succeeded *")
	})
}

func TestJobRemembers(t *testing.T) {
	for _, c := range []struct {
		missed topology.Missed
		want   []string
	}{
		{topology.MissedSkip, []string{"01:00 schedule succeeded *"}},
		{topology.MissedOnce, []string{"01:00 schedule succeeded *", "04:00 missed succeeded *"}},
	} {
		dir := t.TempDir()
		spec := newJobSpec("v1", "0 * * * *", scheduled(func(s *topology.Schedule) { s.Missed = c.missed }))
		var begin time.Time
		late := func(s *simulation, d time.Duration) { // the machine's clock goes on between two bubbles
			system := s.site.clock
			s.site.clock = func() schedule.Moment {
				now := system()
				return schedule.Moment{Wall: now.Wall.Add(d), Elapsed: now.Elapsed}
			}
		}
		simulate(t, map[string]behaviour{"v1": {dieAfter: time.Minute}}, func(s *simulation) {
			s.stateDir = dir
			begin = time.Now()
			s.apply(spec)
			s.pass(90 * time.Minute)
		})
		simulate(t, map[string]behaviour{"v1": {dieAfter: time.Minute}}, func(s *simulation) {
			s.stateDir = dir
			late(s, 4*time.Hour+30*time.Minute)
			if !time.Now().Equal(begin) {
				t.Fatal("bubbles begin at different times")
			}
			s.apply(spec)
			s.pass(2 * time.Minute)
			s.wantRuns("report", c.want...)
			s.wantNext("report", "05:00")
			if s.service("report").Job.LastSuccess.IsZero() {
				t.Error("the last success is forgotten")
			}
		})
		// Another schedule has missed nothing.
		simulate(t, nil, func(s *simulation) {
			s.stateDir = dir
			late(s, 40*time.Hour)
			s.apply(with(spec, scheduled(func(s *topology.Schedule) { s.Cron = "30 * * * *" })))
			s.pass(2 * time.Minute)
			s.wantRuns("report", c.want...)
		})
	}
}

func TestJobHistoryIsBoundedAndMayBeBroken(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "jobs", "report.json")
	simulate(t, map[string]behaviour{"v1": {dieAfter: time.Second}}, func(s *simulation) {
		s.stateDir = dir
		s.apply(newJobSpec("v1", "* * * * *"))
		s.pass(time.Hour)
		if n := len(s.service("report").Job.Runs); n != runsKept && n != runsKept+1 {
			t.Errorf("%d runs are remembered, want %d", n, runsKept)
		}
	})
	if info, err := os.Stat(path); err != nil || info.Size() > 10<<10 {
		t.Errorf("the history: %v, %v", info, err)
	}
	for _, broken := range []string{"", "{", `{"done": 7}`, "\x00\x00", `{"runs": [{}]}`} {
		write(t, path, broken, 0o600)
		simulate(t, map[string]behaviour{"v1": {dieAfter: time.Second}}, func(s *simulation) {
			s.stateDir = dir
			s.apply(newJobSpec("v1", "* * * * *"))
			s.pass(2 * time.Minute)
			if n := len(s.service("report").Job.Runs); n < 1 || n > 2 {
				t.Errorf("after %q: %d runs", broken, n)
			}
		})
	}
}

func TestJobWaitsForWhatItDependsOn(t *testing.T) {
	simulate(t, map[string]behaviour{"v1": {dieAfter: time.Minute}, "db": {readyAfter: 70 * time.Minute}}, func(s *simulation) {
		s.apply(newJobSpec("v1", "0 * * * *", needs("db", topology.ConditionReady)), with(web("db", 1), named("db")))
		s.pass(65 * time.Minute)
		s.wantRuns("report", "01:00 schedule running ")
		if st := s.service("report"); !strings.Contains(st.Reason, "waits for db to be ready") {
			t.Errorf("it waits: %+v", st)
		}
		s.pass(10 * time.Minute)
		s.wantRuns("report", "01:00 schedule succeeded *")
	})
}

// The run of a job goes on when Mainstay is killed, and its end is its own, seen or not.
func TestJobOutlivesMainstay(t *testing.T) {
	for name, c := range map[string]struct {
		away time.Duration
		want string
	}{
		"it ends afterwards": {time.Minute, "01:00 schedule succeeded *"},
		"it ends meanwhile":  {30 * time.Minute, "01:00 schedule unknown *"},
	} {
		simulate(t, map[string]behaviour{"v1": {dieAfter: 10 * time.Minute}}, func(s *simulation) {
			s.stateDir = t.TempDir()
			spec := newJobSpec("v1", "0 * * * *")
			s.apply(spec)
			s.pass(time.Hour + time.Minute)
			s.crash(func() { s.pass(c.away) })
			s.apply(spec)
			if name == "it ends afterwards" {
				s.wantRuns("report", "01:00 schedule running *")
				s.wantState("report", ServiceRunning, 1)
			}
			s.wantNext("report", "02:00")
			s.pass(15 * time.Minute)
			s.wantRuns("report", c.want)
			s.wantHappened(nil, "start", "signal")
		})
	}
}

func TestJobOutlivesMainstayWithTheRunThatWaits(t *testing.T) {
	for name, away := range map[string]time.Duration{"the one under way ends afterwards": time.Second, "and meanwhile": 30 * time.Minute} {
		simulate(t, map[string]behaviour{"v1": {dieAfter: 10 * time.Minute}}, func(s *simulation) {
			s.stateDir = t.TempDir()
			spec := newJobSpec("v1", "0 * * * *", overlap(topology.OverlapQueue))
			s.apply(spec)
			for range 2 {
				if _, err := s.Trigger("report"); err != nil {
					t.Fatal(err)
				}
			}
			s.crash(func() { s.pass(away) })
			s.apply(spec)
			s.pass(21 * time.Minute)
			if runs := s.runs("report"); len(runs) != 2 || runs[1] != "00:00 trigger succeeded *" {
				t.Errorf("%s: %q", name, runs)
			}
			if _, err := s.Trigger("report"); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Trigger("report"); err != nil {
				t.Fatal(err)
			}
			s.apply(with(spec, func(s *topology.Service) { s.Stopped = true }))
			s.crash(nil)
			s.apply(spec)
			s.pass(time.Minute)
			s.wantRunning() // it was stopped, and does not wait any more
		})
	}
}

func TestTriggerOfWhatIsGone(t *testing.T) {
	simulate(t, nil, func(s *simulation) {
		s.apply(newJobSpec("v1", "0 * * * *"))
		s.apply()
		if _, err := s.Trigger("report"); err == nil || errors.Is(err, errNoJob) {
			t.Errorf("trigger: %v", err)
		}
	})
}
