package supervisor

import (
	"context"
	"math"
	"math/rand/v2"
	"sync"
	"time"

	"mainstay/topology"
)

// A verdict is what a probe thinks of its process after a try.
type verdict struct {
	probe    string // startup, readiness or liveness
	healthy  bool   // as far as enough tries in a row agree
	failures int    // in a row
	answer   error  // of the last try; nil: good
	at       time.Time
	took     time.Duration
}

// A prober asks one probe's question again and again.
type prober struct {
	name    string
	spec    topology.Probe
	ask     func(ctx context.Context) error
	since   time.Time // when the process was started
	healthy bool      // what is thought before the first try
	// verify is asked too while the process is not thought healthy: whether it is that process which answers.
	verify func() error
	told   *testimony      // of the process; nil: it tells nothing
	slots  *slots          // for tries of a process that is well; nil: each has its own time
	note   func(v verdict) // is told of each try
}

// run sends a verdict after each try until ctx is done. Tries begin spec.Period apart and never overlap.
//
// A startup or readiness probe that has not succeeded yet is tried more often than that at first, so that an instance
// is ready as soon as it can be rather than at the next full period, and one that waits for a notice when that comes. Only one failure
// a period counts, and none within the time that the process has asked for.
//
// As long as a process is well nobody is sent a verdict: hundreds of them a second would be most of what Mainstay does.
func (p prober) run(ctx context.Context, verdicts chan<- verdict) {
	due := p.since.Add(p.spec.InitialDelay) // of the next try that counts
	hurry := p.name != "liveness" && !p.healthy && !p.spec.Notify
	pause := 25 * time.Millisecond
	v := verdict{probe: p.name, healthy: p.healthy}
	successes := 0
	var notice <-chan struct{}
	for next := due; ; {
		nudged, ok := await(ctx, next, notice)
		if !ok {
			return
		}
		notice = p.notices() // before the question, so that none is missed
		was := v.healthy
		v.at = time.Now()
		period := p.period()
		counts := !v.at.Before(due)
		if counts {
			due = v.at.Add(period)
		}
		v.answer = p.try(ctx, v.healthy)
		v.took = time.Since(v.at)
		switch {
		case v.answer == nil:
			successes++
			due = p.slots.next(due, period, successes == 1)
			hurry, v.failures = false, 0
			v.healthy = v.healthy || successes >= p.spec.SuccessThreshold
		case nudged: // it told of something else
			continue
		case counts && !p.excused(v):
			successes = 0
			v.failures++
			v.healthy = v.healthy && v.failures < p.spec.FailureThreshold
		default:
			successes = 0
		}
		if p.note != nil {
			p.note(v)
		}
		if v.answer != nil || v.healthy != was {
			select {
			case verdicts <- v:
			case <-ctx.Done():
				return
			}
		}
		next = due
		if soon := time.Now().Add(pause); hurry && soon.Before(due) {
			next = soon
			pause *= 2
		}
	}
}

// slots are the times at which probes of processes that are well are tried, fifty in a period: tries that share one wake Mainstay up
// only once, and a random one is taken at first, so that what was started together is not asked together.
type slots struct{ epoch time.Time }

const slotsOfPeriod = 50

// next returns the last slot up to due, or any within half a period before it if it is the first. Of nil it is due.
func (s *slots) next(due time.Time, period time.Duration, first bool) time.Time {
	if s == nil {
		return due
	}
	if first {
		due = due.Add(-rand.N(period/2 + 1))
	}
	return s.epoch.Add(due.Sub(s.epoch).Truncate(max(period/slotsOfPeriod, time.Millisecond)))
}

// notices returns a channel that is closed when the process has told something that the probe may be about.
func (p prober) notices() <-chan struct{} {
	if !p.spec.Notify || p.name == "liveness" {
		return nil
	}
	return p.told.next()
}

// await returns true at next, or nudged at a notice before, or not ok when ctx is done.
func await(ctx context.Context, next time.Time, notice <-chan struct{}) (nudged, ok bool) {
	if notice == nil {
		return false, wait(ctx, time.Until(next))
	}
	t := time.NewTimer(time.Until(next))
	defer t.Stop()
	select {
	case <-t.C:
		return false, true
	case <-notice:
		return true, ctx.Err() == nil
	case <-ctx.Done():
		return false, false
	}
}

func (p prober) try(ctx context.Context, healthy bool) error {
	ctx, stop := bounded(ctx, p.timeout())
	defer stop()
	err := p.ask(ctx)
	if err == nil && !healthy && p.verify != nil {
		err = p.verify()
	}
	return err
}

// bounded returns a context that has exceeded its deadline after d of Mainstay's own time: d is counted in steps, so that a while in which
// Mainstay was stopped costs whoever is to answer no more than one of them.
func bounded(ctx context.Context, d time.Duration) (context.Context, func()) {
	const steps = 8
	ctx, cancel := context.WithCancelCause(ctx)
	left := steps
	var step *time.Timer
	step = time.AfterFunc(math.MaxInt64, func() {
		if left--; left == 0 {
			cancel(context.DeadlineExceeded)
		} else if ctx.Err() == nil {
			step.Reset(d / steps)
		}
	})
	step.Reset(d - d/steps*(steps-1))
	return ctx, func() {
		cancel(nil)
		step.Stop()
	}
}

func (p prober) timeout() time.Duration { return orDefault(p.spec.Timeout, time.Second) }

func (p prober) period() time.Duration {
	period := orDefault(p.spec.Period, time.Second)
	if p.spec.Notify && p.name == "liveness" {
		return p.told.guard(period)
	}
	return period
}

// lateness is how much longer than its timeout a try may take. After more than that it was Mainstay which did not run meanwhile, and
// the other side may have given it up.
const lateness = 250 * time.Millisecond

// excused reports whether the failure v is not to count: the process has asked for more time, or Mainstay was stopped during the try.
func (p prober) excused(v verdict) bool {
	if p.told != nil && (p.name == "startup" || p.spec.Notify) && v.at.Before(p.told.excused()) {
		return true
	}
	limit := p.timeout() + lateness
	if len(p.spec.Exec) > 0 {
		limit += afterKill // what it leaves behind is waited for
	}
	return v.took > limit
}

// probing is the probes of one process. Its methods are called by the instance's goroutine.
type probing struct {
	verdicts chan verdict

	cancel context.CancelFunc // nil: nothing runs
	all    sync.WaitGroup
}

func newProbing() *probing { return &probing{verdicts: make(chan verdict)} }

// start runs probers beside those that run.
func (p *probing) start(probers ...prober) {
	ctx, cancel := context.WithCancel(context.Background())
	before := p.cancel
	p.cancel = func() {
		if before != nil {
			before()
		}
		cancel()
	}
	for _, pr := range probers {
		p.all.Go(func() { pr.run(ctx, p.verdicts) })
	}
}

// stop ends all probers and waits for them.
func (p *probing) stop() {
	if p.cancel != nil {
		p.cancel()
	}
	p.all.Wait()
	p.cancel = nil
}

// wait returns true after d, or false when ctx is done before.
func wait(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
