package schedule

import "time"

const (
	// late is how long after its time something may begin: timers are not exact, machines are busy.
	late = time.Minute
	// moved is by how much the clocks must disagree for the one on the wall to have been set. Less is drift.
	moved = time.Minute
	// wrong is how far back a clock goes only if it was wrong before. Less, such as by one time zone too many, is
	// no reason to do again what has been done (so does Vixie's cron).
	wrong = 3 * time.Hour
	// forgotten is how long ago nothing can have been missed.
	forgotten = 10 * 366 * 24 * time.Hour
)

// A Ticker goes along a schedule. It is used by one goroutine.
type Ticker struct {
	cron Cron
	seen Moment    // the last look
	done time.Time // up to which all has been told
	next time.Time
}

// NewTicker returns a Ticker that tells all that is due after since, up to which somebody has dealt with everything; zero: now.
// What was due between since and now has been missed. A since that is in the future was written before the clock was set back.
func NewTicker(cron Cron, since time.Time, now Moment) *Ticker {
	if since.IsZero() || since.Sub(now.Wall) > wrong || now.Wall.Sub(since) > forgotten {
		since = now.Wall
	}
	return &Ticker{cron: cron, seen: now, done: since, next: cron.Next(since)}
}

// Next returns when something is due next, or has been since the last Look.
func (t *Ticker) Next() time.Time { return t.next }

// Done returns up to when Look has told everything: since for a Ticker that goes on where this one is.
func (t *Ticker) Done() time.Time { return t.done }

// A Turn is what there is to do.
type Turn struct {
	Due     time.Time // what is due now was due then; zero: nothing is
	Missed  time.Time // the last of the times that passed unnoticed before Due; zero: none did
	Skipped time.Time // the last of the times that the clock was moved over; zero: none
}

// Look tells what there is to do now, once.
func (t *Ticker) Look(now Moment) Turn {
	elapsed := now.Elapsed - t.seen.Elapsed
	expected := t.seen.Wall.Add(elapsed) // what the wall clock would say if nobody had touched it
	jump := now.Wall.Sub(expected)
	t.seen = now
	if -jump > wrong || t.done.Sub(now.Wall) > wrong {
		t.done, t.next = now.Wall, t.cron.Next(now.Wall)
		return Turn{}
	}
	if t.next.After(now.Wall) || t.next.IsZero() {
		return Turn{}
	}
	var turn Turn
	until := now.Wall
	if jump > moved {
		until = expected
	}
	if last := t.last(until); !last.IsZero() {
		if until.Sub(last) <= late {
			turn.Due = last
			last = t.last(last.Add(-1))
		}
		turn.Missed = last
	}
	if until.Before(now.Wall) {
		t.done = later(t.done, until)
		turn.Skipped = t.last(now.Wall)
	}
	t.done, t.next = now.Wall, t.cron.Next(now.Wall)
	return turn
}

// last returns the last time after done up to until, or zero if there is none. The time that has passed may be years, and the
// schedule one of minutes: so it is looked for from the end.
func (t *Ticker) last(until time.Time) time.Time {
	for back := time.Hour; ; back *= 4 {
		from := later(until.Add(-back), t.done)
		at := t.cron.Next(from)
		if at.IsZero() || at.After(until) {
			if !from.After(t.done) {
				return time.Time{}
			}
			continue
		}
		for next := t.cron.Next(at); !next.IsZero() && !next.After(until); next = t.cron.Next(at) {
			at = next
		}
		return at
	}
}

// longest bounds a pause, as the clock may be set meanwhile.
const longest = late / 2

// Pause returns how long to wait until the next Look.
func (t *Ticker) Pause(now Moment) time.Duration {
	if t.next.IsZero() {
		return longest
	}
	return max(0, min(t.next.Sub(now.Wall), longest))
}
