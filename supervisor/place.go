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
}

// clear forgets instances that are gone.
func (p *place) clear() {
	var left []*instance
	for _, i := range p.leaving {
		if !isClosed(i.done) {
			left = append(left, i)
		}
	}
	p.leaving = left
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
		p.current.stop()
		p.leaving = append(p.leaving, p.current)
		p.current = nil
	}
}

func (p *place) dismissNext() {
	if p.next != nil {
		p.next.stop()
		p.leaving = append(p.leaving, p.next)
		p.next = nil
	}
}

// triesOnTrial is how many of its processes an instance on trial may lose.
const triesOnTrial = 3

// try judges the instance on trial in p: it takes the place, or goes on being tried, or fails and the whole update with it. It returns
// after how long to look again; 0: when something happens.
//
// On trial is what replaces something that has worked: until it has been ready for MinReady without interruption, nothing that
// works is given up for good.
func (s *service) try(p *place, now time.Time) (look time.Duration) {
	if p.next == nil {
		return 0
	}
	if p.next.revision != s.target.revision {
		p.dismissNext()
		return 0
	}
	l := p.next.now()
	switch rule := s.want.Update; {
	case l.state == StateReady && now.Sub(l.since) >= rule.MinReady, l.state == StateStopped:
		if p.current != nil || len(p.leaving) > 0 {
			s.site.metrics.restarts.WithLabelValues(s.name, "update").Inc()
		}
		p.dismissCurrent()
		p.current, p.next = p.next, nil
	case l.state == StateReady:
		return rule.MinReady - now.Sub(l.since)
	case !s.canReturn():
	case l.state == StateFailed:
		s.fail(p, l.reason)
	case l.failures >= triesOnTrial:
		s.fail(p, fmt.Sprintf("it ended %d times: %s", l.failures, l.failure))
	case rule.Deadline <= 0 || l.launched.IsZero():
	case now.Sub(l.launched) >= rule.Deadline:
		s.fail(p, fmt.Sprintf("not ready after %s: %s", rule.Deadline, p.next.complaint()))
	default:
		return rule.Deadline - now.Sub(l.launched)
	}
	return 0
}

// fail gives the update up because of the instance on trial in p.
func (s *service) fail(p *place, why string) {
	s.giveUp(fmt.Sprintf("%s: %s", instanceID(s.name, p.replica), why))
	for _, p := range s.places {
		p.dismissNext()
	}
}

// canReturn reports whether there is something that has worked to go back to.
func (s *service) canReturn() bool {
	return s.proven != nil && s.proven.revision != s.target.revision
}

// advance takes the next step of p towards the target. A replacement is only begun if it may. It returns 1 if one was begun.
func (s *service) advance(p *place, may bool) int {
	if p.retired {
		return 0
	}
	if p.current == nil && p.next == nil && len(p.leaving) == 0 {
		if s.canReturn() {
			p.next = s.start(p)
		} else {
			p.current = s.start(p)
		}
		return 0
	}
	if p.busy() || p.current.revision == s.target.revision {
		return 0
	}
	switch {
	case s.proven == nil && p.current.now().state != StateReady: // nothing has worked yet, so nothing is lost
		p.dismissCurrent()
		return 0
	case !may:
		return 0
	case s.want.Update.Order == topology.StopFirst, s.samePort(p):
		p.dismissCurrent()
	default:
		p.next = s.start(p)
	}
	return 1
}

// samePort reports whether old and new would listen on the same fixed port: then the old one has to go first.
func (s *service) samePort(p *place) bool {
	port := s.target.spec.Port
	return port > 0 && p.current.spec().Port == port
}

// start starts an instance of the target in p.
func (s *service) start(p *place) *instance {
	return startInstance(s.site, s.target, p, s.journal.output(p.replica), s.force, s.stir)
}
