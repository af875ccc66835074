package supervisor

import (
	"fmt"
	"time"

	"mainstay/topology"
)

// A place is one of a service's replicas. What fills it may change; at most one instance is in it and one on trial to follow.
type place struct {
	replica  int
	upstream topology.Upstream // of a service that runs elsewhere
	retired  bool              // it is to become empty

	current *instance
	next    *instance   // on trial
	leaving []*instance // told to stop, not yet gone

	// An update that goes on without the place has failed here.
	setback string    // why; empty: it has not
	pause   backoff   // between its tries
	again   time.Time // when it is tried next; zero: it is not

	socket   *socket // of the instance before; nil: none
	restarts int     // that the place's next instance begins with
}

// clear forgets instances that are gone.
func (p *place) clear() {
	var left []*instance
	for _, i := range p.leaving {
		if !isClosed(i.done) {
			left = append(left, i)
		} else {
			i.forget()
			p.keepSocket(i)
		}
	}
	p.leaving = left
}

// worked returns the version of what is in the place if it has been ready for so long, or has completed; else nil, and how much it lacks
// of that; 0: it is not ready.
func (p *place) worked(long time.Duration, now time.Time) (v *version, rest time.Duration) {
	if p.current == nil {
		return nil, 0
	}
	l := p.current.now()
	if rest = long - now.Sub(l.since); l.state == StateReady && rest > 0 {
		return nil, rest
	}
	if l.state != StateReady && l.state != StateStopped {
		return nil, 0
	}
	version := p.current.current()
	if version.digest != nil { // it could not be started again
		return nil, 0
	}
	return &version, 0
}

func (p *place) empty() bool { return p.current == nil && p.next == nil && len(p.leaving) == 0 }

// busy reports whether the place is in the middle of a replacement.
func (p *place) busy() bool {
	return !p.retired && (p.current == nil || p.next != nil || len(p.leaving) > 0)
}

// retire tells what is in the place to stop.
func (p *place) retire() {
	p.retired = true
	p.dismissNext()
	p.dismissCurrent()
}

func (p *place) dismissCurrent() {
	if p.current != nil {
		p.current.dismiss()
		p.leaving = append(p.leaving, p.current)
		p.current = nil
	}
}

func (p *place) dismissNext() {
	if p.next != nil {
		p.next.dismiss()
		p.leaving = append(p.leaving, p.next)
		p.next = nil
	}
}

// triesOnTrial is how many processes an instance on trial may lose before one has been ready.
const triesOnTrial = 3

// try judges the instance on trial in p: it takes the place, or goes on being tried, or fails, which the service's failure
// action is then for. It returns after how long to look again; 0: when something happens.
//
// On trial is what replaces something that has worked: until it has been ready for MinReady without interruption, and for as long as it
// is a canary, nothing that works is given up for good.
func (s *service) try(p *place, now time.Time) (look time.Duration) {
	if p.next == nil {
		return 0
	}
	if p.next.revision != s.target.revision {
		s.dismissNext(p)
		return 0
	}
	if s.canary == nil && p.current != nil && s.probation(p) { // a former Mainstay has begun it, or it is to be one from now on
		s.canary = &canary{place: p}
	}
	l := p.next.now()
	judged := time.Duration(0) // for how long it has to be a canary
	if s.isCanary(p) {
		judged = s.tend(l)
	}
	if why := s.fault(p, l, now); why != "" {
		s.fail(p, why, now)
		return 0
	}
	rule := s.want.Update
	switch {
	case l.state == StateStopped:
		s.promote(p)
	case l.state == StateReady:
		rest := max(rule.MinReady, judged) - now.Sub(l.since)
		switch patience := max(rule.MinReady, judged) + rule.Deadline - now.Sub(l.since); {
		case rest <= 0 && (patience <= 0 || s.spares(p.current)):
			s.promote(p)
		case rest <= 0:
			return patience
		case s.isCanary(p):
			return min(rest, canaryPeriod)
		default:
			return rest
		}
	case rule.Deadline > 0 && !l.launched.IsZero() && s.canFail(p):
		return s.trialEnds(l).Sub(now)
	}
	return 0
}

// fault says why the instance on trial in p has failed; empty if it has not, or if there is nothing that would be better.
func (s *service) fault(p *place, l life, now time.Time) string {
	if !s.canFail(p) {
		return ""
	}
	deadline := s.want.Update.Deadline
	switch {
	case l.state == StateFailed:
		return l.reason
	case l.state == StateStopped:
		return ""
	case l.lapses > 0:
		return l.lapse
	case l.failures >= triesOnTrial:
		return fmt.Sprintf("it ended %d times: %s", l.failures, l.failure)
	case l.state != StateReady && deadline > 0 && !l.launched.IsZero() && !now.Before(s.trialEnds(l)):
		return fmt.Sprintf("not ready after %s: %s", deadline, p.next.complaint())
	case s.isCanary(p):
		return s.canary.fault(*s.want.Update.Canary)
	}
	return ""
}

// promote gives p to what was on trial there.
func (s *service) promote(p *place) {
	if s.isCanary(p) {
		s.log.Info("canary passed", "instance", instanceID(s.name, p.replica), "requests", s.canary.fresh.sum.Requests)
		s.endCanary("passed")
	}
	if p.current != nil || len(p.leaving) > 0 {
		s.site.metrics.restarts.WithLabelValues(s.name, "update").Inc()
	}
	p.dismissCurrent()
	p.current, p.next = p.next, nil
	p.setback, p.pause, p.again = "", backoff{}, time.Time{}
}

// spares reports whether there are as many ready instances as there should be without old. While another has crashed,
// one that is to be replaced helps on.
func (s *service) spares(old *instance) bool {
	if old == nil || old.now().state != StateReady {
		return true
	}
	ready := 0
	for _, i := range s.instances() {
		if i != old && i.now().state == StateReady {
			ready++
		}
	}
	return ready >= desired(s.shape())
}

// dismissNext ends the trial in p.
func (s *service) dismissNext(p *place) {
	if s.isCanary(p) {
		s.endCanary("")
	}
	p.dismissNext()
}

// canReturn reports whether there is something that has worked to go back to.
func (s *service) canReturn() bool {
	return s.proven != nil && s.proven.revision != s.target.revision
}

// canFail reports whether there is something better than what is on trial in p: what has worked, or what works beside it though a
// former Mainstay has started it, and it could not be started again.
func (s *service) canFail(p *place) bool {
	return s.canReturn() || p.current != nil && p.current.current().digest != nil && p.current.now().state == StateReady
}

// advance takes the next step of p towards the target. A replacement is only begun if it may. It returns 1 if one was begun.
func (s *service) advance(p *place, may bool, now time.Time) int {
	if p.retired || isClosed(s.site.suspended) { // what was let go is still there
		return 0
	}
	if p.current == nil && p.next == nil && len(p.leaving) == 0 {
		switch stopFirst := s.want.Update.Order == topology.StopFirst; {
		case !s.canReturn():
			p.current = s.start(p, s.target)
		case s.probation(p) && !stopFirst: // one more instance would be one more canary
			p.current = s.start(p, *s.proven)
		default:
			p.next = s.start(p, s.target)
		}
		return 0
	}
	if p.busy() || p.current.revision == s.target.revision {
		return 0
	}
	switch {
	case s.halted && !p.current.lost():
		return 0
	case s.proven == nil && p.current.now().state != StateReady: // nothing has worked yet, so nothing is lost
		p.dismissCurrent()
		return 0
	case !may && !p.current.lost(), p.setback != "" && (p.again.IsZero() || now.Before(p.again)):
		return 0
	case s.want.Update.Order == topology.StopFirst, s.samePort(p):
		p.dismissCurrent()
	case !s.probation(p):
		p.next = s.start(p, s.target)
	case s.canary == nil:
		s.canary = &canary{place: p}
		p.next = s.start(p, s.target)
	default:
		return 0
	}
	return 1
}

// samePort reports whether old and new would listen on the same fixed port: then the old one has to go first.
func (s *service) samePort(p *place) bool {
	port := s.target.spec.Port
	return port > 0 && p.current.spec().Port == port
}

// start starts an instance of v in p.
func (s *service) start(p *place, v version) *instance {
	share := 0.0
	if s.canary != nil && s.canary.place == p {
		share = s.want.Update.Canary.Weight
	}
	return startInstance(s.site, v, p, s.journal.output(p.replica), share, s.force, s.stir)
}
