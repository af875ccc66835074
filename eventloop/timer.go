//go:build linux

package eventloop

import "time"

// A Timer calls its owner once when its time has come, up to about 17 ms later, never earlier. It is embedded in what it
// is for. Its zero value is not set. It must not be copied while it is set.
type Timer struct {
	next, previous *Timer // in its list; nil when it is in none
	list           *timerList
	due            int64 // nanoseconds since the loop's start
	owner          Expirer
}

// An Expirer is told of timers on its loop.
type Expirer interface {
	// Expire is called once for each time that t was set. It must not block.
	Expire(t *Timer)
}

// SetTimer has owner called after d, counted from Now, instead of when it was to be called before. Moving a timer later, as each byte
// moves the end of an idle connection, costs a store: the timer waits where it is, and is put where it belongs when that comes.
func (l *Loop) SetTimer(t *Timer, d time.Duration, owner Expirer) {
	t.owner = owner
	t.due = l.elapsed + max(int64(d), 0)
	if t.list != nil {
		if tickOf(t.due) >= t.list.tick {
			return
		}
		l.wheel.remove(t)
	}
	l.wheel.add(t)
}

// StopTimer unsets t. Stopping one that is not set does nothing.
func (l *Loop) StopTimer(t *Timer) {
	if t.list != nil {
		l.wheel.remove(t)
	}
	t.owner = nil
}

// IsSet reports whether t will call its owner.
func (t *Timer) IsSet() bool { return t.list != nil }

// expire calls the owners of timers that are due.
func (l *Loop) expire() {
	if l.elapsed < l.wheel.next {
		return
	}
	for {
		t := l.wheel.due(l.elapsed)
		if t == nil {
			return
		}
		owner := t.owner
		t.owner = nil
		l.calling = owner
		owner.Expire(t)
		l.calling = nil
	}
}
