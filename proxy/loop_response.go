//go:build linux

package proxy

import (
	"io"
	"strings"

	"mainstay/eventloop"
	"mainstay/proxy/http1"
)

// linkReady goes on when the instance has sent something, or takes something.
func (x *loopExchange) linkReady(events eventloop.Events) {
	l := x.link
	if l.output.Size() > 0 && !l.mute && events&(eventloop.Writable|eventloop.Failed) != 0 {
		before := l.output.Size()
		if err := l.output.Flush(&l.socket); err != nil {
			x.hearOut()
		}
		if l.output.Size() < before {
			x.touch()
		}
		x.sent()
	}
	if x.at == atTunnel {
		x.tunnel()
		return
	}
	s := x.session
	if x.push() && x.wantsContent() {
		x.pull()
	}
	s.store()
}

// push reads what the instance has sent and sends it on, as long as the client takes it. It returns false if the exchange has
// ended, or goes on with another attempt.
func (x *loopExchange) push() bool {
	l, lane := x.link, x.lane
	if l == nil {
		return false
	}
	for range 4 {
		if x.at == atStream && !x.session.output.Drained() {
			return true
		}
		if !x.move() {
			return false
		}
		n, err := l.socket.Read(lane.reply)
		switch {
		case err != nil:
			x.hungUp(err)
			return false
		case n == 0:
			return true
		}
		p := lane.reply[:n]
		if len(l.kept) > 0 {
			l.kept = append(l.kept, p...)
			p = l.kept
		}
		if !x.received(p) {
			return false
		}
	}
	lane.loop.Again(&l.socket)
	return true
}

// spliceMin is how much content must be to come for it to be moved within the kernel: for less, copying costs less.
const spliceMin = 128 << 10

// move moves content from the instance to the client without looking at it, as long as nothing waits for the client. The end is left
// to be read, for what must precede it. It returns false if the exchange has ended.
func (x *loopExchange) move() bool {
	l, s, body := x.link, x.session, &x.outgoing.Body
	left := body.Contiguous()
	if x.at != atStream || left < spliceMin || s.secure != nil || x.reply.Framing == http1.Chunked || s.output.Size() > 0 || len(l.kept) > 0 {
		return true
	}
	n, read, write := x.lane.splice.Move(&l.socket, &s.socket, left-laneBuffer)
	if n > 0 {
		body.Skip(n)
		x.record.BytesOut += n
		x.touch()
	}
	if write == nil {
		write = s.spill(&x.lane.splice, n)
	}
	switch {
	case write != nil:
		x.abandoned()
		return false
	case read != nil && read != eventloop.ErrNoPipe:
		x.hungUp(read)
		return false
	}
	return true
}

// received takes what has come from the instance. It returns false if the exchange has ended, or goes on with another attempt.
func (x *loopExchange) received(p []byte) bool {
	x.heard = true
	l := x.link
	for x.at < atStream {
		n, err := x.outgoing.Head(p, x.lane.engine.responseLimits())
		switch {
		case err != nil:
			x.failed(reasonBadResponse)
			return false
		case n == 0:
			if len(p) != len(l.kept) {
				l.kept = append(l.kept[:0], p...)
			}
			return true
		}
		head := p[:n]
		p = p[n:]
		if x.outgoing.Answered() {
			l.kept = nil
			return x.respond(head, p)
		}
		if !x.inform(head) || x.link != l {
			return false
		}
		if len(p) == 0 {
			l.kept = nil
			return true
		}
	}
	return x.stream(x.lane.out[:0], p)
}

// inform sends a 1xx response on. What is said about the content is between the proxy and its peers; HTTP/1.0 knows none.
func (x *loopExchange) inform(head []byte) bool {
	r := &x.outgoing.Response
	if r.Status == 100 {
		x.invite()
		return x.link != nil && x.at < atStream
	}
	if !x.incoming.TakesInterim() {
		return true
	}
	b := http1.AppendStatusLine(x.lane.out[:0], r.Status, http1.ReasonPhrase(r.Status))
	for i := range r.Fields.Lines {
		if f := &r.Fields.Lines[i]; passes(f.Name, f.Text.View(head), f.Nominated) {
			b = appendLine(b, head, f)
		}
	}
	if x.session.write(append(b, "\r\n"...)) != nil {
		x.abandoned()
		return false
	}
	return true
}

// respond sends an instance's response to the client, with what has come of its content.
func (x *loopExchange) respond(head, rest []byte) bool {
	r := &x.outgoing.Response
	x.record.Upstream += (x.lane.clock() - x.began).Seconds()
	x.delivery.answered(x.lane.now(), r.Status)
	x.record.Reason, x.record.Status = reasonNone, r.Status
	if x.outgoing.Switched() {
		return x.switchOver(head, rest)
	}
	x.enter(atStream, x.route.Timeouts.Idle, reasonTimeoutIdle)
	x.listen(false)
	x.reply = x.incoming.Respond(r.Status, r.Framing, r.Length, x.session.ends())
	return x.stream(x.appendHead(x.lane.out[:0], head), rest)
}

// appendHead appends the header of the instance's response as the client gets it.
func (x *loopExchange) appendHead(b, head []byte) []byte {
	r, edits := &x.outgoing.Response, &x.route.responseEdits
	b = http1.AppendStatusLine(b, r.Status, http1.ReasonPhrase(r.Status))
	for i := range r.Fields.Lines {
		f := &r.Fields.Lines[i]
		name := f.Text.View(head)
		if f.Name != http1.NameContentLength && passes(f.Name, name, f.Nominated) && !edits.overrides(name) {
			b = appendLine(b, head, f)
		}
	}
	b = edits.appendLines(b)
	if x.record.Fallback != "" {
		b = append(b, "Proxy-Status: mainstay; error=destination_unavailable; details=\"another service stood in\"\r\n"...)
	}
	if !r.Fields.Has(http1.NameDate) && !edits.sets("Date") {
		b = append(b, "Date: "...)
		b = append(x.lane.appendDate(b), "\r\n"...)
	}
	if x.reply.Framing == http1.Chunked && r.Fields.Has(http1.NameTrailer) {
		var lines []string
		for _, f := range r.Fields.Lines {
			if f.Name == http1.NameTrailer {
				lines = append(lines, f.Value.View(head))
			}
		}
		if names := keptTrailers(lines); len(names) > 0 {
			b = http1.AppendField(b, "Trailer", strings.Join(names, ", "))
		}
	}
	return append(x.reply.AppendFields(b), "\r\n"...)
}

// stream sends b to the client, and after it the content that p has. It returns false if the exchange has ended.
func (x *loopExchange) stream(b, p []byte) bool {
	x.touch()
	out := x.lane.out[:0]
	if len(b) == 0 && x.reply.Framing != http1.Chunked && x.reply.Framing != http1.None {
		content, n, done, err := x.outgoing.Content(p)
		if err == nil && !done && n == len(p) && len(content) == n { // all of it is content
			if x.session.write(content) != nil {
				x.abandoned()
				return false
			}
			x.record.BytesOut += int64(n)
			return true
		}
		return x.streamed(append(out, content...), p[n:], len(content), done, err)
	}
	return x.streamed(b, p, 0, x.outgoing.Body.Done(), nil)
}

// streamed goes on with what was found in p already.
func (x *loopExchange) streamed(b, p []byte, sent int, done bool, err error) bool {
	for len(p) > 0 && !done && err == nil {
		var content []byte
		var n int
		content, n, done, err = x.outgoing.Content(p)
		p = p[n:]
		sent += len(content)
		if x.reply.Framing == http1.Chunked {
			b = http1.AppendChunk(b, content)
		} else {
			b = append(b, content...)
		}
	}
	if done {
		x.link.kept = p // what nobody asked for; it is closed for that
		if x.reply.Framing == http1.Chunked {
			b = appendTrailer(http1.AppendLastChunk(b), &x.outgoing.Body)
		}
		x.completed()
	}
	x.lane.out = b[:0]
	if len(b) > 0 && x.session.write(b) != nil {
		x.abandoned()
		return false
	}
	x.record.BytesOut += int64(sent)
	switch {
	case err != nil:
		x.tear(reasonIncomplete)
		return false
	case done:
		x.flush()
		return false
	}
	return true
}

// completed gives back what a response needed that has come to its end. It precedes the response's last bytes: a client that has
// these may send another request at once, which is to find the instance with one request less.
func (x *loopExchange) completed() {
	x.whole = true
	x.release()
}

// flush ends the exchange when the client has taken all that there is for it.
func (x *loopExchange) flush() {
	if x.reply.Close {
		x.last = true
	}
	if x.session.output.Size() == 0 {
		x.finish()
		return
	}
	x.enter(atFlush, 0, reasonNone)
}

// hungUp says that the instance has closed the connection, or that it has broken. Only the former can be the end of content (RFC 9112,
// section 8).
func (x *loopExchange) hungUp(err error) {
	if x.at < atStream {
		x.severed()
		return
	}
	if err != io.EOF || x.outgoing.End() != nil {
		x.tear(reasonIncomplete)
		return
	}
	x.completed()
	x.lane.out = x.lane.out[:0]
	if x.reply.Framing == http1.Chunked {
		x.lane.out = append(http1.AppendLastChunk(x.lane.out), "\r\n"...)
		if x.session.write(x.lane.out) != nil {
			x.abandoned()
			return
		}
	}
	x.flush()
}

// responseLimits returns what instances may send.
func (e *loopEngine) responseLimits() *http1.Limits { return &e.limits }
