package bus

import (
	"sync"
	"sync/atomic"
)

// The two sizes of pooled slabs. Small ones are what idle connections and short queues hold.
const (
	smallSlab = 8 << 10
	largeSlab = 64 << 10
)

// A slab is memory for encoded messages: what a publisher's bytes are read into, what short runs of
// messages are copied into. It may be held in several places, each of which retains it once, and
// goes back to its pool when the last one releases it.
type slab struct {
	buf  []byte
	refs atomic.Int32
	pool *slabs
}

func (s *slab) retain() { s.refs.Add(1) }

func (s *slab) release() {
	if s.refs.Add(-1) == 0 {
		s.pool.put(s)
	}
}

// shared reports whether anyone but the caller, who holds s, holds it too.
func (s *slab) shared() bool { return s.refs.Load() > 1 }

// slabs is a pool of slabs. The zero value is ready.
type slabs struct {
	small, large sync.Pool
}

// slabSize returns the size of the slab that take returns for size.
func slabSize(size int) int {
	switch {
	case size <= smallSlab:
		return smallSlab
	case size <= largeSlab:
		return largeSlab
	}
	return size
}

// take returns a slab of at least size bytes, held once.
func (p *slabs) take(size int) *slab {
	size = slabSize(size)
	var s *slab
	switch size {
	case smallSlab:
		s, _ = p.small.Get().(*slab)
	case largeSlab:
		s, _ = p.large.Get().(*slab)
	}
	if s == nil {
		s = &slab{buf: make([]byte, size), pool: p}
	}
	s.refs.Store(1)
	return s
}

// put keeps s for later, unless it was made for one large message.
func (p *slabs) put(s *slab) {
	switch len(s.buf) {
	case smallSlab:
		p.small.Put(s)
	case largeSlab:
		p.large.Put(s)
	}
}
