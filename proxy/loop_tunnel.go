//go:build linux

package proxy

import (
	"mainstay/eventloop"
	"mainstay/proxy/http1"
)

// A tunnelEnd is how far one direction of a tunnel is.
type tunnelEnd uint8

const (
	tunnelOpen   tunnelEnd = iota
	tunnelEnding           // nothing more comes, and what there is is being sent
	tunnelEnded            // the other side has been told
)

// A tunnel is a WebSocket's two directions.
type tunnel struct{ up, down tunnelEnd }

// switchOver sends the 101 response on, and from then on bytes both ways until both sides have ended, or one fails.
func (x *loopExchange) switchOver(head, rest []byte) bool {
	r, edits := &x.outgoing.Response, &x.route.responseEdits
	x.enter(atTunnel, x.route.Timeouts.Idle, reasonTimeoutIdle)
	b := http1.AppendStatusLine(x.lane.out[:0], r.Status, http1.ReasonPhrase(r.Status))
	for i := range r.Fields.Lines {
		f := &r.Fields.Lines[i]
		name := f.Text.View(head)
		if f.Name != http1.NameContentLength && passes(f.Name, name, f.Nominated) && !edits.overrides(name) {
			b = appendLine(b, head, f)
		}
	}
	b = edits.appendLines(b)
	b = append(b, "Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"...)
	b = append(b, rest...)
	x.lane.out = b[:0]
	x.last = true
	x.tunnels = tunnel{}
	x.record.BytesOut = int64(len(rest))
	if x.session.write(b) != nil {
		x.abandoned()
		return false
	}
	x.tunnel()
	return false
}

// tunnel sends on what has come from either side.
func (x *loopExchange) tunnel() {
	s, l, lane := x.session, x.link, x.lane
	before := l.output.Size() + s.output.Size()
	if l.output.Flush(&l.socket) != nil || s.output.Flush(&s.socket) != nil {
		x.sealed()
		return
	}
	if l.output.Size()+s.output.Size() < before {
		x.touch()
	}
	t := &x.tunnels
	for budget := 4; t.up == tunnelOpen && l.output.Drained(); budget-- {
		if budget == 0 {
			lane.loop.Again(&s.socket)
			break
		}
		if err := s.more(); err != nil {
			t.up = tunnelEnding
			break
		}
		n := len(s.rest)
		if n == 0 {
			break
		}
		x.touch()
		if l.output.Write(&l.socket, s.rest) != nil {
			x.sealed()
			return
		}
		s.rest = s.rest[n:]
		x.record.BytesIn += int64(n)
	}
	for budget := 4; t.down == tunnelOpen && s.output.Drained(); budget-- {
		if budget == 0 {
			lane.loop.Again(&l.socket)
			break
		}
		n, err := l.socket.Read(lane.reply)
		if err != nil {
			t.down = tunnelEnding
			break
		}
		if n == 0 {
			break
		}
		x.touch()
		if s.write(lane.reply[:n]) != nil {
			x.sealed()
			return
		}
		x.record.BytesOut += int64(n)
	}
	x.seal(&t.up, &l.output, l.socket.CloseWrite)
	x.seal(&t.down, &s.output, s.closeWrite)
	// A socket that both sides have ended has failed, too, as the kernel says, and there may be much to read from it.
	broken := s.socket.Failed() && t.down != tunnelEnded || l.socket.Failed() && t.up != tunnelEnded
	if t.up == tunnelEnded && t.down == tunnelEnded || broken {
		x.sealed()
	}
}

// seal tells the other side that nothing more comes, once it has got what there was.
func (x *loopExchange) seal(end *tunnelEnd, out *eventloop.Output, tell func() error) {
	if *end == tunnelEnding && out.Size() == 0 {
		*end = tunnelEnded
		_ = tell()
	}
}

// closeWrite tells the client that nothing more comes.
func (s *session) closeWrite() error {
	if s.secure != nil {
		return s.secure.end()
	}
	return s.socket.CloseWrite()
}

// sealed ends the tunnel.
func (x *loopExchange) sealed() {
	x.cut = true
	x.finish()
}
