package topology

import "strings"

// checkRoutes checks that each route leads somewhere and can match.
func (rs *resolver) checkRoutes(t *Topology) {
	items := rs.root.at("proxy", "routes").items
	earlier := shadows{}
	for i, route := range t.Proxy.Routes {
		v := items[i]
		service := v.at("service")
		s, ok := t.Services[route.Service]
		switch {
		case route.Service == "":
		case !ok:
			rs.unknownService(service.node, service.path, route.Service)
		case !s.Routable() && rs.root.sound("services", route.Service, "port"):
			rs.report.failf(service.node, service.path, "%s has port: none, so no request can be sent to it", route.Service)
		}
		if !v.sound("match", "host") || !v.sound("match", "path_prefix") {
			continue
		}
		if first := earlier.find(route); first != nil {
			rs.report.warnf(v.node, v.path, "this route never matches: the one in %s takes its requests", wherefrom(first, v.node))
			continue
		}
		earlier.add(route, v.node)
	}
}

// shadows are the routes so far, by host and then by path prefix, so that finding the one that hides another takes
// as many steps as its path has segments.
type shadows map[string]map[string]*node

func (s shadows) add(r Route, at *node) {
	if s[r.Host] == nil {
		s[r.Host] = map[string]*node{}
	}
	s[r.Host][r.PathPrefix] = at
}

// find returns where the first route stands that matches every request that r matches, or nil.
func (s shadows) find(r Route) *node {
	hosts := []string{"", r.Host}
	if _, parent, ok := strings.Cut(r.Host, "."); ok {
		hosts = append(hosts, "*."+parent)
	}
	var first *node
	for _, host := range hosts {
		for prefix := r.PathPrefix; ; prefix = parentPath(prefix) {
			if at := s[host][prefix]; at != nil && (first == nil || at.line < first.line) {
				first = at
			}
			if prefix == "/" {
				break
			}
		}
	}
	return first
}

// parentPath returns path without its last segment.
func parentPath(path string) string {
	if i := strings.LastIndexByte(path, '/'); i > 0 {
		return path[:i]
	}
	return "/"
}
