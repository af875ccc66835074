package proxy

import "bytes"

// A boundary follows the bytes that net/http reads from a plain connection, to tell whether they end exactly where a request
// does: between two requests net/http may have read the beginning of the next one, and does not say so. It knows
// where header sections and chunked contents end (RFC 9112, section 7.1), and is told what content follows a header section. What
// it cannot follow, a line end without CR say, makes it lost, and that for good.
type boundary struct {
	phase phase
	line  int    // bytes of the line that is being read
	cr    bool   // CR was the last of them
	begun bool   // some of the header section has been read
	left  int64  // of the content or the chunk
	early []byte // was read after the header section, before expect
}

type phase int

const (
	phaseHead    phase = iota
	phaseHeaded        // expect must follow
	phaseContent       // of known length
	phaseSize          // of a chunk, in hexadecimal
	phaseExtension
	phaseChunk // and the line end after it
	phaseTrailer
	phaseLost
)

// earlyLimit is more than net/http reads ahead.
const earlyLimit = 64 << 10

// advance takes note of what was read.
func (b *boundary) advance(p []byte) {
	for len(p) > 0 {
		switch b.phase {
		case phaseHead:
			b.begun = true
			p = p[b.scan(p, phaseHeaded):]
		case phaseHeaded:
			if b.early = append(b.early, p...); len(b.early) > earlyLimit {
				b.lose()
			}
			return
		case phaseContent:
			n := min(b.left, int64(len(p)))
			b.left -= n
			if p = p[n:]; len(p) > 0 {
				b.phase, b.begun = phaseHead, false
			}
		case phaseChunk:
			n := min(b.left, int64(len(p)))
			p = p[n:]
			if b.left -= n; b.left == 0 {
				b.phase = phaseSize
			}
		case phaseSize, phaseExtension:
			b.size(p[0])
			p = p[1:]
		case phaseTrailer:
			p = p[b.scan(p, phaseContent):] // of which nothing is left
		default:
			return
		}
	}
}

// scan reads up to an empty line, where next begins, or the end of p. It returns how many bytes that was.
func (b *boundary) scan(p []byte, next phase) int {
	for at := 0; at < len(p); {
		end := bytes.IndexByte(p[at:], '\n')
		if end < 0 {
			b.line += len(p) - at
			b.cr = p[len(p)-1] == '\r'
			break
		}
		cr := end == 0 && b.cr || end > 0 && p[at+end-1] == '\r'
		length := b.line + end + 1
		b.line, b.cr = 0, false
		at += end + 1
		switch {
		case !cr:
			b.lose()
			return len(p)
		case length == len("\r\n"):
			b.phase = next
			return at
		}
	}
	return len(p)
}

// size reads a byte of the line before a chunk.
func (b *boundary) size(c byte) {
	digit := unhex(c)
	switch {
	case c == '\n' && b.left == 0:
		b.phase = phaseTrailer
	case c == '\n':
		b.phase = phaseChunk
		b.left += 2
	case b.phase == phaseExtension:
	case digit >= 0 && b.left < 1<<58:
		b.left = b.left<<4 | int64(digit)
	case digit >= 0:
		b.lose()
	default:
		b.phase = phaseExtension
	}
}

// expect says how long the content is of the request whose header section has been read; negative: it is chunked.
func (b *boundary) expect(length int64) {
	if b.phase != phaseHeaded {
		b.lose()
		return
	}
	b.phase, b.left = phaseContent, length
	if length < 0 {
		b.phase, b.left = phaseSize, 0
	}
	early := b.early
	b.early = nil
	b.advance(early)
	if b.early == nil {
		b.early = early[:0]
	}
}

func (b *boundary) lose() { b.phase, b.early = phaseLost, nil }

// reached reports whether a request has just ended, or none has begun. It is to be asked when the last one is over.
func (b *boundary) reached() bool {
	if b.phase == phaseHeaded {
		b.lose() // net/http has answered without asking us
	}
	return b.phase == phaseHead && !b.begun || b.phase == phaseContent && b.left == 0
}
