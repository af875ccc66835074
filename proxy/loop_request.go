//go:build linux

package proxy

import (
	"net/http"
	"strings"

	"mainstay/proxy/http1"
)

// open fills in what is known when the header has come.
func (x *loopExchange) open() {
	s, r := x.session, &x.incoming.Request
	x.opened = x.lane.clock()
	x.table = x.lane.engine.table.Load()
	x.record = record{
		Time: x.lane.now(), Method: x.text(r.Text), Host: x.text(r.Authority), Protocol: "HTTP/1.1",
		UserAgent: x.value(http1.NameUserAgent), Status: 500, Reason: reasonInternalFailure, Client: s.name,
	}
	if r.Minor == 0 {
		x.record.Protocol = "HTTP/1.0"
	}
	u := &x.upload
	u.chunked = r.Framing == http1.Chunked
	switch {
	case x.incoming.Received():
		u.state = uploadNone
	case x.incoming.OwesContinue():
		u.state = uploadExpected
	default:
		u.state = uploadOpen
	}
}

// dispatch finds out what is asked for and by whom, and forwards the request or answers it.
func (x *loopExchange) dispatch() {
	who := x.identify()
	if m := x.incoming.Request.Method; m == http1.MethodConnect || m == http1.MethodTrace {
		x.answer(reasonBadMethod, "")
		return
	}
	if err := x.readTarget(); err != nil {
		x.answer(reasonBadRequest, err.Error())
		return
	}
	if port := x.session.branch.server.settings.Load().redirect; port != "" {
		x.redirect(port)
		return
	}
	if x.record.Method == http.MethodOptions && x.incoming.Request.Fields.Has(http1.NameMaxForwards) {
		hops, last, err := countHop(x.values(http1.NameMaxForwards))
		switch {
		case err != nil:
			x.answer(reasonBadRequest, err.Error())
			return
		case last:
			x.record.Reason = reasonLastHop
			x.send(capabilities())
			return
		}
		x.target.hops = hops
	}
	if x.loops() {
		x.answer(reasonLoop, "")
		return
	}
	x.route = x.table.match(x.target.host, x.target.normal)
	if x.route == nil {
		x.answer(reasonNoRoute, "")
		return
	}
	x.route.requests.Add(1)
	x.record.Route, x.record.Service = x.route.name, x.route.Service
	who.prefix = x.route.strip
	x.compose(&who)
	x.forward()
}

// readTarget reads the request's target and host.
func (x *loopExchange) readTarget() (err error) {
	if x.target.path, x.target.query, err = splitTarget(x.text(x.incoming.Request.Target)); err != nil {
		return err
	}
	x.record.Path = x.target.path
	if x.target.normal, err = normalisePath(x.target.path); err != nil {
		return err
	}
	x.target.host, err = normaliseHost(x.record.Host)
	return err
}

// identify tells who sent the request.
func (x *loopExchange) identify() identity {
	s := x.session
	who := identity{
		peer: s.peer, node: s.name, client: s.name, host: x.record.Host, port: s.branch.server.portText,
		version: "1.1", proxy: x.lane.engine.name,
	}
	if s.secure != nil {
		who.secure, x.record.TLS = true, s.secure.version
	}
	if x.incoming.Request.Minor == 0 {
		who.version = "1.0"
	}
	if who.trusted = x.table.trusts(who.peer); who.trusted {
		if x.incoming.Request.Fields.Has(http1.NameXForwardedFor) {
			who.client = clientAddress(x.values(http1.NameXForwardedFor), who.peer, x.table.trusts).String()
		}
		who.id = x.value(http1.NameXRequestID)
	}
	if !isRequestID(who.id) {
		x.id = x.lane.ids.appendID(x.id[:0])
		who.id = view(x.id)
	}
	x.record.ID, x.record.Client = who.id, who.client
	return who
}

// values returns views of all lines of a field.
func (x *loopExchange) values(name http1.Name) (lines []string) {
	for _, f := range x.incoming.Request.Fields.Lines {
		if f.Name == name {
			lines = append(lines, x.text(f.Value))
		}
	}
	return lines
}

// loops reports whether the request has come through this proxy too often.
func (x *loopExchange) loops() bool {
	if !x.incoming.Request.Fields.Has(http1.NameVia) {
		return false
	}
	return strings.Count(strings.Join(x.values(http1.NameVia), ","), x.lane.engine.name) >= maxLoops
}

// compose writes the header that every attempt sends.
func (x *loopExchange) compose(who *identity) {
	r, edits, have := &x.incoming.Request, &x.route.requestEdits, &x.lane.forwarding
	b := append(append(x.head[:0], x.record.Method...), ' ')
	b = append(b, stripPath(x.target.path, x.target.normal, x.route.strip)...)
	b = append(append(b, x.target.query...), " HTTP/1.1\r\nHost: "...)
	host := edits.host
	if host == "" {
		host = x.record.Host
	}
	x.hostAt = 0
	if host == "" {
		x.hostAt = len(b) // every instance gets its own address
	}
	b = append(append(b, host...), "\r\n"...)
	for i := range r.Fields.Lines {
		f := &r.Fields.Lines[i]
		name := x.text(f.Text)
		if f.Name == http1.NameHost || f.Name == http1.NameContentLength || !passes(f.Name, name, f.Nominated) ||
			f.Name == http1.NameExpect && r.Minor == 0 { // RFC 9110, section 10.1.1
			continue
		}
		if who.replaces(f.Name, name) {
			have.note(who, f.Name, x.text(f.Value))
			continue
		}
		if f.Name != http1.NameOther && isIdentity(f.Name, name) {
			have.note(who, f.Name, x.text(f.Value))
		}
		if !edits.overrides(name) {
			if f.Name == http1.NameMaxForwards && x.target.hops != "" {
				b = http1.AppendField(b, name, x.target.hops)
				continue
			}
			b = appendLine(b, x.raw, f)
		}
	}
	b = who.appendFields(b, have, edits)
	have.reset()
	trailers := r.Trailers && !edits.overrides("Te")
	if options := connectionOptions(r.WebSocket, trailers); options != "" {
		b = http1.AppendField(b, "Connection", options)
	}
	if r.WebSocket {
		b = append(b, "Upgrade: websocket\r\n"...)
	}
	if trailers {
		b = append(b, "Te: trailers\r\n"...)
	}
	b = edits.appendLines(x.appendFraming(b))
	x.head = append(b, "\r\n"...)
}

// appendLine appends a field line of the header p.
func appendLine(b, p []byte, f *http1.Field) []byte {
	b = append(b, p[f.Text.Start:f.Text.End]...)
	b = append(b, ": "...)
	b = append(b, p[f.Value.Start:f.Value.End]...)
	return append(b, "\r\n"...)
}

// appendFraming appends the fields that say how long the content is.
func (x *loopExchange) appendFraming(b []byte) []byte {
	r := &x.incoming.Request
	switch {
	case r.Framing == http1.Chunked:
		b = append(b, "Transfer-Encoding: chunked\r\n"...)
		if r.Fields.Has(http1.NameTrailer) {
			if names := keptTrailers(x.values(http1.NameTrailer)); len(names) > 0 {
				b = http1.AppendField(b, "Trailer", strings.Join(names, ", "))
			}
		}
	case r.Framing == http1.Length && r.Length > 0:
		b = http1.AppendLength(b, r.Length)
	case r.Method == http1.MethodPost || r.Method == http1.MethodPut || r.Method == http1.MethodPatch:
		b = append(b, "Content-Length: 0\r\n"...)
	}
	return b
}

// appendTrailer appends the fields of a trailer section that may be sent on, and the empty line at its end.
func appendTrailer(b []byte, body *http1.Body) []byte {
	p := body.TrailerBytes()
	for _, f := range body.Trailer.Lines {
		if keepTrailer(f.Text.View(p)) {
			b = http1.AppendField(b, f.Text.View(p), f.Value.View(p))
		}
	}
	return append(b, "\r\n"...)
}
