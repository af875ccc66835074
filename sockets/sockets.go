// Package sockets opens listening sockets and hands them on.
//
// A [Set] knows all that were opened through it. When another program is to go on in this one's place, Hold keeps
// them open whatever becomes of their listeners, Held names them for it, and a Set that is made from those there gives each
// to whoever listens on its address next. Clients see one socket all the time: what connects in
// between waits in its backlog.
//
// There are no goroutines.
package sockets

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// A Set is the listening sockets of a program. It is safe for concurrent use. A nil Set only opens, and knows nothing.
type Set struct {
	mu   sync.Mutex // guards the fields below
	open []opened
	held []Held
}

// An opened is a listener that may have been closed since.
type opened struct {
	network, address string
	listener         net.Listener
}

// A Held is a listening socket that stays open without a listener.
type Held struct {
	Network, Address string // as they were asked for
	File             *os.File
}

// New returns a Set that holds the sockets given, which are its own from then on.
func New(held ...Held) *Set { return &Set{held: held} }

// Listen returns a listener of the socket that is held for the address or, if there is none, what open returns. network and address
// only need to be the same each time. Accepted connections have the options that package net gives them by default.
func (s *Set) Listen(network, address string, open func() (net.Listener, error)) (net.Listener, error) {
	if s == nil {
		return open()
	}
	listener, err := s.take(network, address)
	if listener == nil && err == nil {
		listener, err = open()
	}
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open = slices.DeleteFunc(s.open, func(o opened) bool { return isClosed(o.listener) })
	s.open = append(s.open, opened{network, address, listener})
	return listener, nil
}

// take returns a listener of the socket that is held for the address, or nil. The socket stays held.
func (s *Set) take(network, address string) (net.Listener, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, h := range s.held {
		if h.Network == network && h.Address == address {
			listener, err := net.FileListener(h.File)
			if err != nil {
				return nil, fmt.Errorf("take over the socket of %s: %w", address, err)
			}
			return listener, nil
		}
	}
	return nil, nil
}

// Hold keeps all sockets that are listened on open until Release, also when their listeners are closed.
func (s *Set) Hold() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range s.open {
		if slices.ContainsFunc(s.held, func(h Held) bool { return h.Network == o.network && h.Address == o.address }) {
			continue
		}
		file, err := duplicate(o.listener)
		if errors.Is(err, net.ErrClosed) {
			continue
		}
		if err != nil {
			return fmt.Errorf("hold the socket of %s: %w", o.address, err)
		}
		s.held = append(s.held, Held{o.network, o.address, file})
	}
	return nil
}

// Held returns the sockets that are held. They stay the Set's.
func (s *Set) Held() []Held {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.held)
}

// Release lets go of what is held. A socket without a listener is closed by it.
func (s *Set) Release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, h := range s.held {
		h.File.Close()
	}
	s.held = nil
}

// duplicate returns another descriptor of the listener's socket. Unlike what the listener's File would return, nobody who
// asks for its number makes the socket block.
func duplicate(listener net.Listener) (*os.File, error) {
	raw, err := rawConn(listener)
	if err != nil {
		return nil, err
	}
	var fd int
	var failed error
	err = raw.Control(func(socket uintptr) { fd, failed = unix.FcntlInt(socket, unix.F_DUPFD_CLOEXEC, 3) })
	if err := errors.Join(err, os.NewSyscallError("fcntl", failed)); err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), listener.Addr().String()), nil
}

func isClosed(listener net.Listener) bool {
	raw, err := rawConn(listener)
	if err == nil {
		err = raw.Control(func(uintptr) {})
	}
	return errors.Is(err, net.ErrClosed)
}

func rawConn(listener net.Listener) (syscall.RawConn, error) {
	conn, ok := listener.(syscall.Conn)
	if !ok {
		return nil, fmt.Errorf("%T has no descriptor", listener)
	}
	return conn.SyscallConn()
}
