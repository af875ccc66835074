package bus

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"mainstay/topology"
)

// limits bound what a relay takes from its peers and how long it waits for them.
type limits struct {
	handshake  time.Duration // for one to be done
	handshakes int           // under way at once, on each side
	peers      int           // on each side
	message    int           // bytes
	stop       time.Duration // for subscribers to take what waits for them, when their relay or its address is no longer wanted
}

func defaultLimits() limits {
	return limits{handshake: 10 * time.Second, handshakes: 1024, peers: 64 << 10, message: 64 << 20, stop: 5 * time.Second}
}

// A relay is one XSUB/XPUB pair. Its two ends come and go with their addresses; what they share stays.
type relay struct {
	name       string
	log        *slog.Logger
	limits     limits
	slabs      *slabs
	table      table
	stats      stats
	queue      atomic.Pointer[topology.Queue]
	complaints complaints

	cancel context.CancelFunc
	done   sync.WaitGroup // of the heartbeat

	mu   sync.Mutex
	ends map[role]end
}

// An end is an address of a relay and who is connected to it.
type end struct {
	listener *listener
	side     *side
}

// start begins the heartbeat. A relay that was started has to be stopped.
func (r *relay) start() {
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel = cancel
	r.done.Go(func() { r.heartbeat(ctx) })
}

// stop ends the heartbeat. The ends are stopped before.
func (r *relay) stop() {
	r.cancel()
	r.done.Wait()
}

// end returns the end that serves the role now.
func (r *relay) end(ro role) end {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ends[ro]
}

// attach makes l serve the role from now on, with a side of its own, and returns the side before, if there was one.
func (r *relay) attach(ro role, l *listener) *side {
	s := newSide(ro, r)
	l.serve(s)
	r.mu.Lock()
	defer r.mu.Unlock()
	old := r.ends[ro].side
	r.ends[ro] = end{l, s}
	return old
}

// heartbeat lets every peer's heart beat once a second.
func (r *relay) heartbeat(ctx context.Context) {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-ticker.C:
			for _, ro := range roles {
				s := r.end(ro).side
				for _, p := range s.snapshot() {
					p.beat(now, s.log)
				}
			}
		}
	}
}
