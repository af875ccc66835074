package proxy

import (
	"maps"
	"net"
	"slices"
	"syscall"
	"time"
)

// makeRoom closes connections of clients if conn, which was just accepted, has a descriptor that clients are to leave, and reports whether
// it may stay.
func (s *netHTTPServer) makeRoom(conn net.Conn) bool {
	raw, err := conn.(syscall.Conn).SyscallConn()
	if err != nil {
		return false
	}
	few := false
	if err := raw.Control(func(fd uintptr) { few = scarce(int(fd)) }); err != nil {
		return false
	}
	return !few || s.shed() > 0
}

// shed closes some of the connections on which no request is under way, and returns how many: first those that would be closed next because
// nothing comes on them, then those that have sent part of a header only.
func (s *netHTTPServer) shed() int {
	type candidate struct {
		*client
		begun bool
		limit time.Time
	}
	var candidates []candidate
	s.mu.Lock()
	clients := slices.Collect(maps.Keys(s.clients))
	s.mu.Unlock()
	for _, c := range clients {
		if begun, limit, ok := c.spare(); ok {
			candidates = append(candidates, candidate{c, begun, limit})
		}
	}
	slices.SortFunc(candidates, func(a, b candidate) int {
		if a.begun != b.begun {
			if b.begun {
				return -1
			}
			return 1
		}
		return a.limit.Compare(b.limit)
	})
	some := candidates[:(len(candidates)+7)/8] // so that looking at all of them is seldom done
	for _, c := range some {
		c.Close()
	}
	s.engine.metrics.evicted.Add(float64(len(some)))
	return len(some)
}
