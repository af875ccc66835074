package proxy

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"mainstay/topology"
)

// TestDifferential plays the same exchanges, valid, broken and aborted, on both engines and compares what the client saw, what
// the instance saw, what was logged and what was counted. What may differ is in docs/proxy-engines.md.
func TestDifferential(t *testing.T) {
	count := 100
	if os.Getenv("MAINSTAY_SOAK") != "" {
		count = 10_000
	}
	const batch = 250 // before the access log turns over
	for from := 0; from < count; from += batch {
		to := min(from+batch, count)
		t.Run(fmt.Sprintf("%d_to_%d", from, to-1), func(t *testing.T) {
			t.Parallel()
			differ(t, from, to)
		})
	}
}

// differ plays the exchanges from up to to.
func differ(t *testing.T, from, to int) {
	loop, netHTTP := newFramingRig(t, topology.EngineAuto), newFramingRig(t, topology.EngineNetHTTP)
	different := 0
	for i := from; i < to; i++ {
		s := newScene(i)
		a, b := loop.stage(s), netHTTP.stage(s)
		if a != b {
			t.Errorf("exchange %d, %s\nclient %s\ninstance %s\nloop:\n%s\nnet_http:\n%s", i, s.kind, showSteps(s.client), showActs(s.acts), a, b)
			if different++; different > 5 {
				t.FailNow()
			}
		}
	}
	a, b := settled(loop, netHTTP)
	for key, line := range a {
		if b[key] != line {
			t.Errorf("%s: loop logged %s, net_http %s", key, line, b[key])
		}
	}
	for key, line := range b {
		if _, ok := a[key]; !ok {
			t.Errorf("%s: loop logged nothing, net_http %s", key, line)
		}
	}
	if d := cmp.Diff(loop.counted(), netHTTP.counted()); d != "" {
		t.Errorf("counters (-loop +net_http):\n%s", d)
	}
}

// stage plays the scene and returns what was seen.
func (r *framingRig) stage(s scene) string {
	if s.alone {
		r.puppet.disconnect()
	}
	if s.pair != "" {
		r.pair(s.pair)
		defer r.single(s.pair)
	}
	client := newCaller(r.t, r.address())
	r.puppet.play(s.path, slices.Clone(s.acts), s.split.instance, client.heard)
	client.do(s.client, s.split.client, r.puppet)
	soon(5*time.Second, func() bool {
		client.mu.Lock()
		defer client.mu.Unlock()
		return client.ended
	})
	client.Close()
	<-client.done
	soon(5*time.Second, func() bool { return r.puppet.done(0) })
	list, rest, _, reset, err := client.responses(s.methods)

	port := r.address()[strings.LastIndexByte(r.address(), ':')+1:]
	instance := r.puppet.listener.Addr().String()
	old := strings.Contains(string(s.client[0].text), " HTTP/1.0\r\n")
	var seen strings.Builder
	for _, m := range list {
		own := len(valuesOf(m.fields, "proxy-status")) > 0
		if m = m.plain(port, instance); m.line == "100" {
			continue
		}
		if own {
			m = message{line: m.line, refusal: true}
		}
		if m.line == "304" {
			m.without("content-type")
		}
		if m.cut {
			if m.content == "" {
				continue // its head may have been sent already or not
			}
			m.content = ""
		}
		if old {
			m.fields = slices.DeleteFunc(m.fields, func(f string) bool { return f == "connection: close" })
			if reset {
				m.content = ""
			}
		}
		fmt.Fprintf(&seen, "client: %v\n", m)
	}
	if err != nil {
		fmt.Fprintf(&seen, "client: %v\n", err)
	}
	if len(rest) > 0 && err == nil && !reset {
		fmt.Fprintf(&seen, "client: then %q\n", rest)
	}
	for _, x := range r.puppet.sights() {
		m := x.message.plain(port, instance)
		m.trailers = nil
		m.without("trailer")
		if m.content == "" {
			m.without("transfer-encoding")
		}
		if agents := valuesOf(m.fields, "user-agent"); len(agents) > 1 {
			m.without("user-agent")
			m.fields = append(m.fields, "user-agent: "+agents[0])
			sortFields(m.fields)
		}
		if !m.cut {
			fmt.Fprintf(&seen, "instance: %v\n", m)
		}
	}
	return seen.String()
}

// pair has two new instances in place of the one, which are the puppet both.
func (r *framingRig) pair(name string) {
	r.drop("web", "web/1")
	for _, id := range [...]string{name + "/1", name + "/2"} {
		r.Admit(topology.Instance{Service: "web", ID: id, Address: r.puppet.listener.Addr().String(), Weight: 1})
	}
}

// single ends pair.
func (r *framingRig) single(name string) {
	r.Admit(topology.Instance{Service: "web", ID: "web/1", Address: r.puppet.listener.Addr().String(), Weight: 1})
	r.drop("web", name+"/1")
	r.drop("web", name+"/2")
}

// counted returns the counters, of histograms how much they have observed.
func (r *framingRig) counted() map[string]float64 {
	families, err := r.reg.Gather()
	if err != nil {
		r.t.Fatal(err)
	}
	counters := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			key := f.GetName()
			for _, l := range m.GetLabel() {
				key += " " + l.GetValue()
			}
			switch {
			case m.GetCounter().GetValue() > 0:
				counters[key] = m.GetCounter().GetValue()
			case m.GetHistogram().GetSampleCount() > 0:
				counters[key] = float64(m.GetHistogram().GetSampleCount())
			}
		}
	}
	return counters
}

// without leaves out a field.
func (m *message) without(name string) {
	m.fields = slices.DeleteFunc(m.fields, func(f string) bool { return strings.HasPrefix(f, name+":") })
}

// settled returns what was logged on two engines once that is the same, or, if that does not come about, what it is.
func settled(r, other *framingRig) (a, b map[string]string) {
	soon(3*time.Second, func() bool {
		a, b = r.logged(), other.logged()
		return maps.Equal(a, b)
	})
	return a, b
}

func (r *framingRig) logged() map[string]string {
	b, err := os.ReadFile(filepath.Join(r.topology.StateDir, "logs", "access.log"))
	if err != nil {
		return nil
	}
	lists := map[string][]string{}
	for line := range strings.Lines(string(b)) {
		var rec record
		if json.Unmarshal([]byte(line), &rec) != nil {
			break // half written
		}
		if rec.Status == statusClientClosedRequest || rec.Reason == reasonIncomplete {
			rec.BytesIn, rec.BytesOut = 0, 0 // depend on when
		}
		if rec.Reason != reasonNone || rec.Status == 413 {
			rec.BytesOut, rec.BytesIn = 0, 0
		}
		key := rec.Path
		lists[key] = append(lists[key], fmt.Sprintf("%s %d %q attempts %d in %d out %d", rec.Method, rec.Status, rec.Reason, rec.Attempts, rec.BytesIn, rec.BytesOut))
	}
	lines := map[string]string{}
	for key, list := range lists {
		slices.Sort(list)
		lines[key] = strings.Join(list, ", ")
	}
	return lines
}
