package engine

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	reloads *prometheus.CounterVec
}

// newMetrics registers the engine's metrics; the gauges are read from status whenever they are collected.
func newMetrics(reg prometheus.Registerer, status func() Status) *metrics {
	auto := promauto.With(reg)
	m := &metrics{
		reloads: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "config_reloads_total",
			Help: "Loads of the topology, the one at start included, by how they ended.",
		}, []string{"result"}),
	}
	for _, result := range []string{ResultApplied, ResultUnchanged, ResultInvalid, ResultRefused} {
		m.reloads.WithLabelValues(result)
	}
	auto.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "config_last_reload_successful",
		Help: "Whether the last load of the topology ended well (1) or changed nothing because of an error (0).",
	}, func() float64 {
		if status().LastReload.good() {
			return 1
		}
		return 0
	})
	auto.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "config_last_reload_success_timestamp_seconds",
		Help: "When a load of the topology last ended well, as Unix time; 0 if none has.",
	}, func() float64 {
		if t := status().LastGood; !t.IsZero() {
			return float64(t.UnixMilli()) / 1000
		}
		return 0
	})
	auto.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "config_generation",
		Help: "Generation of the topology that runs.",
	}, func() float64 { return float64(status().Generation) })
	return m
}
