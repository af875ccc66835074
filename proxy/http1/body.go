package http1

import "math"

// A Body finds the content in the bytes after a header section. The zero Body has no content. It keeps nothing of the content, only a
// trailer section, which is bounded.
type Body struct {
	// Trailer is the trailer section, once the content has ended; its spans are offsets into TrailerBytes.
	Trailer Fields

	framing Framing
	state   bodyState
	done    bool
	fault   *Error
	digits  uint8 // of a chunk size that have been read
	left    int64 // of the content with a length, or of the chunk
	passed  int64 // bytes of content
	extra   int64 // bytes of chunk extensions
	line    int   // bytes of extensions on this line
	kept    []byte

	trailer, fields, extension int // the limits
}

// A bodyState is what of a chunked content comes next.
type bodyState uint8

const (
	stateSize bodyState = iota
	stateExtension
	stateSizeEnd // LF
	stateChunk
	stateChunkCR
	stateChunkLF
	stateTrailer
)

// keptTrailer is the capacity for trailers that a Body keeps.
const keptTrailer = 1 << 10

// Begin makes b ready for another content. Length is read with the framing Length only.
func (b *Body) Begin(f Framing, length int64, l *Limits) {
	b.framing, b.state, b.left = f, stateSize, 0
	b.digits, b.passed, b.extra, b.line, b.fault = 0, 0, 0, 0, nil
	if f == Length {
		b.left = length
	}
	b.done = f == None || f == Length && length == 0
	b.trailer, b.fields, b.extension = l.Trailer, l.Fields, l.Extension
	if b.kept = b.kept[:0]; cap(b.kept) > keptTrailer {
		b.kept = nil
	}
	b.Trailer.reset(0)
}

// Done reports whether the content, with its trailer section, has ended.
func (b *Body) Done() bool { return b.done }

// Passed returns how many bytes of content there were so far.
func (b *Body) Passed() int64 { return b.passed }

// TrailerBytes returns what the spans of Trailer are offsets into. It is valid until the next Begin.
func (b *Body) TrailerBytes() []byte { return b.kept }

// Decode finds the next of the content in p. It returns a part of p that is content, how much of p is not to be given again, and
// whether the content has ended; what follows in p is another message's. If it neither ended nor failed and p is not empty, n is more
// than zero; it may have stopped before the end of p and is to be called with the rest. Content that ends with the connection is
// done when [Body.End] is called.
func (b *Body) Decode(p []byte) (content []byte, n int, done bool, err error) {
	switch {
	case b.done:
		return nil, 0, true, nil
	case b.framing == Length:
		n = int(min(b.left, int64(len(p))))
		b.left -= int64(n)
		b.passed += int64(n)
		b.done = b.left == 0
		return p[:n], n, b.done, nil
	case b.framing == UntilClose:
		b.passed += int64(len(p))
		return p, len(p), false, nil
	}
	if b.fault != nil {
		return nil, 0, false, b.fault
	}
	content, n, b.fault = b.decode(p)
	return content, n, b.done, b.fault.refusal()
}

// Contiguous returns how many bytes that come next are content and nothing else, at most math.MaxInt64: these may be moved
// without being seen, if Skip is told of it.
func (b *Body) Contiguous() int64 {
	switch {
	case b.done:
		return 0
	case b.framing == UntilClose:
		return math.MaxInt64
	case b.framing == Chunked && b.state != stateChunk:
		return 0
	}
	return b.left
}

// Skip tells that n bytes of content, no more than Contiguous, have been moved.
func (b *Body) Skip(n int64) {
	b.passed += n
	switch b.framing {
	case Length:
		b.left -= n
		b.done = b.left == 0
	case Chunked:
		if b.left -= n; b.left == 0 {
			b.state = stateChunkCR
		}
	}
}

// End tells that the connection has ended. It returns an error unless that, or something before it, ends the content.
func (b *Body) End() error {
	if b.done || b.framing == UntilClose {
		b.done = true
		return nil
	}
	return errIncomplete
}

// decode reads chunked content (RFC 9112, section 7.1). It stops before a second piece of content, and before what is wrong if it
// has content to return.
func (b *Body) decode(p []byte) (content []byte, i int, err *Error) {
	for i < len(p) {
		c := p[i]
		switch b.state {
		case stateChunk:
			if content != nil {
				return content, i, nil
			}
			n := int(min(b.left, int64(len(p)-i)))
			content = p[i : i+n : i+n]
			i += n
			b.passed += int64(n)
			if b.left -= int64(n); b.left == 0 {
				b.state = stateChunkCR
			}
			continue
		case stateTrailer:
			plain := len(p)-i >= 2 && p[i] == '\r' && p[i+1] == '\n'
			if content != nil && !plain {
				return content, i, nil
			}
			n, err := b.readTrailer(p[i:])
			return content, i + n, err
		case stateChunkCR:
			if c != '\r' {
				err = errChunkEnd
			} else {
				b.state = stateChunkLF
			}
		case stateChunkLF:
			if c != '\n' {
				err = errChunkEnd
			} else {
				b.state, b.digits, b.line = stateSize, 0, 0
			}
		case stateSize:
			err = b.size(c)
		case stateExtension:
			err = b.extend(c)
		case stateSizeEnd:
			switch {
			case c != '\n':
				err = errChunkLine
			case b.left > 0:
				b.state = stateChunk
			default:
				b.state = stateTrailer
			}
		}
		if err != nil {
			if content != nil {
				return content, i, nil
			}
			return nil, i, err
		}
		i++
	}
	return content, i, nil
}

// size reads a byte of a chunk size.
func (b *Body) size(c byte) *Error {
	if d := hexDigit[c]; d != 0 {
		if b.digits == 16 || b.left > math.MaxInt64>>4 {
			return errChunkRange
		}
		b.digits++
		b.left = b.left<<4 | int64(d-1)
		return nil
	}
	switch {
	case b.digits == 0:
		return errChunkSize
	case c == '\r':
		b.state = stateSizeEnd
	case c == ';':
		b.state = stateExtension
	case c == '\n':
		return errChunkLine
	case isSpace(c):
		return errChunkSpace
	default:
		return errChunkSize
	}
	return nil
}

// extend reads a byte of a chunk extension. Extensions are ignored, but their length, on one line and in relation to the content,
// is bounded.
func (b *Body) extend(c byte) *Error {
	switch {
	case c == '\r':
		b.state = stateSizeEnd
		return nil
	case c == '\n':
		return errChunkLine
	case c < ' ' && c != '\t' || c == 0x7f:
		return errExtension
	}
	b.line++
	b.extra++
	if b.extension > 0 && (b.line > b.extension || b.extra > b.passed+16*int64(b.extension)) {
		return errExtensions
	}
	return nil
}

// readTrailer reads the trailer section, of which p is the next part. It returns how much of p belongs to it.
func (b *Body) readTrailer(p []byte) (int, *Error) {
	if len(b.kept) == 0 && len(p) >= 2 && p[0] == '\r' && p[1] == '\n' {
		b.done = true
		return 2, nil
	}
	before := len(b.kept)
	b.kept = append(b.kept, within(p, b.trailer)...)
	n, err := b.Trailer.parse(within(b.kept, b.trailer), b.fields)
	switch {
	case err != nil:
		return 0, err
	case n > 0:
		b.kept = b.kept[:n]
		const framing = nameSet(1)<<NameContentLength | nameSet(1)<<NameTransferEncoding | nameSet(1)<<NameHost
		if b.Trailer.seen&framing != 0 {
			return 0, errTrailerField
		}
		b.done = true
		return n - before, nil
	case len(b.kept) > len(within(b.kept, b.trailer)) || len(p) > len(within(p, b.trailer)):
		return 0, errTrailerLength
	}
	return len(p), nil
}

// hexDigit is one more than the value of a hexadecimal digit, and zero for other bytes.
var hexDigit = fillHex()

func fillHex() (table [256]uint8) {
	for i, c := range []byte("0123456789abcdef") {
		table[c] = uint8(i + 1)
	}
	for i, c := range []byte("ABCDEF") {
		table[c] = uint8(i + 11)
	}
	return table
}
