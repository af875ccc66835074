package bus

import (
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"mainstay/bus/zmtp"
	"mainstay/topology"
)

// pair returns the two ends of a TCP connection, of which the first's send buffer is small.
func pair(t *testing.T) (near, far *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dialed, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dialed.Close(); accepted.Close() })
	near, far = accepted.(*net.TCPConn), dialed.(*net.TCPConn)
	near.SetWriteBuffer(32 << 10)
	far.SetReadBuffer(32 << 10)
	return near, far
}

type outboxTest struct {
	*outbox
	t         *testing.T
	near, far *net.TCPConn
	done      sync.WaitGroup
	messages  int
}

func newOutboxTest(t *testing.T) *outboxTest {
	near, far := pair(t)
	raw, err := near.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	o := &outboxTest{t: t, near: near, far: far}
	o.outbox = newOutbox(raw, func() { near.Close() }, &slabs{}, &stats{}, &o.done)
	t.Cleanup(func() {
		o.close()
		near.Close()
		o.done.Wait()
		o.mu.Lock()
		defer o.mu.Unlock()
		if o.bytes != 0 || o.queue.len() != 0 || len(o.inFlight) != 0 || o.writing {
			t.Errorf("after its end the outbox holds %d bytes", o.bytes)
		}
		if sum := o.delivered + o.dropped; sum != uint64(o.messages) {
			t.Errorf("%d delivered + %d dropped of %d messages", o.delivered, o.dropped, o.messages)
		}
	})
	return o
}

// offer sends messages of the given size, numbered from the first one ever offered, in one batch.
func (o *outboxTest) offer(q topology.Queue, count, size int) bool {
	s := (&slabs{}).take(largeSlab)
	var r run
	encoded := s.buf[:0]
	for range count {
		body := fmt.Appendf(nil, "%06d", o.messages)
		encoded = zmtp.AppendMessage(encoded, append(body, make([]byte, size-len(body))...))
		o.messages++
	}
	s.buf = encoded[:cap(encoded)]
	r = run{0, len(encoded), count}
	return o.send(s, []run{r}, &q)
}

// fill offers messages until the socket is full and n of them wait.
func (o *outboxTest) fill(q topology.Queue, size, n int) {
	o.t.Helper()
	for waiting := 0; waiting < n; {
		if !o.offer(q, 1, size) {
			o.t.Fatal("the queue is full already")
		}
		o.mu.Lock()
		waiting = int(o.bytes) / size
		o.mu.Unlock()
	}
}

// received reads the numbers of all messages that wait.
func (o *outboxTest) received() []int {
	var parting sync.WaitGroup
	defer parting.Wait()
	parting.Go(func() {
		o.drain(context.Background())
		o.near.CloseWrite()
	})
	encoded, err := io.ReadAll(o.far)
	if err != nil {
		o.t.Fatal(err)
	}
	var numbers []int
	for len(encoded) > 0 {
		size := zmtp.MessageLen(encoded)
		var n int
		fmt.Sscanf(string(zmtp.Frames(encoded[:size])[0][:6]), "%d", &n)
		numbers = append(numbers, n)
		encoded = encoded[size:]
	}
	return numbers
}

func consecutive(from, to int) []int {
	var numbers []int
	for n := from; n < to; n++ {
		numbers = append(numbers, n)
	}
	return numbers
}

func TestDropNewest(t *testing.T) {
	o := newOutboxTest(t)
	q := topology.Queue{Limit: 1 << 20, WhenFull: topology.DropNewest}
	const size = 1000
	o.fill(q, size, 500)
	for range 100 {
		o.offer(q, 20, size)
	}
	a := o.account()
	if a.bytes > q.Limit || a.dropped == 0 {
		t.Errorf("%d bytes queued of %d, %d dropped", a.bytes, q.Limit, a.dropped)
	}
	got := o.received()
	if len(got) != o.messages-int(a.dropped) || !slices.IsSorted(got) {
		t.Errorf("got %d of %d messages in order: %v; %d dropped", len(got), o.messages, slices.IsSorted(got), a.dropped)
	}
	oldest := consecutive(0, int(q.Limit)*9/10/size)
	if diff := cmp.Diff(oldest, got[:len(oldest)]); diff != "" {
		t.Errorf("the oldest (-want +got):\n%s", diff)
	}
}

func TestDropOldest(t *testing.T) {
	o := newOutboxTest(t)
	q := topology.Queue{Limit: 256 << 10, WhenFull: topology.DropOldest}
	const size = 1000
	o.fill(q, size, 200)
	for range 100 {
		o.offer(q, 20, size)
	}
	a := o.account()
	if a.bytes > q.Limit || a.bytes < q.Limit-2*size || a.dropped == 0 {
		t.Errorf("%d bytes queued of %d, %d dropped", a.bytes, q.Limit, a.dropped)
	}
	got := o.received()
	if len(got) != o.messages-int(a.dropped) || !slices.IsSorted(got) {
		t.Errorf("got %d of %d messages in order: %v; %d dropped", len(got), o.messages, slices.IsSorted(got), a.dropped)
	}
	// What is being written cannot be dropped any more, half the limit or a little more; the rest is the newest.
	newest := consecutive(o.messages-int(q.Limit)/4/size, o.messages)
	if diff := cmp.Diff(newest, got[len(got)-len(newest):]); diff != "" {
		t.Errorf("the newest (-want +got):\n%s", diff)
	}
}

func TestDropOldestSparesTheQueueFromWhatCannotFit(t *testing.T) {
	o := newOutboxTest(t)
	o.fill(topology.Queue{Limit: 1 << 20, WhenFull: topology.DropOldest}, 1000, 20)
	before := o.account()
	o.offer(topology.Queue{Limit: 30_000, WhenFull: topology.DropOldest}, 1, 40_000)
	if a := o.account(); a.bytes != before.bytes || a.dropped != 1 {
		t.Errorf("%d bytes queued, %d before; %d dropped", a.bytes, before.bytes, a.dropped)
	}
}

// What is in flight is as little to be dropped for a large message as it is to be waited for.
func TestDropOldestSparesTheQueueFromWhatCannotFitBesideTheInFlight(t *testing.T) {
	o := newOutboxTest(t)
	q := topology.Queue{Limit: 64 << 10, WhenFull: topology.DropOldest}
	o.fill(q, 1000, 60)
	before := o.account()
	o.offer(q, 1, int(q.Limit)-100)
	if a := o.account(); a.bytes != before.bytes || a.dropped != before.dropped+1 {
		t.Errorf("%d bytes queued, %d before; %d dropped", a.bytes, before.bytes, a.dropped-before.dropped)
	}
}

// Messages that share their publisher's memory and small ones in turn.
func TestQueueHoldsLittleMoreThanItsMessages(t *testing.T) {
	o := newOutboxTest(t)
	q := topology.Queue{Limit: 1 << 20, WhenFull: topology.DropNewest}
	for o.account().dropped == 0 {
		o.offer(q, 1, largeSlab/2)
		o.offer(q, 1, 10)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	held := 0
	for _, s := range o.queue.segments[o.queue.head:] {
		held += len(s.slab.buf)
	}
	if most := 3 * int(o.bytes); held > most {
		t.Errorf("%d bytes of memory held for at most %d of messages", held, o.bytes)
	}
}

func TestDisconnectWhenFull(t *testing.T) {
	o := newOutboxTest(t)
	q := topology.Queue{Limit: 64 << 10, WhenFull: topology.Disconnect}
	o.fill(q, 1000, 30)
	if o.offer(q, 60, 1000) {
		t.Error("a queue that is too full is no reason to disconnect")
	}
}

func TestOutboxOfDeadPeer(t *testing.T) {
	o := newOutboxTest(t)
	q := topology.Queue{Limit: 1 << 20, WhenFull: topology.DropNewest}
	o.fill(q, 1000, 100)
	o.far.SetLinger(0)
	o.far.Close()
	o.done.Wait()
	o.offer(q, 10, 1000)
	if a := o.account(); a.bytes != 0 || a.dropped <= 10 {
		t.Errorf("%d bytes queued for a dead peer, %d dropped", a.bytes, a.dropped)
	}
}

func TestCommandsOvertakeMessages(t *testing.T) {
	o := newOutboxTest(t)
	q := topology.Queue{Limit: 16 << 20, WhenFull: topology.DropNewest}
	o.fill(q, 1000, 8000)
	for range 10_000 {
		o.sendCommand(zmtp.AppendPong(nil, []byte("hello")))
	}
	d := zmtp.NewDecoder(zmtp.DefaultLimits(), make([]byte, 1<<20))
	for messages := 0; ; {
		kind, err := d.Next()
		switch {
		case err != nil:
			t.Fatal(err)
		case kind == zmtp.Message:
			messages++
		case kind == zmtp.Command:
			if messages > 2000 || string(d.Data()) != "hello" {
				t.Errorf("%s %q came after %d messages", d.Name(), d.Data(), messages)
			}
			return
		default:
			d.Rewind()
			n, err := io.ReadAtLeast(o.far, d.Free(), 1)
			if err != nil {
				t.Fatal(err)
			}
			d.Wrote(n)
		}
	}
}

// After draining the connection may be half closed: another write would break it.
func TestNoCommandAfterDrain(t *testing.T) {
	o := newOutboxTest(t)
	o.sendCommand(zmtp.AppendPong(nil, nil))
	o.drain(context.Background())
	o.near.CloseWrite()
	o.sendCommand(zmtp.AppendPong(nil, nil))
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err != nil {
		t.Errorf("write after the last one: %v", o.err)
	}
}

func TestDrain(t *testing.T) {
	o := newOutboxTest(t)
	q := topology.Queue{Limit: 1 << 20, WhenFull: topology.DropNewest}
	o.fill(q, 1000, 100)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	o.drain(ctx)
	if o.account().bytes == 0 {
		t.Error("nothing waited")
	}
	go io.Copy(io.Discard, o.far)
	o.drain(context.Background())
	if a := o.account(); a.bytes != 0 || a.dropped != 0 {
		t.Errorf("after draining %d bytes are queued, %d messages dropped", a.bytes, a.dropped)
	}
}
