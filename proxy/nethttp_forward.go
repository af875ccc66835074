package proxy

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/textproto"
	"slices"
	"strconv"

	"mainstay/proxy/http1"
)

// roundTrip sends the request to the instance that the delivery has chosen and returns the response's header section when it has
// come. Then conn is where it came from.
func (x *exchange) roundTrip() ([]byte, *failure) {
	for {
		err := x.connect()
		if err != nil {
			return nil, x.failure(err)
		}
		head, err := x.ask()
		if err == nil {
			x.watch.enter(x.delivery.number, stageStream, x.route.Timeouts.Idle, reasonTimeoutIdle)
			if _, gaveUp := x.fate.reasons(); gaveUp == reasonNone {
				return head, nil
			}
		}
		f := x.failure(err)
		replaced := x.conn.used && f.reason == reasonReset && f.replayable && (!f.sent || f.idempotent)
		x.drop()
		if !replaced {
			return nil, f
		}
		// The instance may have closed the connection at the moment when it was chosen: this was no attempt.
	}
}

var errEnded = errors.New("the attempt was ended")

// connect takes an idle connection to the instance, or makes one.
func (x *exchange) connect() error {
	pool := x.delivery.lease.up.conns[engineNetHTTP].(*instancePool)
	c := pool.take()
	if c == nil {
		ctx, cancel := context.WithCancel(context.Background())
		if limit := x.route.Timeouts.Connect; limit > 0 {
			ctx, cancel = context.WithTimeout(context.Background(), limit)
		}
		defer cancel()
		if !x.fate.hold(calling{cancel}) || x.r.Context().Err() != nil {
			return errEnded
		}
		var err error
		if c, err = pool.dial(ctx); err != nil {
			return err
		}
	}
	x.conn = c
	c.begin(x.method(), isWebSocket(x.r), x.scratch.room[:])
	x.delivery.waiter.reached()
	return nil
}

func (x *exchange) method() http1.Method {
	if x.r.Method == http.MethodHead {
		return http1.MethodHead
	}
	return http1.MethodOther // or any that has no rules of its own
}

// ask sends the request and returns the header section of the final response.
func (x *exchange) ask() ([]byte, error) {
	c := x.conn
	if !x.fate.hold(c) || x.r.Context().Err() != nil {
		return nil, errEnded
	}
	number := x.delivery.number
	x.watch.enter(number, stageSend, x.route.Timeouts.Idle, reasonTimeoutIdle)
	if _, err := c.Write(x.requestHead()); err != nil && c.written.Load() == 0 {
		return nil, err
	}
	if x.body == nil {
		x.watch.enter(number, stageHeader, x.route.Timeouts.ResponseHeader, reasonTimeoutHeader)
	} else {
		x.sendContent(c)
	}
	limits := responseLimits()
	for {
		head, err := c.head(&limits)
		switch r := &c.outgoing.Response; {
		case err != nil:
			return nil, err
		case !r.Interim():
			x.sender.answer(false)
			return head, nil
		case r.Status == http.StatusContinue:
			x.sender.answer(true)
		default:
			x.inform(head)
		}
	}
}

// requestHead returns the request's header section as it is sent to the instance.
func (x *exchange) requestHead() []byte {
	head, at := x.scratch.head, x.hostAt
	if at == 0 {
		return head
	}
	whole := append(append([]byte(nil), head[:at]...), x.delivery.lease.up.Address...)
	return append(whole, head[at:]...)
}

// inform sends a 1xx response on. 100 is net/http's to send, when the content is first read; HTTP/1.0 knows none.
func (x *exchange) inform(head []byte) {
	if !x.r.ProtoAtLeast(1, 1) {
		return
	}
	h := x.w.Header()
	x.copyFields(h, head, &edits{})
	x.w.WriteHeader(x.conn.outgoing.Response.Status)
	clear(h)
}

// drop ends the attempt's connection.
func (x *exchange) drop() {
	c := x.conn
	if c == nil {
		return
	}
	x.conn = nil
	x.fate.release()
	c.Close()
	if s := x.sender; s != nil {
		x.sender = nil
		s.answer(false)
		s.body.Close()
	}
}

// settle gives the connection back once the response has been read to its end.
func (x *exchange) settle() {
	c := x.conn
	if x.sender.complete() {
		c.outgoing.Sent()
	}
	if !c.outgoing.Reusable(len(c.rest)) || !x.fate.release() {
		x.drop()
		return
	}
	x.conn, x.sender = nil, nil
	c.room, c.rest = nil, nil
	c.pool.put(c)
}

// failure tells why the attempt failed.
func (x *exchange) failure(err error) *failure {
	c := x.conn
	f := &failure{
		sent:       c != nil && c.written.Load() > 0,
		idempotent: idempotent(x.r.Method, len(x.r.Header["Idempotency-Key"]) > 0),
		replayable: x.body.replayable(),
		blameless:  x.sender.isSpent() || outOfDescriptors(err),
	}
	var dial dialError
	why := x.cause()
	if why == reasonNone {
		_, why = x.fate.reasons()
	}
	switch {
	case why != reasonNone:
		f.reason = why
	case x.gone():
		f.reason = reasonClientAbort
	case x.body.failure() != nil:
		f.reason = clientFault(x.body.failure())
	case errors.As(err, &dial) && isTimeout(dial.error):
		f.reason = reasonConnectTimeout
	case errors.As(err, &dial):
		f.reason = reasonConnectFailure
	case c != nil && c.heard:
		f.reason = reasonBadResponse
	default:
		f.reason = reasonReset
	}
	return f
}

// gone reports whether the client has left. net/http says so too when a read of the content fails, which is told apart once that
// read has returned.
func (x *exchange) gone() bool {
	if x.r.Context().Err() == nil {
		return false
	}
	x.body.stop()
	return x.body.failure() == nil
}

// clientFault tells what an error of reading the client's content means.
func clientFault(err error) reason {
	var network net.Error
	switch {
	case isTimeout(err):
		return reasonTimeoutBody
	case errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &network):
		return reasonClientAbort
	}
	return reasonBadRequest
}

func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}

// respond sends an instance's response to the client as it comes.
func (x *exchange) respond(head []byte) {
	defer x.drop()
	r, edits := &x.conn.outgoing.Response, &x.route.responseEdits
	x.record.Reason, x.record.Status = reasonNone, r.Status
	if x.conn.outgoing.Switched() {
		x.tunnel(head)
		return
	}
	h := x.w.Header()
	x.copyFields(h, head, edits)
	if r.Status == http.StatusNoContent {
		delete(h, "Content-Length") // RFC 9110, section 8.6
	} else if lines := h["Content-Length"]; len(lines) > 0 && r.Length >= 0 && lines[0][0] == '0' {
		lines[0] = strconv.FormatInt(r.Length, 10) // without leading zeros
	}
	edits.apply(h)
	if x.record.Fallback != "" {
		h.Add("Proxy-Status", "mainstay; error=destination_unavailable; details=\"another service stood in\"")
	}
	if _, ok := h["Content-Type"]; !ok {
		h["Content-Type"] = nil // or net/http guesses one
	}
	var announced []string
	if r.Framing == http1.Chunked && r.Fields.Has(http1.NameTrailer) {
		var lines []string
		for _, f := range r.Fields.Lines {
			if f.Name == http1.NameTrailer {
				lines = append(lines, string(f.Value.Of(head)))
			}
		}
		announced = keptTrailers(lines)
		for _, name := range announced {
			h.Add("Trailer", name)
		}
	}
	x.started.Store(true)
	x.writeHeader(r.Status)
	if x.record.Reason = x.copyContent(); x.record.Reason != reasonNone {
		x.cut = true
		return
	}
	x.copyTrailer(h, announced)
	x.settle()
}

// copyFields puts the fields of a header section that pass, and that e leaves alone, into h.
func (x *exchange) copyFields(h http.Header, head []byte, e *edits) {
	lines := x.conn.outgoing.Response.Fields.Lines
	text, values := string(head), make([]string, len(lines))
	for i := range lines {
		f := &lines[i]
		name := text[f.Text.Start:f.Text.End]
		if !passes(f.Name, name, f.Nominated) || e.overrides(name) {
			continue
		}
		name = textproto.CanonicalMIMEHeaderKey(name)
		values[i] = text[f.Value.Start:f.Value.End]
		if have, ok := h[name]; ok {
			h[name] = append(have, values[i])
		} else {
			h[name] = values[i : i+1 : i+1]
		}
	}
}

// copyTrailer puts the fields of the response's trailer section that may be sent on into h.
func (x *exchange) copyTrailer(h http.Header, announced []string) {
	body := &x.conn.outgoing.Body
	p := body.TrailerBytes()
	for _, f := range body.Trailer.Lines {
		name := textproto.CanonicalMIMEHeaderKey(string(f.Text.Of(p)))
		if !keepTrailer(name) {
			continue
		}
		if !slices.Contains(announced, name) {
			name = http.TrailerPrefix + name
		}
		h[name] = append(h[name], string(f.Value.Of(p)))
	}
}

// copyContent sends the response's content on, without waiting for more than has come.
func (x *exchange) copyContent() reason {
	c := x.conn
	framing := c.outgoing.Response.Framing
	unknown := framing == http1.Chunked || framing == http1.UntilClose
	unsent := unknown // the first byte may be long in coming: an event stream
	for done := c.outgoing.Body.Done(); !done; {
		var content []byte
		var n int
		var err error
		content, n, done, err = c.outgoing.Content(c.rest)
		c.rest = c.rest[n:]
		if x.over() {
			return x.ended(reasonIncomplete)
		}
		if len(content) > 0 {
			x.watch.touch()
			written, err := x.w.Write(content)
			x.record.BytesOut += int64(written)
			if err != nil {
				return x.ended(reasonClientAbort)
			}
			x.watch.touch()
			unsent = true
		}
		switch {
		case err != nil:
			if unsent { // of a response there is to be as much as there was
				_ = x.control.Flush()
			}
			return x.ended(reasonIncomplete)
		case done || len(c.rest) > 0:
			continue
		}
		if unsent && x.control.Flush() != nil {
			return x.ended(reasonClientAbort)
		}
		unsent = false
		if c.full && len(c.room) < copySize { // it comes in large pieces
			buffer := x.buffers.Get().(*[copySize]byte)
			defer x.buffers.Put(buffer)
			c.room = buffer[:]
		}
		err = c.more()
		if err == io.EOF && !x.over() {
			err = c.outgoing.End()
			done = err == nil
		}
		if err != nil {
			return x.ended(reasonIncomplete)
		}
	}
	// Whoever ends the request cuts off what net/http has yet to send: either nobody does any more, or it is known.
	x.watch.stop()
	if why := x.cause(); why != reasonNone {
		return why
	}
	if unknown && unsent && x.r.ProtoMajor == 1 {
		_ = x.control.Flush() // or net/http says how long it is
	}
	return reasonNone
}

// over reports whether the request was ended.
func (x *exchange) over() bool {
	why, _ := x.fate.reasons()
	return why != reasonNone || x.r.Context().Err() != nil
}

// cause tells why the request was ended, if it was.
func (x *exchange) cause() reason {
	why, _ := x.fate.reasons()
	if why == reasonNone {
		why, _ = context.Cause(x.r.Context()).(reason)
	}
	return why
}

// ended tells why a response was cut short: because the request was ended, the client went, or as otherwise says.
func (x *exchange) ended(otherwise reason) reason {
	if why := x.cause(); why != reasonNone {
		return why
	}
	if x.client.slow.Load() {
		return reasonTimeoutSend
	}
	if x.r.Context().Err() != nil {
		return reasonClientAbort
	}
	return otherwise
}
