//go:build linux

package eventloop

// Sizes of buffers.
const (
	SmallBuffer  = 4 << 10
	MediumBuffer = 16 << 10
	LargeBuffer  = 64 << 10
)

// A Buffer is memory that is lent by a loop: bytes that were put in and not taken out yet, and space behind them.
type Buffer struct {
	next       *Buffer
	pool       *pool
	memory     []byte
	start, end int
}

// Buffer lends a buffer with space for n bytes at least: the smallest of the three sizes that has it, or one of its own for more than
// LargeBuffer. It is empty. Give it back with Release.
func (l *Loop) Buffer(n int) *Buffer { return l.pool.lend(n) }

// Bytes returns what is in b. It is valid until b is changed.
func (b *Buffer) Bytes() []byte { return b.memory[b.start:b.end] }

// Len returns how many bytes are in b.
func (b *Buffer) Len() int { return b.end - b.start }

// Size returns how many bytes b can hold.
func (b *Buffer) Size() int { return len(b.memory) }

// Space returns the memory behind what is in b. Who has written there calls Extend.
func (b *Buffer) Space() []byte { return b.memory[b.end:] }

// Extend adds the first n bytes of Space to what is in b.
func (b *Buffer) Extend(n int) { b.end += n; _ = b.memory[:b.end] }

// Discard takes the first n bytes out of b.
func (b *Buffer) Discard(n int) {
	b.start += n
	_ = b.memory[b.start:b.end]
	if b.start == b.end {
		b.start, b.end = 0, 0
	}
}

// Truncate leaves the first n bytes in b.
func (b *Buffer) Truncate(n int) { b.end = b.start + n; _ = b.memory[b.start:b.end] }

// Compact moves what is in b to the beginning of its memory, so that all the space is behind it.
func (b *Buffer) Compact() {
	if b.start > 0 {
		b.end = copy(b.memory, b.memory[b.start:b.end])
		b.start = 0
	}
}

// Append copies as much of p behind what is in b as there is space for and returns how much that was.
func (b *Buffer) Append(p []byte) int {
	n := copy(b.memory[b.end:], p)
	b.end += n
	return n
}

// Release gives b back. Nobody may use it afterwards.
func (b *Buffer) Release() { b.pool.release(b) }

// Fill reads what there is into the space of b, which must have some. It returns what Read returns.
func (s *Socket) Fill(b *Buffer) (int, error) {
	n, err := s.Read(b.memory[b.end:])
	b.end += n
	return n, err
}

const (
	kept       = 2 << 20 // bytes of each size that a pool keeps at most
	trimPeriod = int64(1e9)
)

// A pool keeps buffers and pipes that nobody uses, for a while.
type pool struct {
	classes    [3]class
	pipes      []pipe
	pipesUsed  int
	pipesLeast int   // the fewest of pipes since the pool was trimmed
	trimmed    int64 // when that was, as Elapsed
}

// A class is the free buffers of one size.
type class struct {
	first *Buffer
	count int
	least int // the smallest count since the pool was trimmed: so many were not needed
}

func sizeOf(class int) int { return SmallBuffer << (2 * class) }

func (p *pool) lend(n int) *Buffer {
	for i := range p.classes {
		if n > sizeOf(i) {
			continue
		}
		c := &p.classes[i]
		b := c.first
		if b == nil {
			return &Buffer{pool: p, memory: make([]byte, sizeOf(i))}
		}
		c.first, b.next = b.next, nil
		c.count--
		c.least = min(c.least, c.count)
		return b
	}
	return &Buffer{pool: p, memory: make([]byte, n)}
}

func (p *pool) release(b *Buffer) {
	b.start, b.end = 0, 0
	for i := range p.classes {
		c := &p.classes[i]
		if len(b.memory) == sizeOf(i) {
			if c.count < kept/sizeOf(i) {
				b.next, c.first = c.first, b
				c.count++
			}
			return
		}
	}
}

// trim lets go of half of what was not needed for some time.
func (p *pool) trim(now int64) {
	if now-p.trimmed < trimPeriod {
		return
	}
	p.trimmed = now
	for i := range p.classes {
		c := &p.classes[i]
		for range (c.least + 1) / 2 {
			c.first = c.first.next
			c.count--
		}
		c.least = c.count
	}
	for range (p.pipesLeast + 1) / 2 {
		last := len(p.pipes) - 1
		p.pipes[last].close()
		p.pipes = p.pipes[:last]
	}
	p.pipesLeast = len(p.pipes)
}

// empty reports whether nothing is kept.
func (p *pool) empty() bool {
	return p.classes[0].first == nil && p.classes[1].first == nil && p.classes[2].first == nil && len(p.pipes) == 0
}

// drop lets go of everything.
func (p *pool) drop() {
	for _, kept := range p.pipes {
		kept.close()
	}
	p.classes, p.pipes = [3]class{}, nil
}
