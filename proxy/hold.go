package proxy

import (
	"container/list"
	"context"
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

// A waiter is a request that may have to wait. Between waiting and reaching an instance it keeps its place. What is not
// said otherwise is guarded by the pool's mu.
type waiter struct {
	pool  *pool         // never changes, like the next two
	hold  topology.Hold // For is 0: it may not wait
	bytes int64         // of memory that it takes up

	// These belong to the goroutine of its request.
	since  time.Time // when it first waited
	seen   uint64    // admissions to the pool before the last try
	behind bool      // there was no try, because others came first
	eager  bool      // it tries all the same, because there was no room to wait

	number  uint64 // 0: it has not waited yet; written by its goroutine only
	place   *list.Element
	held    bool
	called  chan struct{} // receives when it is called or sent away
	dropped bool          // it was sent away
}

// A wait is how waiting ended.
type wait int

const (
	waitCalled  wait = iota // there may be an instance now
	waitNone                // the service's requests are not held
	waitFull                // as many are held as may be
	waitExpired             // none came in time
	waitDropped             // none will come
	waitLeft                // the client has gone, or the request was ended
)

// newWaiter returns a waiter for one request. leave must be called in the end.
func (p *pool) newWaiter(hold topology.Hold, bytes int64) *waiter {
	return &waiter{pool: p, hold: hold, bytes: bytes + holdOverhead}
}

// mayTry reports whether it is this request's turn to ask for an instance. It precedes each try.
func (w *waiter) mayTry() bool {
	w.seen = w.pool.admissions.Load()
	w.behind = w.hold.For > 0 && w.number == 0 && !w.eager && w.pool.queued.Load() > 0
	return !w.behind
}

// wait waits until there may be an instance that takes connections. gone, which may be nil, is asked now and then whether the
// client has gone, for where ctx does not tell.
func (w *waiter) wait(ctx context.Context, gone func() bool) wait {
	if w.hold.For <= 0 {
		return waitNone
	}
	switch refused, ok := w.join(); {
	case refused == waitFull && w.behind:
		w.eager = true
		return waitCalled
	case !ok:
		return refused
	}
	if w.since.IsZero() {
		w.since = time.Now()
	}
	expired := time.NewTimer(time.Until(w.since.Add(w.hold.For)))
	defer expired.Stop()
	var look <-chan time.Time
	if gone != nil {
		ticker := time.NewTicker(time.Second)
		defer ticker.Stop()
		look = ticker.C
	}
	for {
		select {
		case <-w.called:
			return w.answer()
		case <-expired.C:
			return w.stand(waitExpired)
		case <-ctx.Done():
			return w.stand(waitLeft)
		case <-look:
			if gone() {
				return w.stand(waitLeft)
			}
		}
	}
}

// join goes to its place in the line and returns true. It does not, if an instance has come since the last try (waitCalled) or
// there is no room (waitFull).
func (w *waiter) join() (wait, bool) {
	p := w.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.admissions.Load() != w.seen || w.behind && p.line.waiting.Len() == 0 {
		return waitCalled, false
	}
	if !w.held {
		if p.line.held >= w.hold.Requests || p.line.bytes+w.bytes > w.hold.Bytes {
			return waitFull, false
		}
		w.held = true
		p.line.held++
		p.line.bytes += w.bytes
	}
	if w.number == 0 {
		p.line.last++
		w.number, w.called = p.line.last, make(chan struct{}, 1)
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
	return waitCalled, true
}

// answer tells what it was called for.
func (w *waiter) answer() wait {
	w.pool.mu.Lock()
	defer w.pool.mu.Unlock()
	if w.dropped {
		return waitDropped
	}
	return waitCalled
}

// stand steps out of the line. Who was called at the same moment passes the call on.
func (w *waiter) stand(why wait) wait {
	p := w.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	if w.place == nil {
		p.callLocked(1)
		return why
	}
	p.outLocked(w)
	return why
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
		w.called <- struct{}{} // it has room: who is in the line was not called
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
		w.called <- struct{}{}
	}
}
