package proxy

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// metrics are what the proxy counts. Labels have finite values: services and routes of the topology, methods and
// codes folded, reasons of reason. Instances are no label, because each process has an ID of its own.
type metrics struct {
	requests    *prometheus.CounterVec
	failures    *prometheus.CounterVec
	duration    *prometheus.HistogramVec
	retries     *prometheus.CounterVec
	ejections   *prometheus.CounterVec
	held        *prometheus.CounterVec
	fallbacks   *prometheus.CounterVec
	connections prometheus.Counter
	refused     prometheus.Counter
	dropped     prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) metrics {
	f := promauto.With(reg)
	return metrics{
		requests: f.NewCounterVec(prometheus.CounterOpts{
			Name: "proxy_requests_total",
			Help: "Requests that have ended, by the service of their route (empty: none), status and method.",
		}, []string{"service", "code", "method"}),
		failures: f.NewCounterVec(prometheus.CounterOpts{
			Name: "proxy_request_failures_total",
			Help: "Requests that did not end with an instance's whole response, by reason.",
		}, []string{"service", "reason"}),
		duration: f.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "proxy_request_duration_seconds",
			Help:    "Time from a request's header to the end of its response.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
		}, []string{"service"}),
		retries: f.NewCounterVec(prometheus.CounterOpts{
			Name: "proxy_retries_total",
			Help: "Further attempts of a request, by why the one before failed.",
		}, []string{"service", "reason"}),
		ejections: f.NewCounterVec(prometheus.CounterOpts{
			Name: "proxy_ejections_total",
			Help: "Instances taken out of rotation for a while because a request failed on them.",
		}, []string{"service"}),
		held: f.NewCounterVec(prometheus.CounterOpts{
			Name: "proxy_held_requests_total",
			Help: "Requests that waited for an instance, by how that ended: served, expired, left (the client), dismissed " +
				"(the service was stopped), or full (there was no room to wait).",
		}, []string{"service", "outcome"}),
		fallbacks: f.NewCounterVec(prometheus.CounterOpts{
			Name: "proxy_fallback_requests_total",
			Help: "Requests that were given to the service's fallback because no instance could take them.",
		}, []string{"service", "fallback"}),
		connections: f.NewCounter(prometheus.CounterOpts{
			Name: "proxy_accepted_connections_total",
			Help: "Connections accepted from clients.",
		}),
		refused: f.NewCounter(prometheus.CounterOpts{
			Name: "proxy_refused_connections_total",
			Help: "Connections closed at once because their client had as many as it may have.",
		}),
		dropped: f.NewCounter(prometheus.CounterOpts{
			Name: "proxy_access_log_dropped_total",
			Help: "Lines of the access log that were lost because the disk did not keep up or refused them.",
		}),
	}
}

// observe counts a request that has ended.
func (m *metrics) observe(r *record) {
	m.requests.WithLabelValues(r.Service, foldCode(r.Status), foldMethod(r.Method)).Inc()
	m.duration.WithLabelValues(r.Service).Observe(r.Duration)
	if r.Reason != reasonNone && r.Reason != reasonRedirect {
		m.failures.WithLabelValues(r.Service, string(r.Reason)).Inc()
	}
}

func foldCode(status int) string {
	if status < 100 || status > 599 {
		return "other"
	}
	return strconv.Itoa(status)
}

func foldMethod(method string) string {
	switch method {
	case "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS":
		return method
	}
	return "other"
}

// A collector reads the gauges from the proxy's Status.
type collector struct {
	status      func() Status
	inFlight    *prometheus.Desc
	held        *prometheus.Desc
	instances   *prometheus.Desc
	connections *prometheus.Desc
	routed      *prometheus.Desc
}

func newCollector(status func() Status) *collector {
	return &collector{
		status: status,
		inFlight: prometheus.NewDesc("proxy_requests_in_flight",
			"Requests that instances of the service are working on.", []string{"service"}, nil),
		held: prometheus.NewDesc("proxy_requests_held",
			"Requests that wait for an instance of the service.", []string{"service"}, nil),
		instances: prometheus.NewDesc("proxy_instances",
			"Instances of the service, by state.", []string{"service", "state"}, nil),
		connections: prometheus.NewDesc("proxy_connections",
			"Open connections of clients.", []string{"listener"}, nil),
		routed: prometheus.NewDesc("proxy_route_requests_total",
			"Requests that the route has matched.", []string{"host", "path_prefix", "service"}, nil),
	}
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range [...]*prometheus.Desc{c.inFlight, c.held, c.instances, c.connections, c.routed} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	s := c.status()
	gauge := func(d *prometheus.Desc, v int, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(v), labels...)
	}
	for _, l := range s.Listeners {
		gauge(c.connections, l.Connections, l.Name)
	}
	for _, p := range s.Services {
		inFlight, states := 0, map[string]int{"admitted": 0, "ejected": 0, "draining": 0}
		for _, i := range p.Instances {
			inFlight += i.InFlight
			states[i.State]++
		}
		gauge(c.inFlight, inFlight, p.Service)
		gauge(c.held, p.Held, p.Service)
		for state, n := range states {
			gauge(c.instances, n, p.Service, state)
		}
	}
	seen := map[RouteStatus]bool{} // a route that another shadows wholly has the same labels and no requests
	for _, r := range s.Routes {
		labels := RouteStatus{Host: r.Host, PathPrefix: r.PathPrefix, Service: r.Service}
		if !seen[labels] {
			seen[labels] = true
			ch <- prometheus.MustNewConstMetric(c.routed, prometheus.CounterValue, float64(r.Requests), r.Host, r.PathPrefix, r.Service)
		}
	}
}
