//go:build linux

package eventloop

import (
	"errors"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Connect begins to connect s to an address. Its handler is called with Connected when the connection is made, and with Failed when it
// could not be made; then Err tells why. An error that is known at once is returned, and the handler is not called. How long
// to wait is the caller's to decide: Close gives up.
func (l *Loop) Connect(s *Socket, to unix.Sockaddr, handler Handler) error {
	family := unix.AF_INET
	switch to.(type) {
	case *unix.SockaddrInet6:
		family = unix.AF_INET6
	case *unix.SockaddrUnix:
		family = unix.AF_UNIX
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	if family != unix.AF_UNIX {
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	}
	switch err = unix.Connect(fd, to); {
	case err == nil, errors.Is(err, unix.EINPROGRESS), errors.Is(err, unix.EINTR):
	default: // EAGAIN too: the backlog of a unix socket is full, and nothing tells when it is not
		unix.Close(fd)
		return os.NewSyscallError("connect", err)
	}
	if err := l.register(s, fd, handler, stateConnecting); err != nil {
		unix.Close(fd)
		return err
	}
	return nil
}

// connected takes note of how the attempt to connect has ended, if it has.
func (l *Loop) connected(s *Socket) {
	if s.state&socketState(Writable|Failed) == 0 {
		return
	}
	errno, err := unix.GetsockoptInt(int(s.fd), unix.SOL_SOCKET, unix.SO_ERROR)
	if err != nil {
		errno = int(unix.EIO)
	}
	if errno == 0 && s.state&socketState(Failed) != 0 && s.state&socketState(PeerClosed) == 0 {
		// Some kernels report a hang-up while they have not begun yet; another event follows.
		s.state &^= stateEvents
		return
	}
	s.state &^= stateConnecting
	if errno != 0 {
		s.errno = uint16(errno)
		s.state |= socketState(Failed)
		l.call(s, 0)
		return
	}
	l.call(s, Connected)
}

// Err returns why the connection that Connect began was not made, nil if it was or is still being made.
func (s *Socket) Err() error {
	if s.errno == 0 {
		return nil
	}
	return os.NewSyscallError("connect", syscall.Errno(s.errno))
}
