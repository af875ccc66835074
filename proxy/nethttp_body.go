package proxy

import (
	"errors"
	"io"
	"sync"
	"sync/atomic"
)

// replayLimit is how much of a request's content is kept to be sent again.
const replayLimit = 64 << 10

var (
	errBodyClosed = errors.New("the attempt is over")
	errBodySpent  = errors.New("the content cannot be sent again")
)

// A requestBody is the content of a client's request, which every attempt reads from its beginning: as long as it is
// small, what was read is kept. It outlives the attempts; reads of the client never overlap.
type requestBody struct {
	source io.Reader
	before func()        // is called before each read of the client
	after  func(n int)   // is called after each, with what it brought
	late   func() bool   // reports whether the client had its time for the last read
	rouse  func()        // makes a read of the client that waits return
	fields func() fields // the trailer section, once the content has ended

	read  atomic.Int64 // bytes that came from the client
	ended atomic.Bool  // and there are no more
	spent atomic.Bool  // some of them are not kept any more
	fault atomic.Pointer[error]
	// roused says that a time-out of a read is ours, unless the client was late just then.
	roused atomic.Bool

	mu   sync.Mutex // held while the client is read
	kept []byte
	end  error // what the client's content ended with
}

// replayable reports whether another attempt would still find everything.
func (b *requestBody) replayable() bool { return b == nil || !b.spent.Load() }

// unread reports whether the client may have more to send.
func (b *requestBody) unread() bool { return b != nil && !b.ended.Load() }

// failure returns what went wrong with reading the client, or nil.
func (b *requestBody) failure() error {
	if b == nil {
		return nil
	}
	if err := b.fault.Load(); err != nil {
		return *err
	}
	return nil
}

// attempt returns a reader of the whole content.
func (b *requestBody) attempt() *attemptBody { return &attemptBody{body: b} }

// trailer returns the trailer section, once the content has ended.
func (b *requestBody) trailer() fields {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.fields()
}

// stop makes later reads of the client fail and waits for one that is under way.
func (b *requestBody) stop() {
	if b == nil {
		return
	}
	if !b.mu.TryLock() {
		b.roused.Store(true)
		b.rouse()
		b.mu.Lock()
	}
	defer b.mu.Unlock()
	if b.end == nil {
		b.end = errBodyClosed
	}
}

// keep remembers what was read, or, when that becomes too much, forgets all.
func (b *requestBody) keep(p []byte) {
	switch {
	case b.spent.Load():
	case len(b.kept)+len(p) > replayLimit:
		b.spent.Store(true)
		b.kept = nil
	default:
		b.kept = append(b.kept, p...)
	}
	b.read.Add(int64(len(p)))
}

// An attemptBody is a requestBody as one attempt reads it.
type attemptBody struct {
	body   *requestBody
	at     int64
	closed atomic.Bool
}

// Read implements io.Reader.
func (a *attemptBody) Read(p []byte) (int, error) {
	b := a.body
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case a.closed.Load():
		return 0, errBodyClosed
	case a.at < int64(len(b.kept)):
		n := copy(p, b.kept[a.at:])
		a.at += int64(n)
		return n, nil
	case a.at != b.read.Load():
		return 0, errBodySpent
	case b.end != nil:
		return 0, b.end
	}
	b.before()
	if b.roused.Load() { // before may have given the read more time since
		b.rouse()
	}
	n, err := b.source.Read(p)
	late := isTimeout(err) && b.late()
	b.after(n)
	b.keep(p[:n])
	b.end = err
	if err == io.EOF {
		b.ended.Store(true)
	} else if err != nil && (late || !isTimeout(err) || !b.roused.Load()) {
		b.fault.Store(&err)
	}
	if a.closed.Load() {
		return 0, errBodyClosed
	}
	a.at += int64(n)
	return n, err
}

// Close ends the attempt's reading; the client's content stays for the next.
func (a *attemptBody) Close() error {
	a.closed.Store(true)
	return nil
}
