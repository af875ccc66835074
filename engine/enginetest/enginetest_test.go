package enginetest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"mainstay/topology"
)

// A choir is a small subsystem: it runs one goroutine per service. Its flaws are ways to break a rule.
type choir struct {
	log    *slog.Logger
	flaw   string
	voices map[string]*voice
	leaked *sync.WaitGroup
	done   chan struct{} // ends what a flaw leaks
}

type voice struct {
	replicas int
	stop     chan struct{}
	ended    sync.WaitGroup
}

func newVoice(replicas int) *voice {
	v := &voice{replicas: replicas, stop: make(chan struct{})}
	v.ended.Go(func() { <-v.stop })
	return v
}

func (v *voice) end() {
	close(v.stop)
	v.ended.Wait()
}

// Apply refuses services named loud.
func (c *choir) Apply(ctx context.Context, t *topology.Topology) error {
	_, loud := t.Services["loud"]
	if loud && c.flaw != "refuses late" && c.flaw != "accepts all" {
		return errors.New("too loud")
	}
	changed := false
	for _, name := range slices.Sorted(maps.Keys(t.Services)) {
		s := t.Services[name]
		if name == "loud" && c.flaw == "refuses late" {
			return errors.New("too loud")
		}
		v, runs := c.voices[name]
		if runs && v.replicas == s.Replicas && c.flaw != "starts again" {
			continue
		}
		if runs && c.flaw == "keeps what changed" {
			continue
		}
		if runs {
			v.end()
		}
		c.voices[name] = newVoice(s.Replicas)
		changed = true
		if c.flaw == "modifies" {
			t.Services[name] = topology.Service{Name: name, Replicas: s.Replicas + 1}
		}
	}
	for name, v := range c.voices {
		if _, wanted := t.Services[name]; wanted || c.flaw == "only adds" {
			continue
		}
		v.end()
		delete(c.voices, name)
		changed = true
	}
	if c.flaw == "leaks" {
		c.leaked.Go(func() { <-c.done })
	}
	if changed || c.flaw == "talks" {
		c.log.Info("voices changed")
	}
	if c.flaw == "fails in haste" && ctx.Err() != nil {
		return ctx.Err()
	}
	if c.flaw == "waits" && t.Services["mute"].Replicas > 0 {
		return errors.New("mute does not sing")
	}
	return nil
}

func singing(replicas map[string]int) *topology.Topology {
	t := &topology.Topology{Services: map[string]topology.Service{}}
	for name, n := range replicas {
		t.Services[name] = topology.Service{Name: name, Replicas: n}
	}
	return t
}

// choirCase is a case for a choir with the flaw. Call end to end what it leaked.
func choirCase(flaw string) (c Case[*choir], end func()) {
	var leaked sync.WaitGroup
	done := make(chan struct{})
	var all []*choir
	c = Case[*choir]{
		New: func(log *slog.Logger) *choir {
			all = append(all, &choir{log: log, flaw: flaw, voices: map[string]*voice{}, leaked: &leaked, done: done})
			return all[len(all)-1]
		},
		A:       singing(map[string]int{"alto": 1, "bass": 1}),
		B:       singing(map[string]int{"alto": 2, "tenor": 1}),
		Refused: singing(map[string]int{"alto": 3, "bass": 1, "loud": 1}),
		Doomed:  singing(map[string]int{"mute": 1}),
		Observe: func(c *choir) any {
			picture := []string{}
			for name, v := range c.voices {
				picture = append(picture, fmt.Sprint(name, v.replicas))
			}
			slices.Sort(picture)
			return picture
		},
		Identify: func(c *choir) any {
			things := map[string]string{}
			for name, v := range c.voices {
				things[name] = fmt.Sprintf("%p", v)
			}
			return things
		},
		Settled: func(*choir) bool { return true },
		Released: func() error {
			if flaw == "holds" {
				return errors.New("bind: address already in use")
			}
			return nil
		},
	}
	return c, func() {
		close(done)
		leaked.Wait()
		for _, c := range all {
			for _, v := range c.voices {
				v.end()
			}
		}
	}
}

func TestRun(t *testing.T) {
	c, end := choirCase("")
	defer end()
	Run(t, c)
}

func TestRunWithLessToTry(t *testing.T) {
	c, end := choirCase("")
	defer end()
	c.Refused, c.Doomed, c.Identify, c.Settled, c.Released = nil, nil, nil, nil, nil
	Run(t, c)
}

// complaints are what a check reports.
type complaints []string

func (*complaints) Helper() {}

func (c *complaints) Errorf(format string, args ...any) {
	*c = append(*c, fmt.Sprintf(format, args...))
}

// Every way to break a rule is found by the check of that rule.
func TestFlawsAreFound(t *testing.T) {
	for _, test := range []struct{ flaw, rule, complaint string }{
		{"only adds", "whole", "A after B: another picture"},
		{"keeps what changed", "whole", "B after Empty: another picture"},
		{"starts again", "idempotent", "no longer the same things"},
		{"talks", "idempotent", "was logged"},
		{"refuses late", "all or nothing", "refused after A: another picture"},
		{"accepts all", "all or nothing", "Apply(Refused) returned nil"},
		{"fails in haste", "taking away never fails", "context canceled"},
		{"holds", "taking away never fails", "address already in use"},
		{"leaks", "taking away never fails", "found unexpected goroutines"},
		{"waits", "waits for nothing that it starts", "mute does not sing"},
		{"modifies", "topology is not modified", "Apply modified the topology"},
	} {
		t.Run(test.flaw, func(t *testing.T) {
			c, end := choirCase(test.flaw)
			defer end()
			var got complaints
			for _, r := range rules[*choir]() {
				if r.name == test.rule {
					check(&got, c, r)
				}
			}
			if all := strings.Join(got, "\n"); !strings.Contains(all, test.complaint) {
				t.Errorf("%s was not found, want a complaint with %q, got:\n%s", test.flaw, test.complaint, all)
			}
		})
	}
}

func TestCaseThatSeesNothingIsFound(t *testing.T) {
	c, end := choirCase("")
	defer end()
	c.Observe = func(*choir) any { return nil }
	var got complaints
	check(&got, c, rules[*choir]()[0])
	if all := strings.Join(got, "\n"); !strings.Contains(all, "the case is no good") {
		t.Errorf("got: %s", all)
	}
}
