// Package enginetest checks that a subsystem keeps the five rules of
// [engine.Subsystem]. It is for the tests of every room that implements one:
//
//	func TestConformance(t *testing.T) {
//		one, two := freePort(t), freePort(t)
//		enginetest.Run(t, enginetest.Case[*proxy.Proxy]{
//			New:     func(log *slog.Logger) *proxy.Proxy { return proxy.New(log, nil, nil) },
//			A:       listening(one),
//			B:       listening(one, two),
//			Refused: listening(taken(t)),
//			Observe: func(p *proxy.Proxy) any { return p.Status().Listeners },
//		})
//	}
//
// Each rule is a subtest with a subsystem of its own, which has stopped
// everything when the subtest ends, so that all can use the same addresses.
package enginetest

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"mainstay/engine"
	"mainstay/topology"
)

// A Case is a subsystem and the topologies that it is tried with.
type Case[S engine.Subsystem] struct {
	// New returns a subsystem that runs nothing and logs to log. It is called once for each rule.
	New func(log *slog.Logger) S

	// A and B are good, and different: going from one to the other should add, change and remove something.
	// What they start should come to rest and log nothing any more then.
	A, B *topology.Topology

	// Refused is one that Apply must return an error for, best after it has acquired something; it should differ from A in
	// more than what cannot be had. Nil for a subsystem that cannot refuse.
	Refused *topology.Topology

	// Doomed is one whose Apply succeeds though what it starts never comes to be: a process that ends
	// at once, a store that cannot be reached. Nil for a subsystem that starts nothing that can be waited for.
	Doomed *topology.Topology

	// Observe returns a picture of what runs that is the same whenever the same topology runs and all is at rest: addresses, names,
	// numbers. It is compared by cmp.Diff, and must see everything that the topologies differ in.
	Observe func(s S) any

	// Identify returns a picture of what must stay the same things, not just things like them, when a topology is
	// applied again or another is refused: process ids, connections, the addresses of objects. It may be nil.
	Identify func(s S) any

	// Settled reports whether everything that was started is at rest. Nil: it is when Apply returns.
	Settled func(s S) bool

	// Released returns an error if something of A is still held that another program could not have then, such as an address
	// that cannot be bound. It is called after A has been stopped. It may be nil.
	Released func() error
}

// Run checks every rule, each in a subtest.
func Run[S engine.Subsystem](t *testing.T, c Case[S]) {
	t.Helper()
	for _, r := range rules[S]() {
		t.Run(r.name, func(t *testing.T) { check(t, c, r) })
	}
}

// A reporter is told what is wrong. *testing.T is one.
type reporter interface {
	Helper()
	Errorf(format string, args ...any)
}

// A rule is one thing that every subsystem keeps to.
type rule[S engine.Subsystem] struct {
	name string
	keep func(s *subject[S])
}

func rules[S engine.Subsystem]() []rule[S] {
	return []rule[S]{
		{"whole", keepWhole[S]},
		{"idempotent", keepIdempotent[S]},
		{"all or nothing", keepAllOrNothing[S]},
		{"taking away never fails", keepTakingAway[S]},
		{"waits for nothing that it starts", keepNotWaiting[S]},
		{"topology is not modified", keepTopology[S]},
	}
}

// check tries one rule on a new subsystem and stops everything after it, which must leave no goroutine.
func check[S engine.Subsystem](r reporter, c Case[S], rule rule[S]) {
	r.Helper()
	before := goleak.IgnoreCurrent()
	s := &subject[S]{reporter: r, c: c}
	s.subsystem = c.New(slog.New(&s.log))
	rule.keep(s)
	s.mustApply(topology.Empty)
	if c.Released != nil {
		if err := c.Released(); err != nil {
			r.Errorf("after Empty: %v", err)
		}
	}
	if err := goleak.Find(before); err != nil {
		r.Errorf("after Empty: %v", err)
	}
}

// What was applied before is undone by applying another topology, whichever way it was come to.
func keepWhole[S engine.Subsystem](s *subject[S]) {
	nothing := s.picture()
	s.mustApply(s.c.A)
	a := s.picture()
	s.mustApply(s.c.B)
	b := s.picture()
	if cmp.Equal(a, b) {
		s.reporter.Errorf("the case is no good: Observe gives the same picture of A and of B")
	}
	s.mustApply(s.c.A)
	s.want("A after B", a)
	s.mustApply(topology.Empty)
	s.want("Empty", nothing)
	s.mustApply(s.c.B)
	s.want("B after Empty", b)
}

func keepIdempotent[S engine.Subsystem](s *subject[S]) {
	for _, t := range []*topology.Topology{topology.Empty, s.c.A, topology.Empty, s.c.B} {
		s.mustApply(t)
		picture, identity, logged := s.picture(), s.identity(), s.log.len()
		again := *t // as a reload would bring it
		s.mustApply(&again)
		s.want("the same again", picture)
		s.wantIdentity("the same again", identity)
		if extra := s.log.since(logged); len(extra) > 0 {
			s.reporter.Errorf("applying the same again was logged: %q", extra)
		}
	}
}

// What is refused leaves everything as it was, and holds nothing that a later one needs.
func keepAllOrNothing[S engine.Subsystem](s *subject[S]) {
	if s.c.Refused == nil {
		return
	}
	nothing := s.picture()
	s.mustRefuse()
	s.want("refused at first", nothing)

	s.mustApply(s.c.A)
	a, identity := s.picture(), s.identity()
	for range 2 {
		s.mustRefuse()
		s.want("refused after A", a)
		s.wantIdentity("refused after A", identity)
	}
	s.mustApply(s.c.B)
	b := s.picture()
	s.mustApply(topology.Empty)
	s.mustApply(s.c.B)
	s.want("B after Empty, compared to B after a refusal", b)
}

// Even when there is no time left, everything is stopped and nothing fails.
func keepTakingAway[S engine.Subsystem](s *subject[S]) {
	nothing := s.picture()
	s.mustApply(topology.Empty)
	s.want("Empty at first", nothing)

	expired, cancel := context.WithCancel(context.Background())
	cancel()
	s.mustApply(s.c.A)
	if err := s.apply(expired, topology.Empty); err != nil {
		s.reporter.Errorf("Apply(Empty) when ctx is done: %v", err)
	}
	s.want("Empty when ctx is done", nothing)
	if s.c.Released != nil {
		if err := s.c.Released(); err != nil {
			s.reporter.Errorf("after Empty when ctx is done: %v", err)
		}
	}
	s.mustApply(s.c.A)
	s.mustApply(s.c.A.Quiet())
}

func keepNotWaiting[S engine.Subsystem](s *subject[S]) {
	if s.c.Doomed == nil {
		return
	}
	if err := s.apply(context.Background(), s.c.Doomed); err != nil {
		s.reporter.Errorf("Apply(Doomed): %v; what does not come to be is a state, no error", err)
	}
}

// A topology is shared. This sees what is written to its own fields and to what maps hold.
func keepTopology[S engine.Subsystem](s *subject[S]) {
	for _, t := range []*topology.Topology{s.c.A, s.c.B, topology.Empty} {
		before := fmt.Sprintf("%#v", *t)
		s.mustApply(t)
		s.picture()
		if diff := cmp.Diff(before, fmt.Sprintf("%#v", *t)); diff != "" {
			s.reporter.Errorf("Apply modified the topology:\n%s", diff)
		}
	}
}

// A subject is a subsystem while a rule is tried on it.
type subject[S engine.Subsystem] struct {
	reporter  reporter
	c         Case[S]
	subsystem S
	log       record
}

// patience bounds what a test waits for. Nothing is asserted about less.
const patience = time.Minute

// apply applies t, and reports when that does not end.
func (s *subject[S]) apply(ctx context.Context, t *topology.Topology) error {
	s.reporter.Helper()
	ended := make(chan error, 1)
	go func() { ended <- s.subsystem.Apply(ctx, t) }()
	select {
	case err := <-ended:
		return err
	case <-time.After(patience):
		s.reporter.Errorf("Apply has not returned after %v", patience)
		return <-ended
	}
}

func (s *subject[S]) mustApply(t *topology.Topology) {
	s.reporter.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience/2)
	defer cancel()
	if err := s.apply(ctx, t); err != nil {
		s.reporter.Errorf("Apply: %v", err)
	}
}

func (s *subject[S]) mustRefuse() {
	s.reporter.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience/2)
	defer cancel()
	if err := s.apply(ctx, s.c.Refused); err == nil {
		s.reporter.Errorf("Apply(Refused) returned nil")
	}
}

// picture returns what Observe sees once all is at rest.
func (s *subject[S]) picture() any {
	s.reporter.Helper()
	s.settle()
	return s.c.Observe(s.subsystem)
}

func (s *subject[S]) want(after string, want any) {
	s.reporter.Helper()
	if diff := cmp.Diff(want, s.picture()); diff != "" {
		s.reporter.Errorf("%s: another picture (-want +got):\n%s", after, diff)
	}
}

func (s *subject[S]) identity() any {
	if s.c.Identify == nil {
		return nil
	}
	return s.c.Identify(s.subsystem)
}

func (s *subject[S]) wantIdentity(after string, want any) {
	s.reporter.Helper()
	if diff := cmp.Diff(want, s.identity()); diff != "" {
		s.reporter.Errorf("%s: no longer the same things (-want +got):\n%s", after, diff)
	}
}

// settle waits until the subsystem is at rest and has been silent for a moment, since what it logs may come a
// little after what it shows.
func (s *subject[S]) settle() {
	s.reporter.Helper()
	if s.c.Settled == nil {
		return
	}
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	deadline := time.After(patience)
	for calm, logged := 0, s.log.len(); calm < 5; {
		select {
		case <-look.C:
		case <-deadline:
			s.reporter.Errorf("not at rest after %v", patience)
			return
		}
		calm++
		if now := s.log.len(); now != logged || !s.c.Settled(s.subsystem) {
			calm, logged = 0, now
		}
	}
}

// A record is a log handler that keeps the messages from Info on.
type record struct {
	mu       sync.Mutex // guards the field below
	messages []string
}

func (r *record) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelInfo }

func (r *record) Handle(_ context.Context, line slog.Record) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.messages = append(r.messages, line.Message)
	return nil
}

func (r *record) WithAttrs([]slog.Attr) slog.Handler { return r }
func (r *record) WithGroup(string) slog.Handler      { return r }

func (r *record) len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.messages)
}

func (r *record) since(n int) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.messages[n:]
}
