package admin

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"time"

	"mainstay/backup"
	"mainstay/bus"
	"mainstay/engine"
	"mainstay/proxy"
	"mainstay/supervisor"
	"mainstay/topology"
)

// A Status is everything that is known of what runs, at one moment.
type Status struct {
	engine.Status
	MetricsAddress string                     `json:"metrics_address,omitempty"` // as bound
	Services       []supervisor.ServiceStatus `json:"services"`
	Proxy          proxy.Status               `json:"proxy"`
	Bus            []bus.RelayStatus          `json:"bus"`
	Backups        []backup.JobStatus         `json:"backups"`
	Upgrade        *Upgrade                   `json:"upgrade,omitempty"` // the newest that this process has seen
}

// Service returns the status of the named service, or nil if there is none.
func (s *Status) Service(name string) *supervisor.ServiceStatus {
	for i := range s.Services {
		if s.Services[i].Name == name {
			return &s.Services[i]
		}
	}
	return nil
}

// A Plan is what a reload would change.
type Plan struct {
	Generation int               `json:"generation"` // that runs now
	Changes    []topology.Change `json:"changes"`
	Warnings   topology.Problems `json:"warnings,omitempty"`
}

// A Triggered tells which run of a job was asked for: in the job's status, the one that was due then.
type Triggered struct {
	Service string         `json:"service"`
	Run     supervisor.Run `json:"run"`
}

// An Overridden tells how a service now differs from the file.
type Overridden struct {
	Service  string `json:"service"`
	Override string `json:"override,omitempty"` // "replicas 5 (file: 3)"; empty: as the file says
}

// An api answers the routes.
type api struct {
	admin  *Admin
	engine Engine
}

func (a *api) healthz(http.ResponseWriter, *http.Request) (any, error) {
	return struct {
		Status string `json:"status"`
	}{"ok"}, nil
}

func (a *api) version(http.ResponseWriter, *http.Request) (any, error) {
	return a.admin.build, nil
}

func (a *api) status(http.ResponseWriter, *http.Request) (any, error) {
	s := a.admin.Status()
	s.Status = a.engine.Status()
	return s, nil
}

// Status returns what the rooms tell of themselves, without what the engine knows.
func (a *Admin) Status() Status {
	a.mu.Lock()
	address := a.metrics.bound()
	a.mu.Unlock()
	s := Status{
		MetricsAddress: address,
		Services:       listed(a.rooms.Supervisor.Status()),
		Proxy:          a.rooms.Proxy.Status(),
		Bus:            listed(a.rooms.Bus.Status()),
		Backups:        listed(a.rooms.Backup.Status()),
	}
	if a.rooms.Upgrader != nil {
		s.Upgrade = a.rooms.Upgrader.Last()
	}
	for i := range s.Services {
		s.Services[i].Instances = listed(s.Services[i].Instances)
	}
	for i := range s.Bus {
		s.Bus[i].Peers = listed(s.Bus[i].Peers)
	}
	s.Proxy.Listeners = listed(s.Proxy.Listeners)
	s.Proxy.Routes = listed(s.Proxy.Routes)
	s.Proxy.Services = listed(s.Proxy.Services)
	for i := range s.Proxy.Services {
		s.Proxy.Services[i].Instances = listed(s.Proxy.Services[i].Instances)
	}
	return s
}

// listed returns a copy of s that is not nil: in JSON what is a list is never null.
func listed[T any](s []T) []T { return append([]T{}, s...) }

func (a *api) plan(_ http.ResponseWriter, r *http.Request) (any, error) {
	generation := a.engine.Status().Generation
	changes, warnings, err := a.engine.Plan(r.Context())
	if err != nil {
		return nil, asError(err, CodeInvalid)
	}
	return Plan{Generation: generation, Changes: listed(changes), Warnings: warnings}, nil
}

// reload goes on when the one who asked for it has left: a reload that is given up half-way
// would kill what still drains.
func (a *api) reload(w http.ResponseWriter, r *http.Request) (any, error) {
	if err := decode(w, r, &struct{}{}); err != nil {
		return nil, err
	}
	return told(a.engine.Reload(context.WithoutCancel(r.Context()), engine.OriginAPI))
}

// A rollbackRequest says which generation is to run again.
type rollbackRequest struct {
	Generation int `json:"generation,omitempty"` // 0: the newest that says something else than the one that runs
}

// rollback, like reload, goes on when the one who asked has left.
func (a *api) rollback(w http.ResponseWriter, r *http.Request) (any, error) {
	var q rollbackRequest
	if err := decode(w, r, &q); err != nil {
		return nil, err
	}
	if q.Generation < 0 {
		return nil, newError(CodeUsage, "generation: want its number, or 0 for the one before")
	}
	return told(a.engine.Rollback(context.WithoutCancel(r.Context()), q.Generation))
}

// told returns how something was applied as the API tells it.
func told(outcome engine.Outcome, err error) (any, error) {
	if err != nil && outcome.Result == engine.ResultInvalid {
		return nil, asError(err, CodeInvalid)
	}
	if err != nil {
		return nil, asError(err, CodeRefused)
	}
	return outcome, nil
}

func (a *api) generations(http.ResponseWriter, *http.Request) (any, error) {
	list, err := a.engine.Generations()
	return listed(list), err
}

// A serviceRequest names the service that a verb is for.
type serviceRequest struct {
	Service string `json:"service"`
}

func (a *api) restart(w http.ResponseWriter, r *http.Request) (any, error) {
	return a.override(w, r, engine.Override{Restart: true})
}

func (a *api) stop(w http.ResponseWriter, r *http.Request) (any, error) {
	stopped := true
	return a.override(w, r, engine.Override{Stopped: &stopped})
}

func (a *api) start(w http.ResponseWriter, r *http.Request) (any, error) {
	stopped := false
	return a.override(w, r, engine.Override{Stopped: &stopped})
}

func (a *api) override(w http.ResponseWriter, r *http.Request, o engine.Override) (any, error) {
	var q serviceRequest
	if err := decode(w, r, &q); err != nil {
		return nil, err
	}
	return a.overrideService(r, q.Service, o)
}

// A scaleRequest says how many replicas a service is to have.
type scaleRequest struct {
	Service  string `json:"service"`
	Replicas *int   `json:"replicas"`
}

func (a *api) scale(w http.ResponseWriter, r *http.Request) (any, error) {
	var q scaleRequest
	if err := decode(w, r, &q); err != nil {
		return nil, err
	}
	if q.Replicas == nil || *q.Replicas < 0 {
		return nil, newError(CodeUsage, "replicas: want a number, 0 or more")
	}
	return a.overrideService(r, q.Service, engine.Override{Replicas: q.Replicas})
}

// overrideService, like reload, goes on when the one who asked has left.
func (a *api) overrideService(r *http.Request, service string, o engine.Override) (any, error) {
	if service == "" {
		return nil, newError(CodeUsage, "service: want the name of one")
	}
	if err := a.engine.Override(context.WithoutCancel(r.Context()), service, o); err != nil {
		return nil, asError(err, CodeRefused)
	}
	return Overridden{Service: service, Override: a.engine.Status().Overrides[service]}, nil
}

// trigger has a job run now.
func (a *api) trigger(w http.ResponseWriter, r *http.Request) (any, error) {
	var q serviceRequest
	if err := decode(w, r, &q); err != nil {
		return nil, err
	}
	if _, ok := a.engine.Topology().Services[q.Service]; !ok {
		return nil, newError(CodeNotFound, "no service %q", q.Service)
	}
	run, err := a.admin.rooms.Supervisor.Trigger(q.Service)
	if err != nil {
		return nil, asError(err, CodeRefused)
	}
	return Triggered{Service: q.Service, Run: run}, nil
}

// A backupRequest names the backup to run.
type backupRequest struct {
	Backup string `json:"backup"`
}

func (a *api) takeBackup(w http.ResponseWriter, r *http.Request) (any, error) {
	var q backupRequest
	if err := decode(w, r, &q); err != nil {
		return nil, err
	}
	if _, ok := a.engine.Topology().Backups[q.Backup]; !ok {
		return nil, newError(CodeNotFound, "no backup %q", q.Backup)
	}
	snapshot, err := a.admin.rooms.Backup.Now(r.Context(), q.Backup)
	if err != nil {
		return nil, asError(err, CodeFailed)
	}
	return snapshot, nil
}

// answer makes a handler of a function that returns what to say, in JSON.
func answer(f func(http.ResponseWriter, *http.Request) (any, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := f(w, r)
		if err != nil {
			writeError(w, asError(err, CodeFailed))
			return
		}
		writeJSON(w, http.StatusOK, body)
	})
}

func writeError(w http.ResponseWriter, e *Error) { writeJSON(w, e.Code.status(), e) }

func writeJSON(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(body)
}

const (
	bodyLimit = 64 << 10
	bodyTime  = 5 * time.Second // for the whole of a body to arrive
)

// limited gives each request's body a time in which it must arrive, also that of a request that has no use for one.
func limited(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Body != http.NoBody {
			http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTime))
		}
		h.ServeHTTP(w, r)
	})
}

// decode reads the request's body into v. No body is as good as an empty object; fields that v does not
// have are refused.
func decode(w http.ResponseWriter, r *http.Request, v any) error {
	err := decodeBody(w, r, v)
	if err != nil {
		// net/http would wait for what may be left of the body before it sends the answer.
		w.Header().Set("Connection", "close")
		return err
	}
	http.NewResponseController(w).SetReadDeadline(time.Time{}) // which would end the request
	return nil
}

func decodeBody(w http.ResponseWriter, r *http.Request, v any) error {
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, bodyLimit))
	d.DisallowUnknownFields()
	err := d.Decode(v)
	if errors.Is(err, io.EOF) {
		return nil
	}
	if err == nil {
		_, err = d.Token()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = errors.New("more than one value")
		}
	}
	if tooLarge := new(http.MaxBytesError); errors.As(err, &tooLarge) {
		return err
	}
	return newError(CodeUsage, "read body: %s", err)
}
