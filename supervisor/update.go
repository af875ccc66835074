package supervisor

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"mainstay/topology"
)

// fail does what the service's failure action says because the instance on trial in p has failed.
func (s *service) fail(p *place, why string, now time.Time) {
	if s.isCanary(p) {
		s.endCanary("failed")
	}
	if s.want.Update.FailureAction == topology.FailureContinue {
		s.setBack(p, why, now)
		return
	}
	s.giveUp(fmt.Sprintf("%s: %s", instanceID(s.name, p.replica), why))
	for _, p := range s.places {
		s.dismissNext(p)
	}
}

// promising returns the version of an instance that is ready and has never failed, though not for long; nil if there is none. That is to
// go back to if an edit follows at once.
func (s *service) promising() *version {
	for _, p := range s.sorted() {
		if p.current == nil {
			continue
		}
		v, l := p.current.current(), p.current.now()
		if v.digest == nil && l.state == StateReady && l.failures+l.lapses == 0 {
			return &v
		}
	}
	return nil
}

// giveUp makes what ran before the target again. If the update is to pause, only what the target has not reached has that.
func (s *service) giveUp(why string) {
	failed := s.target
	s.failed = &failed
	s.halted = true
	if s.canReturn() {
		s.target = *s.proven
		s.halted = s.want.Update.FailureAction == topology.FailurePause
	} else {
		why += " (what ran before runs on, but cannot be started again: a former Mainstay has started it)"
	}
	result := "given_up"
	s.givenUp = fmt.Sprintf("the update to generation %d was given up: %s", failed.generation, why)
	if s.halted {
		result = "paused"
		s.givenUp = fmt.Sprintf("update paused: generation %d: %s", failed.generation, why)
	}
	s.site.defeats.note(failed.generation, s.name+": "+why)
	s.site.metrics.updates.WithLabelValues(s.name, result).Inc()
	s.log.Error("service update failed", "generation", failed.generation, "result", result, "why", why)
}

// A place in which an update has failed is tried again, for as long as the update goes on without it.
const (
	firstRetry = 30 * time.Second
	lastRetry  = 10 * time.Minute
)

// setBack lets the update go on without p, in which it has failed: what ran there before runs on. If nothing did, what is
// on trial is left as it is.
func (s *service) setBack(p *place, why string, now time.Time) {
	s.log.Error("instance could not be updated", "instance", instanceID(s.name, p.replica), "generation", s.target.generation, "why", why)
	p.setback = why
	if p.current == nil {
		p.current, p.next = p.next, nil
		return
	}
	p.dismissNext()
	p.again = time.Time{}
	if s.target.spec.Restart.Policy != topology.RestartNever {
		p.again = now.Add(p.pause.next(topology.Backoff{Initial: firstRetry, Max: lastRetry}, 0))
	}
}

// trouble says how the update has failed; empty if it has not.
func (s *service) trouble() string {
	if s.givenUp != "" {
		return s.givenUp
	}
	var without []string
	for _, p := range s.sorted() {
		if p.setback != "" && !p.retired {
			without = append(without, fmt.Sprintf("%s: %s", instanceID(s.name, p.replica), p.setback))
		}
	}
	if len(without) == 0 {
		return ""
	}
	return fmt.Sprintf("the update to generation %d could not be made of %s", s.target.generation, strings.Join(without, "; "))
}

// byNeed returns the places in the order in which they are to be updated: those whose instance has crashed come first, and last
// those in which the update has failed.
func (s *service) byNeed() []*place {
	need := func(p *place) int {
		if p.setback != "" {
			return 2
		}
		if p.current != nil {
			if l := p.current.now(); l.state != StateReady && l.failures+l.lapses > 0 {
				return 0
			}
		}
		return 1
	}
	list := s.sorted()
	slices.SortStableFunc(list, func(a, b *place) int { return cmp.Compare(need(a), need(b)) })
	return list
}

// step returns what the update does and since when.
func (s *service) step(now time.Time) (phase string, since time.Time) {
	switch {
	case s.halted:
		phase = PhasePaused
	case !s.updating:
		return "", time.Time{}
	case s.failed != nil:
		phase = PhaseReturning
	default:
		phase = s.doing()
	}
	if phase != s.phase {
		return phase, now
	}
	return phase, s.phased
}

// doing returns the phase of an update that goes on.
func (s *service) doing() string {
	phase := PhaseStarting
	waits := true // for the next try where it has failed
	for _, p := range s.sorted() {
		switch {
		case p.retired:
		case p.next != nil && p.next.now().state != StateReady:
			return PhaseStarting
		case s.isCanary(p):
			phase, waits = PhaseCanary, false
		case p.next != nil:
			phase, waits = PhaseProving, false
		case len(p.leaving) > 0 && phase == PhaseStarting:
			phase, waits = PhaseDraining, false
		case p.setback == "" && (p.current == nil || p.current.revision != s.target.revision):
			waits = false
		}
	}
	if waits {
		return PhaseWaiting
	}
	return phase
}

// progress returns how far the update is; nil if there is none.
func (s *service) progress() *UpdateStatus {
	if s.phase == "" {
		return nil
	}
	to := s.target
	if s.failed != nil {
		to = *s.failed
	}
	u := &UpdateStatus{Generation: to.generation, Phase: s.phase, Since: s.phased, Reason: s.trouble()}
	for _, p := range s.sorted() {
		if p.retired {
			continue
		}
		u.Of++
		if p.current != nil && p.current.revision == to.revision {
			u.Replaced++
		}
		if p.next != nil && u.Reason == "" {
			if l := p.next.now(); l.state != StateReady && l.reason != "" {
				u.Reason = fmt.Sprintf("%s: %s", instanceID(s.name, p.replica), l.reason)
			}
		}
		if s.isCanary(p) && s.canary.begun {
			u.Canary = s.canary.status(*s.want.Update.Canary)
		}
	}
	return u
}
