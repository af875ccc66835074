//go:build linux

package eventloop

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// await waits for something to do and takes it from the kernel.
func (l *Loop) await() {
	l.count, l.cursor = 0, 0
	l.resumed, l.again = l.again, l.resumed[:0]
	l.resume = 0
	timeout := l.wheel.wait(l.elapsed)
	if len(l.resumed) > 0 {
		timeout = 0
	}
	if timeout != 0 {
		l.sleeping.Store(true)
		if l.inbox.Load() != nil {
			timeout = 0
		}
	}
	if timeout == 0 {
		l.count = l.poll()
	} else {
		l.count = l.block(timeout)
	}
	l.sleeping.Store(false)
	l.tell()
}

// poll takes the events there are.
func (l *Loop) poll() int {
	n, _, errno := syscall.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(l.epoll), uintptr(unsafe.Pointer(&l.events[0])), batch, 0, 0, 0)
	if errno != 0 {
		return 0 // EINTR
	}
	return int(n)
}

// block waits so many milliseconds for an event, without end if they are negative.
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
			unix.Write(l.wake, one[:]) // fails only after 2⁶⁴ writes
		}
	}
}
