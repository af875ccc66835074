package backup

import (
	"fmt"
	"time"

	"github.com/adhocore/gronx"
)

// A schedule says when a job runs. The zero schedule never does.
type schedule struct{ cron string }

// parseSchedule reads five fields of crontab(5).
func parseSchedule(cron string) (schedule, error) {
	s := schedule{cron}
	if cron == "" {
		return s, nil
	}
	if !gronx.IsValid(cron) {
		return s, fmt.Errorf("schedule %q: not five fields of a crontab", cron)
	}
	if s.after(time.Now()).IsZero() {
		return s, fmt.Errorf("schedule %q: there is no such time", cron)
	}
	return s, nil
}

// after returns the first time of the schedule after t, in t's time zone, or zero if there is none.
func (s schedule) after(t time.Time) time.Time {
	if s.cron == "" {
		return time.Time{}
	}
	next, err := gronx.NextTickAfter(s.cron, t, false)
	if err != nil {
		return time.Time{}
	}
	return next
}

const (
	// late is how long after its time a run may begin: timers are not exact, machines are busy.
	late = time.Minute
	// clockSet is how far back a clock goes only if it was wrong before. Less than that, such as
	// the end of summer time, is no reason to run again what has run (so does Vixie's cron).
	clockSet = 3 * time.Hour
)

// A ticker tells, whatever the clock does, when the next time of a schedule has come. Times that have passed
// unnoticed, because the machine slept or its clock was set, are missed, not made up for.
type ticker struct {
	schedule schedule
	last     time.Time // up to which everything has been dealt with
	next     time.Time // zero: never
}

func newTicker(s schedule, now time.Time) *ticker {
	return &ticker{schedule: s, last: now, next: s.after(now)}
}

// look tells what there is to do now: whether a run is due, and whether one has been missed since the last look.
func (t *ticker) look(now time.Time) (due, missed bool) {
	now = now.Round(0) // the wall clock's time counts
	if now.Before(t.last.Add(-clockSet)) {
		t.last, t.next = now, t.schedule.after(now)
		return false, false
	}
	if t.next.IsZero() || now.Before(t.next) {
		return false, false
	}
	due = now.Sub(t.next) <= late
	t.last, t.next = now, t.schedule.after(now)
	return due, !due
}

// pause returns how long to wait until the next look. It is never long, as the clock may be set meanwhile.
func (t *ticker) pause(now time.Time) time.Duration {
	return max(0, min(t.next.Sub(now.Round(0)), late/2))
}
