package bus

import (
	"context"
	"sync"
	"syscall"

	"mainstay/bus/zmtp"
	"mainstay/topology"
)

const (
	maxInFlight = 256 << 10 // bytes taken out of the queue for one write, or half the queue's limit
	maxControl  = 4 << 10   // bytes of commands that wait; a peer with so many unread has no use for more
	inlineTurns = 2         // writes a publisher's goroutine does for one outbox before it hands over
)

// An outbox is what waits to be written to one peer: a queue of messages, bounded in bytes, and beside it
// a few commands, which go first.
//
// Whoever puts something in writes it too if the socket takes it at once; only when the socket is
// full does a goroutine wait for it, and only until the queue is empty. So nobody
// is ever held up by a peer that does not read, and no goroutine is kept for one that does.
type outbox struct {
	raw    syscall.RawConn
	hangUp func() // closes the connection
	slabs  *slabs
	stats  *stats
	done   *sync.WaitGroup // holds the writing goroutine

	// What is being written belongs to the one goroutine that set writing. Others may see under mu which
	// segments there are.
	inFlight []segment
	written  int  // segments of inFlight that are done with
	wait     bool // for the socket, instead of giving up when it is full
	err      error
	step     func(fd uintptr) bool

	mu        sync.Mutex
	queue     fifo
	control   []byte
	bytes     int64 // of messages in queue and inFlight
	window    int64 // bytes to take out of the queue for one write: what is in flight can no longer be dropped
	writing   bool
	closed    bool
	ending    bool          // no more messages are taken, those that wait are still written
	idle      chan struct{} // closed when writing ends, if somebody waits for that
	delivered uint64
	dropped   uint64
}

// A segment is a run of whole encoded messages in a slab, or commands without one.
type segment struct {
	data     []byte
	sent     int // bytes of data, by the goroutine that writes
	messages int
	slab     *slab
	own      bool // the slab is this segment's alone and has room behind data
}

// A run is whole messages that lie side by side in a publisher's slab.
type run struct{ start, end, messages int }

func newOutbox(raw syscall.RawConn, hangUp func(), slabs *slabs, stats *stats, done *sync.WaitGroup) *outbox {
	o := &outbox{raw: raw, hangUp: hangUp, slabs: slabs, stats: stats, done: done}
	o.step = o.writeSome
	return o
}

// send queues the runs of s as far as q allows and writes what the socket takes at once.
// It reports false if the peer has to go because its queue is full.
func (o *outbox) send(s *slab, runs []run, q *topology.Queue) bool {
	o.mu.Lock()
	o.window = min(maxInFlight, q.Limit/2)
	fits := true
	for _, r := range runs {
		if o.closed || o.ending || !fits {
			o.dropLocked(r.messages, dropDisconnected)
			continue
		}
		if o.bytes+int64(r.end-r.start) <= q.Limit {
			o.appendLocked(s, r)
			continue
		}
		fits = o.squeezeLocked(s, r, q)
	}
	start := o.claimLocked()
	o.mu.Unlock()
	if start {
		o.write(inlineTurns)
	}
	return fits
}

// sendCommand queues an encoded command ahead of all messages that wait. After drain there is no place for it.
func (o *outbox) sendCommand(encoded []byte) {
	o.mu.Lock()
	drained := o.ending && !o.writing
	if !o.closed && !drained && len(o.control)+len(encoded) <= maxControl {
		o.control = append(o.control, encoded...)
	}
	start := o.claimLocked()
	o.mu.Unlock()
	if start {
		o.write(inlineTurns)
	}
}

// claimLocked reports whether the caller has to write, as there is something to write and nobody does.
func (o *outbox) claimLocked() bool {
	if o.writing || o.closed || o.queue.len() == 0 && len(o.control) == 0 {
		return false
	}
	o.writing = true
	return true
}

// squeezeLocked queues the messages of r one by one, as not all of them fit. It reports false if the policy
// is to disconnect; the rest of r is counted as dropped then.
func (o *outbox) squeezeLocked(s *slab, r run, q *topology.Queue) bool {
	for r.messages > 0 {
		size := zmtp.MessageLen(s.buf[r.start:r.end])
		if q.WhenFull == topology.DropOldest && o.inFlightLocked()+int64(size) <= q.Limit {
			for o.bytes+int64(size) > q.Limit && o.queue.len() > 0 {
				o.dropOldestLocked()
			}
		}
		fits := o.bytes+int64(size) <= q.Limit
		if !fits && q.WhenFull == topology.Disconnect {
			o.dropLocked(r.messages, dropQueueFull)
			return false
		}
		if fits {
			o.appendLocked(s, run{r.start, r.start + size, 1})
		} else {
			o.dropLocked(1, dropQueueFull)
		}
		r.start += size
		r.messages--
	}
	return true
}

// inFlightLocked returns the bytes of messages that can no longer be dropped.
func (o *outbox) inFlightLocked() int64 {
	var n int64
	for i := range o.inFlight {
		if s := &o.inFlight[i]; s.slab != nil {
			n += int64(len(s.data))
		}
	}
	return n
}

// appendLocked queues the messages of r. A run that takes up half of its slab or more is shared with all
// others who queue it; a shorter one is copied, lest it keep the whole slab in memory.
func (o *outbox) appendLocked(s *slab, r run) {
	data := s.buf[r.start:r.end]
	o.bytes += int64(len(data))
	if len(data) >= len(s.buf)/2 {
		s.retain()
		o.queue.push(segment{data: data, slab: s, messages: r.messages})
		return
	}
	tail := o.queue.last()
	if tail == nil || !tail.own || cap(tail.data)-len(tail.data) < len(data) {
		size := len(data)
		if tail != nil && tail.own {
			size = max(size, largeSlab) // it is not read as fast as it comes: collect
		}
		own := o.slabs.take(size)
		o.queue.push(segment{data: own.buf[:0], slab: own, own: true})
		tail = o.queue.last()
	}
	tail.data = append(tail.data, data...)
	tail.messages += r.messages
}

// dropOldestLocked takes the message out of the queue that waits longest.
func (o *outbox) dropOldestLocked() {
	first := o.queue.first()
	size := zmtp.MessageLen(first.data)
	first.data = first.data[size:]
	first.messages--
	o.bytes -= int64(size)
	o.dropLocked(1, dropQueueFull)
	if first.messages == 0 {
		first.slab.release()
		o.queue.pop()
	}
}

func (o *outbox) dropLocked(messages int, why drop) {
	o.dropped += uint64(messages)
	o.stats.dropped[why].Add(uint64(messages))
}

// write empties the queue. After turns writes, or when the socket is full, a goroutine goes on with it; with
// turns 0 the caller is that goroutine and waits.
func (o *outbox) write(turns int) {
	o.wait = turns == 0
	for turn := 0; ; turn++ {
		o.mu.Lock()
		full := o.settleLocked()
		if o.closed || o.err != nil || !full && !o.refillLocked() {
			broken := o.err != nil
			o.stopLocked()
			o.mu.Unlock()
			if broken {
				o.hangUp()
			}
			return
		}
		if !o.wait && (full || turn == turns) {
			o.done.Go(func() { o.write(0) })
			o.mu.Unlock()
			return
		}
		o.mu.Unlock()
		if err := o.raw.Write(o.step); err != nil && o.err == nil {
			o.err = err
		}
	}
}

// writeSome writes what is in flight until the socket is full. It reports false to be called again when there is room.
func (o *outbox) writeSome(fd uintptr) bool {
	for o.written < len(o.inFlight) {
		s := &o.inFlight[o.written]
		n, err := syscall.Write(int(fd), s.data[s.sent:])
		switch {
		case err == syscall.EINTR:
		case err == syscall.EAGAIN:
			return !o.wait
		case err != nil:
			o.err = err
			return true
		default:
			if s.sent += n; s.sent == len(s.data) {
				o.written++
			}
		}
	}
	return true
}

// settleLocked accounts for what has been written and reports whether something in flight is left.
func (o *outbox) settleLocked() bool {
	for i := range o.written {
		s := &o.inFlight[i]
		if s.slab == nil {
			continue
		}
		o.bytes -= int64(len(s.data))
		o.deliveredLocked(s.messages, len(s.data))
		s.slab.release()
	}
	rest := copy(o.inFlight, o.inFlight[o.written:])
	clear(o.inFlight[rest:])
	o.inFlight = o.inFlight[:rest]
	o.written = 0
	return rest > 0
}

// refillLocked takes the next segments out of the queue and reports whether there were any.
func (o *outbox) refillLocked() bool {
	if len(o.control) > 0 {
		o.inFlight = append(o.inFlight, segment{data: o.control})
		o.control = nil
	}
	for size := int64(0); o.queue.len() > 0 && (size == 0 || size < o.window); {
		size += int64(len(o.queue.first().data))
		o.inFlight = append(o.inFlight, *o.queue.first())
		o.queue.pop()
	}
	return len(o.inFlight) > 0
}

// stopLocked ends the writing. If that is because the connection ended, what was not written is dropped.
func (o *outbox) stopLocked() {
	if o.err != nil {
		o.closed = true
	}
	if o.closed {
		o.discardLocked()
	}
	o.writing = false
	if o.idle != nil {
		close(o.idle)
		o.idle = nil
	}
}

func (o *outbox) discardLocked() {
	for i := range o.inFlight {
		s := &o.inFlight[i]
		if s.slab == nil {
			continue
		}
		whole := zmtp.CountMessages(s.data, s.sent)
		o.deliveredLocked(whole, s.sent)
		o.dropLocked(s.messages-whole, dropDisconnected)
		s.slab.release()
	}
	for ; o.queue.len() > 0; o.queue.pop() {
		o.dropLocked(o.queue.first().messages, dropDisconnected)
		o.queue.first().slab.release()
	}
	o.inFlight, o.control, o.bytes = nil, nil, 0
}

func (o *outbox) deliveredLocked(messages, bytes int) {
	o.delivered += uint64(messages)
	o.stats.delivered.Add(uint64(messages))
	o.stats.deliveredBytes.Add(uint64(bytes))
}

// close drops what waits; nothing can be sent any more. The connection is to be closed after it, to end a write that waits.
func (o *outbox) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
	if !o.writing {
		o.discardLocked()
	}
}

// drain takes no more messages and returns when those that wait are written, the connection has ended, or ctx is done.
func (o *outbox) drain(ctx context.Context) {
	o.mu.Lock()
	o.ending = true
	if !o.writing {
		o.mu.Unlock()
		return
	}
	if o.idle == nil {
		o.idle = make(chan struct{})
	}
	idle := o.idle
	o.mu.Unlock()
	select {
	case <-idle:
	case <-ctx.Done():
	}
}

// An account is what an outbox has to tell.
type account struct {
	bytes              int64
	delivered, dropped uint64
}

func (o *outbox) account() account {
	o.mu.Lock()
	defer o.mu.Unlock()
	return account{o.bytes, o.delivered, o.dropped}
}

// A fifo is a queue of segments.
type fifo struct {
	segments []segment
	head     int
}

func (f *fifo) len() int        { return len(f.segments) - f.head }
func (f *fifo) push(s segment)  { f.segments = append(f.segments, s) }
func (f *fifo) first() *segment { return &f.segments[f.head] }

// last returns the newest segment, nil if there is none.
func (f *fifo) last() *segment {
	if f.len() == 0 {
		return nil
	}
	return &f.segments[len(f.segments)-1]
}

// pop removes the oldest segment. The slice is moved up once half of it is empty.
func (f *fifo) pop() {
	f.segments[f.head] = segment{}
	if f.head++; 2*f.head >= len(f.segments) {
		n := copy(f.segments, f.segments[f.head:])
		clear(f.segments[n:])
		f.segments, f.head = f.segments[:n], 0
	}
}
