package proxy

import (
	"sync"
	"sync/atomic"
	"time"
)

// A stage is what an attempt waits for. Stages follow each other in this order; what is reported late is ignored.
type stage int

const (
	stageConnect stage = iota // the dialer has its own limit
	stageSend                 // until the request is sent
	stageHeader               // until the response's header has come
	stageStream               // until both contents have ended
	stageGivenUp              // the attempt was
)

// A watch ends a request that makes no progress. It limits the time since the stage began or, in stages with
// progress, since the last byte; how long the whole takes does not matter.
type watch struct {
	end   func(reason) // is called at most once, never after stop
	start time.Time
	last  atomic.Int64 // when there was progress, in nanoseconds since start

	mu       sync.Mutex
	timer    *time.Timer
	attempt  uint64
	giveUp   func(reason) // ends the attempt alone
	stage    stage
	limit    time.Duration // 0: none
	expired  reason
	early    uint64 // an attempt that was to be given up, for earlyWhy, before it began
	earlyWhy reason
	ended    bool
}

func newWatch(end func(reason)) *watch { return &watch{end: end, start: time.Now()} }

// touch says that there was progress.
func (w *watch) touch() { w.last.Store(int64(time.Since(w.start))) }

// begin begins an attempt, without a limit. giveUp ends it and leaves the request to go on.
func (w *watch) begin(attempt uint64, giveUp func(reason)) {
	w.mu.Lock()
	w.giveUp = giveUp
	w.mu.Unlock()
	w.enter(attempt, stageConnect, 0, reasonNone)
	w.mu.Lock()
	early, why := w.early == attempt, w.earlyWhy
	w.mu.Unlock()
	if early {
		w.abort(attempt, why)
	}
}

// enter begins a stage, which ends the request with expired if there is no progress for limit.
func (w *watch) enter(attempt uint64, s stage, limit time.Duration, expired reason) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ended || attempt < w.attempt || attempt == w.attempt && s <= w.stage {
		return
	}
	w.attempt, w.stage, w.limit, w.expired = attempt, s, limit, expired
	w.touch()
	switch {
	case w.timer == nil && limit > 0:
		w.timer = time.AfterFunc(limit, w.check)
	case limit > 0:
		w.timer.Reset(limit)
	case w.timer != nil:
		w.timer.Stop()
	}
}

func (w *watch) check() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ended || w.limit == 0 {
		return
	}
	if left := w.limit - (time.Since(w.start) - time.Duration(w.last.Load())); left > 0 {
		w.timer.Reset(left)
		return
	}
	w.ended = true
	w.end(w.expired)
}

// abort gives up the attempt if the request is still at it and waits for the response, and ends the request if it streams.
func (w *watch) abort(attempt uint64, r reason) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case attempt > w.attempt:
		w.early, w.earlyWhy = attempt, r
	case w.ended || attempt != w.attempt || w.stage == stageGivenUp:
	case w.stage < stageStream:
		w.stage = stageGivenUp
		w.giveUp(r)
	default:
		w.ended = true
		w.end(r)
	}
}

// stop ends the watch. When it returns, end is not running and will not be called.
func (w *watch) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended = true
	if w.timer != nil {
		w.timer.Stop()
	}
}
