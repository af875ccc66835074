package proxy

import (
	"context"
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"

	"mainstay/topology"
)

// A Proxy sends each request to the least busy ready instance of its route's service.
type Proxy struct{}

// New returns a Proxy that listens nowhere yet.
func New(log *slog.Logger, reg prometheus.Registerer) *Proxy { return &Proxy{} }

// Apply implements the engine's Subsystem.
func (p *Proxy) Apply(ctx context.Context, t *topology.Topology) error { return nil }

// Admit implements the supervisor's Router.
func (p *Proxy) Admit(i topology.Instance) {}

// Drain implements the supervisor's Router.
func (p *Proxy) Drain(ctx context.Context, i topology.Instance) error { return nil }

// A Status is how the proxy is doing.
type Status struct {
	Listeners []ListenerStatus `json:"listeners"`
	Routes    []RouteStatus    `json:"routes"`
	Services  []PoolStatus     `json:"services"`
}

// A ListenerStatus is one address that accepts requests.
type ListenerStatus struct {
	Name        string `json:"name"`
	Address     string `json:"address"` // as bound
	TLS         bool   `json:"tls"`
	Connections int    `json:"connections"`
}

// A RouteStatus is one route in matching order.
type RouteStatus struct {
	Host       string `json:"host,omitempty"`
	PathPrefix string `json:"path_prefix"`
	Service    string `json:"service"`
	Requests   uint64 `json:"requests"`
}

// A PoolStatus is the instances that may receive a service's requests.
type PoolStatus struct {
	Service   string           `json:"service"`
	Instances []UpstreamStatus `json:"instances"`
}

// An UpstreamStatus is one instance as the proxy sees it.
type UpstreamStatus struct {
	ID       string `json:"id"`
	Address  string `json:"address"`
	State    string `json:"state"` // admitted, ejected, draining
	InFlight int    `json:"in_flight"`
	Requests uint64 `json:"requests"`
	Failures uint64 `json:"failures"`
}

// Status returns listeners, routes and pools. It does not block.
func (p *Proxy) Status() Status { return Status{} }
