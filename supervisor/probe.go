package supervisor

import (
	"context"
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
}

// A prober asks one probe's question again and again.
type prober struct {
	name    string
	spec    topology.Probe
	ask     func(ctx context.Context) error
	since   time.Time // when the process was started
	healthy bool      // what is thought before the first try
}

// run sends a verdict after each try until ctx is done. Tries begin spec.Period apart and never overlap.
//
// A startup or readiness probe that has not succeeded yet is tried more often than that at first, so that an instance
// is ready as soon as it can be rather than at the next full period. Only one failure a period counts.
func (p prober) run(ctx context.Context, verdicts chan<- verdict) {
	period := orDefault(p.spec.Period, time.Second)
	due := p.since.Add(p.spec.InitialDelay) // of the next try that counts
	hurry := p.name != "liveness" && !p.healthy
	pause := 25 * time.Millisecond
	v := verdict{probe: p.name, healthy: p.healthy}
	successes := 0
	for next := due; wait(ctx, time.Until(next)); {
		begun := time.Now()
		counts := !begun.Before(due)
		if counts {
			due = begun.Add(period)
		}
		v.answer = p.try(ctx)
		if v.answer == nil {
			hurry, v.failures = false, 0
			successes++
			v.healthy = v.healthy || successes >= p.spec.SuccessThreshold
		} else if successes = 0; counts {
			v.failures++
			v.healthy = v.healthy && v.failures < p.spec.FailureThreshold
		}
		select {
		case verdicts <- v:
		case <-ctx.Done():
			return
		}
		next = due
		if soon := time.Now().Add(pause); hurry && soon.Before(due) {
			next = soon
			pause *= 2
		}
	}
}

func (p prober) try(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, orDefault(p.spec.Timeout, time.Second))
	defer cancel()
	return p.ask(ctx)
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
