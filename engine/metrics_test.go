package engine

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// wantMetric checks the sum over all labels of the metric name.
func wantMetric(t *testing.T, reg *prometheus.Registry, name string, want float64) {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() != name {
			continue
		}
		var got float64
		for _, m := range family.GetMetric() {
			got += m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
		if got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
		return
	}
	t.Errorf("there is no metric %s", name)
}

func TestMetrics(t *testing.T) {
	working(t, web2, func(t *testing.T, p *plant) {
		problems, err := testutil.GatherAndLint(p.reg)
		if err != nil || len(problems) > 0 {
			t.Errorf("lint: %v, %v", problems, err)
		}
		wantMetric(t, p.reg, "config_generation", 1)
		wantMetric(t, p.reg, "config_reloads_total", 1)
		wantMetric(t, p.reg, "config_last_reload_successful", 1)
		start := float64(time.Now().Unix())
		wantMetric(t, p.reg, "config_last_reload_success_timestamp_seconds", start)

		p.pass(time.Hour)
		p.writeRaw("version: one")
		p.Reload(t.Context(), OriginAPI)
		wantMetric(t, p.reg, "config_last_reload_successful", 0)
		wantMetric(t, p.reg, "config_last_reload_success_timestamp_seconds", start)

		p.pass(time.Hour)
		p.save(web3)
		wantMetric(t, p.reg, "config_generation", 2)
		wantMetric(t, p.reg, "config_last_reload_successful", 1)
		wantMetric(t, p.reg, "config_last_reload_success_timestamp_seconds", start+2*3600)
		for result, want := range map[string]float64{ResultApplied: 2, ResultInvalid: 1, ResultRefused: 0, ResultUnchanged: 0} {
			if got := testutil.ToFloat64(p.metrics.reloads.WithLabelValues(result)); got != want {
				t.Errorf("%s: %v, want %v", result, got, want)
			}
		}
	})
}
