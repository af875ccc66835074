package proxy

import (
	"container/list"
	"time"

	"mainstay/topology"
)

// Those who wait stand in one line per pool, in the order in which they came. An instance that is admitted calls the first
// few, and each of these that is connected calls two more: the line empties in a blink where the instance keeps up, and an
// instance that has just come up is not buried under it. While there are instances that refuse connections, one request
// tries them every holdRetry for all.
const (
	holdBurst = 16
	holdRetry = 100 * time.Millisecond
	// holdOverhead is what a held request takes up beside its fields and the content that is kept: the buffers and goroutines
	// of its connection, and what a request is made of. 2,000 of them were seen to take 20 KiB each, with the garbage.
	holdOverhead = 24 << 10
)

// A line is the requests of a pool that wait for an instance. It is guarded by the pool's mu.
type line struct {
	waiting list.List // of *waiter, by number
	last    uint64    // number that was given out
	held    int       // requests that have waited and have not reached an instance yet
	bytes   int64     // of those
	retry   *time.Timer
}

// A waiter is a request that may have to wait. Between waiting and reaching an instance it keeps its place. It never blocks: who
// owns it is called, and looks after the time. What is not said otherwise is guarded by the pool's mu.
//
// It is a part of what works on the request and can be used again after leave.
type waiter struct {
	owner called        // never changes, like the next three between begin and leave
	pool  *pool         //
	hold  topology.Hold // For is 0: it may not wait
	bytes int64         // of memory that it takes up

	// These belong to who works on the request.
	since  time.Time // when it first waited
	seen   uint64    // admissions to the pool before the last try
	behind bool      // there was no try, because others came first
	eager  bool      // it tries all the same, because there was no room to wait

	number  uint64 // 0: it has not waited yet; written by its owner only
	place   *list.Element
	held    bool
	dropped bool // it was sent away
}

// A called owns a waiter.
type called interface {
	// called says that the waiter is not in the line any more; its answer tells why. The pool is locked meanwhile: called must
	// not block, nor ask the pool for anything. It comes once for each time that the waiter stood in the line, unless it quit.
	called()
}

// A wait is how waiting ended.
type wait int

const (
	waitStanding wait = iota // it has not
	waitCalled               // there may be an instance now
	waitNone                 // the service's requests are not held
	waitFull                 // as many are held as may be
	waitExpired              // none came in time
	waitDropped              // none will come
	waitLeft                 // the client has gone, or the request was ended
)

// begin prepares the waiter for a request, which takes up that many bytes of memory beside holdOverhead. leave must be called in
// the end.
func (w *waiter) begin(p *pool, hold topology.Hold, bytes int64) {
	*w = waiter{owner: w.owner, pool: p, hold: hold, bytes: bytes + holdOverhead}
}

// mayTry reports whether it is this request's turn to ask for an instance. It precedes each try.
func (w *waiter) mayTry() bool {
	w.seen = w.pool.admissions.Load()
	w.behind = w.hold.For > 0 && w.number == 0 && !w.eager && w.pool.queued.Load() > 0
	return !w.behind
}

// join goes to its place in the line until there may be an instance that takes connections. It returns waitStanding if it
// waits; then who owns it calls quit when it has expired. It does not wait if an instance has come since the
// last try (waitCalled), there is no room (waitFull) or it may not (waitNone).
func (w *waiter) join(now time.Time) wait {
	if w.hold.For <= 0 {
		return waitNone
	}
	if w.since.IsZero() {
		w.since = now
	}
	outcome := w.stand()
	if outcome == waitFull && w.behind {
		w.eager = true
		return waitCalled
	}
	return outcome
}

// expires returns until when it may wait.
func (w *waiter) expires() time.Time { return w.since.Add(w.hold.For) }

func (w *waiter) stand() wait {
	p := w.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.admissions.Load() != w.seen || w.behind && p.line.waiting.Len() == 0 {
		return waitCalled
	}
	if !w.held {
		if p.line.held >= w.hold.Requests || p.line.bytes+w.bytes > w.hold.Bytes {
			return waitFull
		}
		w.held = true
		p.line.held++
		p.line.bytes += w.bytes
	}
	if w.number == 0 {
		p.line.last++
		w.number = p.line.last
	}
	after := p.line.waiting.Back()
	for after != nil && after.Value.(*waiter).number > w.number {
		after = after.Prev()
	}
	if after == nil {
		w.place = p.line.waiting.PushFront(w)
	} else {
		w.place = p.line.waiting.InsertAfter(w, after)
	}
	p.queued.Add(1)
	p.armLocked()
	return waitStanding
}

// answer tells what it was called for: waitCalled or waitDropped. It is waitStanding if it was not.
func (w *waiter) answer() wait {
	w.pool.mu.Lock()
	defer w.pool.mu.Unlock()
	switch {
	case w.place != nil:
		return waitStanding
	case w.dropped:
		return waitDropped
	}
	return waitCalled
}

// quit steps out of the line. Who was called at the same moment passes the call on.
func (w *waiter) quit() {
	p := w.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	if w.place == nil {
		p.callLocked(1)
		return
	}
	p.outLocked(w)
}

// outLocked takes the waiter out of the line; it stays held.
func (p *pool) outLocked(w *waiter) {
	p.line.waiting.Remove(w.place)
	w.place = nil
	p.queued.Add(-1)
}

// callLocked calls the first n.
func (p *pool) callLocked(n int) {
	for ; n > 0 && p.line.waiting.Len() > 0; n-- {
		w := p.line.waiting.Front().Value.(*waiter)
		p.outLocked(w)
		w.owner.called()
	}
	p.armLocked()
}

// armLocked sees to it that the line's first tries again after a while, if there is anything to try.
func (p *pool) armLocked() {
	if p.line.retry != nil || p.line.waiting.Len() == 0 || len(p.active) == 0 {
		return
	}
	p.line.retry = time.AfterFunc(holdRetry, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.line.retry = nil
		if len(p.active) > 0 {
			p.callLocked(1)
		}
	})
}

// reached says that the request has been connected to an instance: it is held no more, and others may follow.
func (w *waiter) reached() {
	if w.leave() || w.pool.queued.Load() > 0 {
		w.pool.mu.Lock()
		defer w.pool.mu.Unlock()
		w.pool.callLocked(2)
	}
}

// leave ends being held, and reports whether it was.
func (w *waiter) leave() bool {
	if w.number == 0 {
		return false
	}
	p := w.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	if !w.held {
		return false
	}
	w.held = false
	p.line.held--
	p.line.bytes -= w.bytes
	return true
}

// drop sends all away that wait: no instance will come.
func (p *pool) drop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.line.waiting.Len() > 0 {
		w := p.line.waiting.Front().Value.(*waiter)
		p.outLocked(w)
		w.dropped = true
		w.owner.called()
	}
}
