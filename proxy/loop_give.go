//go:build linux

package proxy

import (
	"context"
	"net/netip"
	"sync"

	"golang.org/x/sys/unix"
)

// parcels are the connections of a server that are on their way to another one: what passes them may block, which a
// loop must not.
type parcels struct {
	wake chan struct{}

	mu      sync.Mutex
	waiting []parcel
}

// A parcel is a connection that is between two requests.
type parcel struct {
	fd   int
	peer netip.Addr
}

func (p *parcels) add(c parcel) {
	p.mu.Lock()
	p.waiting = append(p.waiting, c)
	p.mu.Unlock()
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

func (p *parcels) take() []parcel {
	p.mu.Lock()
	defer p.mu.Unlock()
	waiting := p.waiting
	p.waiting = nil
	return waiting
}

// give implements server.
func (s *loopServer) give(ctx context.Context, g *giver) {
	s.pause()
	p := &parcels{wake: make(chan struct{}, 1)}
	s.each(func(b *branch) { b.give(p) })
	left := s.left()
	for {
		for _, c := range p.take() {
			if g.send(passed{Listener: s.address}, c.fd) {
				unix.Close(c.fd)
				s.forget()
			} else {
				s.keep(c)
			}
		}
		select {
		case <-left:
			return
		case <-p.wake:
			continue
		case <-ctx.Done():
		}
		if g.failed() {
			s.each(func(b *branch) { b.parcels = nil })
			for _, c := range p.take() {
				s.keep(c)
			}
			return
		}
		s.each((*branch).sever)
		for _, c := range p.take() {
			unix.Close(c.fd)
			s.forget()
		}
		<-left
		return
	}
}

// keep goes on with a connection that nobody has taken.
func (s *loopServer) keep(c parcel) {
	if !s.place(c.fd, c.peer) {
		unix.Close(c.fd)
		s.forget()
	}
}

// pause stops accepting and leaves the listening socket open.
func (s *loopServer) pause() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.acceptor != nil {
		s.acceptor.Pause()
	}
}

// resume implements server.
func (s *loopServer) resume() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.acceptor == nil || s.stopped {
		return
	}
	s.each(func(b *branch) { b.parcels = nil })
	if err := s.acceptor.Resume(); err != nil {
		s.engine.log.Error("listener accepts nothing", "address", s.address, "error", err)
	}
}

// give has sessions leave, each when it is between two requests.
func (b *branch) give(p *parcels) {
	b.parcels = p
	for s := b.sessions; s != nil; {
		next := s.next
		if s.idle() {
			s.depart()
		}
		s = next
	}
}

// sever ends all sessions that are left and what runs on them.
func (b *branch) sever() {
	b.parcels = nil
	closing := b.closing
	b.cut()
	b.closing = closing
}

// depart takes the session off its loop if it is to leave. Nothing of a next request has been read.
func (s *session) depart() bool {
	p := s.branch.parcels
	if p == nil || s.state != sessionIdle || s.output.Size() > 0 || s.socket.Failed() {
		return false
	}
	c := parcel{fd: s.socket.Detach(), peer: s.peer}
	s.end()
	p.add(c)
	return true
}
