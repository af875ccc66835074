package backup

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// metrics counts runs. What is a state rather than a count is collected from Status.
type metrics struct {
	runs     *prometheus.CounterVec
	missed   *prometheus.CounterVec
	added    *prometheus.CounterVec
	duration *prometheus.HistogramVec
}

func newMetrics(reg prometheus.Registerer, b *Backup) *metrics {
	f := promauto.With(reg)
	if reg != nil {
		reg.MustRegister(newStates(b))
	}
	return &metrics{
		runs:   f.NewCounterVec(prometheus.CounterOpts{Name: "backup_runs_total", Help: "Runs of a backup, by how they ended: success, partial, failure, cancelled."}, []string{"backup", "result"}),
		missed: f.NewCounterVec(prometheus.CounterOpts{Name: "backup_missed_runs_total", Help: "Times of a backup's schedule at which it did not run."}, []string{"backup"}),
		added:  f.NewCounterVec(prometheus.CounterOpts{Name: "backup_added_bytes_total", Help: "Bytes that a backup's snapshots stored anew."}, []string{"backup"}),
		duration: f.NewHistogramVec(prometheus.HistogramOpts{
			Name: "backup_duration_seconds", Help: "How long runs that took a snapshot lasted.",
			Buckets: prometheus.ExponentialBuckets(0.25, 4, 9), // to 4.5 hours
		}, []string{"backup"}),
	}
}

// ran counts a run that took a snapshot, or ended with err.
func (m *metrics) ran(name string, err error, s *Snapshot, took time.Duration) {
	result := "success"
	switch {
	case cancelled(err):
		result = "cancelled"
	case err != nil:
		result = "failure"
	case s.Partial:
		result = "partial"
	}
	m.runs.WithLabelValues(name, result).Inc()
	if err == nil {
		m.duration.WithLabelValues(name).Observe(took.Seconds())
		m.added.WithLabelValues(name).Add(float64(s.AddedBytes))
	}
}

// forget drops the series of a backup that is not there any more.
func (m *metrics) forget(name string) {
	labels := prometheus.Labels{"backup": name}
	m.runs.DeletePartialMatch(labels)
	m.missed.DeletePartialMatch(labels)
	m.added.DeletePartialMatch(labels)
	m.duration.DeletePartialMatch(labels)
}

// states shows what Status says.
type states struct {
	backup                                        *Backup
	lastSuccess, nextRun, running, bytes, partial *prometheus.Desc
}

func newStates(b *Backup) *states {
	desc := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc("backup_"+name, help, []string{"backup"}, nil)
	}
	return &states{
		backup:      b,
		lastSuccess: desc("last_success_timestamp_seconds", "When the newest snapshot was taken that has everything, if this process took one."),
		nextRun:     desc("next_run_timestamp_seconds", "When the backup runs next by its schedule."),
		running:     desc("running", "Whether a run is under way."),
		partial:     desc("snapshot_partial", "Whether something is missing from the newest snapshot because it could not be read whole."),
		bytes:       desc("snapshot_size_bytes", "Size of all files in the newest snapshot."),
	}
}

// Describe implements prometheus.Collector.
func (s *states) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{s.lastSuccess, s.nextRun, s.running, s.bytes, s.partial} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (s *states) Collect(out chan<- prometheus.Metric) {
	for _, j := range s.backup.Status() {
		gauge := func(d *prometheus.Desc, v float64) {
			out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, j.Name)
		}
		if !j.LastGood.IsZero() {
			gauge(s.lastSuccess, float64(j.LastGood.UnixMilli())/1000)
		}
		if !j.NextRun.IsZero() {
			gauge(s.nextRun, float64(j.NextRun.Unix()))
		}
		if j.Newest != nil {
			gauge(s.bytes, float64(j.Newest.Bytes))
			partial := 0.0
			if j.Newest.Partial {
				partial = 1
			}
			gauge(s.partial, partial)
		}
		running := 0.0
		if j.State == stateRunning {
			running = 1
		}
		gauge(s.running, running)
	}
}
