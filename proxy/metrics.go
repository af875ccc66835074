package proxy

import (
	"strconv"
	"sync"
	"sync/atomic"

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
	evicted     prometheus.Counter // of shed
	turnedAway  prometheus.Counter // of shed
	dropped     prometheus.Counter

	unrouted *serviceCounters // of requests that no route matches
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	m := &metrics{
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
	shed := f.NewCounterVec(prometheus.CounterOpts{
		Name: "proxy_shed_connections_total",
		Help: "Clients' connections that were closed because the process had few descriptors left (its limit of open files): " +
			"evicted while no request was under way on them, or turned_away when they came because none could be evicted.",
	}, []string{"how"})
	m.evicted, m.turnedAway = shed.WithLabelValues("evicted"), shed.WithLabelValues("turned_away")
	m.unrouted = m.serviceCounters("")
	return m
}

// observe counts a request that has ended. to is the route that it has matched, or nil.
func (m *metrics) observe(to *route, r *record) {
	c := m.unrouted
	if to != nil {
		c = to.pool.counters
	}
	c.count(r.Method, r.Status)
	c.duration().Observe(r.Duration)
	if r.Reason != reasonNone && r.Reason != reasonRedirect {
		m.failures.WithLabelValues(c.service, string(r.Reason)).Inc()
	}
}

// serviceCounters are those of one service's counters that every request needs, looked up once.
type serviceCounters struct {
	service  string
	requests *prometheus.CounterVec
	duration func() prometheus.Observer                              // makes it when it is first asked for
	methods  [len(countedMethods) + 1]atomic.Pointer[methodCounters] // in the order of countedMethods, others last
}

// methodCounters are the counters of one method by status, 100 to 599, others last.
type methodCounters [501]atomic.Pointer[prometheus.Counter]

// countedMethods have counters of their own.
var countedMethods = [...]string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}

func (m *metrics) serviceCounters(service string) *serviceCounters {
	return &serviceCounters{
		service: service, requests: m.requests,
		duration: sync.OnceValue(func() prometheus.Observer { return m.duration.WithLabelValues(service) }),
	}
}

// count adds a request. The first with its method and status makes the counter, so that only those are told that there were.
func (c *serviceCounters) count(method string, status int) {
	i := foldMethod(method)
	codes := c.methods[i].Load()
	if codes == nil {
		codes = new(methodCounters)
		if !c.methods[i].CompareAndSwap(nil, codes) {
			codes = c.methods[i].Load()
		}
	}
	j := foldCode(status)
	counter := codes[j].Load()
	if counter == nil {
		labels := [2]string{"other", "other"}
		if j < len(codes)-1 {
			labels[0] = strconv.Itoa(status)
		}
		if i < len(countedMethods) {
			labels[1] = countedMethods[i]
		}
		made := c.requests.WithLabelValues(c.service, labels[0], labels[1])
		counter = &made
		codes[j].Store(counter) // another that was made at the same time is the same
	}
	(*counter).Inc()
}

func foldCode(status int) int {
	if status < 100 || status > 599 {
		return len(methodCounters{}) - 1
	}
	return status - 100
}

func foldMethod(method string) int {
	switch method {
	case "GET":
		return 0
	case "HEAD":
		return 1
	case "POST":
		return 2
	case "PUT":
		return 3
	case "PATCH":
		return 4
	case "DELETE":
		return 5
	case "OPTIONS":
		return 6
	}
	return len(countedMethods)
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
