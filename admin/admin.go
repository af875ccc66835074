// Package admin is the window: it shows what runs and passes on what a person asks
// for. It decides nothing and remembers nothing.
//
// It looks out of two places. An HTTP API on a unix socket answers the commands of the
// command line and whatever else can speak HTTP; the table of its routes is in routes.go,
// and [Client] is its other end. A TCP listener, where the topology asks for one, serves
// /metrics to Prometheus.
//
// The metrics listener follows the topology, so an [Admin] is a stage of the engine like the
// subsystems that it shows. The socket does not: it is where a running Mainstay is found, so
// it stays the same for as long as the process runs.
//
// Goroutines: one for the metrics listener, which Apply starts and waits for, and what
// net/http starts for each connection, which [Admin.Serve] waits for.
package admin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"mainstay/backup"
	"mainstay/bus"
	"mainstay/engine"
	"mainstay/proxy"
	"mainstay/sockets"
	"mainstay/supervisor"
	"mainstay/topology"
)

// Rooms are the subsystems that the window looks into.
type Rooms struct {
	Supervisor interface {
		Status() []supervisor.ServiceStatus
		Logs(ctx context.Context, q supervisor.LogQuery, emit func(supervisor.LogLine) error) error
		Trigger(job string) (supervisor.Run, error)
		Why(service string, replica int) (supervisor.Explanation, error)
	}
	Proxy interface {
		Status() proxy.Status
	}
	Bus interface {
		Status() []bus.RelayStatus
	}
	Backup interface {
		Status() []backup.JobStatus
		Now(ctx context.Context, name string) (*backup.Snapshot, error)
	}
	Upgrader Upgrader // nil: there is none
}

// An Engine is what carries out what the API is asked for; *engine.Engine is one.
type Engine interface {
	Reload(ctx context.Context, origin string) (engine.Outcome, error)
	Plan(ctx context.Context) ([]topology.Change, topology.Problems, error)
	Override(ctx context.Context, service string, o engine.Override) error
	Rollback(ctx context.Context, generation int) (engine.Outcome, error)
	Generations() ([]engine.Kept, error)
	Topology() *topology.Topology
	Status() engine.Status
}

// A Build says which program this is.
type Build struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"` // of the source; empty where it is not known
	Go       string `json:"go"`
	Platform string `json:"platform"` // linux/amd64
}

// An Admin serves the API and the metrics.
type Admin struct {
	log      *slog.Logger
	gatherer prometheus.Gatherer
	sockets  *sockets.Set
	build    Build
	rooms    Rooms

	mu      sync.Mutex     // guards the fields below
	metrics *metricsServer // nil: none
}

// New returns an Admin that listens nowhere yet. It serves the metrics that gatherer has, and
// registers its own with reg. It listens through set.
func New(log *slog.Logger, reg prometheus.Registerer, gatherer prometheus.Gatherer, set *sockets.Set, build Build, rooms Rooms) *Admin {
	newMetrics(reg, build)
	return &Admin{log: log, gatherer: gatherer, sockets: set, build: build, rooms: rooms}
}

// Apply implements the engine's Subsystem: it makes t.Metrics.Address the place where
// metrics are served. The new address is bound before the old one is let go, unless the old one is in its way.
func (a *Admin) Apply(ctx context.Context, t *topology.Topology) error {
	a.mu.Lock()
	defer a.mu.Unlock()

	old, address := a.metrics, t.Metrics.Address
	if old.address() == address {
		return nil
	}
	next, err := a.openMetrics(ctx, address)
	if errors.Is(err, syscall.EADDRINUSE) && port(old.address()) == port(address) {
		// 127.0.0.1:9464 keeps :9464 from being bound. A scrape in between is lost; it will be made again.
		old.stop()
		if next, err = a.openMetrics(ctx, address); err != nil {
			back, lost := a.openMetrics(ctx, old.address())
			a.metrics = back
			return errors.Join(err, lost)
		}
	}
	if err != nil {
		return err
	}
	a.metrics = next
	old.stop()
	if next == nil {
		a.log.Info("metrics no longer served", "addr", old.bound())
		return nil
	}
	a.log.Info("metrics served", "addr", next.bound())
	return nil
}

// openMetrics serves the metrics at address; at none, nil does.
func (a *Admin) openMetrics(ctx context.Context, address string) (*metricsServer, error) {
	if address == "" {
		return nil, nil
	}
	listener, err := a.sockets.Listen("tcp", address, func() (net.Listener, error) {
		return new(net.ListenConfig).Listen(ctx, "tcp", address)
	})
	if err != nil {
		return nil, fmt.Errorf("bind metrics: %w", err)
	}
	return serveMetrics(listener, address, a.gatherer), nil
}

// port returns the port of an address, or nothing if it has none.
func port(address string) string {
	_, port, _ := net.SplitHostPort(address)
	return port
}

// stopTime bounds how long answers that are under way may still take when a server stops.
const stopTime = 2 * time.Second

// Serve answers the API on the socket that at describes until ctx is done, then gives the
// answers under way a moment and returns nil. A socket that a killed Mainstay left behind is
// replaced; one that something still answers on is an error.
func (a *Admin) Serve(ctx context.Context, eng Engine, at topology.Admin) error {
	socket, err := listen(a.sockets, at)
	if err != nil {
		return fmt.Errorf("open admin socket: %w", err)
	}
	defer socket.remove()

	server := &http.Server{
		Handler:           newAPI(a, eng),
		ReadHeaderTimeout: 5 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(a.log.Handler(), slog.LevelDebug),
		// A follower of logs ends with ctx, not with the time that the others are given.
		BaseContext: func(net.Listener) context.Context { return ctx },
		ConnContext: withPeer,
	}
	stopped := make(chan struct{})
	unregister := context.AfterFunc(ctx, func() {
		defer close(stopped)
		stopServer(server)
	})
	err = server.Serve(socket.listener)
	if unregister() {
		return fmt.Errorf("serve admin socket: %w", err)
	}
	<-stopped
	return nil
}

// stopServer lets the answers under way finish for stopTime and then cuts them off.
func stopServer(server *http.Server) {
	ctx, cancel := context.WithTimeout(context.Background(), stopTime)
	defer cancel()
	if server.Shutdown(ctx) != nil {
		server.Close()
	}
}
