package supervisor

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"mainstay/topology"
)

// why explains the only instance of web.
func (s *simulation) why() InstanceExplanation {
	s.t.Helper()
	e, err := s.Why("web", 1)
	if err != nil || len(e.Instances) != 1 {
		s.t.Fatalf("why: %+v, %v", e, err)
	}
	return e.Instances[0]
}

func TestPostmortemsByCause(t *testing.T) {
	startup := func(s *topology.Service) { s.Probes.Startup = byTCP(2) }
	liveness := func(s *topology.Service) { s.Probes.Liveness = byTCP(2) }
	tests := []struct {
		name    string
		program behaviour
		changes []func(*topology.Service)
		cause   string
		exit    string
	}{
		{"exits", behaviour{dieAfter: 2 * time.Second, status: 3}, nil, CauseExit, "exited with status 3"},
		{"needs too much memory", behaviour{dieAfter: 2 * time.Second, outOfMemory: true}, nil, CauseOOM, "killed by the kernel: out of memory"},
		{"is missing", behaviour{refuse: errNoProgram}, nil, CauseSpawn, ""},
		{"never answers", behaviour{neverReady: true}, []func(*topology.Service){startup}, CauseStartup, "killed by SIGTERM"},
		{"no longer answers", behaviour{sickAfter: 2 * time.Second}, []func(*topology.Service){liveness}, CauseLiveness, "killed by SIGTERM"},
	}
	for _, tt := range tests {
		synctest.Test(t, func(t *testing.T) {
			reg := prometheus.NewRegistry()
			s := newSimulation(t, reg, map[string]behaviour{"v1": tt.program})
			spec := with(web("v1", 1), tt.changes...)
			spec.Limits.Memory = 64 << 20
			s.apply(spec)
			for range 100 {
				if len(s.why().Postmortems) > 0 {
					break
				}
				s.pass(100 * time.Millisecond)
			}
			list := s.why().Postmortems
			if len(list) == 0 {
				t.Fatalf("%s: there is no post-mortem", tt.name)
			}
			pm := list[0]
			if pm.Instance != "web/1" || pm.Cause != tt.cause || pm.Exit != tt.exit || (pm.PID == 0) != (tt.cause == CauseSpawn) || pm.Why == "" {
				t.Errorf("%s: %+v", tt.name, pm)
			}
			if probed := len(pm.Probes) > 0; probed != (tt.cause != CauseSpawn) || len(pm.Probes) > resultsKept {
				t.Errorf("%s: the probes: %+v", tt.name, pm.Probes)
			}
			if tt.cause == CauseOOM && pm.Memory != 64<<20 {
				t.Errorf("%d bytes of memory", pm.Memory)
			}
			if tt.cause == CauseStartup || tt.cause == CauseLiveness {
				if !slices.ContainsFunc(pm.Probes, func(r ProbeResult) bool { return r.Probe == tt.cause && r.Answer == "connection refused" }) {
					t.Errorf("%s: the answers are %+v", tt.name, pm.Probes)
				}
			}
			s.pass(time.Second)
			if n := testutil.ToFloat64(s.site.metrics.restarts.WithLabelValues("web", tt.cause)); n < 1 {
				t.Errorf("%s: no restart with that reason is counted", tt.name)
			}
			s.apply()
			s.applyAs(topology.Empty)
		})
	}
}

// byTCP is a probe of the instance's port.
func byTCP(failures int) *topology.Probe {
	return &topology.Probe{TCP: "{address}", Period: time.Second, Timeout: time.Second, FailureThreshold: failures, SuccessThreshold: 1}
}

// What we ended ourselves needs no explanation.
func TestNoPostmortemOfAStop(t *testing.T) {
	simulate(t, nil, func(s *simulation) {
		s.apply(web("v1", 1))
		s.pass(time.Minute)
		s.apply(web("v2", 1))
		s.pass(time.Minute)
		if e := s.why(); len(e.Postmortems) != 0 || !strings.HasPrefix(e.Sentence, "web/1 has been ready for") {
			t.Errorf("%+v", e)
		}
	})
}

func TestCrashLoopIsNamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := prometheus.NewRegistry()
		s := newSimulation(t, reg, map[string]behaviour{"v1": {dieAfter: time.Second, status: 3}})
		loops := func(want string) {
			t.Helper()
			text := "# HELP supervisor_instance_crash_loop Whether the processes of the instance end again and again (1) or not (0).\n" +
				"# TYPE supervisor_instance_crash_loop gauge\nsupervisor_instance_crash_loop{replica=\"1\",service=\"web\"} " + want + "\n"
			if err := testutil.GatherAndCompare(reg, strings.NewReader(text), "supervisor_instance_crash_loop"); err != nil {
				t.Error(err)
			}
		}
		s.apply(web("v1", 1))
		s.pass(3 * time.Second)
		loops("0")
		if reason := s.service("web").Reason; strings.Contains(reason, "crash loop") {
			t.Errorf("too soon: %s", reason)
		}
		s.pass(time.Minute)
		loops("1")
		st := s.service("web")
		if !st.Instances[0].CrashLoop || !strings.Contains(st.Reason, "crash loop: ended ") {
			t.Errorf("web is %+v", st)
		}
		if e := s.why(); !strings.Contains(e.Sentence, "crash loop: ended") || len(e.Postmortems) < 5 {
			t.Errorf("why says %+v", e)
		}
		s.pass(10 * time.Minute)
		if n := len(s.why().Postmortems); n != postmortemsKept {
			t.Errorf("%d post-mortems are kept, want %d", n, postmortemsKept)
		}
		s.mu.Lock()
		s.behaviour["v1"] = behaviour{}
		s.mu.Unlock()
		s.pass(40 * time.Second)
		s.wantState("web", ServiceReady, 1) // slow retries found that it is well
		s.pass(40 * time.Second)
		loops("0")
		if e := s.why(); e.CrashLoop || !strings.Contains(e.Sentence, "; the process before it ended") {
			t.Errorf("%+v", e)
		}
		s.apply()
		s.applyAs(topology.Empty)
	})
}

func TestWhySomethingWaits(t *testing.T) {
	simulate(t, map[string]behaviour{"never": {neverReady: true}}, func(s *simulation) {
		s.apply(with(web("never", 1), named("db")), with(web("v1", 1), needs("db", topology.ConditionReady)))
		s.pass(10 * time.Second)
		e, err := s.Why("web", 0)
		want := []Dependency{{Service: "db", Condition: "ready", Why: "waits for db to be ready"}}
		if diff := cmp.Diff(want, e.Dependencies); err != nil || diff != "" || e.Sentence != "web/1 has not been started: waits for db to be ready" {
			t.Errorf("%s\n%s %v", e.Sentence, diff, err)
		}
		if e, _ := s.Why("db", 0); !strings.Contains(e.Sentence, "db/1 runs, but has not been ready for 10s: readiness probe failed: connection refused") {
			t.Error(e.Sentence)
		}
		if _, err := s.Why("nobody", 0); err == nil {
			t.Error("nobody was explained")
		}
		if _, err := s.Why("web", 2); err == nil {
			t.Error("web/2 was explained")
		}
	})
}

func TestPostmortemOfARealProcess(t *testing.T) {
	f := newFleet(t)
	f.apply(shell("web", `i=0; while [ $i -lt 60 ]; do echo line $i; i=$((i+1)); done; printf 'last words'; kill -SEGV $$`))
	f.eventually("it has ended", func() bool { return f.only("web").Restarts > 0 })
	e, err := f.Why("web", 1)
	if err != nil {
		t.Fatal(err)
	}
	pm := e.Instances[0].Postmortems[0]
	if pm.Cause != CauseExit || pm.Signal != "SIGSEGV" || pm.Exit != "killed by SIGSEGV" || pm.Status != nil || pm.PID == 0 {
		t.Errorf("%+v", pm)
	}
	if n := len(pm.Output); n != wordsKept || pm.Output[n-1].Text != "last words" || pm.Output[0].Text != "line 11" || pm.Output[0].Instance != "web/1" {
		t.Errorf("%d lines: %+v", n, pm.Output)
	}

	// The next Mainstay knows of it too.
	f.apply()
	f.Apply(t.Context(), topology.Empty)
	files, _ := filepath.Glob(filepath.Join(f.state, "postmortems", "web.1", "*.json"))
	if len(files) == 0 || len(files) > postmortemsKept {
		t.Fatalf("%d files", len(files))
	}
	write(t, filepath.Join(filepath.Dir(files[0]), "20010101T000000.000000000Z.json"), "torn", 0o600)
	syscall.Mkfifo(filepath.Join(filepath.Dir(files[0]), "20010101T000001.000000000Z.json"), 0o600)
	if info, err := os.Stat(files[0]); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info, err)
	}
	again := newMorgue(quietLog(t.Output()))
	again.open(f.state)
	list := again.of("web/1")
	if len(list) == 0 {
		t.Fatal("nothing was found")
	}
	for n := 1; n < len(list); n++ {
		if list[n].Ended.After(list[n-1].Ended) {
			t.Error("they are not in order")
		}
	}
}

// What a service says cannot make a post-mortem large.
func TestPostmortemIsBounded(t *testing.T) {
	words := &utterances{}
	for range 1000 {
		words.add("stdout", []byte(strings.Repeat("\x00", 16<<10)), false)
	}
	if n := len(words.last()); n > wordsKept || words.size > wordsInAll || n*wordLimit > wordsInAll+wordLimit {
		t.Errorf("%d lines of %d bytes", n, words.size)
	}
	b, err := json.Marshal(Postmortem{Output: words.last()})
	if err != nil || len(b) > postmortemLimit {
		t.Errorf("%d bytes, %v", len(b), err)
	}
}

// A disk that fails delays nobody, and what happened is still known.
func TestMorgueOnAFullDisk(t *testing.T) {
	m := newMorgue(quietLog(t.Output()))
	dir := t.TempDir()
	write(t, filepath.Join(dir, "postmortems"), "no directory", 0o600)
	m.open(dir)
	for n := range 30 {
		m.add(Postmortem{Instance: "web/1", Restarts: n, Ended: time.Unix(int64(n), 0)})
	}
	m.flush()
	if list := m.of("web/1"); len(list) != postmortemsKept || list[0].Restarts != 29 {
		t.Errorf("%d are kept, the first of them %+v", len(list), list[0])
	}
	m.forget("web")
	if list := m.of("web/1"); len(list) != 0 {
		t.Errorf("%d are kept of what is gone", len(list))
	}
}
