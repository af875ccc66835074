package supervisor

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"mainstay/topology"
)

func TestMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := prometheus.NewRegistry()
		s := newSimulation(t, reg, map[string]behaviour{"bad": {refuse: errNoProgram}})
		s.apply(web("v1", 2), with(web("bad", 1), named("bad")))
		s.pass(10 * time.Second)
		s.kill("web/2 v1")
		s.pass(100 * time.Millisecond)
		want := `
# HELP supervisor_instance_up Whether the instance is ready (1) or not (0).
# TYPE supervisor_instance_up gauge
supervisor_instance_up{replica="1",service="bad"} 0
supervisor_instance_up{replica="1",service="web"} 1
supervisor_instance_up{replica="2",service="web"} 0
# HELP supervisor_service_replicas_desired Instances that the topology asks for.
# TYPE supervisor_service_replicas_desired gauge
supervisor_service_replicas_desired{service="bad"} 1
supervisor_service_replicas_desired{service="web"} 2
# HELP supervisor_service_replicas_ready Instances that are ready.
# TYPE supervisor_service_replicas_ready gauge
supervisor_service_replicas_ready{service="bad"} 0
supervisor_service_replicas_ready{service="web"} 1
`
		if err := testutil.GatherAndCompare(reg, strings.NewReader(want),
			"supervisor_instance_up", "supervisor_service_replicas_desired", "supervisor_service_replicas_ready"); err != nil {
			t.Error(err)
		}
		s.pass(time.Second)
		s.behaviour["v2"] = behaviour{rate: 0.4}
		s.apply(with(web("v2", 2), canaryOf(10, 30*time.Second, 1, 0)))
		s.pass(20 * time.Second)
		want = `
# HELP supervisor_canary_requests Requests seen since the canary that runs now became ready, by side: new, old.
# TYPE supervisor_canary_requests gauge
supervisor_canary_requests{service="web",side="new"} 7
supervisor_canary_requests{service="web",side="old"} 0
# HELP supervisor_service_update_phase What the update of a service does (1): starting, proving, canary, draining, returning, paused, waiting. No series: there is none.
# TYPE supervisor_service_update_phase gauge
supervisor_service_update_phase{phase="canary",service="web"} 1
`
		if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "supervisor_canary_requests", "supervisor_service_update_phase"); err != nil {
			t.Error(err)
		}
		if problems, err := testutil.GatherAndLint(reg); err != nil || len(problems) > 0 {
			t.Errorf("lint: %v, %v", problems, err)
		}
		s.pass(time.Minute)
		m := s.site.metrics
		for _, tt := range []struct {
			what string
			got  float64
			want float64
		}{
			{"restarts after an exit", testutil.ToFloat64(m.restarts.WithLabelValues("web", "exit")), 1},
			{"restarts by an update", testutil.ToFloat64(m.restarts.WithLabelValues("web", "update")), 2},
			{"updates completed", testutil.ToFloat64(m.updates.WithLabelValues("web", "completed")), 1},
			{"series of a service that is gone", float64(testutil.CollectAndCount(m.spawnFailures)), 0},
		} {
			if tt.got != tt.want {
				t.Errorf("%s: %g, want %g", tt.what, tt.got, tt.want)
			}
		}
		problems, err := testutil.GatherAndLint(reg)
		if err != nil || len(problems) > 0 {
			t.Errorf("lint: %v, %v", problems, err)
		}
		s.apply(topology.Service{Name: "idle", Stopped: true})
		s.apply()
	})
}
