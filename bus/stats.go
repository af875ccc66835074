package bus

import (
	"maps"
	"sync"
	"sync/atomic"
)

// stats counts what passes through a relay. Publishers add to it once a read, subscribers once a write.
type stats struct {
	received, receivedBytes   atomic.Uint64
	_                         [48]byte // written by other goroutines than what follows: another cache line
	delivered, deliveredBytes atomic.Uint64
	dropped                   [drops]atomic.Uint64

	failures    tally // of handshakes, by reason
	disconnects tally // of peers past their handshake, by reason
}

// A drop is why a message did not reach a subscriber that it was for.
type drop int

const (
	dropQueueFull    drop = iota // its queue had no room
	dropDisconnected             // it went away with the message still waiting
	drops
)

func (d drop) String() string { return [...]string{"queue_full", "disconnected"}[d] }

func (s *stats) allDropped() uint64 {
	var n uint64
	for i := range s.dropped {
		n += s.dropped[i].Load()
	}
	return n
}

// A tally counts events by reason. The zero value is ready.
type tally struct {
	mu     sync.Mutex
	counts map[string]uint64
}

func (t *tally) add(reason string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.counts == nil {
		t.counts = map[string]uint64{}
	}
	t.counts[reason]++
}

func (t *tally) snapshot() map[string]uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return maps.Clone(t.counts)
}
