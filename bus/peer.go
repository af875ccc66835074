package bus

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"mainstay/bus/zmtp"
)

// A peer is one connection past its handshake. Its goroutine reads; what is to be written goes through its outbox.
type peer struct {
	conn  *net.TCPConn
	said  zmtp.Peer
	since time.Time
	out   *outbox
	pulse pulse

	cause         atomic.Pointer[string] // why the relay hung up, if it did
	subscriptions atomic.Int64           // for Status
}

func newPeer(conn *net.TCPConn, said zmtp.Peer, slabs *slabs, stats *stats, done *sync.WaitGroup) (*peer, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	now := time.Now()
	p := &peer{conn: conn, said: said, since: now}
	p.pulse.last = now
	p.out = newOutbox(raw, func() { conn.Close() }, slabs, stats, done)
	return p, nil
}

// Reasons that a connection ended for, beside those of zmtp.Reason.
const (
	causeClosed    = "closed"     // the peer closed it
	causeStopped   = "stopped"    // the relay, or its address, is no longer wanted
	causeQueueFull = "queue_full" // a subscriber too slow for the policy
	causeSilent    = "silent"     // no heartbeat was answered
	causeLimit     = "limit"      // more subscriptions than allowed
)

// hangUp closes the connection, unless that was done before, for cause.
func (p *peer) hangUp(cause string) {
	p.cause.CompareAndSwap(nil, &cause)
	p.out.close()
	p.conn.Close()
}

// part ends the connection once all that waits is written and the peer has seen the end of it: closing
// at once could take back what is still on its way. It does so at the latest when ctx is done.
func (p *peer) part(ctx context.Context) {
	const patience = time.Second // for the peer to close its end
	p.out.drain(ctx)
	if ctx.Err() != nil || p.conn.CloseWrite() != nil {
		p.hangUp(causeStopped)
		return
	}
	cause := causeStopped
	p.cause.CompareAndSwap(nil, &cause)
	last := time.Now().Add(patience)
	if deadline, ok := ctx.Deadline(); ok && deadline.Before(last) {
		last = deadline
	}
	p.conn.SetReadDeadline(last)
}

// farewell returns why the connection ended, after reading from it failed with err.
func (p *peer) farewell(err error) string {
	if cause := p.cause.Load(); cause != nil {
		return *cause
	}
	var protocol *zmtp.ProtocolError
	if errors.As(err, &protocol) {
		return string(protocol.Reason)
	}
	if errors.Is(err, errTooManySubscriptions) {
		return causeLimit
	}
	return causeClosed
}

// answer appends to pongs what a PING that the decoder has just found asks for.
func (p *peer) answer(dec *zmtp.Decoder, pongs []byte) ([]byte, error) {
	echo, ttl, ok, err := dec.Ping()
	if err != nil || !ok {
		return pongs, err
	}
	p.pulse.ttl.Store(int64(ttl))
	if len(pongs) > maxControl/2 {
		return pongs, nil // more PINGs in one read than a sane peer sends
	}
	return zmtp.AppendPong(pongs, echo), nil
}

// Heartbeats (RFC 37, "Heartbeating").
const (
	pingInterval = 10 * time.Second // between the PINGs sent to each peer
	pingTimeout  = 30 * time.Second // without a sign of life, after which a peer is given up
)

// A pulse tells whether a peer is alive. Reading goroutines only set heard and
// ttl; the times are kept by the one goroutine that calls beat, once a second or so.
type pulse struct {
	heard atomic.Bool  // since the last beat
	ttl   atomic.Int64 // time.Duration within which the peer promised to be heard, 0: no promise

	last      time.Time // beat at which something had been heard
	pinged    time.Time
	delivered uint64 // messages written to the peer until last
}

// beat reports what to do at now: send a PING, or give the peer up. pings says whether the peer knows
// PING, delivered how many messages have been written to it.
//
// A peer that has been sent messages since its last sign of life is not given up for leaving
// PINGs unanswered: libzmq stops reading, PINGs included, while its
// application is slow to take what has come. Whether such a host is alive is TCP's to find out.
func (b *pulse) beat(now time.Time, pings bool, delivered uint64) (ping, dead bool) {
	if b.heard.Swap(false) {
		b.last, b.delivered = now, delivered
	}
	silent := now.Sub(b.last)
	if ttl := time.Duration(b.ttl.Load()); ttl > 0 && silent > ttl {
		return false, true
	}
	if !pings {
		return false, false
	}
	if silent >= pingTimeout && delivered == b.delivered {
		return false, true
	}
	if now.Sub(b.pinged) >= pingInterval {
		b.pinged = now
		return true, false
	}
	return false, false
}

// beat sends the peer a PING when one is due and hangs up on a dead one.
func (p *peer) beat(now time.Time, log *slog.Logger) {
	ping, dead := p.pulse.beat(now, p.said.Minor >= 1, p.out.account().delivered)
	if dead {
		log.Info("silent peer disconnected", "peer", p.conn.RemoteAddr().String(), "type", string(p.said.Type))
		p.hangUp(causeSilent)
	}
	if ping {
		p.out.sendCommand(zmtp.AppendPing(nil, 0, nil))
	}
}
