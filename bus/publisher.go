package bus

import (
	"sync/atomic"

	"mainstay/bus/zmtp"
	"mainstay/topology"
)

const maxIdleRuns = 256 // that an empty parcel keeps memory for

// A publisher reads messages from one peer and hands each to the subscribers that want it. Messages
// stay in the slab they were read into, encoded as they came; what is noted for each subscriber is where they lie.
// Once a read is through, every subscriber concerned is given all of its messages in one step.
type publisher struct {
	*peer
	table *table
	queue *atomic.Pointer[topology.Queue]
	stats *stats
	slabs *slabs

	slab    *slab
	dec     *zmtp.Decoder
	reader  readSize
	matched [][]*subscriber
	parcels []parcel // by subscriber's id
	touched []int    // ids whose parcels are not empty
	serial  uint64   // of the message under way
	pongs   []byte
}

// A parcel is what one read brought for one subscriber.
type parcel struct {
	to     *subscriber
	serial uint64 // of its last message: a subscriber may match by several prefixes
	runs   []run
}

func newPublisher(p *peer, r *relay) *publisher {
	s := r.slabs.take(smallSlab)
	limits := zmtp.DefaultLimits()
	limits.Message = r.limits.message
	return &publisher{
		peer: p, table: &r.table, queue: &r.queue, stats: &r.stats, slabs: r.slabs,
		slab: s, dec: zmtp.NewDecoder(limits, s.buf), reader: readSize{size: smallSlab},
	}
}

// run relays until the connection ends. It subscribes to everything: what
// is wanted is decided here, where it can change without a round trip.
func (p *publisher) run() error {
	defer func() { p.slab.release() }()
	p.out.sendCommand(zmtp.AppendSubscribe(nil, p.said, nil))
	for {
		room := p.dec.Free()
		n, err := p.conn.Read(room)
		if n > 0 {
			p.dec.Wrote(n)
			if err := p.relay(); err != nil {
				return err
			}
			p.reader.note(n, len(room))
			p.makeRoom()
		}
		if err != nil {
			return err
		}
	}
}

// relay hands on all messages that are whole. A message that its publisher did not finish is never seen by anyone.
func (p *publisher) relay() error {
	if !p.pulse.heard.Load() {
		p.pulse.heard.Store(true)
	}
	err := p.sort()
	q := p.queue.Load()
	for _, id := range p.touched {
		c := &p.parcels[id]
		if !c.to.out.send(p.slab, c.runs, q) {
			c.to.hangUp(causeQueueFull)
		}
		c.to, c.runs = nil, c.runs[:0]
		if cap(c.runs) > maxIdleRuns {
			c.runs = nil
		}
	}
	p.touched = p.touched[:0]
	if len(p.pongs) > 0 {
		p.out.sendCommand(p.pongs)
		p.pongs = p.pongs[:0]
	}
	return err
}

// sort makes up the parcels.
func (p *publisher) sort() error {
	p.table.mu.RLock()
	defer p.table.mu.RUnlock()
	var messages, bytes int
	defer func() {
		p.stats.received.Add(uint64(messages))
		p.stats.receivedBytes.Add(uint64(bytes))
	}()
	for {
		kind, err := p.dec.Next()
		switch {
		case err != nil || kind == zmtp.None:
			return err
		case kind == zmtp.Command:
			if p.pongs, err = p.answer(p.dec, p.pongs); err != nil {
				return err
			}
		default:
			start, end := p.dec.Span()
			messages++
			bytes += end - start
			p.serial++
			p.matched = p.table.matchLocked(p.dec.Topic(), p.matched[:0])
			for _, subscribers := range p.matched {
				for _, s := range subscribers {
					p.add(s, start, end)
				}
			}
		}
	}
}

// add puts the message at start to end into the parcel of s, once.
func (p *publisher) add(s *subscriber, start, end int) {
	for s.id >= len(p.parcels) {
		p.parcels = append(p.parcels, parcel{})
	}
	c := &p.parcels[s.id]
	if c.serial == p.serial {
		return
	}
	c.serial = p.serial
	if c.to == nil {
		c.to = s
		p.touched = append(p.touched, s.id)
	}
	if n := len(c.runs); n > 0 && c.runs[n-1].end == start {
		c.runs[n-1].end = end
		c.runs[n-1].messages++
		return
	}
	c.runs = append(c.runs, run{start, end, 1})
}

// makeRoom prepares the next read. A slab that a subscriber holds now is left to it. One that an
// unfinished message fills is replaced by one at most twice as large as what has
// come: memory follows the bytes, not the size that a header announces.
func (p *publisher) makeRoom() {
	want := p.reader.size
	have, pending, need := p.dec.Cap(), p.dec.Pending(), p.dec.Need()
	if pending > want/2 {
		want = max(want, have)
		if want-pending < want/4 && (need <= pending || need > want) {
			want = 2 * pending
			if need > pending {
				want = min(want, need)
			}
		}
	}
	if !p.slab.shared() && have == slabSize(want) {
		p.dec.Rewind()
		return
	}
	next := p.slabs.take(want)
	p.dec.Swap(next.buf)
	p.slab.release()
	p.slab = next
}

// A readSize follows how much comes at a time, so that idle peers hold little memory and busy ones read much.
type readSize struct {
	size  int
	small int // reads in a row that a small slab would have done for
}

// note says that a read returned n bytes into that much room.
func (r *readSize) note(n, room int) {
	const patience = 64
	switch {
	case n == room:
		r.size, r.small = largeSlab, 0
	case n > smallSlab/2:
		r.small = 0
	default:
		if r.small++; r.small == patience {
			r.size = smallSlab
		}
	}
}
