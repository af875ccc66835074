package proxy

import (
	"context"
	"crypto/tls"
	"io"
	"net/http"
	"net/textproto"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"mainstay/proxy/http1"
)

// A netHTTP is the engine that forwards requests with net/http. It brings together what knows nothing of it: the table,
// the pools, the policies and the access log.
//
// net/http would repair some of what is malformed and refuse the rest without a word in the access log. So of HTTP/1 it only
// sees what http1 has accepted: a strictConn stands before it on the side of clients. Instances are spoken to without it.
// What HTTP/2 asks for is net/http's to refuse, and of its limits these are not ours: the time that a header section may take
// (an idle connection's holds), and the log line for one that is too large.
type netHTTP struct {
	*policies
	loops   *engineUse // that carry HTTP/1.1 over TLS; nil: none do
	buffers sync.Pool  // of *[copySize]byte
	desks   sync.Pool  // of *scratch

	mu  sync.Mutex
	ids idSource
}

const (
	copySize = 32 << 10
	// maxLoops is how often a request may come through this proxy: services behind it may call each other through it.
	maxLoops = 5

	dialKeepAlive          = 15 * time.Second
	upstreamIdleTimeout    = 30 * time.Second
	upstreamIdleLimit      = 256 // connections per instance
	maxResponseHeaderBytes = 64 << 10
)

func newNetHTTP(p *policies) *netHTTP {
	return &netHTTP{
		policies: p, ids: newIDSource(),
		buffers: sync.Pool{New: func() any { return new([copySize]byte) }},
		desks:   sync.Pool{New: func() any { return new(scratch) }},
	}
}

// newID returns an id for a request.
func (e *netHTTP) newID() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return string(e.ids.appendID(nil))
}

// start implements engine: there is nothing to start before the first server.
func (e *netHTTP) start() error { return nil }

// stop implements engine.
func (e *netHTTP) stop() {}

// listen implements engine.
func (e *netHTTP) listen(l *listener) server { return newNetHTTPServer(e.log, e, l) }

// An exchange is one request and its response.
type exchange struct {
	*netHTTP
	server  *netHTTPServer
	w       http.ResponseWriter
	r       *http.Request
	client  *client
	control *http.ResponseController
	watch   *watch
	fate    fate
	record  record
	scratch *scratch

	target   requestTarget
	route    *route
	delivery delivery
	calls    chan struct{} // receives when the delivery's waiter is called; nil: it may not wait
	hostAt   int           // where the instance's address is to stand in the header; 0: nowhere
	conn     *instanceConn // of the attempt
	sender   *sender       // nil: the attempt sends no content
	senders  sync.WaitGroup
	body     *requestBody // nil: none
	// sending is how the client sends the body, awaited since when it is read, patience for how long at most. They belong to who
	// reads it.
	sending  pace
	awaited  time.Time
	patience time.Duration
	// started says that an instance's response may have been begun to be sent.
	started atomic.Bool
	// cut says that the response could not be finished, which the client must notice.
	cut bool
	// answered says that the head of a response has been handed to net/http, which would invent one.
	answered bool
}

// A requestTarget is the request's target, raw as it is sent on and normalised as it is matched.
type requestTarget struct {
	path, query, normal, host string
	hops                      string // what Max-Forwards is to say; empty: what the client says
}

// A scratch is memory that an exchange needs until it has ended.
type scratch struct {
	head []byte // of the request as it is sent on
	have forwarding
	room [4 << 10]byte // for the response's header
}

// serve answers one request. It panics with http.ErrAbortHandler where the client's connection is to be aborted.
func (e *netHTTP) serve(s *netHTTPServer, w http.ResponseWriter, r *http.Request) {
	x := &exchange{netHTTP: e, server: s, w: w, r: r, control: http.NewResponseController(w)}
	x.client = r.Context().Value(clientKey{}).(*client)
	x.scratch = e.desks.Get().(*scratch)
	x.watch = newWatch(x.end)
	defer context.AfterFunc(r.Context(), x.fate.leave)()
	x.open()
	defer x.close()
	x.dispatch()
	if x.cut {
		if x.answered && !x.r.ProtoAtLeast(1, 1) && x.w.Header().Get("Content-Length") == "" {
			// Content that ends with the connection would seem whole (RFC 9112, section 8).
			x.client.abort()
		}
		panic(http.ErrAbortHandler)
	}
}

// end ends the request from another goroutine.
func (x *exchange) end(why reason) {
	x.fate.end(why)
	if x.started.Load() {
		// A client that does not read would hold the writer.
		_ = x.control.SetWriteDeadline(time.Unix(1, 0))
	}
}

// open fills in what is known when the header has come.
func (x *exchange) open() {
	x.record = record{
		Time: x.watch.start, Method: x.r.Method, Host: x.r.Host, Protocol: x.r.Proto,
		UserAgent: x.r.UserAgent(), Status: 500, Reason: reasonInternalFailure,
	}
	if x.r.TLS != nil {
		x.record.TLS = tls.VersionName(x.r.TLS.Version)
	}
	if hasContent(x.r) {
		// An answer may come before everything was read, and must not wait for that.
		_ = x.control.EnableFullDuplex()
		x.body = &requestBody{
			source: x.r.Body,
			before: func() {
				settings := x.server.settings.Load()
				x.awaited = time.Now()
				x.patience = x.sending.patience(settings.limits.BodyTimeout, settings.rate)
				if x.patience < forever {
					_ = x.control.SetReadDeadline(x.awaited.Add(x.patience))
				}
			},
			late: func() bool { return time.Since(x.awaited) >= x.patience },
			after: func(n int) {
				_ = x.control.SetReadDeadline(time.Time{})
				x.sending.move(time.Since(x.awaited), n)
				x.watch.touch()
			},
			rouse:  func() { _ = x.control.SetReadDeadline(time.Unix(1, 0)) },
			fields: func() fields { return x.r.Trailer },
		}
	}
}

// hasContent reports whether content may follow the request's header, or a trailer section that is to be sent on. net/http gives
// every request of HTTP/2 a body.
func hasContent(r *http.Request) bool {
	if r.ProtoMajor == 2 {
		return r.ContentLength != 0 || len(r.Trailer) > 0
	}
	return r.Body != nil && r.Body != http.NoBody
}

// close ends what may still run on the request's behalf and records it.
func (x *exchange) close() {
	x.watch.stop()
	x.drop()
	x.body.stop()
	x.senders.Wait()
	x.release()
	// net/http waits for some of what is left before it closes the connection.
	switch {
	case !x.contentLeft():
	case x.cut:
		_ = x.control.SetReadDeadline(time.Unix(1, 0))
	case x.answered:
		_ = x.control.Flush()
		_ = x.control.SetReadDeadline(time.Now().Add(lingerTimeout))
	}
	x.delivery.end(time.Now())
	if x.body != nil {
		x.record.BytesIn = x.body.read.Load()
	}
	x.record.Duration = time.Since(x.record.Time).Seconds()
	x.metrics.observe(x.route, &x.record)
	if log := x.access.Load(); log != nil {
		log.write(&x.record)
	}
}

// release gives the scratch back.
func (x *exchange) release() {
	if cap(x.scratch.head) > copySize {
		x.scratch.head = nil
	}
	x.desks.Put(x.scratch)
	x.scratch = nil
}

// dispatch finds out what is asked for and by whom, and forwards the request or answers it.
func (x *exchange) dispatch() {
	t := x.table.Load()
	who := x.identify(t)
	x.record.ID, x.record.Client = who.id, who.client
	if x.r.Method == http.MethodConnect || x.r.Method == http.MethodTrace {
		x.answer(reasonBadMethod, "")
		return
	}
	if err := x.readTarget(); err != nil {
		x.answer(reasonBadRequest, err.Error())
		return
	}
	who.host = x.r.Host
	if port := x.server.settings.Load().redirect; port != "" {
		x.redirect(port)
		return
	}
	if x.r.Method == http.MethodOptions {
		hops, last, err := countHop(x.r.Header["Max-Forwards"])
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
	if via := x.r.Header["Via"]; len(via) > 0 && strings.Count(strings.Join(via, ","), x.name) >= maxLoops {
		x.answer(reasonLoop, "")
		return
	}
	x.route = t.match(x.target.host, x.target.normal)
	if x.route == nil {
		x.answer(reasonNoRoute, "")
		return
	}
	x.route.requests.Add(1)
	x.record.Route, x.record.Service = x.route.name, x.route.Service
	x.prepare(who)
	x.forward()
}

// readTarget reads the request's target and host.
func (x *exchange) readTarget() (err error) {
	if x.target.path, x.target.query, err = splitTarget(x.r.RequestURI); err != nil {
		return err
	}
	x.record.Path = x.target.path
	if x.target.normal, err = normalisePath(x.target.path); err != nil {
		return err
	}
	x.target.host, err = normaliseHost(x.r.Host)
	return err
}

// identify tells who sent the request.
func (x *exchange) identify(t *table) identity {
	who := identity{
		peer: x.client.address, node: x.client.name, client: x.client.name, secure: x.r.TLS != nil, port: x.server.portText, proxy: x.name,
	}
	switch {
	case x.r.ProtoMajor == 2:
		who.version = "2.0"
	case x.r.ProtoMinor == 0:
		who.version = "1.0"
	default:
		who.version = "1.1"
	}
	if who.trusted = t.trusts(who.peer); who.trusted {
		who.client = clientAddress(x.r.Header["X-Forwarded-For"], who.peer, t.trusts).String()
		who.id = x.r.Header.Get("X-Request-Id")
	}
	if !isRequestID(who.id) {
		who.id = x.newID()
	}
	return who
}

// prepare writes the header that every attempt sends.
func (x *exchange) prepare(who identity) {
	who.prefix = x.route.strip
	edits, have := &x.route.requestEdits, &x.scratch.have
	b := http1.AppendRequestLine(x.scratch.head[:0], x.r.Method, stripPath(x.target.path, x.target.normal, x.route.strip)+x.target.query)
	b = append(b, "Host: "...)
	host := edits.host
	if host == "" {
		host = x.r.Host
	}
	if host == "" {
		x.hostAt = len(b) // every instance gets its own address
	}
	b = append(append(b, host...), "\r\n"...)
	for name, lines := range x.r.Header {
		n := nameOf(name)
		if n == http1.NameExpect && !x.r.ProtoAtLeast(1, 1) {
			continue // RFC 9110, section 10.1.1
		}
		if n == http1.NameMaxForwards && x.target.hops != "" {
			continue
		}
		if n == http1.NameHost || n == http1.NameContentLength || !passes(n, name, hasToken(x.r.Header["Connection"], name)) {
			continue
		}
		replaced := who.replaces(n, name)
		for _, line := range lines {
			if replaced || isIdentity(n, name) {
				have.note(&who, n, line)
			}
			if !replaced && !edits.overrides(name) {
				b = http1.AppendField(b, name, textproto.TrimString(line))
			}
		}
	}
	b = who.appendFields(b, have, edits)
	have.reset()
	if x.target.hops != "" && !edits.overrides("Max-Forwards") {
		b = http1.AppendField(b, "Max-Forwards", x.target.hops)
	}
	upgrade, trailers := isWebSocket(x.r), hasToken(x.r.Header["Te"], "trailers") && !edits.overrides("Te")
	if options := connectionOptions(upgrade, trailers); options != "" {
		b = http1.AppendField(b, "Connection", options)
	}
	if upgrade {
		b = append(b, "Upgrade: websocket\r\n"...)
	}
	if trailers {
		b = http1.AppendField(b, "Te", "trailers")
	}
	b = edits.appendLines(x.appendFraming(b))
	x.scratch.head = append(b, "\r\n"...)
}

// appendFraming appends the fields that say how long the content is.
func (x *exchange) appendFraming(b []byte) []byte {
	switch {
	case x.body != nil && x.r.ContentLength > 0:
		return http1.AppendLength(b, x.r.ContentLength)
	case x.body != nil:
		b = append(b, "Transfer-Encoding: chunked\r\n"...)
		var names []string
		for name := range x.r.Trailer {
			if keepTrailer(name) {
				names = append(names, name)
			}
		}
		if len(names) > 0 {
			slices.Sort(names)
			b = http1.AppendField(b, "Trailer", strings.Join(names, ", "))
		}
	case x.r.Method == http.MethodPost || x.r.Method == http.MethodPut || x.r.Method == http.MethodPatch:
		b = append(b, "Content-Length: 0\r\n"...)
	}
	return b
}

// redirect sends the client to the same place at https.
func (x *exchange) redirect(port string) {
	if x.target.host == "" {
		x.answer(reasonBadRequest, "the request has no host")
		return
	}
	x.record.Reason = reasonRedirect
	x.send(redirection("https://" + withPort(x.r.Host, port) + x.target.path + x.target.query))
}

// answer ends the request with the proxy's own response, or with none if the client went away.
func (x *exchange) answer(why reason, detail string) {
	x.watch.stop() // what it ended must not be ended again with the answer
	x.record.Reason, x.record.Status = why, why.answer().status
	if x.record.Status == statusClientClosedRequest {
		x.cut = true
		return
	}
	x.send(refusal(why, why.answer().saying(detail), x.record.ID))
}

// send sends a response of the proxy's own.
func (x *exchange) send(r reply) {
	x.record.Status = r.status
	h := x.w.Header()
	h["Content-Type"] = nil // or net/http guesses one
	for _, f := range r.fields {
		h[f.name] = []string{f.value}
	}
	x.writeHeader(r.status)
	if x.r.Method == http.MethodHead || r.content == "" {
		return
	}
	if n, err := io.WriteString(x.w, r.content); err == nil {
		x.record.BytesOut = int64(n)
	}
}

// writeHeader sends the response's header. A client whose content was not read to its end is told that the connection
// closes: net/http would take what comes late for the next request.
func (x *exchange) writeHeader(status int) {
	if x.contentLeft() || x.server.paused() && x.client.stays() {
		x.w.Header().Set("Connection", "close") // net/http makes it a GOAWAY of HTTP/2
	}
	if x.r.Close && x.r.ProtoMajor == 1 {
		x.w.Header().Set("Connection", "close") // of HTTP/1.0 net/http heeds keep-alive beside close
	}
	x.answered = true
	x.w.WriteHeader(status)
}

// contentLeft reports whether more of the request may come before the next one on the connection.
func (x *exchange) contentLeft() bool { return x.r.ProtoMajor == 1 && x.body.unread() }

// isWebSocket reports whether the request asks for the one upgrade that is passed on (RFC 6455, section 4.1). Any
// other would let a client talk past the routes: h2c, say.
func isWebSocket(r *http.Request) bool {
	upgrade := r.Header["Upgrade"]
	return r.Method == http.MethodGet && r.ProtoMajor == 1 && r.ProtoMinor >= 1 && r.ContentLength == 0 &&
		len(upgrade) == 1 && strings.EqualFold(upgrade[0], "websocket") && hasToken(r.Header["Connection"], "upgrade")
}
