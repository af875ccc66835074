//go:build linux

package eventloop

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"syscall"
	"testing"
)

// A relay moves what one socket receives to another.
type relay struct {
	from, to probe
	splice   Splice
	moved    int64
	limit    int64
	ended    chan error
}

func newRelay(t testing.TB, l *Loop, limit int64) (r *relay, in, out *net.TCPConn) {
	r = &relay{limit: limit, ended: make(chan error, 1)}
	in, out = adopt(t, l, &r.from), adopt(t, l, &r.to)
	do(t, l, func() {
		r.from.ready, r.to.ready = r.move, r.move
		r.move(0)
	})
	return r, in, out
}

func (r *relay) move(Events) {
	if !r.from.IsOpen() || !r.to.IsOpen() {
		return
	}
	n, read, write := r.splice.Move(&r.from.Socket, &r.to.Socket, r.limit-r.moved)
	r.moved += n
	switch {
	case write != nil:
		r.end(write)
	case r.splice.Waiting() > 0:
	case read != nil:
		r.end(read)
	case r.moved == r.limit:
		r.end(nil)
	case r.from.Readable() && r.to.Writable():
		r.from.Loop().Again(&r.from.Socket)
	}
}

func (r *relay) end(err error) {
	r.splice.Drop()
	r.to.Close()
	r.from.Close()
	r.ended <- err
}

func TestSplice(t *testing.T) {
	g := newGroup(t, 1)
	l := g.Loops()[0]
	sent := make([]byte, 8<<20)
	random := rand.NewChaCha8([32]byte{1})
	random.Read(sent)
	r, in, out := newRelay(t, l, int64(len(sent)))
	go in.Write(append(bytes.Clone(sent), "and what is not to be moved"...))
	received, err := io.ReadAll(out)
	if err != nil && !errors.Is(err, syscall.ECONNRESET) || sha256.Sum256(received) != sha256.Sum256(sent) {
		t.Errorf("%d bytes arrived, %v, want the %d that were sent", len(received), err, len(sent))
	}
	if err := await(t, r.ended); err != nil {
		t.Error(err)
	}
	do(t, l, func() {
		if l.pool.pipesUsed != 0 || len(l.pool.pipes) == 0 {
			t.Errorf("%d pipes are in use, %d kept", l.pool.pipesUsed, len(l.pool.pipes))
		}
	})
}

// TestSpliceEnd checks that all that came before the end is moved, and that writing to who has left is told.
func TestSpliceEnd(t *testing.T) {
	g := newGroup(t, 1)
	l := g.Loops()[0]
	r, in, out := newRelay(t, l, 1<<40)
	in.Write(make([]byte, 12345))
	in.CloseWrite()
	if n, err := io.Copy(io.Discard, out); n != 12345 || err != nil {
		t.Errorf("%d bytes arrived, %v", n, err)
	}
	if err := await(t, r.ended); err != io.EOF {
		t.Errorf("it ended with %v", err)
	}
	r, in, out = newRelay(t, l, 1<<40)
	out.SetLinger(0)
	out.Close()
	go io.Copy(in, forever{})
	if err := await(t, r.ended); err == nil || err == io.EOF {
		t.Errorf("it ended with %v", err)
	}
}

// TestSpliceStalled checks that a reader that stalls holds no more than a pipe, and that pipes are bounded.
func TestSpliceStalled(t *testing.T) {
	g := newGroup(t, 1)
	l := g.Loops()[0]
	r, in, out := newRelay(t, l, 1<<40)
	go io.Copy(in, forever{})
	until(t, l, "the pipe is full", func() bool { return r.splice.Waiting() > 0 && !r.to.Writable() })
	do(t, l, func() {
		if w := r.splice.Waiting(); w > pipeSize {
			t.Errorf("%d bytes wait", w)
		}
	})
	if _, err := io.CopyN(io.Discard, out, 10<<20); err != nil {
		t.Error(err)
	}
	do(t, l, func() {
		var output Output
		waiting := r.splice.Waiting()
		if err := r.splice.Spill(&output); err != nil || output.Size() != waiting || r.splice.open {
			t.Errorf("%d of %d bytes are spilled, %v", output.Size(), waiting, err)
		}
		output.Drop()
		l.pool.pipesUsed += pipesUsed // as if others had them all
		var other Splice
		p, q := &probe{}, &r.from
		p.Socket = Socket{loop: l, state: stateOpen | stateEvents}
		if _, err, _ := other.Move(&p.Socket, &p.Socket, 1); err != ErrNoPipe {
			t.Errorf("without a pipe: %v", err)
		}
		l.pool.pipesUsed -= pipesUsed
		r.splice.Drop()
		q.Close()
	})
}
