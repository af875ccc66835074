package proxy

import (
	"context"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"strconv"
	"sync"
	"time"
)

// roundTrip sends the request to the instance that the delivery has chosen and returns the response when its header has come. ctx
// ends with the request, or earlier with the reason why the attempt was given up.
func (x *exchange) roundTrip(ctx context.Context) (*http.Response, *failure) {
	began := time.Now()
	up := x.delivery.lease.up
	t := &tracer{x: x, number: x.delivery.number, reached: x.delivery.waiter.reached}
	response, err := up.conns[engineNetHTTP].(*http.Transport).RoundTrip(x.outgoing(ctx, t, up))
	t.close()
	x.record.Upstream += time.Since(began).Seconds()
	if err != nil {
		return nil, x.failure(ctx, t, err)
	}
	x.watch.enter(t.number, stageStream, x.route.Timeouts.Idle, reasonTimeoutIdle)
	if ctx.Err() != nil && x.ctx.Err() == nil { // given up when the header had just come
		response.Body.Close()
		return nil, x.failure(ctx, t, ctx.Err())
	}
	upgraded := response.StatusCode == http.StatusSwitchingProtocols
	if upgraded && !switchesToWebSocket(x.r, response) || response.StatusCode < 200 && !upgraded {
		response.Body.Close()
		return nil, &failure{reason: reasonBadResponse, sent: true}
	}
	return response, nil
}

// outgoing returns the request as it is sent to the instance.
func (x *exchange) outgoing(ctx context.Context, t *tracer, up *upstream) *http.Request {
	ctx = context.WithValue(ctx, connectTimeoutKey{}, x.route.Timeouts.Connect)
	out := (&http.Request{
		Method: x.r.Method,
		URL:    x.outgoingURL(up),
		Proto:  "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: x.header,
		Host:   x.r.Host,
	}).WithContext(httptrace.WithClientTrace(ctx, t.hooks()))
	if host := x.route.requestEdits.host; host != "" {
		out.Host = host
	}
	if _, ok := x.header["Idempotency-Key"]; !ok && idempotent(x.r.Method, false) {
		// Without lines it is not sent, and tells the transport of PUT and DELETE what it knows of GET.
		x.header["Idempotency-Key"] = nil
	}
	if x.body == nil {
		return out
	}
	out.ContentLength = x.r.ContentLength
	for name := range x.r.Trailer {
		if keepTrailer(name) {
			if out.Trailer == nil {
				out.Trailer = http.Header{}
			}
			out.Trailer[name] = nil
		}
	}
	out.Body = x.body.attempt(out.Trailer)
	// The transport sends a request again on its own if the idle connection that it chose had died.
	out.GetBody = func() (io.ReadCloser, error) {
		if !x.body.replayable() {
			return nil, errBodySpent
		}
		return x.body.attempt(out.Trailer), nil
	}
	return out
}

// outgoingURL returns the target with the client's bytes.
func (x *exchange) outgoingURL(up *upstream) *url.URL {
	u := &url.URL{Scheme: "http", Host: up.Address}
	path := stripPath(x.target.path, x.target.normal, x.route.strip)
	u.Opaque = path
	if len(path) > 1 && path[1] == '/' {
		// As Opaque, net/url takes two slashes for the begin of an authority. As RawPath it keeps the bytes that
		// may stand in a path, and escapes others.
		u.Opaque, u.RawPath = "", path
		u.Path, _ = url.PathUnescape(path)
	}
	if x.target.query != "" {
		u.RawQuery, u.ForceQuery = x.target.query[1:], true
	}
	return u
}

// failure tells why the attempt failed.
func (x *exchange) failure(ctx context.Context, t *tracer, err error) *failure {
	f := &failure{
		sent:       t.sent(),
		idempotent: idempotent(x.r.Method, len(x.r.Header["Idempotency-Key"]) > 0),
		replayable: x.body.replayable(),
		blameless:  errors.Is(err, errBodySpent) || outOfDescriptors(err),
	}
	var dial dialError
	switch why, ended := context.Cause(ctx).(reason); {
	case ended:
		f.reason = why
	case x.gone():
		f.reason = reasonClientAbort
	case x.body.failure() != nil:
		f.reason = clientFault(x.body.failure())
	case errors.As(err, &dial) && isTimeout(dial.error):
		f.reason = reasonConnectTimeout
	case errors.As(err, &dial):
		f.reason = reasonConnectFailure
	case t.responding():
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
func (x *exchange) respond(response *http.Response) {
	defer response.Body.Close()
	x.record.Reason, x.record.Status = reasonNone, response.StatusCode
	if response.StatusCode == http.StatusSwitchingProtocols {
		x.tunnel(response)
		return
	}
	removeHopByHop(response.Header)
	if response.StatusCode == http.StatusNoContent {
		delete(response.Header, "Content-Length") // RFC 9110, section 8.6
	} else if lines := response.Header["Content-Length"]; len(lines) > 0 && response.ContentLength >= 0 {
		lines[0] = strconv.FormatInt(response.ContentLength, 10) // without leading zeros
	}
	x.route.responseEdits.apply(response.Header)
	if x.record.Fallback != "" {
		response.Header.Add("Proxy-Status", "mainstay; error=destination_unavailable; details=\"another service stood in\"")
	}
	h := x.w.Header()
	maps.Copy(h, response.Header)
	if _, ok := h["Content-Type"]; !ok {
		h["Content-Type"] = nil // or net/http guesses one
	}
	announced := maps.Clone(response.Trailer)
	for name := range announced {
		if keepTrailer(name) {
			h.Add("Trailer", name)
		}
	}
	x.started.Store(true)
	x.writeHeader(response.StatusCode)
	if x.record.Reason = x.copyContent(response); x.record.Reason != reasonNone {
		x.cut = true
		return
	}
	for name, values := range response.Trailer {
		if !keepTrailer(name) {
			continue
		}
		if _, ok := announced[name]; !ok {
			name = http.TrailerPrefix + name
		}
		h[name] = values
	}
}

// copyContent sends the response's content on, without waiting for more than has come.
func (x *exchange) copyContent(response *http.Response) reason {
	if response.ContentLength < 0 {
		// The first byte may be long in coming: an event stream.
		_ = x.control.Flush()
	}
	buffer := x.buffers.Get().(*[copySize]byte)
	defer x.buffers.Put(buffer)
	for {
		n, readErr := response.Body.Read(buffer[:])
		if x.ctx.Err() != nil {
			return x.ended(reasonIncomplete)
		}
		if n > 0 {
			x.watch.touch()
			written, err := x.w.Write(buffer[:n])
			x.record.BytesOut += int64(written)
			if err == nil && x.record.BytesOut != response.ContentLength { // the last is flushed in the end
				err = x.control.Flush()
			}
			if err != nil {
				return x.ended(reasonClientAbort)
			}
			x.watch.touch()
		}
		if readErr == io.EOF {
			// Whoever ends the request cuts off what net/http has yet to send: either nobody does any more, or it is known.
			x.watch.stop()
			if why, ok := context.Cause(x.ctx).(reason); ok {
				return why
			}
			return reasonNone
		}
		if readErr != nil {
			return x.ended(reasonIncomplete)
		}
	}
}

// ended tells why a response was cut short: because the request was ended, the client went, or as otherwise says.
func (x *exchange) ended(otherwise reason) reason {
	if why, ok := context.Cause(x.ctx).(reason); ok {
		return why
	}
	if x.client().slow.Load() {
		return reasonTimeoutSend
	}
	if x.ctx.Err() != nil {
		return reasonClientAbort
	}
	return otherwise
}

// A tracer follows one attempt through the transport. Its hooks may be called late, from other goroutines.
type tracer struct {
	x       *exchange
	number  uint64
	reached func() // is called when there is a connection

	mu      sync.Mutex
	closed  bool
	conn    *instanceConn
	base    int64 // what had been written to conn before
	answers bool  // the first byte of a response has come
	interim int   // 1xx responses
}

// maxInterim is how many 1xx responses an instance may send before the final one.
const maxInterim = 16

func (t *tracer) hooks() *httptrace.ClientTrace {
	return &httptrace.ClientTrace{
		GotConn:              t.connected,
		WroteRequest:         t.wrote,
		GotFirstResponseByte: t.answered,
		Got1xxResponse:       t.informed,
	}
}

func (t *tracer) connected(info httptrace.GotConnInfo) {
	t.mu.Lock()
	t.conn, _ = info.Conn.(*instanceConn)
	t.conn.expect(t.x.r.Method == http.MethodHead)
	t.base, t.answers = t.conn.written.Load(), false
	t.mu.Unlock()
	t.reached()
	t.x.watch.enter(t.number, stageSend, t.x.route.Timeouts.Idle, reasonTimeoutIdle)
}

func (t *tracer) wrote(httptrace.WroteRequestInfo) {
	t.x.watch.enter(t.number, stageHeader, t.x.route.Timeouts.ResponseHeader, reasonTimeoutHeader)
}

func (t *tracer) answered() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.answers = true
}

// informed sends a 1xx response on. 100 is net/http's to send, when the content is first read; HTTP/1.0 knows none.
func (t *tracer) informed(code int, header textproto.MIMEHeader) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.interim++; t.interim > maxInterim {
		return errors.New("too many interim responses")
	}
	if t.closed || code == http.StatusContinue || !t.x.r.ProtoAtLeast(1, 1) {
		return nil
	}
	removeHopByHop(header)
	h := t.x.w.Header()
	maps.Copy(h, http.Header(header))
	t.x.w.WriteHeader(code)
	clear(h)
	return nil
}

// close makes the hooks leave the client's response alone.
func (t *tracer) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
}

// sent reports whether any of the request may have reached the instance.
func (t *tracer) sent() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.conn != nil && t.conn.written.Load() != t.base
}

// responding reports whether a byte of a response has come.
func (t *tracer) responding() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.answers
}
