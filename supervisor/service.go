package supervisor

import (
	"context"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"sync"
	"time"

	"mainstay/topology"
)

// A service keeps as many instances of one specification as are wanted. Its goroutine looks, whenever something may be
// different, at what is wanted and what is there, and does what brings the one nearer to the other; so it does
// not matter in the middle of what a newer specification arrives.
//
// An update puts the target's instances on trial, a few at a time; see try in place.go. When one fails, the target becomes again what
// ran before, and the same way leads back.
type service struct {
	name     string
	site     *site
	log      *slog.Logger
	journal  *journal
	stateDir string // empty: nothing outlives Mainstay

	wake     chan struct{} // something may be different
	triggers chan trigger
	force    context.Context
	kill     context.CancelFunc
	done     chan struct{} // closed when nothing of it is left

	mu      sync.Mutex
	inbox   *version // the newest specification, until the goroutine takes it
	last    topology.Service
	given   int // specifications that were handed over; view says how many of them it has seen
	view    view
	removal *removal // it is to be removed; nil: it is wanted
	ended   bool     // it is to stop for good
	late    bool     // it has stopped for good, or was killed: then it cannot be wanted again

	// The goroutine's own.
	want      topology.Service // the newest specification
	taken     int              // the Apply that gave it
	target    version          // what instances should be: want, or what ran before if that failed
	proven    *version         // what ran last; nil: nothing has worked yet
	failed    *version         // the specification that was given up
	givenUp   string           // and why
	halted    bool             // what was replaced by it before stays, and nothing more is replaced
	canary    *canary          // the trial that is judged by its requests; nil: none
	vetted    int              // the revision whose canary is over
	revisions int              // how many there have been
	reached   int              // the revision that all places last had; 0: none yet
	places    map[int]*place   // by replica
	updating  bool             // instances are being replaced
	phase     string           // what an update does; empty: there is none
	phased    time.Time        // since when
	started   bool             // a process has been started, ever
	job       *job             // nil: it is none
	asked     []trigger        // for runs
	answers   []func()         // to those who have asked
	resumed   time.Time        // when Mainstay last went on after it was stopped (SIGSTOP); zero: never
}

// startService starts a service. It goes on with what was found of a former Mainstay's.
func startService(site *site, stateDir string, v version, found []*run) *service {
	name := v.spec.Name
	log := site.log.With("service", name)
	s := &service{
		name:    name,
		site:    site,
		log:     log,
		journal: site.archive.open(name, v.spec.Output, stateDir, log, site.metrics.dropped.WithLabelValues(name)),
		wake:    make(chan struct{}, 1),
		done:    make(chan struct{}),

		stateDir: stateDir,
		triggers: make(chan trigger),
		view:     view{desired: desired(v.spec)},
		places:   map[int]*place{},
	}
	s.force, s.kill = context.WithCancel(context.Background())
	s.apply(v)
	s.view.seen = s.given // there is nothing that could still be otherwise
	if len(found) > 0 {
		s.inbox = nil
		s.take(v)
		s.resume(found)
	}
	go s.run()
	return s
}

// differs reports whether spec is another than what the service is there for now.
func (s *service) differs(spec topology.Service) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.removal != nil || !reflect.DeepEqual(spec, s.last)
}

// apply hands over a specification. It does nothing if it is the one that was handed over last. One that is being removed
// is wanted again then; it returns false if it is too late for that.
func (s *service) apply(v version) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.late {
		return false
	}
	again := s.removal != nil
	if again {
		close(s.removal.revoked)
		s.removal, s.ended = nil, false
	}
	if !again && reflect.DeepEqual(v.spec, s.last) {
		return true
	}
	s.last = v.spec
	s.inbox = &v
	s.given++
	s.stir()
	return true
}

func (s *service) dependsOn(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.last.DependsOn[name]
	return ok
}

// stir makes the goroutine look again.
func (s *service) stir() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *service) status() ServiceStatus {
	s.mu.Lock()
	v := s.view
	v.removed = s.removal != nil
	if v.seen != s.given {
		// Who has just changed something must not be told that all is as it should be.
		v.desired, v.updating, v.trouble, v.update = desired(s.last), true, "", nil
	}
	s.mu.Unlock()
	statuses := func(list []*instance) []InstanceStatus {
		all := make([]InstanceStatus, 0, len(list))
		for _, i := range list {
			all = append(all, i.status())
		}
		return all
	}
	return summarize(s.name, v, statuses(v.holding), statuses(v.leaving))
}

// run is the service's goroutine.
func (s *service) run() {
	defer close(s.done)
	defer s.kill()
	defer s.journal.close()
	defer s.site.board.remove(s.name)
	for {
		s.mu.Lock()
		next, ended, seen := s.inbox, s.ended, s.given
		s.inbox = nil
		s.mu.Unlock()
		if next != nil {
			s.take(*next)
		}
		if ended {
			s.want.Stopped = true
		}
		look := s.reconcile(time.Now())
		s.publish(seen)
		s.tell()
		if ended && len(s.places) == 0 {
			if s.finish() {
				return
			}
			continue
		}
		asleep := time.Now()
		s.sleep(look)
		if look > 0 && time.Since(asleep) > look+stall {
			s.resumed = time.Now()
		}
	}
}

// stall is by how much a goroutine that had nothing to wait for must be late before Mainstay is taken to have been stopped meanwhile. Then
// what its instances did is not known, and no deadline of theirs has passed.
const stall = time.Second

// sleep returns when something may be different, at the latest after d unless it is 0.
func (s *service) sleep(d time.Duration) {
	var over <-chan time.Time
	if d != 0 {
		t := time.NewTimer(d)
		defer t.Stop()
		over = t.C
	}
	select {
	case <-s.wake:
	case t := <-s.triggers:
		s.asked = append(s.asked, t)
	case <-over:
	}
}

// trialEnds returns when an instance on trial that is doing as l must be ready.
func (s *service) trialEnds(l life) time.Time {
	due := l.due(s.want.Update.Deadline)
	if again := s.resumed.Add(s.want.Update.Deadline); again.After(due) {
		return again
	}
	return due
}

// recipe returns of spec what a process is made from: a difference here needs another process.
func recipe(spec topology.Service) topology.Service {
	return topology.Service{
		Command: spec.Command, Environment: spec.Environment, Directory: spec.Directory,
		User: spec.User, Group: spec.Group, Port: spec.Port, Listen: spec.Listen, Limits: spec.Limits, Epoch: spec.Epoch,
		Probes: spec.Probes.Told(),
	}
}

// attempt returns of spec what an update can fail by: how many instances there should be is not part of it.
func attempt(spec topology.Service) topology.Service {
	spec.Replicas, spec.Stopped = 0, false
	return spec
}

// take makes v what is wanted.
func (s *service) take(v version) {
	s.want, s.taken = v.spec, v.apply
	s.journal.bound(v.spec.Output)
	if s.failed != nil && reflect.DeepEqual(attempt(v.spec), attempt(s.failed.spec)) {
		return // it was given up, and would be again
	}
	s.failed, s.givenUp, s.halted = nil, "", false
	if s.proven == nil {
		s.proven = s.promising()
	}

	known := []version{s.target}
	if s.proven != nil {
		known = append(known, *s.proven)
	}
	for _, i := range s.instances() {
		known = append(known, i.current())
	}
	v.revision = 0
	for _, k := range known {
		if k.revision != 0 && k.makes(v.spec) {
			v.revision, v.generation = k.revision, k.generation
		}
	}
	if v.revision == 0 {
		s.revisions++
		v.revision = s.revisions
	}
	if s.underway() && v.revision != s.target.revision {
		s.site.metrics.updates.WithLabelValues(s.name, "superseded").Inc()
	}
	if !reflect.DeepEqual(attempt(v.spec), attempt(s.target.spec)) {
		for _, p := range s.places {
			p.setback, p.pause, p.again = "", backoff{}, time.Time{}
		}
	}
	s.target = v
	for _, i := range s.instances() {
		if i.revision == v.revision {
			i.adopt(v)
		}
	}
	if s.proven != nil && s.proven.revision == v.revision {
		s.proven = &v
	}
}

// desired returns how many instances of spec there should be.
func desired(spec topology.Service) int {
	switch {
	case spec.Stopped:
		return 0
	case len(spec.External) > 0:
		return len(spec.External)
	default:
		return spec.Replicas
	}
}

// shape returns the specification that says what places there are: what is wanted, unless that was given up and is of another kind
// than what runs instead.
func (s *service) shape() topology.Service {
	if s.failed == nil || (len(s.want.External) > 0) == (len(s.target.spec.External) > 0) {
		return s.want
	}
	spec := s.target.spec
	spec.Stopped = s.want.Stopped
	return spec
}

// reconcile does what can be done now, and returns after how long it should look again even if nothing happens; 0: never.
func (s *service) reconcile(now time.Time) (look time.Duration) {
	if s.isJob() {
		return s.turn()
	}
	s.answer(errNoJob)
	s.layOut()
	for _, p := range s.sorted() {
		p.clear()
		if p.retired && p.empty() {
			p.takeSocket().close()
			delete(s.places, p.replica)
		}
	}
	for _, p := range s.sorted() {
		look = sooner(look, s.try(p, now))
	}
	free := max(1, s.want.Update.Parallelism)
	for _, p := range s.places {
		if p.busy() {
			free--
		}
	}
	for _, p := range s.byNeed() {
		free -= s.advance(p, free > 0, now)
		if now.Before(p.again) {
			look = sooner(look, p.again.Sub(now))
		}
	}
	return sooner(look, s.settle(now))
}

// layOut makes a place for each instance that is wanted and retires the others, the highest first.
func (s *service) layOut() {
	keep := map[int]bool{}
	shape := s.shape()
	for n := range desired(shape) {
		p := s.place(n+1, shape)
		p.retired = false
		keep[p.replica] = true
	}
	for _, p := range slices.Backward(s.sorted()) {
		if !keep[p.replica] {
			s.dismissNext(p)
			p.retire()
		}
	}
}

// place returns the nth place. That of an upstream stays its own whatever others come and go.
func (s *service) place(n int, shape topology.Service) *place {
	if len(shape.External) == 0 {
		if s.places[n] == nil {
			s.places[n] = &place{replica: n}
		}
		s.places[n].upstream = topology.Upstream{}
		return s.places[n]
	}
	u := shape.External[n-1]
	for _, wanted := range []topology.Upstream{u, {}} { // its own, or one that an instance of ours has filled
		for _, p := range s.sorted() {
			if p.upstream.Address == wanted.Address {
				p.upstream = u
				return p
			}
		}
	}
	for n = 1; s.places[n] != nil; {
		n++
	}
	s.places[n] = &place{replica: n, upstream: u}
	return s.places[n]
}

// settle sees whether the target has been reached and what has been proven to work by running for as long as
// an update asks. It returns after how long to look again; 0: when something happens.
func (s *service) settle(now time.Time) (look time.Duration) {
	arrived, updating, underway := true, false, s.underway()
	var works *version
	for _, p := range s.sorted() {
		if p.retired {
			continue
		}
		current := p.current != nil && p.current.revision == s.target.revision
		worked, rest := p.worked(s.want.Update.MinReady, now)
		look = sooner(look, rest)
		if worked != nil {
			works = worked
			if current {
				p.setback = ""
			}
		}
		updating = updating || p.next != nil || p.current != nil && !current || p.busy() && underway || p.setback != ""
		arrived = arrived && current && !p.busy() && p.setback == ""
	}
	if arrived {
		if underway && s.givenUp == "" {
			s.site.metrics.updates.WithLabelValues(s.name, "completed").Inc()
			s.log.Info("service updated", "generation", s.target.generation)
		}
		s.reached = s.target.revision
	}
	s.updating = updating
	s.phase, s.phased = s.step(now)
	if works != nil && (arrived || s.proven == nil) {
		s.proven = works
		return 0
	}
	if s.proven != nil && s.proven.revision == s.target.revision {
		return 0
	}
	return look
}

// underway reports whether an update has begun that has not reached its end.
func (s *service) underway() bool { return s.reached != 0 && s.reached != s.target.revision }

// sooner returns the shorter of two waits, of which 0 is the longest.
func sooner(a, b time.Duration) time.Duration {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

// publish shows others what has become of the service, of which so many specifications have been seen.
func (s *service) publish(seen int) {
	trouble := s.trouble()
	v := view{seen: seen, desired: desired(s.shape()), updating: s.updating, trouble: trouble, update: s.progress()}
	f := fact{problem: trouble, of: s.taken}
	completed := 0
	for _, p := range s.sorted() {
		for _, i := range []*instance{p.current, p.next} {
			if i == nil {
				continue
			}
			v.holding = append(v.holding, i)
			l := i.now()
			s.started = s.started || !l.launched.IsZero()
			v.lapsed = v.lapsed || !l.readied.IsZero() && l.state != StateReady && l.state != StateStopped
			f.ready = f.ready || l.state == StateReady
			switch {
			case l.state == StateStopped && i.revision == s.target.revision:
				completed++
			case l.state == StateFailed, l.state == StateWaiting:
				if f.problem == "" {
					f.problem = l.reason
				}
			}
		}
		v.leaving = append(v.leaving, p.leaving...)
	}
	f.started = s.started
	f.completed = trouble == "" && v.desired > 0 && completed == v.desired
	if s.job != nil {
		s.publishJob(&v, &f)
	}
	s.mu.Lock()
	s.view = v
	s.mu.Unlock()
	s.site.board.post(s.name, f)
}

func (s *service) sorted() []*place {
	return slices.SortedFunc(maps.Values(s.places), func(a, b *place) int { return a.replica - b.replica })
}

func (s *service) instances() []*instance {
	var all []*instance
	for _, p := range s.places {
		for _, i := range []*instance{p.current, p.next} {
			if i != nil {
				all = append(all, i)
			}
		}
	}
	return all
}
