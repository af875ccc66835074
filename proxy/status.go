package proxy

import (
	"maps"
	"slices"
	"strings"
	"time"

	"mainstay/topology"
)

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
	Held      int              `json:"held"` // requests that wait for an instance
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

// Status returns listeners by name, routes in matching order and the pools that have a route or an instance
// by service. It does not block.
func (p *Proxy) Status() Status {
	p.mu.Lock()
	servers, pools := maps.Clone(p.serving), slices.Collect(maps.Values(p.pools))
	connected := map[string]int{}
	for d := range p.leaving {
		connected[d.bound().address] += d.connected()
	}
	p.mu.Unlock()

	s := Status{Listeners: []ListenerStatus{}, Routes: []RouteStatus{}, Services: []PoolStatus{}}
	for address, server := range servers {
		l, settings := server.bound(), server.bound().settings.Load()
		s.Listeners = append(s.Listeners, ListenerStatus{
			Name: settings.spec.Name, Address: l.Addr().String(),
			TLS: settings.tls != nil, Connections: connected[address] + server.connected(),
		})
	}
	routed := map[string]bool{}
	for _, r := range p.table.Load().routes {
		routed[r.Service] = true
		if r.fallback != nil {
			routed[r.fallback.service] = true
		}
		s.Routes = append(s.Routes, RouteStatus{
			Host: r.Host, PathPrefix: r.PathPrefix, Service: r.Service, Requests: r.requests.Load(),
		})
	}
	now := time.Now()
	for _, pool := range pools {
		if status := pool.status(now); routed[pool.service] || len(status.Instances) > 0 || status.Held > 0 {
			s.Services = append(s.Services, status)
		}
	}
	slices.SortFunc(s.Listeners, func(a, b ListenerStatus) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(s.Services, func(a, b PoolStatus) int { return strings.Compare(a.Service, b.Service) })
	return s
}

// Instances returns the instances that requests may go to, as they were last admitted, by service and in the order of admission.
func (p *Proxy) Instances() []topology.Instance {
	p.mu.Lock()
	pools := slices.SortedFunc(maps.Values(p.pools), func(a, b *pool) int { return strings.Compare(a.service, b.service) })
	p.mu.Unlock()
	var instances []topology.Instance
	for _, pool := range pools {
		instances = append(instances, pool.instances()...)
	}
	return instances
}
