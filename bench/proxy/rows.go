//go:build linux

package main

import (
	"fmt"
	"path"
	"strings"
)

// A row is one kind of load that all peers are measured with.
type row struct {
	name        string
	path        string
	size        int // of each response's content
	connections int
	percent     int // of nginx's own maximum of this shape; 0 is saturation
	tls         bool
	streams     int // on each connection, with HTTP/2
	echo        int // bytes of each WebSocket message
	idle        int // connections that stay idle
}

// shape is what a paced row has in common with the saturated one that says what nginx can do.
func (r row) shape() string { return fmt.Sprint(r.path, r.connections, r.echo) }

// rows returns all rows, in the order in which they are measured.
func rows() []row {
	const kib = 1 << 10
	var all []row
	plain := func(label string, size, connections int, percents ...int) {
		for _, percent := range append([]int{0}, percents...) {
			name := fmt.Sprintf("%s-%d-saturated", label, connections)
			if percent > 0 {
				name = fmt.Sprintf("%s-%d-paced-%d", label, connections, percent)
			}
			all = append(all, row{name: name, path: "/" + label, size: size, connections: connections, percent: percent})
		}
	}
	plain("119B", 119, 64, 25, 70)
	plain("119B", 119, 1)
	plain("119B", 119, 1000, 70)
	plain("1KiB", kib, 64, 25, 70)
	plain("64KiB", 64*kib, 64, 70)
	plain("1MiB", kib*kib, 16, 70)
	all = append(all,
		row{name: "tls-h1-119B-64-saturated", path: "/119B", size: 119, connections: 64, tls: true},
		row{name: "tls-h1-64KiB-64-saturated", path: "/64KiB", size: 64 * kib, connections: 64, tls: true},
		row{name: "h2-119B-64-saturated", path: "/119B", size: 119, connections: 64, tls: true, streams: 1},
		row{name: "h2x10-119B-64-saturated", path: "/119B", size: 119, connections: 64, tls: true, streams: 10},
		row{name: "websocket-125B-64-saturated", path: "/echo", connections: 64, echo: 125},
		row{name: "websocket-125B-64-paced-25", path: "/echo", connections: 64, echo: 125, percent: 25},
		row{name: "idle-10000", path: "/119B", size: 119, connections: 1, idle: 10000})
	return all
}

// match returns those of all whose name fits one of the patterns (as path.Match has them), in their order. A pattern that fits none is an error.
func match[T any](all []T, name func(T) string, patterns string) ([]T, error) {
	wanted := make(map[int]bool)
	for pattern := range strings.SplitSeq(patterns, ",") {
		found := false
		for i, one := range all {
			ok, err := path.Match(pattern, name(one))
			if err != nil {
				return nil, fmt.Errorf("read %q: %w", pattern, err)
			}
			if ok {
				wanted[i], found = true, true
			}
		}
		if !found {
			var names []string
			for _, one := range all {
				names = append(names, name(one))
			}
			return nil, fmt.Errorf("nothing is called %q; there are %s", pattern, strings.Join(names, ", "))
		}
	}
	var some []T
	for i, one := range all {
		if wanted[i] {
			some = append(some, one)
		}
	}
	return some, nil
}
