package proxy

import (
	"context"
	"sync"
)

// A fate lets other goroutines end a request, or an attempt of it alone, while the exchange waits for something.
type fate struct {
	mu      sync.Mutex
	why     reason // the request was ended
	gaveUp  reason // the attempt was
	severed bool   // what the attempt waits for was interrupted
	wait    interruptible
}

// An interruptible is what an exchange waits for. What was interrupted stays so.
type interruptible interface{ interrupt() }

// A calling is a connection that is being established.
type calling struct{ cancel context.CancelFunc }

func (c calling) interrupt() { c.cancel() }

// begin begins an attempt.
func (f *fate) begin() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.gaveUp, f.severed, f.wait = reasonNone, false, nil
}

// hold says what the attempt waits for from now on. It returns false if it is not to.
func (f *fate) hold(w interruptible) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.wait = w
	return f.why == reasonNone && f.gaveUp == reasonNone && !f.severed
}

// release says that nothing is waited for. It returns false if what was had been interrupted.
func (f *fate) release() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.wait = nil
	return !f.severed
}

// end ends the request.
func (f *fate) end(why reason) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.why = why
	f.severLocked()
}

// giveUp ends the attempt.
func (f *fate) giveUp(why reason) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.gaveUp = why
	f.severLocked()
}

// leave interrupts what is waited for because the request's context has ended.
func (f *fate) leave() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.severLocked()
}

// sever interrupts w, if that is what is waited for.
func (f *fate) sever(w interruptible) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.wait == w {
		f.severLocked()
	}
}

func (f *fate) severLocked() {
	f.severed = true
	if f.wait != nil {
		f.wait.interrupt()
	}
}

// reasons returns why the request and why the attempt was ended.
func (f *fate) reasons() (request, attempt reason) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.why, f.gaveUp
}
