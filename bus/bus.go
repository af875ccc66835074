// Package bus relays ZeroMQ messages from publishers to subscribers by topic.
//
// Each relay of the topology has two addresses: one that publishers (PUB, XPUB) connect to, where it
// is an XSUB that takes everything, and one for subscribers (SUB, XSUB), where it is an XPUB. Any ZeroMQ
// library that speaks ZMTP 3.0 or later is a client; the protocol is in the room zmtp.
//
// Every connection has one goroutine, which shakes hands and then reads. A publisher's finds the
// messages of one read, looks each topic up in the relay's table and gives every subscriber concerned
// all that is for it in one step: as encoded, into a queue bounded in bytes, and into the socket at once
// if that takes it. When a socket is full a goroutine waits for it, and what does not fit the queue meanwhile is
// dropped by the stated policy and counted. So a subscriber that does not read costs its queue's
// limit and holds nobody up.
//
// Every message that matched a subscriber is delivered (written to its connection), dropped, or queued: the counters add up.
//
// Publish and Subscribe are the client's two sides.
package bus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"mainstay/sockets"
	"mainstay/topology"
)

// A Bus relays messages from publishers to subscribers by topic.
type Bus struct {
	log     *slog.Logger
	sockets *sockets.Set
	limits  limits
	slabs   slabs

	mu     sync.Mutex
	relays map[string]*relay
}

// New returns a Bus that relays nothing yet. Its metrics are registered with reg, unless that is nil. It listens through set.
func New(log *slog.Logger, reg prometheus.Registerer, set *sockets.Set) *Bus {
	b := &Bus{log: log, sockets: set, limits: defaultLimits(), relays: map[string]*relay{}}
	newMetrics(reg, b)
	return b
}

// Apply makes the relays of t the ones that run. A relay's counters, and the connections of a side
// whose address stays, survive any change; a queue's limit and policy apply to existing connections at once. What
// waits for the subscribers of a stopped relay is sent on first, until ctx is done or five seconds have passed.
// The error names the relay and the address that could not be bound, and then nothing has changed.
func (b *Bus) Apply(ctx context.Context, t *topology.Topology) error {
	for _, name := range slices.Sorted(maps.Keys(t.Bus)) {
		if err := checkQueue(t.Bus[name].Queue); err != nil {
			return fmt.Errorf("relay %s: %w", name, err)
		}
	}
	have := b.snapshot()
	m := newMove(b.sockets, have, t)
	if err := m.bind(ctx); err != nil {
		return errors.Join(err, m.undo(ctx))
	}
	var added, removed []*relay
	for name, spec := range t.Bus {
		r := have[name]
		if r == nil {
			r = b.add(name)
			added = append(added, r)
		}
		if old := r.queue.Swap(&spec.Queue); old != nil && *old != spec.Queue {
			r.log.Info("queue changed", "limit", spec.Queue.Limit, "when_full", string(spec.Queue.WhenFull))
		}
	}
	var former []*side
	for p, l := range m.bound {
		r := b.relay(p.relay)
		if old := r.attach(p.role, l); old != nil {
			former = append(former, old)
		}
		r.log.Info("address bound", "side", string(p.role), "address", endpointOf(l.bound))
	}
	for _, r := range added {
		r.start()
	}
	for name, r := range have {
		if _, wanted := t.Bus[name]; !wanted {
			removed = append(removed, r)
			former = append(former, r.end(publishers).side, r.end(subscribers).side)
		}
	}
	m.release()
	ctx, cancel := context.WithTimeout(ctx, b.limits.stop)
	defer cancel()
	stopSides(ctx, former)
	for _, r := range removed {
		r.stop()
		b.remove(r.name)
		r.log.Info("relay stopped")
	}
	return nil
}

func checkQueue(q topology.Queue) error {
	if q.Limit <= 0 {
		return fmt.Errorf("queue limit of %d bytes: want a positive number", q.Limit)
	}
	switch q.WhenFull {
	case topology.DropNewest, topology.DropOldest, topology.Disconnect:
		return nil
	}
	return fmt.Errorf("queue policy %q: want %s, %s or %s", q.WhenFull, topology.DropNewest, topology.DropOldest, topology.Disconnect)
}

// stopSides stops the publishers' sides first, so that what they have sent still reaches the subscribers.
func stopSides(ctx context.Context, sides []*side) {
	for _, ro := range roles {
		var stopping sync.WaitGroup
		for _, s := range sides {
			if s.role == ro {
				stopping.Go(func() { s.stop(ctx) })
			}
		}
		stopping.Wait()
	}
}

// add makes a relay without ends.
func (b *Bus) add(name string) *relay {
	r := &relay{name: name, log: b.log.With("relay", name), limits: b.limits, slabs: &b.slabs, ends: map[role]end{}}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.relays[name] = r
	return r
}

func (b *Bus) relay(name string) *relay {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.relays[name]
}

func (b *Bus) remove(name string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.relays, name)
}

func (b *Bus) snapshot() map[string]*relay {
	b.mu.Lock()
	defer b.mu.Unlock()
	return maps.Clone(b.relays)
}
