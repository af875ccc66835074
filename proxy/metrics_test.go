package proxy

import (
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"mainstay/topology"
)

func TestMetrics(t *testing.T) {
	r := newRig(t, topology.Route{Host: "none", PathPrefix: "/", Service: "none"}, route0("web"))
	r.dead("web", "web/1")
	release := make(chan struct{})
	r.instance("web", "web/2", func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path == "/wait" {
			<-release
		}
	})
	for range 3 {
		r.do("GET", "/", nil)
	}
	r.do("PROPFIND", "/", nil)
	r.do("GET", "/", nil, "Host", "none")
	r.do("GET", "/%00", nil)
	done := make(chan struct{})
	go func() {
		r.do("GET", "/wait", nil)
		close(done)
	}()
	await(t, "the request is there", func() bool { u, _ := r.upstream("web/2"); return u.InFlight == 1 })
	want := `
# HELP proxy_ejections_total Instances taken out of rotation for a while because a request failed on them.
# TYPE proxy_ejections_total counter
proxy_ejections_total{service="none"} 0
proxy_ejections_total{service="web"} 1
# HELP proxy_instances Instances of the service, by state.
# TYPE proxy_instances gauge
proxy_instances{service="none",state="admitted"} 0
proxy_instances{service="none",state="draining"} 0
proxy_instances{service="none",state="ejected"} 0
proxy_instances{service="web",state="admitted"} 1
proxy_instances{service="web",state="draining"} 0
proxy_instances{service="web",state="ejected"} 1
# HELP proxy_request_failures_total Requests that did not end with an instance's whole response, by reason.
# TYPE proxy_request_failures_total counter
proxy_request_failures_total{reason="bad_request",service=""} 1
proxy_request_failures_total{reason="no_instance",service="none"} 1
# HELP proxy_requests_in_flight Requests that instances of the service are working on.
# TYPE proxy_requests_in_flight gauge
proxy_requests_in_flight{service="none"} 0
proxy_requests_in_flight{service="web"} 1
# HELP proxy_requests_total Requests that have ended, by the service of their route (empty: none), status and method.
# TYPE proxy_requests_total counter
proxy_requests_total{code="200",method="GET",service="web"} 3
proxy_requests_total{code="200",method="other",service="web"} 1
proxy_requests_total{code="400",method="GET",service=""} 1
proxy_requests_total{code="503",method="GET",service="none"} 1
# HELP proxy_retries_total Further attempts of a request, by why the one before failed.
# TYPE proxy_retries_total counter
proxy_retries_total{reason="connect_failure",service="web"} 1
# HELP proxy_route_requests_total Requests that the route has matched.
# TYPE proxy_route_requests_total counter
proxy_route_requests_total{host="",path_prefix="/",service="web"} 5
proxy_route_requests_total{host="none",path_prefix="/",service="none"} 1
`
	names := []string{
		"proxy_ejections_total", "proxy_instances", "proxy_request_failures_total", "proxy_requests_in_flight",
		"proxy_requests_total", "proxy_retries_total", "proxy_route_requests_total",
	}
	if err := testutil.GatherAndCompare(r.reg, strings.NewReader(want), names...); err != nil {
		t.Error(err)
	}
	close(release)
	<-done
	problems, err := testutil.GatherAndLint(r.reg)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

// Every method and status is counted under its name, whoever comes first.
func TestMetricsCountExactly(t *testing.T) {
	reg := prometheus.NewRegistry()
	c := newMetrics(reg).serviceCounters("web")
	methods := append([]string{"PROPFIND", "get", ""}, countedMethods[:]...)
	statuses := []int{100, 200, 204, 404, 599, 0, 99, 600, -1}
	var clients sync.WaitGroup
	for range 8 {
		clients.Go(func() {
			for _, method := range methods {
				for _, status := range statuses {
					c.count(method, status)
				}
			}
		})
	}
	clients.Wait()
	for method, want := range map[string]float64{"GET": 72, "OPTIONS": 72, "other": 216} {
		if got := metric(t, reg, "proxy_requests_total", "method", method); got != want {
			t.Errorf("%s was counted %v times, want %v", method, got, want)
		}
	}
	for code, want := range map[string]float64{"100": 80, "404": 80, "599": 80, "other": 320} {
		if got := metric(t, reg, "proxy_requests_total", "code", code); got != want {
			t.Errorf("%s was counted %v times, want %v", code, got, want)
		}
	}
}

func TestObserveAllocatesNothing(t *testing.T) {
	m := newMetrics(prometheus.NewRegistry())
	to := &route{pool: &pool{counters: m.serviceCounters("web")}}
	r := &record{Method: "GET", Status: 200, Duration: .001}
	if n := testing.AllocsPerRun(100, func() { m.observe(to, r) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkObserve(b *testing.B) {
	m := newMetrics(prometheus.NewRegistry())
	to := &route{pool: &pool{counters: m.serviceCounters("web")}}
	r := &record{Method: "GET", Status: 200, Duration: .0007}
	b.ReportAllocs()
	for b.Loop() {
		m.observe(to, r)
	}
}
