package proxy

import "crypto/tls"

// A carrier serves clients of TLS with HTTP/1.1 on event loops. It accepts none itself: a netHTTPServer agrees with them on TLS
// and keeps those who speak HTTP/2.
type carrier interface {
	server
	// carry takes over a client, and conn, which is TLS over w, which is that client. It returns false if it does not.
	carry(c *client, conn *tls.Conn, w *wire) bool
	// left returns a channel that is closed when there are no clients.
	left() <-chan struct{}
	// dismiss closes the connections of clients that ask for nothing.
	dismiss()
}

// carry gives a client to the carrier, if there is one to be had. While the server stops, or gives its clients away, none is.
func (s *netHTTPServer) carry(c *client, conn *tls.Conn, w *wire) bool {
	if s.engine.loops == nil || !s.settings.Load().loops {
		return false
	}
	s.carrying.RLock()
	defer s.carrying.RUnlock()
	to := s.openCarrier()
	return to != nil && to.carry(c, conn, w)
}

// openCarrier returns the carrier, a new one if there is none yet. It is nil if clients stay.
func (s *netHTTPServer) openCarrier() carrier {
	s.mu.Lock()
	stay, there := s.closing || s.pausing, s.carrier
	s.mu.Unlock()
	if stay || there != nil {
		if stay {
			return nil
		}
		return there
	}
	opened, err := s.engine.loops.open(s.listener)
	if err != nil {
		s.log.Error("event loops not started", "address", s.address, "error", err)
		return nil
	}
	s.mu.Lock()
	if s.carrier == nil {
		s.carrier = opened.(carrier)
		s.mu.Unlock()
		return opened.(carrier)
	}
	there = s.carrier // of another client who came at the same time
	s.mu.Unlock()
	s.engine.loops.closed()
	return there
}

// carried returns the carrier, nil if there is none, when no client is on the way to it. None follows if the server stops or
// gives its clients away.
func (s *netHTTPServer) carried() carrier {
	s.carrying.Lock()
	defer s.carrying.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.carrier
}
