package http1

import "math"

// A Framing is how a message's content is delimited (RFC 9112, section 6.3).
type Framing uint8

// The framings.
const (
	None       Framing = iota // there is no content
	Length                    // Content-Length
	Chunked                   // Transfer-Encoding: chunked
	UntilClose                // a response that the end of the connection ends
)

// String returns the framing's name.
func (f Framing) String() string {
	return [...]string{"none", "length", "chunked", "until close"}[f]
}

// framing returns what the fields say about the content. declared says that they do.
func (f *Fields) framing(p []byte, minor uint8) (framing Framing, length int64, declared bool, err *Error) {
	const lengths = nameSet(1)<<NameContentLength | nameSet(1)<<NameTransferEncoding
	if f.seen&lengths == 0 {
		return None, 0, false, nil
	}
	switch {
	case f.seen&lengths == lengths:
		return None, 0, false, errBothLengths
	case f.twice.has(NameTransferEncoding):
		return None, 0, false, errTwoCodings
	case f.twice.has(NameContentLength):
		return None, 0, false, errTwoLengths
	case f.seen.has(NameContentLength):
		length, err = parseLength(f.Value(p, NameContentLength))
		return Length, length, true, err
	case minor == 0:
		return None, 0, false, errOldCoding
	}
	return Chunked, 0, true, checkCoding(f.Value(p, NameTransferEncoding))
}

// parseLength reads digits and nothing else (RFC 9110, section 8.6).
func parseLength(v []byte) (n int64, err *Error) {
	if len(v) == 0 {
		return 0, errLength
	}
	over := false
	for _, c := range v {
		d := c - '0'
		if d > 9 {
			return 0, errLength
		}
		if n > (math.MaxInt64-int64(d))/10 {
			over = true // unless something else follows that is no digit
			continue
		}
		n = n*10 + int64(d)
	}
	if over {
		return 0, errLengthRange
	}
	return n, nil
}

// checkCoding accepts chunked alone. Other codings are unknown if chunked is the last, and an error if it is not.
func checkCoding(v []byte) *Error {
	if EqualFold(v, "chunked") {
		return nil
	}
	chunked, last, others := 0, false, false
	items := list{rest: v}
	for items.next() {
		last = EqualFold(items.item, "chunked")
		if last {
			chunked++
		} else {
			others = others || IsToken(items.item)
		}
	}
	switch {
	case !last:
		return errCoding
	case chunked > 1:
		return errCodingTwice
	case others:
		return errCodingOther
	}
	return errCoding // a list with empty elements
}

// A list goes through comma-separated items (RFC 9110, section 5.6.1).
type list struct {
	rest []byte
	item []byte // without white space around it
}

// next finds the next item that is not empty.
func (l *list) next() bool {
	for len(l.rest) > 0 {
		end := 0
		for end < len(l.rest) && l.rest[end] != ',' {
			end++
		}
		start, stop := trim(l.rest, 0, end)
		l.item = l.rest[start:stop]
		l.rest = l.rest[min(end+1, len(l.rest)):]
		if len(l.item) > 0 {
			return true
		}
	}
	return false
}

// hasItem reports whether a field's lists have the token, given in lower case.
func (f *Fields) hasItem(p []byte, n Name, token string) bool {
	for i := range f.Lines {
		if f.Lines[i].Name != n {
			continue
		}
		items := list{rest: f.Lines[i].Value.Of(p)}
		for items.next() {
			if EqualFold(items.item, token) {
				return true
			}
		}
	}
	return false
}

// options are what Connection says (RFC 9110, section 7.6.1).
type options struct{ close, keepAlive, upgrade bool }

// options reads Connection and marks the fields that it names.
func (f *Fields) options(p []byte) (o options, err *Error) {
	named := 0
	for i := range f.Lines {
		if f.Lines[i].Name != NameConnection {
			continue
		}
		items := list{rest: f.Lines[i].Value.Of(p)}
		for items.next() {
			switch n := len(items.item); {
			case n == len("keep-alive") && EqualFold(items.item, "keep-alive"):
				o.keepAlive = true
			case n == len("close") && EqualFold(items.item, "close"):
				o.close = true
			case n == len("upgrade") && EqualFold(items.item, "upgrade"):
				o.upgrade = true
			default:
				if named++; named > maxOptions {
					return o, errOptions
				}
				f.nominate(p, items.item)
			}
		}
	}
	return o, nil
}

// nominate marks the fields with a name.
func (f *Fields) nominate(p, name []byte) {
	for i := range f.Lines {
		field := &f.Lines[i]
		if field.Text.Len() != len(name) {
			continue
		}
		same := true
		for j, c := range field.Text.Of(p) {
			same = same && lower[c] == lower[name[j]]
		}
		field.Nominated = field.Nominated || same
	}
}
