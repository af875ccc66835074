package http1

// A Response is a response's header section. The zero Response is ready to parse one. What it tells is valid once Parse has
// returned where the section ends; spans are offsets into the bytes that Parse was given.
type Response struct {
	Fields Fields

	Reason Span // the reason phrase, which may be empty

	// Length is what Content-Length says, or -1. With the framing None there is no content all the same: the response is to HEAD, or
	// its status says so.
	Length int64
	Status int

	Framing   Framing
	Minor     uint8 // of the version: HTTP/1.Minor
	KeepAlive bool  // the instance goes on after the response (RFC 9112, section 9.3)
	// WebSocket says that a response with status 101 switches to it (RFC 6455, section 4.2.2).
	WebSocket bool

	fault *Error
	phase phase
	begin int
	scan  int
}

// Reset makes r ready for another response. It keeps the memory of Fields.
func (r *Response) Reset() {
	fields := r.Fields
	fields.reset(0)
	*r = Response{Fields: fields}
}

// Begun reports whether any byte of a response has been seen.
func (r *Response) Begun() bool { return r.phase != phaseStart || r.scan > 0 }

// Interim reports whether the response is one before the final one (RFC 9110, section 15.2). 101 is none: nothing follows it.
func (r *Response) Interim() bool { return r.Status < 200 && r.Status != 101 }

// Parse reads the header section at the beginning of p, as [Request.Parse] does. toHead says that the request was HEAD. The Status of an
// [*Error] is 502.
func (r *Response) Parse(p []byte, l *Limits, toHead bool) (int, error) {
	if r.fault != nil {
		return 0, r.fault
	}
	n, err := r.parse(within(p, l.Head), l, toHead)
	if n == 0 && err == nil && len(within(p, l.Head)) < len(p) {
		err = errHeadTooLong
	}
	r.fault = err.fromInstance()
	return n, r.fault.refusal()
}

func (r *Response) parse(p []byte, l *Limits, toHead bool) (int, *Error) {
	if r.phase != phaseFields {
		if done, err := r.parseLine(p); !done || err != nil {
			return 0, err
		}
	}
	n, err := r.Fields.parse(p, l.Fields)
	if n == 0 || err != nil {
		return 0, err
	}
	r.phase = phaseDone
	return n, r.conclude(p, toHead)
}

// parseLine reads the status line (RFC 9112, section 4). It returns false if more is needed.
func (r *Response) parseLine(p []byte) (bool, *Error) {
	const begin = len("HTTP/1.1 200")
	if r.phase == phaseStart {
		n, err := parseVersion(p, &r.Minor)
		if n == 0 || err != nil {
			r.scan = min(len(p), 1)
			return false, err
		}
		for i := n; i < min(len(p), begin); i++ {
			c := p[i]
			switch {
			case c == '\n':
				return false, errBareLF
			case i == n && c != ' ':
				return false, errVersion
			case i > n && c-'0' > 9:
				return false, errStatus
			case i == n+1 && c == '0':
				return false, errStatusRange
			}
		}
		if len(p) <= begin {
			return false, nil
		}
		r.Status = int(p[9]-'0')*100 + int(p[10]-'0')*10 + int(p[11]-'0')
		r.begin = begin
		switch p[begin] {
		case ' ':
			r.begin++
		case '\r':
		case '\n':
			return false, errBareLF
		default:
			return false, errStatus
		}
		r.scan, r.phase = r.begin, phaseTarget
	}
	i := scanValue(p, r.scan)
	for i < len(p) && p[i] == '\t' {
		i = scanValue(p, i+1)
	}
	if i+1 >= len(p) && (i == len(p) || p[i] == '\r') {
		r.scan = i
		return false, nil
	}
	if p[i] != '\r' || p[i+1] != '\n' {
		if err := badValue(p[i]); err != errValue {
			return false, err
		}
		return false, errReason
	}
	r.Reason = span(r.begin, i)
	r.Fields.reset(i + 2)
	r.phase = phaseFields
	return true, nil
}

// conclude finds out what the status and the fields mean (RFC 9112, section 6.3).
func (r *Response) conclude(p []byte, toHead bool) *Error {
	framing, length, declared, err := r.Fields.framing(p, r.Minor)
	if err != nil {
		return err
	}
	var o options
	if r.Fields.Has(NameConnection) {
		if o, err = r.Fields.options(p); err != nil {
			return err
		}
	}
	r.KeepAlive = !o.close && (r.Minor > 0 || o.keepAlive)
	r.Framing, r.Length = framing, -1
	if framing == Length {
		r.Length = length
	}
	switch {
	case r.Status < 200 || r.Status == 204:
		r.Framing = None
		// Such a response must not have either field (RFC 9110, section 8.6; RFC 9112, section 6.1). Who sends one may send content.
		if framing == Chunked || length > 0 {
			r.KeepAlive = false
		}
	case toHead || r.Status == 304:
		r.Framing = None
	case !declared:
		r.Framing, r.KeepAlive = UntilClose, false
	}
	if r.Status == 101 {
		r.WebSocket = o.upgrade && !r.Fields.twice.has(NameUpgrade) && EqualFold(r.Fields.Value(p, NameUpgrade), "websocket")
	}
	return nil
}
