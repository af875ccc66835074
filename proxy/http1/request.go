package http1

import (
	"bytes"
	"encoding/binary"
)

// A Form is a form of a request target (RFC 9112, section 3.2).
type Form uint8

// The forms.
const (
	FormOrigin    Form = iota // a path: /a?b
	FormAbsolute              // a URL: http://host/a?b
	FormAuthority             // host:port, of CONNECT
	FormAsterisk              // *, of OPTIONS
)

// A Request is a request's header section. The zero Request is ready to parse one. What it tells is valid once Parse has returned
// where the section ends; spans are offsets into the bytes that Parse was given.
type Request struct {
	Fields Fields

	Text   Span // the method as it was sent
	Target Span // the request target as it was sent
	// Path and Query are the parts of the target; Query has its "?". A target in absolute-form may have an empty path, and those
	// in authority-form and asterisk-form have neither.
	Path, Query Span
	// Authority is whom the request is for: of a target in absolute-form or authority-form, or else the Host field, which may be
	// empty. Where the two differ Host does not count and must not be sent on (RFC 9112, section 3.2.2).
	Authority Span

	Length  int64   // of the content, if that is the framing
	Framing Framing // None, Length (which may be zero) or Chunked

	Method    Method
	Minor     uint8 // of the version: HTTP/1.Minor
	Form      Form
	KeepAlive bool // the client wants to go on after the response (RFC 9112, section 9.3)
	// Expect100 says that the client may wait for 100 (Continue) before it sends the content (RFC 9110, section 10.1.1).
	Expect100 bool
	// WebSocket says that the client asks for this upgrade (RFC 6455, section 4.1). No other is told.
	WebSocket bool
	Trailers  bool // the client takes trailer fields (RFC 9110, section 10.1.4)

	fault *Error
	phase phase
	begin int // of what is being read
	scan  int
}

// A phase is what of a header section is being read.
type phase uint8

const (
	phaseStart phase = iota
	phaseMethod
	phaseTarget
	phaseVersion
	phaseFields
	phaseDone
)

// Reset makes r ready for another request. It keeps the memory of Fields.
func (r *Request) Reset() {
	fields := r.Fields
	fields.reset(0)
	*r = Request{Fields: fields}
}

// Begun reports whether any byte of a request has been seen.
func (r *Request) Begun() bool { return r.phase != phaseStart || r.scan > 0 }

// Parse reads the header section at the beginning of p. It returns its length, or 0 if more is needed: then it is to be called again
// with the same bytes and some more, which may have moved. After the end or an error, an [*Error] with the Status for the client,
// Reset comes first. An error comes with the first byte that shows it, however the bytes are split.
func (r *Request) Parse(p []byte, l *Limits) (int, error) {
	if r.fault != nil {
		return 0, r.fault
	}
	n, err := r.parse(within(p, l.Head), l)
	if n == 0 && err == nil && len(within(p, l.Head)) < len(p) {
		err = errHeadTooLong
		if r.phase < phaseVersion {
			err = errTargetLength
		}
	}
	r.fault = err
	return n, err.refusal()
}

func (r *Request) parse(p []byte, l *Limits) (int, *Error) {
	if r.phase != phaseFields {
		if done, err := r.parseLine(p, l); !done || err != nil {
			return 0, err
		}
	}
	n, err := r.Fields.parse(p, l.Fields)
	if n == 0 || err != nil {
		return 0, err
	}
	r.phase = phaseDone
	return n, r.conclude(p)
}

// parseLine reads the request line (RFC 9112, section 3). It returns false if more is needed.
func (r *Request) parseLine(p []byte, l *Limits) (bool, *Error) {
	if r.phase == phaseStart {
		if len(p) == 0 {
			return false, nil
		}
		if p[0] == '\r' {
			r.scan = 1
			if len(p) == 1 {
				return false, nil
			}
			if p[1] != '\n' {
				return false, errBareCR
			}
			r.begin = 2
		}
		r.scan, r.phase = r.begin, phaseMethod
	}
	i := r.scan
	switch r.phase {
	case phaseMethod:
		for i < len(p) && lower[p[i]] != 0 {
			i++
		}
		if i-r.begin > maxToken {
			return false, errMethodLength
		}
		if i == len(p) {
			r.scan = i
			return false, nil
		}
		if p[i] != ' ' || i == r.begin {
			return false, badMethod(p[i], i, r.begin)
		}
		r.Text = span(r.begin, i)
		r.Method = lookupMethod(p[r.begin:i])
		i++
		r.begin, r.phase = i, phaseTarget
		fallthrough
	case phaseTarget:
		i = scanTarget(p, i)
		if exceeded(i-r.begin, l.Target) {
			return false, errTargetLength
		}
		if i == len(p) {
			r.scan = i
			return false, nil
		}
		if p[i] != ' ' || i == r.begin {
			return false, badTarget(p[i], i == r.begin)
		}
		r.Target = span(r.begin, i)
		i++
		r.begin, r.phase = i, phaseVersion
		fallthrough
	default:
		n, err := parseVersion(p[r.begin:], &r.Minor)
		i = r.begin + n
		if n == 0 || err != nil {
			r.scan = r.begin
			return false, err
		}
	}
	if i+1 >= len(p) {
		r.scan = r.begin
		if i < len(p) && p[i] != '\r' {
			return false, badLineEnd(p[i])
		}
		return false, nil
	}
	if p[i] != '\r' {
		return false, badLineEnd(p[i])
	}
	if p[i+1] != '\n' {
		return false, errBareCR
	}
	r.Fields.reset(i + 2)
	r.phase = phaseFields
	return true, nil
}

// parseVersion reads HTTP/1.x, eight bytes (RFC 9112, section 2.3). It returns 0 if more is needed.
func parseVersion(p []byte, minor *uint8) (int, *Error) {
	const form = "HTTP/1.1"
	if len(p) >= len(form) && binary.LittleEndian.Uint64(p) == 0x312e312f50545448 {
		*minor = 1
		return len(form), nil
	}
	for i := range min(len(p), len(form)) {
		c := p[i]
		if digit := c - '0'; c == form[i] || (i == 5 || i == 7) && digit <= 9 {
			continue
		}
		if c == '\n' {
			return 0, errBareLF
		}
		return 0, errVersion
	}
	if len(p) < len(form) {
		return 0, nil
	}
	switch p[5] {
	case '1':
	case '2':
		return 0, errHTTP2
	default:
		return 0, errMajor
	}
	*minor = p[7] - '0'
	return len(form), nil
}

// badMethod says what is wrong with a method that ends in c.
func badMethod(c byte, at, begin int) *Error {
	switch {
	case c == '\r' && at == begin:
		return errEmptyLines
	case c == '\n':
		return errBareLF
	case c == 0x16 && at == 0:
		return errTLS
	}
	return errMethod
}

// badTarget says what is wrong with a request target that ends in c.
func badTarget(c byte, empty bool) *Error {
	switch {
	case c == ' ':
		return errTarget
	case c == '\n':
		return errBareLF
	case c == '\r' && empty:
		return errTarget
	case c == '\r':
		return errNoVersion
	}
	return errTargetByte
}

// badLineEnd says what is wrong with c after the version.
func badLineEnd(c byte) *Error {
	if c == '\n' {
		return errBareLF
	}
	return errLineEnd
}

// conclude finds out what the request line and the fields mean.
func (r *Request) conclude(p []byte) (err *Error) {
	if err = r.splitTarget(p); err != nil {
		return err
	}
	if err = r.host(p); err != nil {
		return err
	}
	if r.Framing, r.Length, _, err = r.Fields.framing(p, r.Minor); err != nil {
		return err
	}
	r.KeepAlive = r.Minor > 0
	const rare = nameSet(1)<<NameConnection | nameSet(1)<<NameExpect | nameSet(1)<<NameTE
	if r.Fields.seen&rare == 0 {
		return nil
	}
	o, err := r.Fields.options(p)
	if err != nil {
		return err
	}
	r.KeepAlive = !o.close && (r.Minor > 0 || o.keepAlive)
	empty := r.Framing == None || r.Framing == Length && r.Length == 0
	if o.upgrade && r.Method == MethodGet && r.Minor > 0 && empty && r.Fields.Has(NameUpgrade) && !r.Fields.twice.has(NameUpgrade) {
		r.WebSocket = EqualFold(r.Fields.Value(p, NameUpgrade), "websocket")
	}
	if r.Fields.Has(NameExpect) {
		if r.Fields.twice.has(NameExpect) || !EqualFold(r.Fields.Value(p, NameExpect), "100-continue") {
			return errExpect
		}
		r.Expect100 = !empty && r.Minor > 0
	}
	if r.Fields.Has(NameTE) {
		r.Trailers = r.Fields.hasItem(p, NameTE, "trailers")
	}
	return nil
}

// splitTarget finds the parts of the target.
func (r *Request) splitTarget(p []byte) *Error {
	target := r.Target.Of(p)
	at := int(r.Target.Start)
	switch {
	case r.Method == MethodConnect:
		r.Form, r.Authority = FormAuthority, r.Target
		if colon := bytes.LastIndexByte(target, ':'); colon <= 0 || colon+1 == len(target) || !validAuthority(target) {
			return errConnect
		}
		return nil
	case target[0] == '/':
		r.Form = FormOrigin
	case len(target) == 1 && target[0] == '*':
		if r.Method != MethodOptions {
			return errAsterisk
		}
		r.Form = FormAsterisk
		return nil
	default:
		r.Form = FormAbsolute
		colon := bytes.Index(target, []byte("://"))
		if colon <= 0 {
			return errForm
		}
		if scheme := target[:colon]; !EqualFold(scheme, "http") && !EqualFold(scheme, "https") {
			return errScheme
		}
		start := colon + len("://")
		end := start
		for end < len(target) && target[end] != '/' && target[end] != '?' {
			if target[end] == '@' {
				return errUser
			}
			end++
		}
		if end == start || !validAuthority(target[start:end]) {
			return errAuthority
		}
		r.Authority = span(at+start, at+end)
		target = target[end:]
		at += end
	}
	path := len(target)
	if mark := bytes.IndexByte(target, '?'); mark >= 0 {
		path = mark
	}
	r.Path, r.Query = span(at, at+path), span(at+path, at+len(target))
	return nil
}

// host checks the Host field, of which HTTP/1.1 has one and HTTP/1.0 at most one.
func (r *Request) host(p []byte) *Error {
	i := r.Fields.Find(NameHost)
	switch {
	case i < 0 && r.Minor > 0:
		return errNoHost
	case i < 0:
		return nil
	case r.Fields.twice.has(NameHost):
		return errTwoHosts
	}
	host := r.Fields.Lines[i].Value
	if !validAuthority(host.Of(p)) {
		return errHost
	}
	if r.Form == FormOrigin || r.Form == FormAsterisk {
		r.Authority = host
	}
	return nil
}

// validAuthority reports whether p is nothing, or uri-host and maybe a port (RFC 3986, section 3.2).
func validAuthority(p []byte) bool {
	colon := -1
	for i, c := range p {
		if !inHost[c] {
			return false
		}
		if c <= ':' && c == ':' || c > 'Z' && (c == '[' || c == ']') {
			colon = i
		}
	}
	if colon < 0 {
		return true
	}
	host, port := p, []byte(nil)
	if p[0] == '[' {
		end := bytes.IndexByte(p, ']')
		if end < 2 || bytes.IndexByte(p[1:end], '[') >= 0 {
			return false
		}
		host, port = nil, p[end+1:]
	} else if first := bytes.IndexByte(p, ':'); first >= 0 {
		host, port = p[:first], p[first:]
	}
	if bytes.IndexByte(host, '[') >= 0 || bytes.IndexByte(host, ']') >= 0 {
		return false
	}
	for i, c := range port {
		if i == 0 && c != ':' || i > 0 && c-'0' > 9 {
			return false
		}
	}
	return true
}
