package proxy

import (
	"maps"
	"net/textproto"
	"slices"
	"strings"

	"mainstay/topology"
)

// edits are a route's changes to the header of a message, prepared: remove, then set, then add.
type edits struct {
	names []string // canonical, that are removed or set
	host  string   // that is set; empty: none
	lines []string // name and value by turns, that are set or added; not the host
	wire  []byte   // lines as they are sent
}

func newEdits(h topology.HeaderEdits) edits {
	var e edits
	for _, name := range h.Remove {
		e.names = append(e.names, textproto.CanonicalMIMEHeaderKey(name))
	}
	for _, name := range slices.Sorted(maps.Keys(h.Set)) {
		value := h.Set[name]
		name = textproto.CanonicalMIMEHeaderKey(name)
		e.names = append(e.names, name)
		if name == "Host" {
			e.host = value
			continue
		}
		e.lines = append(e.lines, name, value)
	}
	for _, name := range slices.Sorted(maps.Keys(h.Add)) {
		e.lines = append(e.lines, textproto.CanonicalMIMEHeaderKey(name), h.Add[name])
	}
	for i := 0; i < len(e.lines); i += 2 {
		e.wire = append(append(append(append(e.wire, e.lines[i]...), ": "...), e.lines[i+1]...), "\r\n"...)
	}
	return e
}

// overrides reports whether a field that the message has, or that the proxy would add, is removed or replaced.
func (e *edits) overrides(field string) bool {
	for _, name := range e.names {
		if len(name) == len(field) && strings.EqualFold(name, field) {
			return true
		}
	}
	return false
}

// sets reports whether a field, by its canonical name, is there afterwards in any case.
func (e *edits) sets(field string) bool {
	for i := 0; i < len(e.lines); i += 2 {
		if e.lines[i] == field {
			return true
		}
	}
	return false
}

// appendField appends a field line of the proxy's, unless that is removed or replaced.
func (e *edits) appendField(b []byte, name, value string) []byte {
	if e.overrides(name) {
		return b
	}
	return append(append(append(append(b, name...), ": "...), value...), "\r\n"...)
}

// appendLines appends the field lines that are set and added. What overrides tells is to be left out before.
func (e *edits) appendLines(b []byte) []byte { return append(b, e.wire...) }

// apply changes a header. The host is not in it.
func (e *edits) apply(h fields) {
	for _, name := range e.names {
		delete(h, name)
	}
	for i := 0; i < len(e.lines); i += 2 {
		h[e.lines[i]] = append(h[e.lines[i]], e.lines[i+1])
	}
}
