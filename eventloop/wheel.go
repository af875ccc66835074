//go:build linux

package eventloop

import (
	"math"
	"math/bits"
)

const (
	tickBits  = 24 // a tick is 2²⁴ ns, 16.8 ms
	levelBits = 6
	lists     = 1 << levelBits // of a level
	levels    = 4              // the last reaches 3.2 days ahead; what is due later is put there and moved on when that comes
)

// A wheel has the timers of a loop in lists: those of the first level hold one tick each, those of every further level 64 times as many as
// those before. When the first of a list's ticks has come, its timers are due or are put into finer lists, so that what is not due costs
// nothing, however much there is. G. Varghese and T. Lauck, Hashed and Hierarchical Timing Wheels, 1987, scheme 7.
type wheel struct {
	now  int64 // the tick up to which all is done
	next int64 // nothing is to be done before, in nanoseconds; it may be earlier than necessary
	// taken holds the timers of a list that is being worked on, and those that are due.
	taken timerList
	used  [levels]uint64 // lists that hold timers
	lists [levels][lists]timerList
	count int
}

// A timerList is timers, linked both ways. tick is the first for which they may be due.
type timerList struct {
	first *Timer
	tick  int64
	level int8
	index int8
}

func tickOf(ns int64) int64 { return ns >> tickBits }

// add puts t where it belongs. A timer is put into the tick after the one in which it is due, so that it is never early.
func (w *wheel) add(t *Timer) {
	if w.count == 0 {
		w.next = math.MaxInt64
	}
	w.count++
	tick := max(tickOf(t.due)+1, w.now+1)
	level, shift := 0, 0
	for tick>>shift-w.now>>shift > lists {
		if level == levels-1 {
			tick = (w.now>>shift + lists) << shift
			break
		}
		level++
		shift += levelBits
	}
	index := int(tick>>shift) & (lists - 1)
	list := &w.lists[level][index]
	list.level, list.index, list.tick = int8(level), int8(index), tick>>shift<<shift
	list.push(t)
	w.used[level] |= 1 << index
	w.next = min(w.next, list.tick<<tickBits)
}

// remove takes t out.
func (w *wheel) remove(t *Timer) {
	list := t.list
	list.unlink(t)
	w.count--
	if list.first == nil && list != &w.taken {
		w.used[list.level] &^= 1 << list.index
	}
}

func (l *timerList) push(t *Timer) {
	t.list, t.next, t.previous = l, l.first, nil
	if l.first != nil {
		l.first.previous = t
	}
	l.first = t
}

func (l *timerList) unlink(t *Timer) {
	if t.previous != nil {
		t.previous.next = t.next
	} else {
		l.first = t.next
	}
	if t.next != nil {
		t.next.previous = t.previous
	}
	t.next, t.previous, t.list = nil, nil, nil
}

// due returns a timer that is due, taken out, and nil if there is none any more.
func (w *wheel) due(now int64) *Timer {
	for {
		for t := w.taken.first; t != nil; t = w.taken.first {
			w.remove(t)
			if t.due <= now {
				return t
			}
			w.add(t)
		}
		if !w.advance(tickOf(now)) {
			return nil
		}
	}
}

// advance takes the timers of the next list that has come by the tick, and returns false if there is none.
func (w *wheel) advance(tick int64) bool {
	level, first := w.earliest()
	if level < 0 || first > tick {
		w.now = max(w.now, tick)
		w.next = math.MaxInt64
		if level >= 0 {
			w.next = first << tickBits
		}
		return false
	}
	if level == 0 {
		w.now = first
	} else {
		w.now = first - 1 // what is due in its first tick is yet to be put into the list of that
	}
	list := &w.lists[level][int(first>>(levelBits*level))&(lists-1)]
	w.used[level] &^= 1 << list.index
	w.taken.first, list.first = list.first, nil
	w.taken.tick = math.MinInt64 // who sets a timer that waits here need not move it: it is looked at in this turn
	for t := w.taken.first; t != nil; t = t.next {
		t.list = &w.taken
	}
	return true
}

// earliest returns the level and the first tick of the list that comes next, -1 if all are empty.
func (w *wheel) earliest() (level int, tick int64) {
	level, tick = -1, math.MaxInt64
	for i, used := range w.used {
		if used == 0 {
			continue
		}
		shift := levelBits * i
		at := w.now >> shift
		// Lists lie after the present one, round the wheel.
		turned := bits.RotateLeft64(used, -int((at+1)&(lists-1)))
		first := (at + 1 + int64(bits.TrailingZeros64(turned))) << shift
		if first <= tick { // of two that begin together the coarser one is first, as it may have timers for the other
			level, tick = i, first
		}
	}
	return level, tick
}

// wait returns the milliseconds after which there is something to do, rounded up; negative: nothing.
func (w *wheel) wait(now int64) int {
	if w.count == 0 {
		return -1
	}
	if w.next <= now {
		return 0
	}
	return int(min((w.next-now+999_999)/1_000_000, math.MaxInt32))
}
