//go:build linux

package eventloop

import (
	"errors"
	"io"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Events say why a handler is called.
type Events uint8

// What a handler can be called for. Readable and Writable are also states: they hold until a read or a write has said otherwise.
const (
	Readable   Events = 1 << iota // a read may return something, the end of the peer's data or an error included
	Writable                      // a write may take something
	PeerClosed                    // the peer will send nothing more; what it sent is still to be read
	Failed                        // the connection is broken, or was not made
	Connected                     // the connection that Connect began is made
	Resumed                       // Again was asked for
)

// A Handler is who a socket belongs to.
type Handler interface {
	// Ready is called at most once in a loop's turn, when something has come about: events holds all that hold now. What is not read
	// or written then is not told again; the handler asks for Again or waits for the rest. It must not block.
	Ready(events Events)
}

// A Socket is a stream connection on a loop. It is embedded in what the protocol knows of the connection. Its zero value is closed.
// After Close or Detach it can be used for another connection. It must not be copied.
type Socket struct {
	loop       *Loop
	handler    Handler
	fd         int32
	slot       uint32
	generation uint32
	state      socketState
	errno      uint16 // of a connection that was not made
}

type socketState uint16

// The lowest bits are Events.
const (
	stateEvents     = socketState(Readable | Writable | PeerClosed | Failed)
	stateOpen       = socketState(1 << 8)
	stateAgain      = socketState(1 << 9)
	stateConnecting = socketState(1 << 10)
	stateAdopted    = socketState(1 << 11)
	stateEnded      = socketState(1 << 12) // CloseWrite was called
)

// allEvents is what a socket is registered for, once.
const allEvents = unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET

// errClosed is what reading and writing a closed socket returns.
var errClosed = errors.New("the socket is closed")

// Adopt makes s the connection of fd, which is the loop's from then on, and counts it among the loop's connections. Its handler is
// called in the next turn. On an error fd is still the caller's.
func (l *Loop) Adopt(s *Socket, fd int, handler Handler) error {
	if err := unix.SetNonblock(fd, true); err != nil {
		return os.NewSyscallError("fcntl", err)
	}
	if err := l.register(s, fd, handler, stateAdopted|socketState(Writable)); err != nil {
		return err
	}
	l.connections.Add(1)
	return nil
}

// register gives s a slot and has the kernel tell of fd.
func (l *Loop) register(s *Socket, fd int, handler Handler, state socketState) error {
	if s.state&stateOpen != 0 {
		return errors.New("watch descriptor: its socket has another")
	}
	slot := uint32(len(l.slots))
	if n := len(l.free); n > 0 {
		slot, l.free = l.free[n-1], l.free[:n-1]
	} else {
		l.slots = append(l.slots, nil)
	}
	l.generation++
	*s = Socket{loop: l, handler: handler, fd: int32(fd), slot: slot, generation: l.generation, state: state | stateOpen}
	if err := l.watch(unix.EPOLL_CTL_ADD, fd, allEvents, s.key()); err != nil {
		*s = Socket{}
		l.free = append(l.free, slot)
		return err
	}
	l.slots[slot] = s
	return nil
}

// key identifies s as it is used now among all sockets that the loop had.
func (s *Socket) key() uint64 { return uint64(s.slot) | uint64(s.generation)<<32 }

// find returns the socket with the key, nil if it was closed since.
func (l *Loop) find(key uint64) *Socket {
	slot := uint32(key)
	if int(slot) >= len(l.slots) {
		return nil
	}
	if s := l.slots[slot]; s != nil && s.generation == uint32(key>>32) {
		return s
	}
	return nil
}

// dispatch tells the socket that e is about.
func (l *Loop) dispatch(e *unix.EpollEvent) {
	key := keyOf(e)
	s := l.find(key)
	if s == nil {
		l.special(key)
		return
	}
	var events socketState
	if e.Events&(unix.EPOLLIN|unix.EPOLLPRI) != 0 {
		events |= socketState(Readable)
	}
	if e.Events&unix.EPOLLOUT != 0 {
		events |= socketState(Writable)
	}
	if e.Events&unix.EPOLLRDHUP != 0 {
		events |= socketState(PeerClosed | Readable)
	}
	if e.Events&(unix.EPOLLERR|unix.EPOLLHUP) != 0 {
		events |= socketState(Failed | Readable | Writable)
	}
	s.state |= events
	if s.state&stateConnecting != 0 {
		l.connected(s)
		return
	}
	l.call(s, 0)
}

// call calls the handler of s.
func (l *Loop) call(s *Socket, more Events) {
	if s.state&stateAgain != 0 {
		s.state &^= stateAgain
		more |= Resumed
	}
	l.calling = s
	s.handler.Ready(Events(s.state&stateEvents) | more)
	l.calling = nil
}

// Loop returns the loop that s is on, nil if it is closed.
func (s *Socket) Loop() *Loop { return s.loop }

// IsOpen reports whether s has a connection, made or being made.
func (s *Socket) IsOpen() bool { return s.state&stateOpen != 0 }

// Readable reports whether Read may return something.
func (s *Socket) Readable() bool { return s.state&socketState(Readable) != 0 }

// Writable reports whether Write may take something.
func (s *Socket) Writable() bool { return s.state&socketState(Writable) != 0 }

// PeerClosed reports whether the peer has said that it will send nothing more. There may still be something to read.
func (s *Socket) PeerClosed() bool { return s.state&socketState(PeerClosed) != 0 }

// Failed reports whether the connection is broken. There may still be something to read.
func (s *Socket) Failed() bool { return s.state&socketState(Failed) != 0 }

// FD returns the descriptor, -1 if s is closed. It stays the socket's.
func (s *Socket) FD() int {
	if s.state&stateOpen == 0 {
		return -1
	}
	return int(s.fd)
}

// Read reads what there is into p, which must not be empty. It returns 0, nil if there is nothing now, and io.EOF at the end of what
// the peer sends.
func (s *Socket) Read(p []byte) (int, error) {
	if s.state&(stateOpen|socketState(Readable)) != stateOpen|socketState(Readable) {
		if s.state&stateOpen == 0 {
			return 0, errClosed
		}
		return 0, nil
	}
	for {
		n, _, errno := syscall.RawSyscall6(unix.SYS_RECVFROM, uintptr(s.fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), 0, 0, 0)
		switch {
		case errno == syscall.EINTR:
			continue
		case errno == syscall.EAGAIN:
			s.state &^= socketState(Readable)
			return 0, nil
		case errno != 0:
			s.state |= socketState(Failed)
			return 0, os.NewSyscallError("read", errno)
		case n == 0:
			s.state |= socketState(PeerClosed)
			return 0, io.EOF
		}
		// Less than asked for was all there is; more, or the end, is another event, unless the end was told already.
		if int(n) < len(p) && s.state&socketState(PeerClosed|Failed) == 0 {
			s.state &^= socketState(Readable)
		}
		return int(n), nil
	}
}

// Write writes as much of p as the socket takes now and returns how much that was, 0, nil if it takes nothing.
func (s *Socket) Write(p []byte) (int, error) {
	if s.state&(stateOpen|socketState(Writable)) != stateOpen|socketState(Writable) {
		if s.state&stateOpen == 0 {
			return 0, errClosed
		}
		return 0, nil
	}
	for {
		n, _, errno := syscall.RawSyscall6(unix.SYS_SENDTO, uintptr(s.fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), unix.MSG_NOSIGNAL, 0, 0)
		if errno == syscall.EINTR {
			continue
		}
		return s.wrote(int(n), len(p), errno)
	}
}

// parts is how many slices Writev takes at once.
const parts = 16

// Writev is Write for the slices one after the other. Those after the sixteenth are not written.
func (s *Socket) Writev(slices ...[]byte) (int, error) {
	if s.state&(stateOpen|socketState(Writable)) != stateOpen|socketState(Writable) {
		if s.state&stateOpen == 0 {
			return 0, errClosed
		}
		return 0, nil
	}
	var vectors [parts]unix.Iovec
	count, total := 0, 0
	for _, p := range slices[:min(len(slices), parts)] {
		if len(p) > 0 {
			vectors[count].Base = unsafe.SliceData(p)
			vectors[count].SetLen(len(p))
			count++
			total += len(p)
		}
	}
	message := unix.Msghdr{Iov: &vectors[0]}
	message.SetIovlen(count)
	for {
		n, _, errno := syscall.RawSyscall(unix.SYS_SENDMSG, uintptr(s.fd), uintptr(unsafe.Pointer(&message)), unix.MSG_NOSIGNAL)
		if errno == syscall.EINTR {
			continue
		}
		return s.wrote(int(n), total, errno)
	}
}

// wrote takes note of what a write has returned.
func (s *Socket) wrote(n, asked int, errno syscall.Errno) (int, error) {
	switch {
	case errno == syscall.EAGAIN:
		s.state &^= socketState(Writable)
		return 0, nil
	case errno != 0:
		s.state |= socketState(Failed | Readable) // a read tells what came before, and then why
		return 0, os.NewSyscallError("write", errno)
	}
	if n < asked {
		s.state &^= socketState(Writable)
	}
	return n, nil
}

// CloseWrite tells the peer that nothing more will be sent. Saying it again does nothing.
func (s *Socket) CloseWrite() error {
	if s.state&stateOpen == 0 {
		return errClosed
	}
	if s.state&stateEnded != 0 {
		return nil // the call would be an event, and so without end for who answers each with it
	}
	s.state |= stateEnded
	return os.NewSyscallError("shutdown", unix.Shutdown(int(s.fd), unix.SHUT_WR))
}

// Close closes the connection. Its handler is not called any more, not for what has come about in this turn either. Closing a closed
// socket does nothing.
func (s *Socket) Close() {
	if fd := s.leave(); fd >= 0 {
		unix.Close(fd)
	}
}

// Reset closes the connection so that the peer is told that it was broken off, and what it was not yet sent is lost.
func (s *Socket) Reset() {
	if s.state&stateOpen != 0 {
		_ = unix.SetsockoptLinger(int(s.fd), unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	}
	s.Close()
}

// Detach returns the descriptor of s, non-blocking and the caller's from then on, and -1 if s is closed. What was not read waits in it.
// The handler is not called any more.
func (s *Socket) Detach() int {
	loop := s.loop
	fd := s.leave()
	if fd >= 0 {
		_ = unix.EpollCtl(loop.epoll, unix.EPOLL_CTL_DEL, fd, nil)
	}
	return fd
}

// leave takes s off its loop and returns its descriptor.
func (s *Socket) leave() int {
	if s.state&stateOpen == 0 {
		return -1
	}
	l := s.loop
	l.slots[s.slot] = nil
	l.free = append(l.free, s.slot)
	if s.state&stateAdopted != 0 {
		l.connections.Add(-1)
	}
	s.state = 0
	s.loop = nil
	return int(s.fd)
}
