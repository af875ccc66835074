package supervisor

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"
)

// A removal is the end of a service that is in the topology no more, unless it is revoked because a later one has the
// service again.
type removal struct {
	service *service
	revoked chan struct{} // closed when it is
}

// wait returns when the service is gone, or stays.
func (r *removal) wait() {
	select {
	case <-r.service.done:
	case <-r.revoked:
	}
}

const (
	// removalPatience is how long an Apply that goes on with other services waits for those that it removes. What takes longer to
	// end must not keep the next topology, which may well be why there is one, waiting for its grace periods.
	removalPatience = 5 * time.Second
	// afterKill bounds the wait for processes that were sent SIGKILL: one in an uninterruptible system call does not die of it.
	afterKill = 5 * time.Second
)

// remove stops services and forgets them, dependents before what they depend on. When ctx is done, their processes are
// killed. It returns when they are gone, or after patience, 0 being for ever: then they go on ending aside, and are killed at
// ctx's deadline.
func (s *Supervisor) remove(ctx context.Context, gone []*service, patience time.Duration) {
	if len(gone) == 0 {
		return
	}
	var fresh, all []*removal
	for _, svc := range gone {
		r, isNew := svc.condemn()
		if all = append(all, r); isNew {
			fresh = append(fresh, r)
		}
	}
	aside, hurry := context.WithCancel(context.WithoutCancel(ctx))
	if deadline, ok := ctx.Deadline(); ok {
		aside, hurry = context.WithDeadline(aside, deadline)
	}
	ended := make(chan struct{})
	s.asides.Go(func() {
		defer hurry()
		defer close(ended)
		s.end(aside, all, fresh)
	})
	var enough <-chan time.Time
	if patience > 0 {
		t := time.NewTimer(patience)
		defer t.Stop()
		enough = t.C
	}
	select {
	case <-ended:
	case <-ctx.Done():
		hurry()
		<-ended
	case <-enough:
		s.site.log.Warn("removed services take long to stop, the rest does not wait for them", "services", len(gone))
	}
}

// end makes fresh begin, waits for all, and forgets them.
func (s *Supervisor) end(ctx context.Context, all, fresh []*removal) {
	var waits sync.WaitGroup
	for _, r := range fresh {
		waits.Go(func() {
			for _, other := range all {
				if other.service.dependsOn(r.service.name) {
					other.wait()
				}
			}
			r.service.stop(r)
		})
	}
	for _, r := range all {
		waits.Go(r.wait)
	}
	stopped := make(chan struct{})
	go func() { waits.Wait(); close(stopped) }()

	select {
	case <-stopped:
	case <-ctx.Done():
		for _, r := range all {
			r.service.killFor(r)
		}
		select {
		case <-stopped:
		case <-time.After(afterKill):
			s.site.log.Error("processes outlived SIGKILL", "services", len(all))
		}
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range all {
		if name := r.service.name; s.services[name] == r.service && !isClosed(r.revoked) {
			delete(s.services, name)
			s.site.metrics.forget(name)
			s.site.morgue.forget(name)
		}
	}
}

// condemn notes that the service is to be removed. It returns the removal, and whether that is a new one.
func (s *service) condemn() (r *removal, fresh bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if fresh = s.removal == nil; fresh {
		s.removal = &removal{service: s, revoked: make(chan struct{})}
	}
	return s.removal, fresh
}

// stop tells the service to stop everything because of r, which is done when s.done is closed. s.kill makes that quick. It does nothing
// if r was revoked.
func (s *service) stop(r *removal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = s.ended || s.removal == r
	s.stir()
}

// leaves reports whether the service is being removed.
func (s *service) leaves() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.removal != nil
}

// part waits until a service that cannot be wanted again has let go of what another of its name needs; not for long, as one that was
// killed may not die.
func (s *service) part() {
	t := time.NewTimer(afterKill)
	defer t.Stop()
	select {
	case <-s.done:
	case <-t.C:
	}
}

// finish makes it too late to want the service again, unless it is wanted.
func (s *service) finish() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.late = s.late || s.ended
	return s.ended
}

// killFor kills the service's processes, unless r was revoked.
func (s *service) killFor(r *removal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.removal == r {
		s.late = true
		s.kill()
	}
}

// Kill ends all processes with SIGKILL, with whatever they have started and without regard for requests. It returns when nothing is
// left, or when ctx is done. Nothing is started any more. It may be called while Apply runs.
func (s *Supervisor) Kill(ctx context.Context) {
	s.mu.Lock()
	services := slices.Collect(maps.Values(s.services))
	s.mu.Unlock()
	for _, svc := range services {
		svc.killNow()
	}
	for _, svc := range services {
		select {
		case <-svc.done:
		case <-ctx.Done():
			return
		}
	}
}

// killNow kills the service's processes and stops it for good.
func (s *service) killNow() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended, s.late = true, true
	s.kill()
	s.stir()
}
