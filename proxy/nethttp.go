package proxy

import (
	"context"
	"crypto/tls"
	"io"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A netHTTP is the engine that forwards requests with net/http. It brings together what knows nothing of it: the table,
// the pools, the policies and the access log.
//
// net/http would repair some of what is malformed and refuse the rest without a word in the access log. So of HTTP/1 it only
// sees what http1 has accepted: a strictConn stands before it on the side of clients, an instanceConn on that of instances.
// What HTTP/2 asks for is net/http's to refuse, and of its limits these are not ours: the time that a header section may take
// (an idle connection's holds), and the log line for one that is too large.
type netHTTP struct {
	*policies
	loops   *engineUse // that carry HTTP/1.1 over TLS; nil: none do
	buffers sync.Pool  // of *[copySize]byte

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
	return &netHTTP{policies: p, ids: newIDSource(), buffers: sync.Pool{New: func() any { return new([copySize]byte) }}}
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

// connectTimeoutKey is the key of a request's connect timeout in its context.
type connectTimeoutKey struct{}

// A dialError is a connection that was not established.
type dialError struct{ error }

// Unwrap tells why.
func (e dialError) Unwrap() error { return e.error }

// connect returns the connections to the instance at address. They are HTTP/1.1; none is opened yet.
func (e *netHTTP) connect(address string) conns {
	dialer := &net.Dialer{KeepAlive: dialKeepAlive}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &http.Transport{
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			if limit, _ := ctx.Value(connectTimeoutKey{}).(time.Duration); limit > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, limit)
				defer cancel()
			}
			conn, err := dialer.DialContext(ctx, network, address)
			if err != nil {
				return nil, dialError{err}
			}
			return newInstanceConn(conn), nil
		},
		Protocols:              protocols,
		DisableCompression:     true,
		MaxIdleConnsPerHost:    upstreamIdleLimit,
		IdleConnTimeout:        upstreamIdleTimeout,
		ExpectContinueTimeout:  time.Second,
		MaxResponseHeaderBytes: maxResponseHeaderBytes,
	}
}

// An exchange is one request and its response.
type exchange struct {
	*netHTTP
	server  *netHTTPServer
	w       http.ResponseWriter
	r       *http.Request
	control *http.ResponseController
	ctx     context.Context // ends with a reason as its cause
	watch   *watch
	record  record

	target   requestTarget
	route    *route
	delivery delivery
	calls    chan struct{} // receives when the delivery's waiter is called; nil: it may not wait
	header   fields        // of the request as it is sent on
	body     *requestBody  // nil: none
	// sending is how the client sends the body, awaited since when it is read. They belong to who reads it.
	sending pace
	awaited time.Time
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

// serve answers one request. It panics with http.ErrAbortHandler where the client's connection is to be aborted.
func (e *netHTTP) serve(s *netHTTPServer, w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	x := &exchange{netHTTP: e, server: s, w: w, r: r, control: http.NewResponseController(w), ctx: ctx}
	x.watch = newWatch(func(why reason) {
		cancel(why)
		if x.started.Load() {
			// A client that does not read would hold the writer.
			_ = x.control.SetWriteDeadline(time.Unix(1, 0))
		}
	})
	x.open()
	defer x.close()
	x.dispatch()
	if x.cut {
		if x.answered && !x.r.ProtoAtLeast(1, 1) && x.w.Header().Get("Content-Length") == "" {
			// Content that ends with the connection would seem whole (RFC 9112, section 8).
			x.client().abort()
		}
		panic(http.ErrAbortHandler)
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
	if x.r.Body != nil && x.r.Body != http.NoBody {
		// An answer may come before everything was read, and must not wait for that.
		_ = x.control.EnableFullDuplex()
		x.body = &requestBody{
			source: x.r.Body,
			before: func() {
				settings := x.server.settings.Load()
				x.awaited = time.Now()
				if patience := x.sending.patience(settings.limits.BodyTimeout, settings.rate); patience < forever {
					_ = x.control.SetReadDeadline(x.awaited.Add(patience))
				}
			},
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

// close ends what may still run on the request's behalf and records it.
func (x *exchange) close() {
	x.watch.stop()
	x.body.stop()
	if x.contentLeft() && x.answered && !x.cut {
		// net/http waits for some of what is left before it closes the connection.
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
	if strings.Count(strings.Join(x.r.Header["Via"], ","), x.name) >= maxLoops {
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
	who := identity{secure: x.r.TLS != nil, port: x.server.port(), proxy: x.name}
	switch {
	case x.r.ProtoMajor == 2:
		who.version = "2.0"
	case x.r.ProtoMinor == 0:
		who.version = "1.0"
	default:
		who.version = "1.1"
	}
	if peer, err := netip.ParseAddrPort(x.r.RemoteAddr); err == nil {
		who.peer = peer.Addr().Unmap().WithZone("")
	}
	who.node = who.peer.String()
	who.client = who.node
	if who.trusted = t.trusts(who.peer); who.trusted {
		who.client = clientAddress(x.r.Header["X-Forwarded-For"], who.peer, t.trusts).String()
		who.id = x.r.Header.Get("X-Request-Id")
	}
	if !isRequestID(who.id) {
		who.id = x.newID()
	}
	return who
}

// prepare makes the header that every attempt sends.
func (x *exchange) prepare(who identity) {
	h := maps.Clone(x.r.Header)
	trailers := hasToken(h["Te"], "trailers")
	who.prefix = x.route.strip
	removeHopByHop(h)
	who.write(h)
	upgrade := isWebSocket(x.r)
	if upgrade {
		h["Upgrade"] = []string{"websocket"}
	}
	trailers = trailers && !x.route.requestEdits.overrides("Te")
	if trailers {
		h["Te"] = []string{"trailers"}
	}
	if options := connectionOptions(upgrade, trailers); options != "" {
		h["Connection"] = []string{options}
	}
	if x.target.hops != "" {
		h["Max-Forwards"] = []string{x.target.hops}
	}
	if !x.r.ProtoAtLeast(1, 1) {
		delete(h, "Expect") // RFC 9110, section 10.1.1
	}
	if _, ok := h["User-Agent"]; !ok {
		h["User-Agent"] = nil // or net/http sends its own
	}
	x.route.requestEdits.apply(h)
	x.header = h
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
	if x.contentLeft() || x.server.paused() && x.client().stays() {
		x.w.Header().Set("Connection", "close") // net/http makes it a GOAWAY of HTTP/2
	}
	if x.r.Close && x.r.ProtoMajor == 1 {
		x.w.Header().Set("Connection", "close") // of HTTP/1.0 net/http heeds keep-alive beside close
	}
	x.answered = true
	x.w.WriteHeader(status)
}

func (x *exchange) client() *client { return x.r.Context().Value(clientKey{}).(*client) }

// contentLeft reports whether more of the request may come before the next one on the connection.
func (x *exchange) contentLeft() bool { return x.r.ProtoMajor == 1 && x.body.unread() }

// isWebSocket reports whether the request asks for the one upgrade that is passed on (RFC 6455, section 4.1). Any
// other would let a client talk past the routes: h2c, say.
func isWebSocket(r *http.Request) bool {
	upgrade := r.Header["Upgrade"]
	return r.Method == http.MethodGet && r.ProtoMajor == 1 && r.ProtoMinor >= 1 && r.ContentLength == 0 &&
		len(upgrade) == 1 && strings.EqualFold(upgrade[0], "websocket") && hasToken(r.Header["Connection"], "upgrade")
}
