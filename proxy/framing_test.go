package proxy

import (
	"context"
	"fmt"
	"hash/fnv"
	"log/slog"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"mainstay/topology"
)

// framingEngines are the engines that every case runs on.
var framingEngines = [...]struct {
	name   string
	engine topology.ProxyEngine
}{
	{"loop", topology.EngineAuto},
	{"net_http", topology.EngineNetHTTP},
}

// framingWorkers is how many cases are played at once.
const framingWorkers = 16

// framingLimits are those of the cases.
var framingLimits = topology.ClientLimits{
	HeaderTimeout: 60 * time.Second, BodyTimeout: 60 * time.Second, SendTimeout: 60 * time.Second, IdleTimeout: 75 * time.Second,
	HeaderSize: 32 << 10, HeaderFields: 100,
}

// TestFraming runs the cases of testdata/framing over sockets: whole, byte by byte, and with MAINSTAY_SOAK=1 also split in two at
// every byte. Without it responses are split, and in one place more, drawn anew for each case but always the same.
func TestFraming(t *testing.T) {
	cases := readFraming(t)
	for _, e := range framingEngines {
		t.Run(e.name, func(t *testing.T) {
			var workers sync.WaitGroup
			defer workers.Wait()
			queue := make(chan framingCase, len(cases))
			for _, c := range cases {
				if c.only == "" || c.only == e.name {
					queue <- c
				}
			}
			close(queue)
			for range framingWorkers { // t.Parallel would have no more at once than there are processors, and cases mostly wait
				workers.Go(func() {
					for c := range queue {
						t.Run(c.file+"/"+strings.ReplaceAll(c.name, " ", "-"), func(t *testing.T) { runFraming(t, c, e.engine) })
					}
				})
			}
		})
	}
}

// TestFramingSize holds the corpus to what it promises.
func TestFramingSize(t *testing.T) {
	requests, responses := 0, 0
	for _, c := range readFraming(t) {
		if len(c.acts) > 0 {
			responses++
		} else {
			requests++
		}
	}
	if t.Logf("%d requests, %d responses", requests, responses); requests < 170 || responses < 80 {
		t.Errorf("%d requests and %d responses", requests, responses)
	}
}

// A variant is one way to split a case.
type variant struct{ client, instance cut }

// variants returns how the case is split.
func (c *framingCase) variants() []variant {
	none, each := cut{at: -1}, cut{at: -1, every: true}
	list := []variant{{none, none}}
	if c.slow {
		return list
	}
	sent, answered := 0, 0
	for _, s := range c.client {
		if s.do == "send" {
			sent += len(s.text)
		}
	}
	for _, a := range c.acts {
		for _, s := range a.steps {
			if s.do == "send" {
				answered += len(s.text)
			}
		}
	}
	soak := os.Getenv("MAINSTAY_SOAK") != ""
	const long = 2000
	if sent < long && (soak || len(c.acts) == 0) {
		list = append(list, variant{each, none})
	}
	if 0 < answered && answered < long {
		list = append(list, variant{none, each})
	}
	seed := fnv.New64a()
	fmt.Fprint(seed, c.file, c.name)
	random := rand.New(rand.NewPCG(seed.Sum64(), 1))
	places := func(length int, make func(int) variant) {
		at := random.Perm(max(length-1, 0))
		limit := 1
		if soak {
			limit = long
		}
		for _, i := range at[:min(limit, len(at))] {
			list = append(list, make(i+1))
		}
	}
	if soak {
		places(sent, func(at int) variant { return variant{cut{at: at}, none} })
	}
	places(answered, func(at int) variant { return variant{none, cut{at: at}} })
	return list
}

func runFraming(t *testing.T, c framingCase, engine topology.ProxyEngine) {
	r := newFramingRig(t, engine)
	if kind := r.serving["127.0.0.1:0"].kind; (kind == engineLoop) != (engine == topology.EngineAuto) {
		t.Fatalf("it runs on engine %d", kind)
	}
	variants := c.variants()
	for _, v := range variants {
		if d := r.run(c, v); d != "" {
			t.Fatalf("%s\nclient split at %+v, instance at %+v:\n%s", c.clause, v.client, v.instance, d)
		}
	}
	// The log is written behind, and two ends may come in any order.
	want, got := map[ending]int{}, map[ending]int{}
	lines := 0
	for _, e := range c.ends {
		want[e] += len(variants)
		lines += len(variants)
	}
	if c.state == "open" {
		want[ending{status: 200}] += len(variants)
		lines += len(variants)
	}
	for _, rec := range r.log(lines) {
		e := ending{status: rec.Status, reason: rec.Reason}
		for _, w := range c.ends {
			if e.status == w.also && e.reason == w.reason {
				e.status, e.also = w.status, w.also
			} else if e.status == w.status {
				e.also = w.also
			}
		}
		got[e]++
	}
	if d := cmp.Diff(want, got, cmp.AllowUnexported(ending{})); d != "" {
		t.Errorf("%s\naccess log (-want +got):\n%s", c.clause, d)
	}
}

// A framingRig is a rig with an instance that does what it is told.
type framingRig struct {
	*rig
	puppet *puppet
}

// newFramingRig returns a proxy of that engine from the start, in front of a puppet.
func newFramingRig(t *testing.T, engine topology.ProxyEngine) *framingRig {
	reg := prometheus.NewRegistry()
	r := &rig{Proxy: New(slog.New(slog.DiscardHandler), reg, nil), t: t, reg: reg}
	if r.engines[engineLoop] == nil && engine == topology.EngineAuto {
		e := loops(&r.policies)
		if e == nil {
			t.Skip("there are no event loops here")
		}
		r.engines[engineLoop] = &engineUse{engine: e}
	}
	r.topology = topology.Topology{StateDir: t.TempDir(), Proxy: topology.Proxy{
		AccessLog: true, Engine: engine, Limits: framingLimits, Routes: []topology.Route{route0("web")},
		Listeners: map[string]topology.Listener{"http": {Name: "http", Address: "127.0.0.1:0"}},
	}}
	p := newPuppet(t)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := r.Apply(ctx, topology.Empty); err != nil {
			t.Errorf("apply empty: %v", err)
		}
		r.drop("web", "web/1")
		p.close()
	})
	r.apply()
	r.Admit(topology.Instance{Service: "web", ID: "web/1", Address: p.listener.Addr().String(), Weight: 1})
	return &framingRig{r, p}
}

const probe = "GET /probe HTTP/1.1\r\nHost: probe\r\nConnection: close\r\n\r\n"

// run plays the case once and returns what was wrong.
func (r *framingRig) run(c framingCase, v variant) string {
	client := newCaller(r.t, r.address())
	defer func() {
		client.Close()
		<-client.done
	}()
	r.puppet.play("", slices.Clone(c.acts), v.instance, client.heard)
	client.do(c.client, v.client, r.puppet)

	methods := c.methods
	final := 0
	for _, m := range c.gets {
		if m.line[0] != '1' || m.line == "101" {
			final++
		}
	}
	var list []message
	var rest []byte
	var ended, reset bool
	var err error
	complete := func() bool {
		list, rest, ended, reset, err = client.responses(methods)
		n := 0
		for _, m := range list {
			if m.line[0] != '1' || m.line == "101" {
				n++
			}
		}
		return ended || err != nil || n >= final && (c.state == "open" || c.state == "any")
	}
	if !soon(time.Minute, complete) {
		return fmt.Sprintf("the client waits, having got %q", client.got)
	}
	if !soon(30*time.Second, func() bool { return r.puppet.done(len(c.sees)) }) {
		return fmt.Sprintf("the instance saw %v, the client got %q", r.puppet.sights(), client.got)
	}
	sights := r.puppet.sights()
	if c.link == "dropped" && len(sights) > 0 && !sights[len(sights)-1].link.closed(30*time.Second) {
		return "the connection to the instance was kept"
	}
	if c.state == "open" && !ended && err == nil {
		methods = append(slices.Clone(methods[:min(final, len(methods))]), "GET")
		if _, err := client.Write([]byte(probe)); err != nil {
			return err.Error()
		}
		soon(time.Minute, func() bool {
			list, rest, ended, reset, err = client.responses(methods)
			return ended || err != nil
		})
	}
	if err != nil {
		return fmt.Sprintf("the client got %q: %v", client.got, err)
	}
	return r.compare(c, list, rest, reset)
}

func (r *framingRig) compare(c framingCase, list []message, rest []byte, reset bool) string {
	gets, sees := slices.Clone(c.gets), slices.Clone(c.sees)
	if c.state == "open" {
		gets = append(gets, message{line: "200", fields: []string{"connection: close", "content-length: 2"}, content: "ok"})
		sees = append(sees, message{line: "GET /probe HTTP/1.1", fields: []string{"host: probe"}})
	}
	port := r.address()[strings.LastIndexByte(r.address(), ':')+1:]
	instance := r.puppet.listener.Addr().String()
	var problems []string
	var got, saw []message
	sights := r.puppet.sights()
	for _, s := range sights {
		m := s.message.plain(port, instance)
		if m.cut {
			if len(saw) >= len(sees) || !sees[len(saw)].cut {
				continue // what was refused midway
			}
			m.content = sees[len(saw)].content // how much of it came depends on when
		}
		saw = append(saw, m)
	}
	if d := diffMessages(sees, saw); d != "" {
		problems = append(problems, "the instance saw (-want +got):\n"+d)
	}
	for _, m := range list {
		at := len(got)
		if m.line == "100" && (at >= len(gets) || gets[at].line != "100") {
			continue // may be left out where the content has come already, RFC 9110 section 10.1.1
		}
		if c.old() && c.state != "open" {
			m.fields = slices.DeleteFunc(slices.Clone(m.fields), func(f string) bool { return f == "connection: close" })
		}
		own := len(valuesOf(m.fields, "proxy-status")) > 0
		m = m.plain(port, instance)
		if at < len(gets) && gets[at].refusal {
			if !own {
				problems = append(problems, fmt.Sprintf("%v is not the proxy's own", m))
			}
			if m.line == gets[at].also {
				m.line = gets[at].line
			}
			m = message{line: m.line}
		}
		got = append(got, m)
	}
	if last := len(gets) - 1; c.state == "cut" && last >= 0 && len(got) == last && gets[last].content == "" {
		gets = gets[:last] // nothing of it had to be sent yet
	}
	if c.state == "cut" && len(gets) > 0 && len(got) == len(gets) {
		last := len(gets) - 1
		if !got[last].cut && !reset {
			problems = append(problems, fmt.Sprintf("the client takes %v for whole", got[last]))
		}
		if !strings.HasPrefix(gets[last].content, got[last].content) {
			problems = append(problems, fmt.Sprintf("the client got %v", got[last]))
		}
		got[last].cut, got[last].content = gets[last].cut, gets[last].content
	}
	if d := diffMessages(gets, got); d != "" {
		problems = append(problems, "the client got (-want +got):\n"+d)
	}
	if len(rest) > 0 {
		problems = append(problems, fmt.Sprintf("then the client got %q", rest))
	}
	if n := len(sights); c.link == "kept" && n >= 2 && sights[n-1].link != sights[n-2].link {
		problems = append(problems, "the connection to the instance was not used again")
	}
	return strings.Join(problems, "\n")
}

// old reports whether the client speaks HTTP/1.0, which needs not be told that the connection closes.
func (c *framingCase) old() bool { return strings.Contains(string(c.client[0].text), " HTTP/1.0\r\n") }

func diffMessages(want, got []message) string {
	text := func(list []message) (lines []string) {
		for _, m := range list {
			lines = append(lines, m.String())
		}
		return lines
	}
	return cmp.Diff(text(want), text(got))
}
