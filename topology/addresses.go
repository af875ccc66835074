package topology

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
)

// A bound address is one that something of the topology listens on.
type bound struct {
	what  string // proxy.listeners.http
	text  string // as the file has it
	host  string // empty: every interface
	port  string
	value *value // nil: a default
}

// checkAddresses reports addresses that two of the topology listen on, and ports that something else may take.
func (rs *resolver) checkAddresses(t *Topology) {
	all := rs.bound()
	index := func(b bound) (int, int) { return rs.report.files[b.value.node.source.Path], b.value.node.line }
	slices.SortStableFunc(all, func(a, b bound) int {
		if a.value == nil || b.value == nil { // a default never is where the problem is
			return cmp.Compare(boolInt(a.value != nil), boolInt(b.value != nil))
		}
		aFile, aLine := index(a)
		bFile, bLine := index(b)
		return cmp.Or(cmp.Compare(aFile, bFile), cmp.Compare(aLine, bLine))
	})
	taken := map[string]*hosts{} // by port
	for _, b := range all {
		if taken[b.port] == nil {
			taken[b.port] = &hosts{named: map[string]bound{}}
		}
		if other, ok := taken[b.port].take(b); !ok {
			where := "by default"
			if other.value != nil {
				where = wherefrom(other.value.node, b.value.node)
			}
			rs.report.failf(b.value.node, b.value.path, "%s is taken already: %s (%s) listens on %s", b.text, other.what, where, other.text)
		}
		if port, err := strconv.Atoi(b.port); err == nil && b.value != nil {
			rs.warnPort(b.value, port)
		}
	}
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// hosts are those that something listens on with one port. Only a few of their forms stand for others, so that
// most are looked up and not compared with each other.
type hosts struct {
	named map[string]bound
	wide  []bound
}

// take adds b unless it overlaps with one that is there, which take returns.
func (h *hosts) take(b bound) (bound, bool) {
	if other, ok := h.named[b.host]; ok {
		return other, false
	}
	isWide := slices.Contains([]string{"", "*", "::", "0.0.0.0", "localhost"}, b.host)
	if isWide {
		for _, host := range slices.Sorted(maps.Keys(h.named)) {
			if overlap(host, b.host) {
				return h.named[host], false
			}
		}
		h.wide = append(h.wide, b)
	}
	for _, other := range h.wide {
		if other.host != b.host && overlap(other.host, b.host) {
			return other, false
		}
	}
	h.named[b.host] = b
	return bound{}, true
}

// bound returns every address that the topology listens on.
func (rs *resolver) bound() []bound {
	var all []bound
	add := func(what string, v *value, text string) {
		host, port, err := splitAddress(strings.TrimPrefix(text, "tcp://"))
		if err == nil {
			all = append(all, bound{what, text, host, port, v})
		}
	}
	addValue := func(what string, v *value) {
		if text, ok := v.scalar.(string); ok {
			add(what, v, text)
		}
	}
	listeners := rs.root.at("proxy", "listeners")
	for _, name := range listeners.order {
		addValue(listeners.at(name).path, listeners.at(name, "address"))
	}
	if listeners.node == nil && len(rs.root.at("proxy", "routes").items) > 0 {
		add("the proxy", nil, defaultListener)
	}
	relays := rs.root.at("bus")
	for _, name := range relays.order {
		addValue(relays.at(name, "publishers").path, relays.at(name, "publishers"))
		addValue(relays.at(name, "subscribers").path, relays.at(name, "subscribers"))
	}
	addValue("metrics", rs.root.at("metrics", "address"))
	services := rs.root.at("services")
	for _, name := range services.order {
		if port := get[Port](services.at(name), "port"); port > 0 {
			add(services.at(name).path, services.at(name, "port"), fmt.Sprintf("127.0.0.1:%d", port))
		}
	}
	return all
}

// overlap reports whether a socket on host a keeps another from host b, with the same port. A listener on every
// interface takes IPv4 and IPv6, 0.0.0.0 only IPv4.
func overlap(a, b string) bool {
	if a == b {
		return true
	}
	for _, pair := range [][2]string{{a, b}, {b, a}} {
		other, err := netip.ParseAddr(pair[1])
		isIPv6 := err == nil && other.Is6()
		switch pair[0] {
		case "", "*", "::":
			return true
		case "0.0.0.0":
			if !isIPv6 {
				return true
			}
		case "localhost":
			if err == nil && other.IsLoopback() {
				return true
			}
		}
	}
	return false
}

// Ports that instances are given when a service's port is auto.
const firstInstancePort, lastInstancePort = 20000, 29999

// warnPort warns of a fixed port that the kernel or another instance may be given first.
func (rs *resolver) warnPort(v *value, port int) {
	if port >= firstInstancePort && port <= lastInstancePort {
		rs.report.warnf(v.node, v.path, "instances are given ports from %d to %d, so %d may be taken", firstInstancePort, lastInstancePort, port)
		return
	}
	if first, last := ephemeralPorts(); port >= first && port <= last {
		rs.report.warnf(v.node, v.path, "the kernel gives ports from %d to %d to outgoing connections (net.ipv4.ip_local_port_range), so %d may be taken",
			first, last, port)
	}
}

// ephemeralPorts returns the range of ports that the kernel gives away, empty if it is not known.
func ephemeralPorts() (first, last int) {
	content, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		return 0, -1
	}
	if _, err := fmt.Sscan(string(content), &first, &last); err != nil {
		return 0, -1
	}
	return first, last
}
