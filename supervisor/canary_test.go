package supervisor

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"mainstay/topology"
)

func canaryOf(weight float64, duration time.Duration, errors, latency float64) func(*topology.Service) {
	return func(s *topology.Service) {
		s.Update.Canary = &topology.Canary{Weight: weight, Duration: duration, MaxErrorRatio: errors, MaxLatencyRatio: latency}
	}
}

func TestCanaryPasses(t *testing.T) {
	busy := behaviour{rate: 100, errors: 0.02, latency: 10 * time.Millisecond}
	slower := behaviour{rate: 10, errors: 0.025, latency: 15 * time.Millisecond}
	simulate(t, map[string]behaviour{"v1": busy, "v2": slower}, func(s *simulation) {
		in := canaryOf(10, time.Minute, 0.01, 2)
		s.apply(with(web("v1", 2), in))
		s.pass(10 * time.Second)
		s.forget()
		s.apply(with(web("v2", 2), in, func(s *topology.Service) { s.Update.Parallelism = 2 }))
		s.pass(30*time.Second + time.Millisecond)
		s.wantRunning("web/1 v1", "web/1 v2", "web/2 v1")
		s.wantUpdate("web", "canary 0/2")
		c := s.service("web").Update.Canary
		if c.Instance != "web/1" || c.Weight != 10 || c.New.Requests != 300 || c.Old.Requests != 6000 || c.New.ErrorRatio > 0.03 || c.New.P95 < 0.01 || c.New.P95 > 0.015 {
			t.Errorf("canary: %+v", c)
		}
		s.pass(31 * time.Second)
		s.wantHappened([]string{"admit web/1.2 for 10 %", "admit web/1.2"}, "admit web/1")
		s.wantHappened([]string{"admit web/2.2"}, "admit web/2")
		s.pass(10 * time.Second)
		s.wantRunning("web/1 v2", "web/2 v2")
		s.wantState("web", ServiceReady, 2)
		s.wantStrength(2)
		if n := testutil.ToFloat64(s.site.metrics.canaries.WithLabelValues("web", "passed")); n != 1 {
			t.Errorf("%g canaries passed", n)
		}
	})
}

func TestCanaryFails(t *testing.T) {
	tests := []struct {
		name     string
		old, bad behaviour
		why      string // empty: it passes
		by       time.Duration
	}{
		{"errors", behaviour{rate: 100}, behaviour{rate: 10, errors: 0.3}, "as a canary it had errors in 30 % of 10 requests, the old instances in 0 % of 200; 1 % more are allowed", 2 * time.Second},
		{"few requests, all failed", behaviour{rate: 0.1}, behaviour{rate: 0.1, errors: 1}, "as a canary it had errors in 100 % of 3 requests, the old instances in 0 % of 6; 1 % more are allowed", 31 * time.Second},
		{"errors that the old ones have too", behaviour{rate: 100, errors: 0.3}, behaviour{rate: 10, errors: 0.3}, "", 0},
		{"two errors", behaviour{rate: 1}, behaviour{rate: 0.1, errors: 0.4}, "", 0},
		{"latency", behaviour{rate: 100, latency: 10 * time.Millisecond}, behaviour{rate: 10, latency: 50 * time.Millisecond},
			"as a canary it answered 95 % of 50 requests within 49ms, the old instances within 9.85ms; 2 times that is allowed", 6 * time.Second},
		{"latency of few requests", behaviour{rate: 0.5, latency: 10 * time.Millisecond}, behaviour{rate: 0.5, latency: 50 * time.Millisecond}, "", 0},
		{"no traffic", behaviour{}, behaviour{}, "", 0},
		{"no traffic on the old ones", behaviour{}, behaviour{rate: 10, errors: 0.3}, "as a canary it had errors in 30 % of 10 requests, the old instances in 0 % of 0; 1 % more are allowed", 2 * time.Second},
		{"dies", behaviour{}, behaviour{dieAfter: 40 * time.Second}, "ready for 40s only: exited with status 0", 41 * time.Second},
	}
	for _, tt := range tests {
		for _, action := range []topology.FailureAction{topology.FailureRollback, topology.FailurePause, topology.FailureContinue} {
			for _, replicas := range []int{1, 2} {
				if replicas == 1 && strings.Contains(tt.why, " of 200") { // the figures are of two
					continue
				}
				t.Run(tt.name, func(t *testing.T) {
					simulate(t, map[string]behaviour{"v1": tt.old, "bad": tt.bad}, func(s *simulation) {
						in := func(s *topology.Service) {
							canaryOf(5, time.Minute, 0.01, 2)(s)
							failing(action)(s)
						}
						s.apply(with(web("v1", replicas), in))
						s.pass(10 * time.Second)
						s.forget()
						s.apply(with(web("bad", replicas), in))
						if tt.why == "" {
							s.pass(5 * time.Minute)
							s.wantState("web", ServiceReady, replicas)
							if slices.Contains(s.running(), "web/1 v1") {
								t.Error("it did not pass")
							}
							return
						}
						s.pass(tt.by)
						if replicas == 2 || !strings.Contains(tt.why, " of 6;") {
							if why := s.service("web").Reason; !strings.HasSuffix(why, "web/1: "+tt.why) {
								t.Errorf("reason: %s", why)
							}
						}
						s.wantState("web", ServiceDegraded, replicas)
						if slices.Contains(s.running(), "web/1 bad") || !slices.Contains(s.running(), "web/1 v1") {
							t.Errorf("running: %q", s.running())
						}
						s.pass(3 * time.Second)
						switch {
						case action == topology.FailureContinue && replicas == 2:
							s.wantRunning("web/1 v1", "web/2 bad", "web/2 v1") // and not as a canary
							s.wantUpdate("web", "proving 0/2")
							if got := s.happened("admit web/2"); !slices.Equal(got, []string{"admit web/2.2"}) {
								t.Errorf("%q", got)
							}
						case action == topology.FailurePause:
							s.wantUpdate("web", "paused 0/"+string(rune('0'+replicas)))
						}
						s.wantStrength(replicas)
					})
				})
			}
		}
	}
}

func TestNoCanaryOfTheSame(t *testing.T) {
	simulate(t, nil, func(s *simulation) {
		in := canaryOf(10, time.Hour, 0, 0)
		s.apply(with(web("v1", 2), in))
		s.pass(10 * time.Second)
		s.forget()
		s.apply(with(web("v1", 2), in, epoch(1)))
		s.pass(time.Minute)
		s.wantState("web", ServiceReady, 2)
		s.wantHappened([]string{"admit web/1.2", "admit web/2.2"}, "admit")
		// What is added while there is a canary is what has worked.
		s.apply(with(web("v2", 3), in, epoch(1)))
		s.pass(time.Minute)
		s.wantRunning("web/1 v1", "web/1 v2", "web/2 v1", "web/3 v1")
		s.wantUpdate("web", "canary 0/3")
		// The rule is in force at once when it changes, and so is its end.
		s.apply(with(web("v2", 3), canaryOf(20, time.Hour, 0, 0), epoch(1)))
		s.pass(time.Minute)
		if got := s.happened("admit web/1.3"); !slices.Equal(got, []string{"admit web/1.3 for 10 %", "admit web/1.3 for 20 %"}) {
			t.Errorf("%q", got)
		}
		s.apply(with(web("v2", 3), epoch(1)))
		s.pass(time.Minute)
		s.wantRunning("web/1 v2", "web/2 v2", "web/3 v2")
		s.wantState("web", ServiceReady, 3)
	})
}

func TestCanaryIsSuperseded(t *testing.T) {
	simulate(t, nil, func(s *simulation) {
		in := canaryOf(10, time.Minute, 0, 0)
		s.apply(with(web("v1", 2), in))
		s.pass(10 * time.Second)
		s.forget()
		s.apply(with(web("v2", 2), in))
		s.pass(30 * time.Second)
		s.apply(with(web("v3", 2), in))
		s.pass(40 * time.Second)
		s.wantRunning("web/1 v1", "web/1 v3", "web/2 v1")
		s.wantUpdate("web", "canary 0/2")
		s.apply(with(web("v1", 2), in))
		s.pass(time.Second)
		s.wantRunning("web/1 v1", "web/2 v1")
		s.wantState("web", ServiceReady, 2)
		if s.most != 3 {
			t.Errorf("%d lived at once", s.most)
		}
	})
}

func TestPercentile(t *testing.T) {
	traffic := func(counts map[int]uint64) (t topology.Traffic) {
		for b, n := range counts {
			t.Latencies[b] = n
		}
		return t
	}
	last := len(topology.LatencyBuckets)
	tests := []struct {
		counts map[int]uint64
		want   time.Duration
	}{
		{nil, 0},
		{map[int]uint64{0: 100}, 475 * time.Microsecond},
		{map[int]uint64{0: 95, 6: 5}, 500 * time.Microsecond},
		{map[int]uint64{0: 90, 6: 10}, 8500 * time.Microsecond},
		{map[int]uint64{0: 1, last: 99}, time.Minute},
	}
	for _, tt := range tests {
		if got := percentile(traffic(tt.counts), 0.95); got != tt.want {
			t.Errorf("%v: %s, want %s", tt.counts, got, tt.want)
		}
	}
}
