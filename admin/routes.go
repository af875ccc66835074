package admin

import (
	"net/http"
)

// A route is one request that the API answers.
type route struct {
	method, path string
	handler      http.Handler
}

// routes is the whole API. What is under /v1/ only grows: a field or a route is not taken away or
// given another meaning.
func (a *api) routes() []route {
	return []route{
		{"GET", "/v1/healthz", answer(a.healthz)},
		{"GET", "/v1/version", answer(a.version)},
		{"GET", "/v1/status", answer(a.status)},
		{"GET", "/v1/metrics", metricsHandler(a.admin.gatherer)},
		{"GET", "/v1/plan", answer(a.plan)},
		{"GET", "/v1/logs", http.HandlerFunc(a.logs)}, // ?service=web&instance=api/2&tail=10&since=…&until=…&grep=…&follow=true
		{"GET", "/v1/generations", answer(a.generations)},
		{"GET", "/v1/why", answer(a.why)}, // ?service=web&replica=1
		{"POST", "/v1/reload", answer(a.reload)},
		{"POST", "/v1/rollback", answer(a.rollback)},     // {"generation": 3}
		{"POST", "/v1/upgrade", answer(a.upgrade)},       // {"binary": "/usr/local/bin/mainstay", "drain_seconds": 30}
		{"POST", "/v1/restart", answer(a.restart)},       // {"service": "web"}
		{"POST", "/v1/stop", answer(a.stop)},             // {"service": "web"}
		{"POST", "/v1/start", answer(a.start)},           // {"service": "web"}
		{"POST", "/v1/scale", answer(a.scale)},           // {"service": "web", "replicas": 3}
		{"POST", "/v1/trigger", answer(a.trigger)},       // {"service": "report"}
		{"POST", "/v1/backup/now", answer(a.takeBackup)}, // {"backup": "orders"}
	}
}

// newAPI returns the handler of all routes. What is none of them is answered in JSON too.
func newAPI(admin *Admin, eng Engine) http.Handler {
	a := &api{admin: admin, engine: eng}
	mux := http.NewServeMux()
	methods := map[string]string{}
	for _, r := range a.routes() {
		mux.Handle(r.method+" "+r.path, r.handler)
		methods[r.path] = r.method
	}
	for path, method := range methods {
		mux.Handle(path, answer(func(w http.ResponseWriter, r *http.Request) (any, error) {
			w.Header().Set("Allow", method)
			return nil, newError(CodeMethod, "%s %s: the method is %s", r.Method, r.URL.Path, method)
		}))
	}
	mux.Handle("/", answer(func(_ http.ResponseWriter, r *http.Request) (any, error) {
		return nil, newError(CodeNotFound, "no route %s", r.URL.Path)
	}))
	return limited(mux)
}
