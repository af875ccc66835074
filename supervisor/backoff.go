package supervisor

import (
	"math/rand/v2"
	"time"

	"mainstay/topology"
)

// A backoff is how long an instance waits before its next restart.
type backoff struct{ base time.Duration } // of the last wait; 0 before the first

// leastBackoff keeps a specification without a wait from becoming a busy loop.
const leastBackoff = 10 * time.Millisecond

// next returns the wait after a process that ran for ran.
func (b *backoff) next(spec topology.Backoff, ran time.Duration) time.Duration {
	initial := max(spec.Initial, leastBackoff)
	if b.base == 0 || spec.ResetAfter > 0 && ran >= spec.ResetAfter {
		b.base = initial
	} else {
		b.base = min(2*b.base, max(spec.Max, initial))
	}
	return time.Duration(float64(b.base) * (0.9 + 0.2*rand.Float64()))
}
