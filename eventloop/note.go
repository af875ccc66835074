//go:build linux

package eventloop

import "sync/atomic"

// A Note tells an object on a loop that there is something for it. It is embedded in the object; how many notes can be
// queued is therefore bounded by how many objects there are. Its zero value is ready. A Note must not be copied.
type Note struct {
	next   *Note
	to     Receiver
	queued atomic.Bool
}

// A Receiver is told of notes on its loop.
type Receiver interface {
	// Receive is called once for any number of posts since it was called last. It must not block.
	Receive(n *Note)
}

// Address says whom n reaches. It must be called before n is posted for the first time and not while n is queued.
func (n *Note) Address(to Receiver) { n.to = to }

// Post queues n, to be received on the loop after the events of its current turn, and reports whether it will be: a loop that
// does not run takes none. A note that is queued is not queued again, not on another loop either; what the poster has written before is
// seen by the receiver if it is guarded by a mutex or atomic. Post never blocks and may be called by anyone.
func (l *Loop) Post(n *Note) bool {
	if !n.queued.CompareAndSwap(false, true) {
		return true
	}
	for {
		head := l.inbox.Load()
		if head == &l.closed {
			n.queued.Store(false)
			return false
		}
		n.next = head
		if l.inbox.CompareAndSwap(head, n) {
			break
		}
	}
	l.rouse()
	return true
}

// Do runs f on the loop, waits for it and returns true; false if the loop does not run. It must not be called on a
// loop, where it would wait for itself.
func (l *Loop) Do(f func()) bool {
	c := &call{f: f, done: make(chan struct{})}
	c.Address(c)
	if !l.Post(&c.Note) {
		return false
	}
	<-c.done
	return true
}

// A call is a function that someone waits for.
type call struct {
	Note
	f    func()
	done chan struct{}
}

// Receive implements Receiver.
func (c *call) Receive(*Note) {
	defer close(c.done) // also after a panic
	c.f()
}

// receive calls the receivers of what is in the inbox now.
func (l *Loop) receive() {
	if l.noted == nil {
		if l.inbox.Load() == nil {
			return
		}
		l.noted = reversed(l.inbox.Swap(nil))
	}
	l.drain()
}

// drain calls the receivers of what was taken out of the inbox. After a panic it goes on with the next.
func (l *Loop) drain() {
	for l.noted != nil {
		n := l.noted
		l.noted, n.next = n.next, nil
		l.calling = n.to
		n.queued.Store(false)
		n.to.Receive(n)
	}
	l.calling = nil
}

// reversed returns the list with its first note last.
func reversed(list *Note) *Note {
	var first *Note
	for list != nil {
		next := list.next
		list.next, first = first, list
		list = next
	}
	return first
}
