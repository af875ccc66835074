//go:build linux

package eventloop

import (
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

type counter struct {
	Note
	posted   atomic.Int64
	received int64
	calls    int
}

func (c *counter) Receive(*Note) {
	c.received = c.posted.Load()
	c.calls++
}

// TestNotes posts from many goroutines: whatever is written before a post is seen, and posts of what is queued are one.
func TestNotes(t *testing.T) {
	g := newGroup(t, 2)
	counters := make([]counter, 4)
	var posters sync.WaitGroup
	for i := range counters {
		c := &counters[i]
		c.Address(c)
		for range 4 {
			posters.Go(func() {
				for range 5000 {
					c.posted.Add(1)
					if !g.Loops()[i%2].Post(&c.Note) {
						t.Error("not posted")
					}
				}
			})
		}
	}
	posters.Wait()
	for i := range counters {
		c := &counters[i]
		do(t, g.Loops()[i%2], func() {
			if c.received != 20000 {
				t.Errorf("%d of 20000 were received", c.received)
			}
			if c.calls > 20000 {
				t.Errorf("received %d times", c.calls)
			}
		})
	}
}

type ordered struct {
	Note
	i    int
	into *[]int
}

func (o *ordered) Receive(*Note) { *o.into = append(*o.into, o.i) }

func TestNotesInOrder(t *testing.T) {
	g := newGroup(t, 1)
	l := g.Loops()[0]
	var got, want []int
	notes := make([]ordered, 100)
	do(t, l, func() { // all are queued when the first is received
		for i := range notes {
			notes[i].i, notes[i].into = i, &got
			notes[i].Address(&notes[i])
			l.Post(&notes[i].Note)
			l.Post(&notes[i].Note)
			want = append(want, i)
		}
	})
	do(t, l, func() {})
	if !slices.Equal(got, want) {
		t.Errorf("received %v", got)
	}
}

// TestStop checks that what was posted before Stop is received, that nothing is afterwards, and that what is open is closed.
func TestStop(t *testing.T) {
	g := New(2, nil)
	if g.Loops()[0].Do(func() {}) {
		t.Error("a loop that was not started has done something")
	}
	if err := g.Start(); err != nil {
		t.Fatal(err)
	}
	if err := g.Start(); err == nil {
		t.Error("started twice")
	}
	c := adopt(t, g.Loops()[1], &probe{})
	var received atomic.Int64
	var posters sync.WaitGroup
	var accepted atomic.Int64
	for range 4 {
		posters.Go(func() {
			for g.Loops()[0].Do(func() { received.Add(1) }) {
				accepted.Add(1)
			}
		})
	}
	ticker := time.NewTicker(time.Millisecond)
	defer ticker.Stop()
	for received.Load() < 100 {
		<-ticker.C
	}
	g.Stop()
	g.Stop()
	posters.Wait()
	if received.Load() != accepted.Load() {
		t.Errorf("%d posts were accepted, %d received", accepted.Load(), received.Load())
	}
	if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("a connection is open after Stop: %d, %v", n, err)
	}
	if err := g.Start(); err == nil {
		t.Error("started after Stop")
	}
}
