package proxy

import (
	"context"
	"sync"
	"time"
)

// dismissTimeout is how long an idle connection of TLS stays when the others are given away.
const dismissTimeout = 5 * time.Second

// give implements server.
func (s *netHTTPServer) give(ctx context.Context, g *giver) {
	s.pause(g)
	s.mu.Lock()
	clients := make([]*client, 0, len(s.clients))
	for c := range s.clients {
		clients = append(clients, c)
	}
	s.mu.Unlock()
	for _, c := range clients {
		c.interrupt()
	}
	left := s.left()
	var leaving sync.WaitGroup
	if c := s.carried(); c != nil {
		leaving.Go(func() { c.give(ctx, g) })
		leaving.Go(func() {
			s.dismiss(ctx, c.left())
			c.dismiss()
		})
	}
	leaving.Go(func() {
		s.dismiss(ctx, left)
		s.mu.Lock()
		f := s.front
		s.mu.Unlock()
		if f != nil {
			f.secure.shutdown(ctx)
		}
	})
	defer leaving.Wait()
	select {
	case <-left:
	case <-ctx.Done():
		if g.failed() {
			return
		}
		s.cut()
		<-left
	}
	<-s.requests.idle()
}

// dismiss waits while clients that cannot be given away are told with a response to make another connection. Those that
// ask for nothing meanwhile find theirs closed.
func (s *netHTTPServer) dismiss(ctx context.Context, left <-chan struct{}) {
	limit := dismissTimeout
	if end, ok := ctx.Deadline(); ok {
		limit = min(limit, time.Until(end)/2)
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-left:
	case <-timer.C:
	case <-ctx.Done():
	}
}

// pause stops accepting, leaves the listening socket open and returns when every connection that was accepted is known.
func (s *netHTTPServer) pause(g *giver) {
	s.giver.Store(g)
	s.mu.Lock()
	parked := make(chan struct{})
	s.pausing, s.parked = true, parked
	_ = s.setAcceptDeadline(time.Unix(1, 0))
	s.mu.Unlock()
	select {
	case <-parked:
	case <-s.accepted:
	}
}

// resume implements server: it ends a pause. Clients that were told to go still go; who comes now finds another front.
func (s *netHTTPServer) resume() {
	s.mu.Lock()
	if !s.pausing || s.closing {
		s.mu.Unlock()
		return
	}
	former := s.front
	s.front = nil
	if former != nil && former.clients > 0 {
		s.older = append(s.older, former)
	}
	s.mu.Unlock()
	if former != nil {
		former.retire()
	}
	s.giver.Store(nil)
	if c := s.carried(); c != nil {
		c.resume()
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	s.pausing = false
	_ = s.setAcceptDeadline(time.Time{})
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *netHTTPServer) setAcceptDeadline(t time.Time) error {
	return s.Listener.(interface{ SetDeadline(time.Time) error }).SetDeadline(t)
}
