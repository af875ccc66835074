package supervisor

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	restarts      *prometheus.CounterVec // by service, reason
	spawnFailures *prometheus.CounterVec // by service
	probeFailures *prometheus.CounterVec // by service, probe
	updates       *prometheus.CounterVec // by service, result
	canaries      *prometheus.CounterVec // by service, result
	dropped       *prometheus.CounterVec // by service
	jobRuns       *prometheus.CounterVec // by service, result
	forgotten     prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	auto := promauto.With(reg)
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return auto.NewCounterVec(prometheus.CounterOpts{Name: "supervisor_" + name, Help: help}, append([]string{"service"}, labels...))
	}
	return &metrics{
		restarts:      counter("restarts_total", "Processes started again, by why the one before ended: exit, oom, spawn, startup, liveness, port, update.", "reason"),
		spawnFailures: counter("spawn_failures_total", "Processes that could not be started."),
		probeFailures: counter("probe_failures_total", "Tries of a probe that failed.", "probe"),
		updates:       counter("updates_total", "Updates of a service, by result: completed, given_up, paused, superseded.", "result"),
		canaries:      counter("canaries_total", "First instances of an update that were judged by their requests, by result: passed, failed.", "result"),
		dropped:       counter("output_lines_dropped_total", "Lines of output that could not be kept because the disk was full, failing or too slow."),
		jobRuns:       counter("job_runs_total", "Runs of a job, by result: succeeded, failed, timed-out, replaced, stopped, unknown; and times at which it did not run: skipped, missed.", "result"),
		forgotten:     auto.NewCounter(prometheus.CounterOpts{Name: "supervisor_output_files_removed_total", Help: "Old files of output removed so that all are within logs.max_total."}),
	}
}

// forget ends the series of a service that is no more.
func (m *metrics) forget(service string) {
	for _, v := range []*prometheus.CounterVec{m.restarts, m.spawnFailures, m.probeFailures, m.updates, m.canaries, m.dropped, m.jobRuns} {
		v.DeletePartialMatch(prometheus.Labels{"service": service})
	}
}

// ran counts what became of a run of a job, or of a time for one.
func (m *metrics) ran(service string, r RunResult) {
	m.jobRuns.WithLabelValues(service, string(r)).Inc()
}

// gauges collects what Status tells.
type gauges struct{ status func() []ServiceStatus }

var (
	desiredDesc = prometheus.NewDesc("supervisor_service_replicas_desired", "Instances that the topology asks for.", []string{"service"}, nil)
	readyDesc   = prometheus.NewDesc("supervisor_service_replicas_ready", "Instances that are ready.", []string{"service"}, nil)
	nextDesc    = prometheus.NewDesc("supervisor_job_next_run_timestamp_seconds", "When the job is due next.", []string{"service"}, nil)
	successDesc = prometheus.NewDesc("supervisor_job_last_success_timestamp_seconds", "When a run of the job last succeeded.", []string{"service"}, nil)
	upDesc      = prometheus.NewDesc("supervisor_instance_up", "Whether the instance is ready (1) or not (0).", []string{"service", "replica"}, nil)
	loopDesc    = prometheus.NewDesc("supervisor_instance_crash_loop", "Whether the processes of the instance end again and again (1) or not (0).", []string{"service", "replica"}, nil)
	phaseDesc   = prometheus.NewDesc("supervisor_service_update_phase", "What the update of a service does (1): starting, proving, canary, draining, returning, paused, waiting. No series: there is none.", []string{"service", "phase"}, nil)
	sideLabels  = []string{"service", "side"}
	canaryDesc  = prometheus.NewDesc("supervisor_canary_requests", "Requests seen since the canary that runs now became ready, by side: new, old.", sideLabels, nil)
	errorsDesc  = prometheus.NewDesc("supervisor_canary_error_ratio", "The share of those requests that failed.", sideLabels, nil)
	latencyDesc = prometheus.NewDesc("supervisor_canary_latency_p95_seconds", "The 95th percentile of those requests' time to the response's header.", sideLabels, nil)
)

// Describe implements prometheus.Collector.
func (g gauges) Describe(ch chan<- *prometheus.Desc) {
	ch <- desiredDesc
	ch <- readyDesc
	ch <- upDesc
	ch <- loopDesc
	ch <- phaseDesc
	ch <- canaryDesc
	ch <- errorsDesc
	ch <- latencyDesc
	ch <- nextDesc
	ch <- successDesc
}

// Collect implements prometheus.Collector.
func (g gauges) Collect(ch chan<- prometheus.Metric) {
	gauge := func(desc *prometheus.Desc, value float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, labels...)
	}
	for _, s := range g.status() {
		gauge(desiredDesc, float64(s.Desired), s.Name)
		gauge(readyDesc, float64(s.Ready), s.Name)
		if j := s.Job; j != nil {
			moment := func(desc *prometheus.Desc, t time.Time) {
				if !t.IsZero() {
					gauge(desc, float64(t.UnixMilli())/1e3, s.Name)
				}
			}
			moment(nextDesc, j.Next)
			moment(successDesc, j.LastSuccess)
		}
		up, loops := map[int]float64{}, map[int]float64{} // while one instance replaces another, either will do
		for _, i := range s.Instances {
			up[i.Replica] += 0
			if i.State == StateReady {
				up[i.Replica] = 1
			}
			loops[i.Replica] += 0
			if i.CrashLoop {
				loops[i.Replica] = 1
			}
		}
		for replica, value := range up {
			gauge(upDesc, value, s.Name, strconv.Itoa(replica))
			gauge(loopDesc, loops[replica], s.Name, strconv.Itoa(replica))
		}
		if s.Update == nil {
			continue
		}
		gauge(phaseDesc, 1, s.Name, s.Update.Phase)
		if c := s.Update.Canary; c != nil {
			for side, f := range map[string]CanaryFigures{"new": c.New, "old": c.Old} {
				gauge(canaryDesc, float64(f.Requests), s.Name, side)
				gauge(errorsDesc, f.ErrorRatio, s.Name, side)
				gauge(latencyDesc, f.P95, s.Name, side)
			}
		}
	}
}
