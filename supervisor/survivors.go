package supervisor

import (
	"errors"
	"maps"
	"slices"
	"strconv"
	"time"

	"mainstay/topology"
)

// A survivor is what one directory of a former Mainstay tells: of a process that lives on, or of one that has ended.
type survivor struct {
	*run
	tenant *tenancy // nil: it has ended
}

// resume takes over what a former Mainstay left of the service. It is called before the service's goroutine begins, so that who
// was ready is in the rotation when Apply returns: a probe's first answer is not waited for, as nothing says that a process which was
// ready and still runs is not. From then on its probes decide.
//
// What runs may be made from what is wanted: then it goes on as if nothing had been. If it is made from something else, it is
// an older revision, which works until the ordinary update replaces it; as its specification is known no more, it cannot be started
// again, and an update cannot return to it. In the middle of an update a place is found with both.
func (s *service) resume(runs []*run) {
	places := map[int][]*survivor{}
	for _, r := range runs {
		t, err := s.adopt(r)
		if err != nil && r.Port != 0 {
			s.site.ports.release(r.Port)
		}
		switch {
		case err == nil, errors.Is(err, errGone):
			places[r.Replica] = append(places[r.Replica], &survivor{run: r, tenant: t})
		case errors.Is(err, errTorn):
			r.setAside(err)
		default: // it may succeed next time
			s.log.Error("process of a former run not taken over", "instance", instanceID(s.name, r.Replica), "path", r.dir, "err", err)
		}
	}
	for _, replica := range slices.Sorted(maps.Keys(places)) {
		p := &place{replica: replica}
		s.places[replica] = p
		s.inhabit(p, places[replica])
	}
	s.publish(s.given)
}

// adopt goes on with the process of r.
func (s *service) adopt(r *run) (*tenancy, error) {
	t := &tenancy{
		seat: seat{service: s.name, replica: r.Replica, generation: r.Generation},
		port: r.Port, words: &utterances{}, started: ago(r.Started), run: r, up: r.Up,
	}
	if r.Port != 0 {
		t.seat.host, t.seat.port = "127.0.0.1", strconv.Itoa(r.Port)
	}
	output := s.journal.output(r.Replica)
	process, err := s.site.host.adopt(r.dir, func(stream string, text []byte, partial bool) {
		t.words.add(stream, text, partial)
		output.add(stream, text, partial)
	})
	if err != nil {
		return nil, err
	}
	t.process = process
	return t, nil
}

// ago returns a time of another process as one of this, which a change of the clock moves no more.
func ago(t time.Time) time.Time {
	now := time.Now()
	return now.Add(-max(0, now.Sub(t)))
}

// inhabit puts what was found of a place into it. The latest of a kind is kept, and of several one that was ready; the others are told
// to stop, and so are those that were told before.
func (s *service) inhabit(p *place, found []*survivor) {
	var same, older *survivor
	var past []*survivor
	keep := func(best **survivor, one *survivor) {
		if *best != nil && one.Ready.IsZero() && !(*best).Ready.IsZero() {
			*best, one = one, *best
		}
		if *best != nil {
			s.dismiss(p, *best, "there is another in its place")
		}
		*best = one
	}
	for _, one := range found {
		switch {
		case one.tenant == nil:
			past = append(past, one)
		case one.Leaving:
			s.dismiss(p, one, "it was told to stop")
		case one.Recipe.of(s.target.spec):
			keep(&same, one)
		default:
			keep(&older, one)
		}
	}
	if same != nil && older != nil && (older.Ready.IsZero() || s.want.Update.Order == topology.StopFirst) {
		s.dismiss(p, older, "there is a newer one in its place")
		older = nil
	}
	if older != nil {
		p.current = s.takeOver(p, older)
		s.reached = p.current.revision
	}
	switch {
	case same != nil && older != nil:
		p.next = s.takeOver(p, same)
	case same != nil:
		p.current = s.takeOver(p, same)
	}
	for _, one := range past {
		s.remember(p, one)
	}
}

// dismiss takes over one only to stop it.
func (s *service) dismiss(p *place, one *survivor, why string) {
	s.log.Warn("instance of a former run is not wanted", "instance", instanceID(s.name, p.replica), "pid", one.tenant.pid(), "why", why)
	one.note(func(r *record) { r.Leaving = true })
	i := s.takeOver(p, one)
	i.stop()
	p.leaving = append(p.leaving, i)
}

// takeOver returns an instance that goes on with the process of one.
func (s *service) takeOver(p *place, one *survivor) *instance {
	i := newInstance(s.site, s.versionOf(one.run), p, s.journal.output(p.replica), s.force, s.stir)
	i.inherit(one.tenant)
	go i.run()
	return i
}

// versionOf returns what r was made from: the target, or an older revision of which only a digest is known.
func (s *service) versionOf(r *run) version {
	if r.Recipe.of(s.target.spec) {
		s.target.generation = r.Generation
		return s.target
	}
	v := version{spec: r.Keep.laidOver(s.target.spec), generation: r.Generation, apply: s.target.apply, digest: &r.Recipe}
	for _, i := range s.instances() {
		if other := i.current(); other.digest != nil && other.generation == v.generation {
			v.revision = other.revision
			return v
		}
	}
	s.revisions++
	v.revision = s.revisions
	return v
}

// endedUnseen is why a process has failed of which nobody knows how it ended.
const endedUnseen = "it ended while Mainstay was not running, so its exit status is unknown"

// remember draws the conclusion from a process that has ended: one that is not started again has filled its place for good, and any
// other leaves it to the next.
func (s *service) remember(p *place, one *survivor) {
	never := s.target.spec.Restart.Policy == topology.RestartNever
	switch wanted := !one.Leaving && p.current == nil && one.Recipe.of(s.target.spec); {
	case wanted && one.Outcome == "" && never:
		one.note(func(r *record) { r.Outcome, r.Why = outcomeFailed, endedUnseen })
		s.log.Error("instance failed", "instance", instanceID(s.name, p.replica), "why", endedUnseen)
		fallthrough
	case wanted && one.Outcome != "":
		p.current = s.conclude(p, one.run)
	case wanted:
		s.log.Warn("instance ended while Mainstay was not running", "instance", instanceID(s.name, p.replica))
		p.restarts = one.Restarts + 1
		fallthrough
	default:
		one.remove()
	}
}

// conclude returns the instance of a process that has ended and is not followed by another.
func (s *service) conclude(p *place, r *run) *instance {
	i := newInstance(s.site, s.versionOf(r), p, s.journal.output(p.replica), s.force, s.stir)
	i.life = life{state: StateStopped, reason: string(outcomeCompleted), since: time.Now(), launched: ago(r.Started), restarts: r.Restarts}
	if r.Outcome == outcomeFailed {
		i.life.state, i.life.reason = StateFailed, r.Why
	}
	i.concluded = r
	i.stop()
	close(i.done)
	return i
}

// inherit gives the instance a process to begin with. It is called before the instance's goroutine begins.
func (i *instance) inherit(t *tenancy) {
	v := i.current()
	i.inherited = t
	i.outputs = append(i.outputs, t.silent())
	i.words = t.words
	t.routable = v.spec.Routable() && t.port != 0
	i.arrive(t)
	if t.seat.notify = t.run.Notify; t.seat.notify != "" {
		if err := i.listen(t); err != nil {
			i.log.Error("instance cannot tell of itself any more", "err", err)
		} else {
			t.told.phase = t.run.Said
		}
		i.hearken(t)
	}
	if t.run.Socket {
		file, err := i.site.host.bound(t.process, t.port)
		if err != nil {
			i.log.Warn("connections will not wait when the instance restarts", "err", err)
		} else {
			i.socket = &socket{port: t.port, file: file, ports: i.site.ports}
		}
	}
	i.update(func(l *life) {
		l.began, l.pid, l.address, l.launched, l.restarts = t.started, t.pid(), t.seat.address(), t.started, t.run.Restarts
	})
	i.move(StateStarting, "")
	if since := t.run.Ready; !since.IsZero() {
		if !t.run.Leaving {
			i.admit(t)
		}
		i.move(StateReady, "")
		i.update(func(l *life) { l.since, l.readied = ago(since), ago(since) })
	}
	i.log.Info("instance taken over", "pid", t.pid(), "address", t.seat.address(), "ready", !t.run.Ready.IsZero())
}

// conclude notes how the instance ended, for as long as its service stays as it is.
func (i *instance) conclude(p *tenancy, end ending) {
	if p == nil {
		return
	}
	i.concluded = p.run
	p.run.note(func(r *record) {
		r.Outcome = outcomeCompleted
		if !end.clean {
			r.Outcome, r.Why = outcomeFailed, end.why
		}
	})
}

// forget is called when the instance is done and its place has no more to do with it.
func (i *instance) forget() {
	if !isClosed(i.site.suspended) {
		i.concluded.remove()
	}
}

// remnant returns a specification by which the processes of a service that is no more can be stopped.
func remnant(runs []*run) topology.Service {
	r := runs[len(runs)-1]
	return r.Keep.laidOver(topology.Service{Name: r.Service, Stopped: true})
}
