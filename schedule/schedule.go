// Package schedule tells when something is due. It knows nothing of what.
//
// A [Cron] is five fields of crontab(5) in the time of one place (cron.go): pure arithmetic. A [Ticker] goes along one
// while time passes and says what is due, whatever is done to the clock meanwhile (ticker.go). It has no goroutine and no timer: whoever
// owns it waits for as long as Pause says and then asks Look.
//
// Local time that changes:
//
//   - A time that does not exist, because the clocks go forward over it, is due at the first moment after the gap.
//   - A time that comes twice, because they go back, is due once, the first time.
//   - With a * for the hour (or whatever else says each hour), each hour that really passes counts: "*/15 * * * *" is due
//     every quarter of an hour, in the hour that comes twice too, and not four times at once after a gap.
//
// Clocks that are moved: time is waited for by a clock that nobody sets and decided by the one on the wall. When the two
// disagree by more than a minute, the wall clock was moved.
//
//   - Forward: what lay in between is not due, neither now nor later.
//   - Back: what has been due is not due again, unless it went back by more than three hours, when it was
//     wrong before; then the schedule begins anew.
//   - A machine that slept did not move its clock: what was due meanwhile has been missed.
package schedule

import (
	"time"
	_ "time/tzdata" // for machines that do not know the places of the world

	"golang.org/x/sys/unix"
)

// A Moment is what the clocks say.
type Moment struct {
	// Wall is the time of the day, which somebody may have set since the Moment before.
	Wall time.Time
	// Elapsed is how much time has really passed since some moment, while the machine slept too.
	Elapsed time.Duration
}

// A Clock tells the Moment. It is safe for concurrent use.
type Clock func() Moment

// System returns the machine's Clock.
func System() Clock {
	begin := time.Now()
	return func() Moment {
		now := time.Now()
		return Moment{Wall: now.Round(0), Elapsed: now.Sub(begin) + asleep()}
	}
}

// asleep returns for how long the machine has been suspended since it was started, which CLOCK_BOOTTIME counts and
// CLOCK_MONOTONIC does not (clock_gettime(2)).
func asleep() time.Duration {
	var boot, monotonic unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &monotonic) != nil || unix.ClockGettime(unix.CLOCK_BOOTTIME, &boot) != nil {
		return 0
	}
	return time.Duration(boot.Nano() - monotonic.Nano())
}
