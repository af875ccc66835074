package proxy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"

	"mainstay/topology"
)

// A table says where requests go. It is immutable: a reload makes another and swaps it in one store, and a
// request keeps the one that it found.
type table struct {
	routes  []*route // in matching order
	trusted []netip.Prefix

	// index finds the first route with a host and a prefix in the forms of hostKey and cleanPrefix. A request looks
	// up its host, the wildcard above it and no host, each with every leading part of its path that is no longer
	// than the longest prefix, and takes the first route in the file's order among what it found.
	index   map[routeKey]int
	longest int
}

type routeKey struct{ host, prefix string }

// A route is one of the file's routes with what was prepared for it. Its counter outlives reloads.
type route struct {
	topology.Route
	pool     *pool
	name     string // host and path prefix as in the file
	strip    string // StripPrefix as cleanPrefix returns it
	requests *atomic.Uint64

	requestEdits, responseEdits edits

	hold     topology.Hold // For is 0: requests do not wait for an instance
	fallback *pool         // has its turn when there is none; may be nil
	response *topology.Response
}

// newTable prepares the routes of a. Pools come from pool; counters of routes that previous has too are carried over.
func newTable(a applied, pool func(service string) *pool, previous *table) (*table, error) {
	p := a.proxy
	t := &table{index: make(map[routeKey]int, len(p.Routes))}
	for _, s := range p.TrustedProxies {
		prefix, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, fmt.Errorf("read trusted proxies: %w", err)
		}
		t.trusted = append(t.trusted, prefix)
	}
	for i, spec := range p.Routes {
		prefix, err := cleanPrefix(spec.PathPrefix)
		if err != nil {
			return nil, fmt.Errorf("read path prefix of route %d: %w", i+1, err)
		}
		strip, err := cleanPrefix(spec.StripPrefix)
		if err != nil {
			return nil, fmt.Errorf("read strip prefix of route %d: %w", i+1, err)
		}
		key := routeKey{host: hostKey(spec.Host), prefix: prefix}
		unavailable := a.unavailable[spec.Service]
		r := &route{
			Route: spec, pool: pool(spec.Service), name: spec.Host + spec.PathPrefix, strip: strip, requests: previous.counter(key, spec.Service),
			requestEdits: newEdits(spec.RequestHeaders), responseEdits: newEdits(spec.ResponseHeaders),
			hold: unavailable.Hold, response: unavailable.Response,
		}
		if unavailable.Fallback != "" {
			r.fallback = pool(unavailable.Fallback)
		}
		t.routes = append(t.routes, r)
		if _, shadowed := t.index[key]; !shadowed {
			t.index[key] = i
			t.longest = max(t.longest, len(prefix))
		}
	}
	return t, nil
}

// counter returns the request counter of the route with that key if it leads to the service, or a new one.
func (t *table) counter(key routeKey, service string) *atomic.Uint64 {
	if t != nil {
		if i, ok := t.index[key]; ok && t.routes[i].Service == service {
			return t.routes[i].requests
		}
	}
	return new(atomic.Uint64)
}

// match returns the first route that matches the normalised host and path, or nil. It does not allocate.
func (t *table) match(host, path string) *route {
	best := t.search(host, path, len(t.routes))
	if dot := strings.IndexByte(host, '.'); dot > 0 {
		best = t.search(host[dot:], path, best)
	}
	best = t.search("", path, best)
	if best == len(t.routes) {
		return nil
	}
	return t.routes[best]
}

// search returns the first route before best that has exactly host and a prefix of path.
func (t *table) search(host, path string, best int) int {
	for end := 0; end <= t.longest; {
		if i, ok := t.index[routeKey{host, path[:end]}]; ok {
			best = min(best, i)
		}
		if end == len(path) {
			break
		}
		if slash := strings.IndexByte(path[end+1:], '/'); slash >= 0 {
			end += 1 + slash
		} else {
			end = len(path)
		}
	}
	return best
}

// trusts reports whether peer's forwarding fields are believed.
func (t *table) trusts(peer netip.Addr) bool {
	return slices.ContainsFunc(t.trusted, func(p netip.Prefix) bool { return p.Contains(peer) })
}

// hostKey returns the key of a route's host: ".example.com" for "*.example.com", which no request's host can be.
func hostKey(host string) string { return strings.ToLower(strings.TrimPrefix(host, "*")) }

// cleanPrefix returns a prefix as it stands in a normalised path, without a slash at its end: "" for the root.
func cleanPrefix(prefix string) (string, error) {
	if prefix == "" {
		return "", nil
	}
	normal, err := normalisePath(prefix)
	return strings.TrimSuffix(normal, "/"), err
}
