package http1

import (
	"encoding/binary"
	"math/bits"
)

// lower is a token's bytes in lower case, and zero for bytes that stand in none (RFC 9110, section 5.6.2).
var lower = fillLower()

func fillLower() (table [256]byte) {
	for c := range 256 {
		switch {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9':
			table[c] = byte(c)
		case 'A' <= c && c <= 'Z':
			table[c] = byte(c) | 0x20
		}
	}
	for _, c := range []byte("!#$%&'*+-.^_`|~") {
		table[c] = c
	}
	return table
}

// inHost is the bytes of uri-host and port (RFC 3986, section 3.2).
var inHost = fillHost()

func fillHost() (table [256]bool) {
	for c := range 256 {
		table[c] = 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
	}
	for _, c := range []byte("-._~%!$&'()*+,;=:[]") {
		table[c] = true
	}
	return table
}

// IsToken reports whether p is a token (RFC 9110, section 5.6.2): a method, a field name.
func IsToken(p []byte) bool {
	for _, c := range p {
		if lower[c] == 0 {
			return false
		}
	}
	return len(p) > 0
}

// EqualFold reports whether a token and a token in lower case are the same in any case.
func EqualFold(token []byte, lowerCase string) bool {
	if len(token) != len(lowerCase) {
		return false
	}
	for i, c := range token {
		if lower[c] != lowerCase[i] {
			return false
		}
	}
	return true
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' }

const (
	ones8 = 0x0101010101010101
	high8 = 0x8080808080808080
)

// scanValue returns where the first control character is from i on, or len(p).
func scanValue(p []byte, i int) int {
	q := p[i:]
	for len(q) >= 8 {
		// The lowest byte that a borrow could have marked wrongly stands above one that is marked rightly.
		x := binary.LittleEndian.Uint64(q)
		if found := ((x - 0x20*ones8) | ((x ^ 0x7f*ones8) - ones8)) &^ x & high8; found != 0 {
			return len(p) - len(q) + bits.TrailingZeros64(found)>>3
		}
		q = q[8:]
	}
	for at, c := range q {
		if c < 0x20 || c == 0x7f {
			return len(p) - len(q) + at
		}
	}
	return len(p)
}

// scanTarget returns where the first byte is from i on that does not stand in a request target, or len(p).
func scanTarget(p []byte, i int) int {
	q := p[i:]
	for len(q) >= 8 {
		x := binary.LittleEndian.Uint64(q)
		if found := ((x - 0x21*ones8) | ((x ^ 0x7f*ones8) - ones8) | ((x ^ '#'*ones8) - ones8)) &^ x & high8; found != 0 {
			return len(p) - len(q) + bits.TrailingZeros64(found)>>3
		}
		q = q[8:]
	}
	for at, c := range q {
		if c <= ' ' || c == 0x7f || c == '#' {
			return len(p) - len(q) + at
		}
	}
	return len(p)
}

// trim returns the span without white space around it.
func trim(p []byte, start, end int) (int, int) {
	for start < end && isSpace(p[start]) {
		start++
	}
	for start < end && isSpace(p[end-1]) {
		end--
	}
	return start, end
}
