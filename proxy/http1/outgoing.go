package http1

// An Outgoing is the client's side of a connection to an instance: one request after the other, and their responses. The zero Outgoing
// is ready for the first. Its calls, for each request:
//
//	Begin     when the header section is about to be sent
//	Sent      when the request has been sent to its end
//	Head      until it returns the length of a header section whose response is not Interim
//	Content   until the content has ended
//	Reusable  then: may another request be sent?
//
// End tells that the instance closed the connection, at any time. Sent may come after the response, or never: an instance
// may answer early.
type Outgoing struct {
	Response Response
	Body     Body // the response's content

	toHead    bool
	webSocket bool // was asked for
	sent      bool
	answered  bool // the final header section has come
	switched  bool
	broken    bool
	interim   int
}

// Begin tells that a request with the method is about to be sent, and whether it asks for the upgrade to WebSocket.
func (c *Outgoing) Begin(m Method, webSocket bool) {
	c.Response.Reset()
	c.Body.Begin(None, 0, &Limits{})
	c.toHead, c.webSocket = m == MethodHead, webSocket
	c.sent, c.answered, c.switched, c.broken, c.interim = false, false, false, false, 0
}

// Sent tells that the request has been sent to its end.
func (c *Outgoing) Sent() { c.sent = true }

// Head parses the next header section at the beginning of p; see [Response.Parse]. After an interim response
// it is to be called again, with what follows.
func (c *Outgoing) Head(p []byte, l *Limits) (int, error) {
	if c.Response.Status != 0 && c.Response.phase == phaseDone {
		c.Response.Reset()
	}
	n, err := c.Response.Parse(p, l, c.toHead)
	if err != nil {
		c.broken = true
		return 0, err
	}
	switch r := &c.Response; {
	case n == 0:
	case r.Interim():
		if c.interim++; exceeded(c.interim, l.Interim) {
			c.broken = true
			return 0, errInterim
		}
	case r.Status == 101 && !(c.webSocket && r.WebSocket):
		c.broken = true
		return 0, errSwitch
	default:
		c.answered = true
		c.switched = r.Status == 101
		c.Body.Begin(r.Framing, r.Length, l)
	}
	return n, nil
}

// Answered reports whether the final header section has come.
func (c *Outgoing) Answered() bool { return c.answered }

// Switched reports whether the connection is a WebSocket's from here on: what follows the header section is not HTTP.
func (c *Outgoing) Switched() bool { return c.switched }

// Content finds the response's content in p; see [Body.Decode].
func (c *Outgoing) Content(p []byte) (content []byte, n int, done bool, err error) {
	content, n, done, err = c.Body.Decode(p)
	if err != nil {
		c.broken = true
		err = err.(*Error).fromInstance()
	}
	return content, n, done, err
}

// End tells that the instance closed the connection. It returns an error unless the response has come to its end, by that or before.
func (c *Outgoing) End() error {
	c.broken = true
	if !c.answered {
		return errIncompleteHead
	}
	return c.Body.End()
}

// Reusable reports whether another request may be sent on the connection. unread is how many bytes have come after the response: nobody
// asked for them, and the next response would not be the one that it seems to be (RFC 9112, section 9.2). The same is true of
// bytes that come while no request is under way: then the connection is to be closed.
func (c *Outgoing) Reusable(unread int) bool {
	return c.sent && c.answered && c.Body.Done() && c.Response.KeepAlive && unread == 0 && !c.switched && !c.broken
}
