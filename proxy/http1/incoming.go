package http1

// An Incoming is the server's side of a client's connection: one request after the other, and what their responses are to be like. The zero
// Incoming awaits the first request. Its calls, for each request:
//
//	Head      until it returns the length of a header section
//	Content   until the content has ended, if there is any; interleaved with
//	Respond   once, with the final response
//	Next      when the response has been sent to its end: does another request follow?
//
// After an error of Head or Content no request follows: Respond makes the answer close the connection. What a client sends before it has the
// response stays with the caller, who gives it to Head when its turn has come (pipelining; RFC 9112, section 9.3.2).
type Incoming struct {
	Request Request
	Body    Body // the request's content

	complete  bool // the header section has come
	continued bool // nothing is owed to Expect: 100-continue any more
	responded bool
	closes    bool // the connection does not persist
}

// A Reply is what the response to a client has to be like.
type Reply struct {
	// Framing is how the content is sent; None: there is none, whatever Length is.
	Framing Framing
	// Length is what Content-Length is to say, or -1: it is absent. A response to HEAD and 304 may say what it would be.
	Length int64
	// Close says that the connection ends with the response, which must say so and, by the framing UntilClose, may need it.
	Close bool
	// KeepAlive says that the response must say so: an HTTP/1.0 client asked for it.
	KeepAlive bool
}

// AppendFields appends the response's field lines of framing and connection.
func (r Reply) AppendFields(dst []byte) []byte {
	switch {
	case r.Framing == Chunked:
		dst = append(dst, "Transfer-Encoding: chunked\r\n"...)
	case r.Length >= 0:
		dst = AppendLength(dst, r.Length)
	}
	switch {
	case r.Close:
		dst = append(dst, "Connection: close\r\n"...)
	case r.KeepAlive:
		dst = append(dst, "Connection: keep-alive\r\n"...)
	}
	return dst
}

// Head parses the next request's header section at the beginning of p; see [Request.Parse].
func (c *Incoming) Head(p []byte, l *Limits) (int, error) {
	n, err := c.Request.Parse(p, l)
	if err != nil {
		c.closes = true
		return 0, err
	}
	if n > 0 {
		c.complete = true
		c.Body.Begin(c.Request.Framing, c.Request.Length, l)
		c.continued = !c.Request.Expect100
		c.closes = c.closes || !c.Request.KeepAlive
	}
	return n, nil
}

// Between reports whether nothing of a request has been seen since the last one ended, so that another process could go on with the
// connection, given what the caller has not yet handed to Head.
func (c *Incoming) Between() bool { return !c.complete && !c.closes && !c.Request.Begun() }

// Content finds the request's content in p; see [Body.Decode].
func (c *Incoming) Content(p []byte) (content []byte, n int, done bool, err error) {
	content, n, done, err = c.Body.Decode(p)
	if n > 0 {
		c.continued = true // a client that goes on needs no leave (RFC 9110, section 10.1.1)
	}
	if err != nil {
		c.closes = true
	}
	return content, n, done, err
}

// Received reports whether the request has come to its end.
func (c *Incoming) Received() bool { return c.complete && c.Body.Done() }

// OwesContinue reports whether the client may be waiting for leave to send the content.
func (c *Incoming) OwesContinue() bool {
	return c.complete && !c.continued && !c.responded && !c.Body.Done()
}

// AppendContinue appends the response 100 (Continue) if it is owed.
func (c *Incoming) AppendContinue(dst []byte) []byte {
	if !c.OwesContinue() {
		return dst
	}
	c.continued = true
	return append(dst, "HTTP/1.1 100 Continue\r\n\r\n"...)
}

// TakesInterim reports whether responses before the final one may be sent: HTTP/1.0 knows none (RFC 9110, section 15.2).
func (c *Incoming) TakesInterim() bool { return c.complete && !c.responded && c.Request.Minor > 0 }

// Respond says what the final response is to be like: status and framing are those of the instance's response, or of an own; length is
// what its Content-Length says, or -1. If the request's content has not come to its end, or end says so, the connection closes after
// the response: what comes later could not be told from a request (RFC 9112, section 9.3).
func (c *Incoming) Respond(status int, f Framing, length int64, end bool) Reply {
	c.responded = true
	if end || !c.Received() {
		c.closes = true
	}
	r := Reply{Framing: f, Length: -1}
	switch {
	case status < 200 || status == 204:
		r.Framing = None
	case c.Request.Method == MethodHead || status == 304:
		r.Framing, r.Length = None, length
	case f == None:
		r.Framing, r.Length = Length, 0
	case f == Length:
		r.Length = length
	case c.complete && c.Request.Minor == 0:
		r.Framing, c.closes = UntilClose, true
	default:
		r.Framing = Chunked
	}
	r.Close = c.closes
	r.KeepAlive = !c.closes && c.Request.Minor == 0
	return r
}

// Abort tells that the connection cannot be used any more after what is being sent.
func (c *Incoming) Abort() { c.closes = true }

// Next tells that the final response has been sent to its end. It returns true if another request may follow, which Head then expects;
// if not, the connection is to be closed, after the client has had time to read the response (RFC 9112, section 9.6).
func (c *Incoming) Next() bool {
	if c.closes || !c.responded || !c.Received() {
		c.closes = true
		return false
	}
	c.Request.Reset()
	c.complete, c.continued, c.responded = false, false, false
	return true
}

// Reset makes c ready for another connection. It keeps memory.
func (c *Incoming) Reset() {
	c.Request.Reset()
	c.Body.Begin(None, 0, &Limits{})
	c.complete, c.continued, c.responded, c.closes = false, false, false, false
}
