package proxy

import (
	"net/netip"
	"sync"
)

// The visitors are the clients that have connections open, of both engines together. The zero value is ready; its methods may
// be called from any goroutine and take no time.
type visitors struct {
	mu   sync.Mutex
	open map[netip.Addr]int // connections by client; none has 0
}

// visitorOf returns what the connections of an address are counted by: of IPv6 the first 64 bits, as one client has that many
// addresses at the least (RFC 6177, section 2).
func visitorOf(a netip.Addr) netip.Addr {
	a = a.Unmap().WithZone("")
	if a.Is6() {
		if p, err := a.Prefix(64); err == nil {
			return p.Addr()
		}
	}
	return a
}

// enter counts a connection from a and returns true, unless its client has limit connections already; 0 is no limit. What has
// entered must leave once.
func (v *visitors) enter(a netip.Addr, limit int) bool {
	who := visitorOf(a)
	v.mu.Lock()
	defer v.mu.Unlock()
	if limit > 0 && v.open[who] >= limit {
		return false
	}
	if v.open == nil {
		v.open = map[netip.Addr]int{}
	}
	v.open[who]++
	return true
}

// leave takes note that a connection from a was closed.
func (v *visitors) leave(a netip.Addr) {
	who := visitorOf(a)
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.open[who]--; v.open[who] <= 0 {
		delete(v.open, who)
	}
}
