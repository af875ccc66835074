//go:build linux

package proxy

import (
	"time"

	"mainstay/proxy/http1"
)

// An uploadState is how far a request's content is.
type uploadState uint8

const (
	uploadNone     uploadState = iota // the request has none
	uploadExpected                    // the client waits to be told to send it (RFC 9110, section 10.1.1)
	uploadOpen                        // it is being read, or to be read
	uploadEnded                       // all has been read
	uploadFailed                      // it is broken
)

// An upload is a request's content on its way to an instance. As long as it is small what was read is kept, so that another
// attempt can send it again.
type upload struct {
	state   uploadState
	chunked bool // as the instance gets it

	read  int64
	kept  []byte
	spent bool // some of it is not kept any more
	fault reason

	waiting bool          // for the client to send something
	since   time.Duration // when it was waited for first, or it sent something
	pace    pace          // of its sending, up to then
}

// continueTimeout is how long an instance may take to say that it wants the content of a request that asks.
const continueTimeout = time.Second

// keptContent is how large the memory for content may be that an exchange keeps for the next.
const keptContent = 4 << 10

func (u *upload) reset() {
	kept := u.kept[:0]
	if cap(kept) > keptContent {
		kept = nil
	}
	*u = upload{kept: kept}
}

// unread reports whether the client may have more to send.
func (u *upload) unread() bool {
	return u.state == uploadExpected || u.state == uploadOpen || u.state == uploadFailed
}

// wait begins to wait for the client, or ends it.
func (u *upload) wait(waiting bool, now time.Duration) {
	switch {
	case waiting && !u.waiting:
		u.since = now
	case !waiting && u.waiting && u.state == uploadOpen:
		u.pace.move(now-u.since, 0)
	}
	u.waiting = waiting
}

// came takes note that the client has sent so much content.
func (u *upload) came(n int, now time.Duration) {
	waited := time.Duration(0)
	if u.waiting {
		waited, u.since = now-u.since, now
	}
	u.pace.move(waited, n)
}

// fail says that the content will not come to its end.
func (u *upload) fail(why reason) {
	u.state, u.fault, u.waiting = uploadFailed, why, false
}

// due returns when the client will have been waited for long enough; 0: never.
func (u *upload) due(settings *listenerSettings) time.Duration {
	switch {
	case !u.waiting:
		return 0
	case u.state == uploadExpected:
		return u.since + continueTimeout
	}
	return after(u.since, u.pace.patience(settings.limits.BodyTimeout, settings.rate))
}

// keep remembers what was read, or, when that becomes too much, forgets all.
func (u *upload) keep(p []byte) {
	u.read += int64(len(p))
	switch {
	case u.spent:
	case len(u.kept)+len(p) > replayLimit:
		u.spent, u.kept = true, nil
	default:
		u.kept = append(u.kept, p...)
	}
}

// appendContent appends content as the instance gets it.
func (u *upload) appendContent(b, p []byte) []byte {
	if len(p) == 0 {
		return b
	}
	if u.chunked {
		return http1.AppendChunk(b, p)
	}
	return append(b, p...)
}

// wantsContent reports whether the client's content can be sent on now.
func (x *loopExchange) wantsContent() bool {
	return x.upload.state == uploadOpen && x.link != nil && x.link.state == linkBusy && !x.link.mute && !x.link.output.Full() &&
		(x.at == atSend || x.at == atStream)
}

// begin sends the request to the instance: its header and what was read of its content.
func (x *loopExchange) begin() {
	u := &x.upload
	b := append(x.lane.out[:0], x.head[:x.hostAt]...)
	if x.hostAt > 0 {
		b = append(b, x.delivery.lease.up.Address...)
	}
	b = append(b, x.head[x.hostAt:]...)
	b = u.appendContent(b, u.kept)
	if u.state == uploadEnded {
		b = x.appendEnd(b)
	}
	if u.state == uploadOpen && len(x.session.rest) > 0 {
		b = x.decode(b)
	}
	x.enter(atSend, x.route.Timeouts.Idle, reasonTimeoutIdle)
	if !x.sendOn(b) {
		return
	}
	switch {
	case u.state == uploadFailed:
		x.failed(u.fault)
	case u.state == uploadExpected:
		x.listen(true)
	case u.state == uploadOpen:
		x.pull()
	}
}

// sendOn writes to the instance. It returns false if that has failed.
func (x *loopExchange) sendOn(b []byte) bool {
	x.lane.out = b[:0]
	l := x.link
	if err := l.write(b); err != nil {
		x.hearOut()
		return false
	}
	x.sent()
	return true
}

// hearOut has read what the instance may have said before it closed the connection, which nothing can be written to any more: that it does
// not want the content, say (RFC 9112, section 9.5). If it is nothing, the read will tell that the connection has broken.
func (x *loopExchange) hearOut() {
	x.link.mute = true
	x.listen(false)
	x.lane.loop.Again(&x.link.socket)
}

// sent goes on to wait for the response when all of the request has gone out.
func (x *loopExchange) sent() {
	if x.at == atSend && (x.upload.state == uploadNone || x.upload.state == uploadEnded) && x.link.output.Size() == 0 {
		x.outgoing.Sent()
		x.enter(atAwait, x.route.Timeouts.ResponseHeader, reasonTimeoutHeader)
	}
}

// listen waits for the client to send content, or for an instance to want it.
func (x *loopExchange) listen(waiting bool) {
	u := &x.upload
	u.wait(waiting, x.lane.clock())
	if waiting {
		x.session.expect(u.due(x.session.settings()))
	}
}

// invite tells the client to send its content.
func (x *loopExchange) invite() {
	u := &x.upload
	if u.state != uploadExpected {
		return
	}
	u.state, u.waiting = uploadOpen, false
	if err := x.session.write(x.incoming.AppendContinue(x.lane.out[:0])); err != nil {
		x.abandoned()
		return
	}
	if x.wantsContent() {
		x.pull()
	}
}

// pull reads content from the client and sends it on, as long as there is some and the instance takes it.
func (x *loopExchange) pull() {
	s := x.session
	// It may be the connection to the instance that something has come on, and then nobody else keeps what the client has sent beyond
	// the content before another session reads into the same room.
	defer s.store()
	for range 4 {
		if !x.wantsContent() {
			x.listen(false)
			return
		}
		err := s.more()
		if err != nil {
			x.upload.fail(reasonClientAbort)
			x.abandoned()
			return
		}
		if len(s.rest) == 0 {
			x.listen(true)
			return
		}
		x.touch()
		b := x.decode(x.lane.out[:0])
		if len(b) > 0 && !x.sendOn(b) {
			return
		}
		if x.upload.state == uploadFailed {
			x.ended(x.upload.fault)
			return
		}
	}
	if x.wantsContent() {
		x.lane.loop.Again(&s.socket)
	}
}

// decode takes content from what the session has and appends it as the instance gets it.
func (x *loopExchange) decode(b []byte) []byte {
	s, u := x.session, &x.upload
	for len(s.rest) > 0 && u.state == uploadOpen {
		content, n, done, err := x.incoming.Content(s.rest)
		if err != nil {
			u.fail(reasonBadRequest)
			return b
		}
		if n == 0 && !done {
			break
		}
		b = u.appendContent(b, content)
		u.keep(content)
		if len(content) > 0 {
			u.came(len(content), x.lane.clock())
		}
		s.rest = s.rest[n:]
		if done {
			u.state, u.waiting = uploadEnded, false
			b = x.appendEnd(b)
			s.look()
		}
	}
	return b
}

// appendEnd appends what follows the content: of chunked content the last chunk and the trailer section.
func (x *loopExchange) appendEnd(b []byte) []byte {
	if !x.upload.chunked {
		return b
	}
	return appendTrailer(http1.AppendLastChunk(b), &x.incoming.Body)
}
