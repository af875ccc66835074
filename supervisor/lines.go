package supervisor

import (
	"bytes"
	"unicode/utf8"
)

// lineLimit is how many bytes of a line are kept together; a longer one is kept in pieces.
const lineLimit = 16 << 10

// lines cuts what a stream says into lines. It holds no memory while no line has begun.
type lines struct{ begun []byte }

// add calls emit with each line that ends in chunk. A line that is longer than lineLimit comes in pieces, all but the last
// one partial. The text is only valid during the call.
func (l *lines) add(chunk []byte, emit func(text []byte, partial bool)) {
	for len(chunk) > 0 {
		room := lineLimit - len(l.begun)
		part := chunk[:min(room, len(chunk))]
		if end := bytes.IndexByte(part, '\n'); end >= 0 {
			line := part[:end]
			if len(l.begun) > 0 {
				line = append(l.begun, line...)
				l.begun = line[:0]
			}
			emit(bytes.TrimSuffix(line, []byte("\r")), false)
			chunk = chunk[end+1:]
			continue
		}
		chunk = chunk[len(part):]
		if len(part) < room {
			l.begun = append(l.begun, part...)
			return
		}
		if len(l.begun) > 0 {
			part = append(l.begun, part...)
		}
		cut := wholeRunes(part)
		emit(part[:cut], true)
		l.begun = append(l.begun[:0], part[cut:]...)
	}
	if len(l.begun) == 0 {
		l.begun = nil
	}
}

// end calls emit with last words that no end of a line followed. They are partial if more may come.
func (l *lines) end(partial bool, emit func(text []byte, partial bool)) {
	if len(l.begun) > 0 {
		emit(l.begun, partial)
	}
	l.begun = nil
}

// wholeRunes returns how much of b to take so that no UTF-8 sequence is cut at the end.
func wholeRunes(b []byte) int {
	for i := 1; i < utf8.UTFMax && i < len(b); i++ {
		if c := b[len(b)-i]; utf8.RuneStart(c) {
			if c >= utf8.RuneSelf && !utf8.FullRune(b[len(b)-i:]) {
				return len(b) - i
			}
			break
		}
	}
	return len(b)
}
