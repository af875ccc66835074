//go:build linux

package proxy

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// givePause is how long nothing is given after something was not taken.
const givePause = 50 * time.Millisecond

// parcels are the connections of a server that are on their way to another one: what passes them may block, which a
// loop must not.
type parcels struct {
	wake chan struct{}

	mu      sync.Mutex
	waiting []parcel
}

// A parcel is a connection that is between two requests.
type parcel struct {
	fd     int
	peer   netip.Addr
	secure bool // TLS is to be spoken on it
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
		refused := false
		for _, c := range p.take() {
			if ctx.Err() == nil && g.send(passed{Listener: s.address, Secure: c.secure}, c.fd) {
				unix.Close(c.fd)
				s.forget(c.peer)
			} else {
				s.keep(c)
				refused = true
			}
		}
		if refused && !g.failed() { // for want of descriptors, say; what is kept leaves again at once
			select {
			case <-time.After(givePause):
			case <-ctx.Done():
			}
		}
		select {
		case <-left:
			s.each(func(b *branch) { b.parcels = nil }) // who is taken over from now on stays
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
			s.forget(c.peer)
		}
		<-left
		return
	}
}

// keep goes on with a connection that nobody has taken.
func (s *loopServer) keep(c parcel) {
	if c.secure || !s.place(c, nil) {
		unix.Close(c.fd)
		s.forget(c.peer)
	}
}

// pause stops accepting and leaves the listening socket open.
func (s *loopServer) pause() {
	s.control.Lock()
	defer s.control.Unlock()
	s.pausing = true
	if s.acceptor != nil {
		s.acceptor.Pause()
	}
}

// resume implements server.
func (s *loopServer) resume() {
	s.control.Lock()
	defer s.control.Unlock()
	if s.stopped || !s.pausing {
		return
	}
	s.pausing = false
	s.each(func(b *branch) { b.parcels = nil })
	s.acceptLocked()
}

// give has sessions leave, each when it is between two requests.
func (b *branch) give(p *parcels) {
	b.parcels, b.gives = p, b.lane.clock()
	for _, c := range b.strays {
		p.add(c)
	}
	b.strays = nil
	for s := b.sessions; s != nil; {
		next := s.next
		switch {
		case s.idle():
			s.depart()
		case s.state == sessionHead: // it has less time now
			s.expect(s.due())
		}
		s = next
	}
}

// stray has a connection leave that the server cannot serve.
func (b *branch) stray(c parcel) {
	if b.parcels != nil {
		b.parcels.add(c)
		return
	}
	b.strays = append(b.strays, c)
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
	if p == nil || s.secure != nil || s.state != sessionIdle || s.output.Size() > 0 || s.socket.Failed() {
		return false
	}
	c := parcel{fd: s.socket.Detach(), peer: s.peer}
	s.end()
	p.add(c)
	return true
}
