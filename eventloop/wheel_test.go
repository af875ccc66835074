//go:build linux

package eventloop

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// An expirer is a timer that nobody waits for.
type expirer struct{ Timer }

func (*expirer) Expire(*Timer) {}

// TestWheel compares a wheel with what is due at each time, for deadlines from nanoseconds to months that are set, moved and unset.
func TestWheel(t *testing.T) {
	for seed := range uint64(40) {
		random := rand.New(rand.NewPCG(seed, 1))
		var l Loop
		timers := make([]expirer, 200)
		due := make([]int64, len(timers)) // 0: not set
		span := func() int64 { return random.Int64N(int64(1) << (10 + random.IntN(46))) }
		late := int64(0)
		for range 3000 {
			for range random.IntN(4) {
				i := random.IntN(len(timers))
				if random.IntN(4) == 0 {
					l.StopTimer(&timers[i].Timer)
					due[i] = 0
					continue
				}
				d := span()
				l.SetTimer(&timers[i].Timer, time.Duration(d), &timers[i])
				due[i] = l.elapsed + d
			}
			if wait := l.wheel.wait(l.elapsed); wait >= 0 && random.IntN(2) == 0 {
				l.elapsed += int64(wait) * 1e6
			} else {
				l.elapsed += span() / 1000
				if wait < 0 && slices.Max(due) != 0 {
					t.Fatalf("seed %d: nothing to wait for, but timers are set", seed)
				}
			}
			for {
				x := l.wheel.due(l.elapsed)
				if x == nil {
					break
				}
				i := 0
				for j := range timers {
					if &timers[j].Timer == x {
						i = j
					}
				}
				if due[i] == 0 || due[i] > l.elapsed {
					t.Fatalf("seed %d: a timer expires at %d, its time is %d", seed, l.elapsed, due[i])
				}
				due[i] = 0
			}
			for i, at := range due {
				if timers[i].IsSet() != (at != 0) {
					t.Fatalf("seed %d: timer %d: set is %v, its time %d", seed, i, timers[i].IsSet(), at)
				}
				if at != 0 {
					late = max(late, l.elapsed-at)
				}
			}
			if late > 2<<tickBits {
				t.Fatalf("seed %d: a timer is %v late", seed, time.Duration(late))
			}
		}
	}
}

// TestWheelIdle checks that timers that are not due cost no work, and that one that is moved later and later costs none either.
func TestWheelIdle(t *testing.T) {
	var l Loop
	timers := make([]expirer, 100_000)
	for i := range timers {
		l.SetTimer(&timers[i].Timer, 75*time.Second, &timers[i])
	}
	wakes := 0
	for end := l.elapsed + int64(70*time.Second); l.elapsed < end; {
		l.elapsed += int64(l.wheel.wait(l.elapsed)) * 1e6
		if l.wheel.due(l.elapsed) != nil {
			t.Fatal("a timer has expired")
		}
		wakes++
		for i := range timers { // all have been used
			l.SetTimer(&timers[i].Timer, 75*time.Second, &timers[i])
		}
	}
	if wakes > 10 {
		t.Errorf("the wheel asked %d times to be turned in 70 s, want 10 at most", wakes)
	}
}
