package bus

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"mainstay/bus/zmtp"
)

// A role is which of a relay's two addresses something is about.
type role string

const (
	publishers  role = "publishers"
	subscribers role = "subscribers"
)

// roles in the order in which a relay is stopped: no more comes in before what has come is sent on.
var roles = [...]role{publishers, subscribers}

// local is the type of socket that peers of the role find at the relay.
func (r role) local() zmtp.SocketType {
	if r == publishers {
		return zmtp.XSUB
	}
	return zmtp.XPUB
}

// A side is one of a relay's two addresses with the connections made to it. It shakes
// hands with each in the connection's own goroutine, so that no peer waits for another.
type side struct {
	role  role
	relay *relay
	log   *slog.Logger

	done sync.WaitGroup // of all goroutines below

	mu      sync.Mutex
	stopped bool
	waiting []net.Conn // in their handshake, the oldest first
	peers   map[*peer]struct{}
}

func newSide(ro role, r *relay) *side {
	return &side{role: ro, relay: r, log: r.log.With("side", string(ro)), peers: map[*peer]struct{}{}}
}

// Reasons for which a connection does not get past its handshake, beside those of zmtp.Reason.
const (
	failTimeout = "timeout" // the peer did not finish it in time
	failClosed  = "closed"  // the peer closed the connection: a port scan, a health check
	failCrowded = "crowded" // there were too many connections
)

// admit takes a new connection over. When too many are in their handshake the oldest of them is dropped: it is the
// one that is least likely to finish.
func (s *side) admit(conn *net.TCPConn) {
	limits := &s.relay.limits
	s.mu.Lock()
	full := len(s.peers) >= limits.peers
	welcome := !full && !s.stopped
	if welcome {
		if len(s.waiting) >= limits.handshakes {
			s.waiting[0].Close()
			s.waiting = slices.Delete(s.waiting, 0, 1)
		}
		s.waiting = append(s.waiting, conn)
		s.done.Go(func() { s.serve(conn) })
	}
	s.mu.Unlock()
	if !welcome {
		conn.Close()
	}
	if full {
		s.fail(conn, failCrowded, errors.New("too many connections"))
	}
}

// serve is a connection's goroutine.
func (s *side) serve(conn *net.TCPConn) {
	defer conn.Close()
	p := s.greet(conn)
	if p == nil {
		return
	}
	var err error
	if s.role == publishers {
		err = newPublisher(p, s.relay).run()
	} else {
		err = (&subscriber{peer: p, prefixes: map[string]struct{}{}}).run(&s.relay.table)
	}
	cause := p.farewell(err)
	p.hangUp(cause)
	s.mu.Lock()
	delete(s.peers, p)
	s.mu.Unlock()
	s.relay.stats.disconnects.add(cause)
	log := s.log.With("peer", conn.RemoteAddr().String(), "type", string(p.said.Type), "reason", cause)
	switch cause {
	case causeClosed, causeStopped, causeSilent:
		log.Debug("peer left")
	default:
		s.relay.complaints.warn(log, string(s.role)+cause, "peer disconnected", err)
	}
}

// greet shakes hands and returns the peer, nil if there is none to serve.
func (s *side) greet(conn *net.TCPConn) *peer {
	conn.SetDeadline(time.Now().Add(s.relay.limits.handshake))
	h := zmtp.Accepting(s.role.local())
	err := h.Run(conn)
	reason := failure(err)
	if reason == string(zmtp.BadSocketType) {
		linger(conn)
	}
	var p *peer
	if err == nil {
		conn.SetDeadline(time.Time{})
		p, err = newPeer(conn, h.Peer(), s.relay.slabs, &s.relay.stats, &s.done)
	}

	s.mu.Lock()
	at := slices.Index(s.waiting, net.Conn(conn))
	if at >= 0 {
		s.waiting = slices.Delete(s.waiting, at, at+1)
	}
	stopped := s.stopped
	if err == nil && !stopped && at >= 0 {
		s.peers[p] = struct{}{}
	}
	s.mu.Unlock()

	switch {
	case stopped:
		return nil
	case at < 0:
		s.fail(conn, failCrowded, errors.New("too many handshakes at once"))
		return nil
	case err != nil:
		s.fail(conn, reason, err)
		return nil
	}
	s.log.Debug("peer joined", "peer", conn.RemoteAddr().String(), "type", string(p.said.Type))
	return p
}

// linger gives a peer that has been sent an ERROR the time to read it: closing with bytes unread would reset the connection.
func linger(conn *net.TCPConn) {
	const patience, most = time.Second, 64 << 10
	conn.SetDeadline(time.Now().Add(patience))
	if conn.CloseWrite() == nil {
		io.CopyN(io.Discard, conn, most)
	}
}

// failure classifies what ended a handshake, if it did.
func failure(err error) string {
	var protocol *zmtp.ProtocolError
	switch {
	case err == nil:
		return ""
	case errors.As(err, &protocol):
		return string(protocol.Reason)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return failTimeout
	}
	return failClosed
}

func (s *side) fail(conn net.Conn, reason string, err error) {
	s.relay.stats.failures.add(reason)
	log := s.log.With("peer", conn.RemoteAddr().String(), "reason", reason)
	switch reason {
	case failClosed:
		log.Debug("handshake failed", "error", err)
	case string(zmtp.BadSocketType):
		s.relay.complaints.warn(log, string(s.role)+reason, "peer refused: is it meant for the relay's other address?", err)
	default:
		s.relay.complaints.warn(log, string(s.role)+reason, "handshake failed", err)
	}
}

// snapshot returns the peers that there are.
func (s *side) snapshot() []*peer {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Keys(s.peers))
}

// stop ends all connections and returns when their goroutines are gone. Subscribers are
// first sent what waits for them, until ctx is done.
func (s *side) stop(ctx context.Context) {
	s.mu.Lock()
	s.stopped = true
	for _, conn := range s.waiting {
		conn.Close()
	}
	s.mu.Unlock()
	var parting sync.WaitGroup
	for _, p := range s.snapshot() {
		if s.role == publishers {
			p.hangUp(causeStopped)
			continue
		}
		parting.Go(func() { p.part(ctx) })
	}
	parting.Wait()
	s.done.Wait()
}
