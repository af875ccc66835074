package proxy

import (
	"testing"
	"time"

	"mainstay/topology"
)

func TestPace(t *testing.T) {
	const grace = topology.RateGrace
	for _, c := range []struct {
		name    string
		pace    pace
		timeout time.Duration
		minimum int64
		want    time.Duration
	}{
		{"no limit", pace{time.Hour, 0}, 0, 0, forever},
		{"nothing yet", pace{}, time.Minute, 100, grace},
		{"time-out first", pace{}, time.Second, 100, time.Second},
		{"grace is used up", pace{grace, 0}, time.Minute, 100, 0},
		{"too slow", pace{grace + time.Second, 1000}, time.Minute, 100, -time.Second},
		{"just fast enough", pace{30 * time.Second, 3000}, time.Minute, 100, 0},
		{"fast", pace{30 * time.Second, 3500}, time.Minute, 100, 5 * time.Second},
		{"very fast", pace{time.Hour, 1 << 40}, time.Minute, 1, time.Minute},
		{"more than time can hold", pace{time.Hour, 1 << 62}, 0, 1, forever},
		{"only the rate", pace{time.Second, 0}, 0, 1, grace - time.Second},
	} {
		if got := c.pace.patience(c.timeout, rate{c.minimum, grace}); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

// TestPaceOfTrickle sends a byte a second, which no time-out notices.
func TestPaceOfTrickle(t *testing.T) {
	var p pace
	now := time.Duration(0)
	for p.patience(time.Minute, rate{256, topology.RateGrace}) > 0 {
		p.move(time.Second, 1)
		now += time.Second
	}
	if now != topology.RateGrace {
		t.Errorf("it was cut after %v", now)
	}
}
