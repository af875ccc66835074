// Package http1 reads and writes HTTP/1.1 messages (RFC 9112) strictly. It does no I/O, knows no clock, starts no goroutine and
// has no state of its own: who owns a connection feeds it the bytes that came and gets decisions and bytes.
//
// [Request] and [Response] parse a header section in place. What they find are spans, offsets into the bytes that they were given:
// nothing is copied, and once their slices have grown nothing is allocated. They may be fed with the same bytes and some more
// as often as it takes; no byte is looked at twice. [Body] tells which of the bytes that follow are content.
//
// [Incoming] and [Outgoing] are the two ends of a proxy: one request after the other from a client, and to an instance. They say
// what may come next, how a response is framed for the client, and whether a connection may be used again.
//
// What RFC 9112 lets a recipient refuse is refused, so that no two recipients can disagree about where a message ends: the
// [Error] says why, in words for people, and cites the clause. Three things are tolerated that cannot be misread: one empty line
// before a request (RFC 9112, section 2.2), bytes beyond ASCII in a request target, and a status line that ends with the status
// code, without the space of an empty reason.
package http1

// Limits bound what a peer may send. Where one is zero or less there is no such limit, but a header section is never longer than 16 MiB.
type Limits struct {
	Head      int // bytes of the first line and the fields, with the empty line after them
	Target    int // bytes of a request target
	Fields    int // field lines in a header section or a trailer section
	Trailer   int // bytes of the trailer section, with the empty line after it
	Extension int // bytes of extensions on the line before a chunk
	Interim   int // responses with status 1xx before the final one
}

// DefaultLimits returns limits that honest peers do not reach.
func DefaultLimits() Limits {
	return Limits{Head: 32 << 10, Target: 16 << 10, Fields: 100, Trailer: 8 << 10, Extension: 256, Interim: 16}
}

// maxHead is the limit of a header section without one.
const maxHead = 16 << 20

// maxToken is the longest method that is read.
const maxToken = 64

// maxOptions is how many fields Connection may name: each is looked for among all.
const maxOptions = 16

// within returns p, or as much of it as the limit allows.
func within(p []byte, limit int) []byte {
	if limit <= 0 || limit > maxHead {
		limit = maxHead
	}
	return p[:min(len(p), limit)]
}

// exceeded reports whether a length is over the limit.
func exceeded(length, limit int) bool { return limit > 0 && length > limit }
