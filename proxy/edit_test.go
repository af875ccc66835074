package proxy

import (
	"net/http"
	"testing"

	"github.com/google/go-cmp/cmp"

	"mainstay/topology"
)

func TestEdits(t *testing.T) {
	e := newEdits(topology.HeaderEdits{
		Remove: []string{"x-gone", "Both"},
		Set:    map[string]string{"X-Set": "new", "Host": "inner", "Both": "set"},
		Add:    map[string]string{"Vary": "Origin", "X-Set": "more"},
	})
	h := http.Header{"X-Gone": {"1"}, "X-Set": {"old", "older"}, "Vary": {"Accept"}, "Both": {"1"}, "X-Else": {"1"}}
	e.apply(h)
	want := http.Header{"X-Set": {"new", "more"}, "Vary": {"Accept", "Origin"}, "Both": {"set"}, "X-Else": {"1"}}
	if d := cmp.Diff(want, h); d != "" || e.host != "inner" {
		t.Errorf("host %q, %s", e.host, d)
	}
	if got, want := string(e.appendLines(nil)), "Both: set\r\nX-Set: new\r\nVary: Origin\r\nX-Set: more\r\n"; got != want {
		t.Errorf("lines %q, want %q", got, want)
	}
	for name, want := range map[string]bool{"x-gone": true, "X-SET": true, "both": true, "Vary": false, "host": true, "X-Else": false} {
		if e.overrides(name) != want {
			t.Errorf("overrides %s: %t", name, !want)
		}
	}
	if !e.sets("Vary") || e.sets("X-Gone") || e.sets("Host") {
		t.Error("what is there afterwards is not told")
	}
}
