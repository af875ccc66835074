//go:build linux

package eventloop

import (
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// hold is how long after an event a loop waits for the next one without telling Go's scheduler.
const hold = 20 * time.Millisecond

// await waits for something to do and takes it from the kernel.
//
// A system call that may block costs far more than the call where it matters most, when there is little to do: the scheduler's monitor
// takes the processor (P) from who is in it, the loop must find another one, and the monitor, having found something to
// do, looks again every 20 µs for a while. So for some time after an event the loop waits in a raw call, holding its P; Start has added
// one for each loop, so that no goroutine misses it. The collector and the scheduler reach a loop that waits so by the signal with
// which they preempt, which ends epoll_wait; they repeat it, so that one that comes just before the call delays them by
// 100 µs. Only a loop that had nothing to do for a while blocks, and costs nothing.
func (l *Loop) await() {
	l.count, l.cursor = 0, 0
	l.resumed, l.again = l.again, l.resumed[:0]
	l.resume = 0
	timeout := l.wheel.wait(l.elapsed)
	if len(l.resumed) > 0 {
		timeout = 0
	}
	if !l.pool.empty() {
		timeout = within(timeout, trimPeriod)
	}
	if timeout != 0 {
		l.sleeping.Store(true)
		if l.inbox.Load() != nil {
			timeout = 0
		}
	}
	if held := l.held - l.elapsed; timeout == 0 || held > 0 {
		l.count = l.wait(within(timeout, max(held, 0)))
	} else {
		l.count = l.block(timeout)
	}
	l.sleeping.Store(false)
	l.tell()
	if l.count > 0 {
		l.held = l.elapsed + int64(hold)
	}
}

// within returns the smaller of milliseconds, of which negative ones are endless, and nanoseconds in milliseconds, rounded up.
func within(timeout int, held int64) int {
	milliseconds := int((held + 999_999) / 1_000_000)
	if timeout < 0 {
		return milliseconds
	}
	return min(timeout, milliseconds)
}

// wait waits so many milliseconds for events and keeps its P meanwhile. A signal ends it, without events.
func (l *Loop) wait(timeout int) int {
	n, _, errno := syscall.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(l.epoll), uintptr(unsafe.Pointer(&l.events[0])), batch, uintptr(timeout), 0, 0)
	if errno != 0 {
		return 0
	}
	return int(n)
}

// block is wait for others to use the P meanwhile. Negative milliseconds are endless.
func (l *Loop) block(timeout int) int {
	n, _, errno := syscall.Syscall6(unix.SYS_EPOLL_PWAIT, uintptr(l.epoll), uintptr(unsafe.Pointer(&l.events[0])), batch, uintptr(timeout), 0, 0)
	if errno != 0 {
		return 0
	}
	return int(n)
}

// rouse wakes the loop if it sleeps. Anyone may call it.
func (l *Loop) rouse() {
	if l.sleeping.Load() && l.sleeping.CompareAndSwap(true, false) {
		l.waking.Lock()
		defer l.waking.Unlock()
		if l.wake >= 0 { // else it has ended since
			one := [8]byte{1}
			// It does not block and fails only after 2⁶⁴ writes that nobody has seen.
			syscall.RawSyscall(unix.SYS_WRITE, uintptr(l.wake), uintptr(unsafe.Pointer(&one)), unsafe.Sizeof(one))
		}
	}
}
