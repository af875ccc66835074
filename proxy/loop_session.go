//go:build linux

package proxy

import (
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"mainstay/eventloop"
	"mainstay/proxy/http1"
)

// A sessionState is what a session is at.
type sessionState uint8

const (
	sessionIdle   sessionState = iota // between two requests: nothing of the next one has come
	sessionHead                       // some of a request's header has come
	sessionBusy                       // an exchange is under way
	sessionLinger                     // nothing more is sent, and what still comes is thrown away
	sessionClosed
)

// A session is a client's connection. Between two requests it holds no buffer.
type session struct {
	socket eventloop.Socket
	timer  eventloop.Timer
	output eventloop.Output
	branch *branch

	previous, next *session // in the branch's list

	state   sessionState
	fresh   bool          // no request has come yet
	serving bool          // serve is at work
	again   bool          // it was asked for meanwhile
	alarm   time.Duration // when the timer goes off at the latest; 0: it is not set
	since   time.Duration // when the state began
	written time.Duration // while there is output: when the client took something last, or since when there is

	secure *sealing // nil: plain

	peer netip.Addr
	name string // of peer, as text

	x *loopExchange // from a request's first byte until the end of its response

	rest   []byte            // read and not used yet; in stored, or in the lane's room for this turn
	stored *eventloop.Buffer // nil: none
}

// welcome begins a session on a connection; secure is nil or the TLS on it.
func (b *branch) welcome(fd int, peer netip.Addr, secure *sealing) {
	s := &session{branch: b, peer: peer, secure: secure, name: peer.String(), fresh: true, since: b.lane.clock()}
	if err := b.lane.loop.Adopt(&s.socket, fd, s); err != nil {
		unix.Close(fd)
		b.server.forget(peer)
		return
	}
	if secure != nil {
		secure.session = s
	}
	b.add(s)
	s.state = sessionIdle
	s.expect(s.due())
}

func (s *session) lane() *lane { return s.branch.lane }

// enter begins a state.
func (s *session) enter(state sessionState) { s.state, s.since = state, s.lane().clock() }

// Ready implements eventloop.Handler.
func (s *session) Ready(events eventloop.Events) {
	if s.output.Size() > 0 && events&(eventloop.Writable|eventloop.Failed) != 0 && !s.flush() {
		return
	}
	switch s.state {
	case sessionIdle, sessionHead:
		s.serve()
	case sessionBusy:
		s.x.sessionReady(events)
		s.store()
	case sessionLinger:
		s.linger()
	case sessionClosed:
	}
}

// serveShare is how many requests that the proxy answers itself a session may have in one turn, so that others get theirs.
const serveShare = 64

// serve reads requests and begins to answer them, until there is none, or one takes longer.
func (s *session) serve() {
	if s.serving {
		s.again = true
		return
	}
	s.serving = true
	share := serveShare
	for s.again = true; s.again && share > 0; {
		s.again = false
		for ; share > 0 && s.state <= sessionHead && s.advance(); share-- {
		}
	}
	s.serving = false
	s.store()
	if share == 0 && s.state <= sessionHead {
		s.lane().loop.Again(&s.socket)
	}
	s.look()
}

// advance goes on reading a request. It returns false if there is nothing to read now.
func (s *session) advance() bool {
	if len(s.rest) == 0 {
		if s.output.Size() > eventloop.LowWater || s.depart() {
			return false
		}
		if s.more() != nil {
			s.close() // a request that was begun was none
			return false
		}
		if len(s.rest) == 0 {
			return false
		}
	}
	if s.x == nil {
		s.x = s.lane().exchange(s)
		began := s.since
		if s.enter(sessionHead); s.fresh {
			s.since = began // a client that has just come has been waited for all the time
		}
		s.fresh = false
	}
	if s.x.readHead() {
		return true
	}
	if s.state == sessionHead {
		s.expect(s.due())
	}
	return s.state == sessionHead
}

// store keeps what was read and not used, when the turn ends.
func (s *session) store() {
	switch {
	case len(s.rest) == 0:
		if s.stored != nil {
			s.stored.Release()
			s.stored = nil
		}
		s.rest = nil
	case s.stored == nil:
		s.stored = s.lane().loop.Buffer(len(s.rest))
		s.stored.Append(s.rest)
		s.rest = s.stored.Bytes()
	}
}

// more reads into rest what the client has sent, if there is nothing in it. It returns io.EOF at the end.
func (s *session) more() error {
	if len(s.rest) > 0 {
		return nil
	}
	if s.stored != nil {
		s.stored.Release()
		s.stored = nil
	}
	lane := s.lane()
	n, err := s.read(lane.in)
	s.rest = lane.in[:n]
	return err
}

func (s *session) read(p []byte) (int, error) {
	if s.secure != nil {
		return s.secure.read(p)
	}
	return s.socket.Read(p)
}

// write sends p to the client, now or when it takes it.
func (s *session) write(p []byte) error {
	if s.secure != nil {
		return s.secure.write(p)
	}
	return s.put(p)
}

// put is write below TLS.
func (s *session) put(p []byte) error {
	before := s.output.Size()
	if err := s.output.Write(&s.socket, p); err != nil {
		return err
	}
	s.owe(before, len(p))
	return nil
}

// spill has what the client did not take at once out of a splice, that has moved n bytes, wait like what is written. Nothing waited
// before.
func (s *session) spill(p *eventloop.Splice, n int64) error {
	err := p.Spill(&s.output)
	s.owe(0, int(n))
	return err
}

// owe takes note that n bytes were given to the client, or to output, where some waited before.
func (s *session) owe(before, n int) {
	if s.x != nil {
		s.x.taking.move(0, before+n-s.output.Size())
	}
	if s.output.Size() == 0 {
		return
	}
	if before == 0 {
		s.written = s.lane().clock()
	}
	s.expect(s.outputDue())
}

// outputDue returns when the client will have been too slow with taking output; 0: never.
func (s *session) outputDue() time.Duration {
	settings := s.settings()
	switch {
	case s.output.Size() == 0 || s.x != nil && s.x.at == atTunnel:
		return 0
	case s.x == nil:
		return after(s.written, within(settings.limits.SendTimeout))
	}
	return after(s.written, s.x.taking.patience(settings.limits.SendTimeout, settings.rate))
}

// flush sends what waits and lets go on who waits for that. It returns false if the session has ended.
func (s *session) flush() bool {
	before := s.output.Size()
	if err := s.output.Flush(&s.socket); err != nil {
		s.gone()
		return false
	}
	if taken := before - s.output.Size(); taken > 0 {
		now := s.lane().clock()
		if s.x != nil {
			s.x.taking.move(now-s.written, taken)
			s.x.took()
		}
		s.written = now
	}
	switch s.state {
	case sessionBusy:
		s.x.drained()
	case sessionLinger:
		if s.output.Size() == 0 {
			_ = s.socket.CloseWrite()
			s.since = s.lane().clock()
			s.expect(s.due())
		}
	}
	return s.state != sessionClosed
}

// gone says that the client has left.
func (s *session) gone() {
	if s.state == sessionBusy {
		s.x.abandoned()
		return
	}
	s.close()
}

// look has it found out in the next turn whether a client that ended its side together with what it sent has left: there is no other
// event for that.
func (s *session) look() {
	if s.state == sessionBusy && (s.socket.PeerClosed() || s.socket.Failed()) {
		s.lane().loop.Again(&s.socket)
	}
}

// left reports whether the client has left, who may still have sent something that was not read.
func (s *session) left() bool {
	if s.socket.Failed() {
		return true
	}
	if !s.socket.PeerClosed() || len(s.rest) > 0 {
		return false
	}
	if s.secure != nil { // the last that has come may be that nothing more does
		return s.more() != nil
	}
	var one [1]byte
	n, _, err := unix.Recvfrom(s.socket.FD(), one[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
	return n <= 0 && err != unix.EAGAIN
}

// finished is called at the end of an exchange whose response was sent, or given to output.
func (s *session) finished(x *loopExchange) {
	last, cut := x.last || s.ends(), x.cut
	unbounded := x.reply.Framing == http1.UntilClose
	s.x = nil
	s.lane().release(x)
	switch {
	case cut && unbounded:
		s.socket.Reset() // or what was sent would look whole
		s.close()
	case cut:
		s.close()
	case last:
		s.hangUp()
	default:
		s.enter(sessionIdle)
		s.expect(s.due())
		s.serve()
	}
}

// hangUp ends the connection so that the client gets what was sent to it: closing it with something unread would reset it
// (RFC 9112, section 9.6).
func (s *session) hangUp() {
	s.rest = nil
	s.store()
	s.enter(sessionLinger)
	if s.secure != nil && s.secure.end() != nil {
		s.close()
		return
	}
	if s.output.Size() == 0 {
		_ = s.socket.CloseWrite()
	}
	s.expect(s.due())
	s.linger()
}

// linger throws away what the client sends.
func (s *session) linger() {
	for range 4 {
		n, err := s.read(s.lane().in)
		if err != nil && s.output.Size() == 0 || err == errUntaken || s.socket.Failed() {
			s.close()
			return
		}
		if n == 0 {
			return
		}
	}
	s.lane().loop.Again(&s.socket)
}

// close closes the connection. It has no exchange any more, or one of which only part of the header has come.
func (s *session) close() {
	if s.state == sessionClosed {
		return
	}
	if s.secure != nil && s.idle() {
		_ = s.secure.end()
	}
	s.state = sessionClosed
	defer s.branch.server.forget(s.peer)
	s.socket.Close()
	s.output.Drop()
	s.end()
}

// end ends the session, whose connection is closed, or another's.
func (s *session) end() {
	s.state = sessionClosed
	s.branch.remove(s)
	s.lane().loop.StopTimer(&s.timer)
	if s.x != nil {
		s.lane().release(s.x)
		s.x = nil
	}
	s.rest = nil
	s.store()
}

// idle reports whether the session asks for nothing.
func (s *session) idle() bool {
	return s.state == sessionIdle && len(s.rest) == 0 && s.output.Size() == 0
}

// broken ends what a bug has left of the session.
func (s *session) broken() {
	s.serving = false
	if s.state == sessionBusy {
		s.x.fail()
		return
	}
	s.close()
}

// discard ends a session that cannot be ended as others are. Its exchange is not used again.
func (s *session) discard() {
	x := s.x
	s.x, s.secure = nil, nil
	s.close()
	if x == nil {
		return
	}
	if l := x.link; l != nil {
		l.close()
	}
	x.session, x.link = nil, nil
	x.delivery.end(s.lane().now())
}

// due returns when the client will have been waited for long enough; 0: never.
func (s *session) due() time.Duration {
	limits := &s.settings().limits
	due := time.Duration(0)
	switch s.state {
	case sessionIdle:
		due = after(s.since, within(limits.IdleTimeout))
		if s.fresh {
			due = after(s.since, within(limits.HeaderTimeout))
		}
	case sessionHead:
		due = after(s.since, within(limits.HeaderTimeout))
		if s.branch.parcels != nil {
			due = sooner(due, max(s.since, s.branch.gives)+hurryTimeout)
		}
	case sessionBusy:
		due = s.x.due()
	case sessionLinger:
		if s.output.Size() == 0 {
			return s.since + lingerTimeout
		}
	}
	return sooner(due, s.outputDue())
}

// after returns when something that began will have taken too long; 0: never.
func after(begin, patience time.Duration) time.Duration {
	if patience > 0 && patience >= forever-begin { // no clock reaches it
		return 0
	}
	return max(begin+patience, 1)
}

// sooner returns the earlier of two times, of which 0 is never.
func sooner(a, b time.Duration) time.Duration {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

// expect has the timer go off at due, or earlier; 0 is never. When it does, it is found out what has taken too long: later ends of
// waiting cost nothing.
func (s *session) expect(due time.Duration) {
	if due == 0 || s.alarm != 0 && s.alarm <= due {
		return
	}
	s.alarm = due
	lane := s.lane()
	lane.loop.SetTimer(&s.timer, due-lane.clock(), s)
}

// Expire implements eventloop.Expirer.
func (s *session) Expire(*eventloop.Timer) {
	s.alarm = 0
	if due := s.due(); due == 0 || due > s.lane().clock() {
		s.expect(due)
		return
	}
	s.expired()
	if s.state != sessionClosed {
		s.expect(s.due())
	}
}

// expired ends what has taken too long.
func (s *session) expired() {
	due := s.outputDue()
	slow := due != 0 && due <= s.lane().clock()
	switch {
	case slow && s.state == sessionBusy:
		s.x.lost(reasonTimeoutSend)
	case s.state == sessionBusy:
		s.x.late()
		s.store()
	case s.state == sessionHead && !slow:
		s.x.tardy()
		s.store()
	default:
		s.close()
	}
}
