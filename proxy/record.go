package proxy

import (
	"math"
	"strconv"
	"time"
	"unicode/utf8"
)

// append appends the record as a line, the same that encoding/json would make of it, with path and user agent clipped.
func (r *record) append(b []byte, c *clock) []byte {
	b = c.append(append(b, `{"time":"`...), r.Time)
	b = appendText(append(b, `","id":`...), r.ID)
	b = appendText(append(b, `,"client":`...), r.Client)
	b = appendText(append(b, `,"method":`...), r.Method)
	b = appendText(append(b, `,"host":`...), r.Host)
	b = appendText(append(b, `,"path":`...), clip(r.Path))
	b = appendText(append(b, `,"protocol":`...), r.Protocol)
	b = appendOptional(b, `,"tls":`, r.TLS)
	b = appendOptional(b, `,"user_agent":`, clip(r.UserAgent))
	b = strconv.AppendInt(append(b, `,"status":`...), int64(r.Status), 10)
	b = appendText(append(b, `,"reason":`...), string(r.Reason))
	b = strconv.AppendInt(append(b, `,"bytes_in":`...), r.BytesIn, 10)
	b = strconv.AppendInt(append(b, `,"bytes_out":`...), r.BytesOut, 10)
	b = appendSeconds(append(b, `,"duration_seconds":`...), r.Duration)
	b = appendOptional(b, `,"route":`, r.Route)
	b = appendOptional(b, `,"service":`, r.Service)
	b = appendOptional(b, `,"fallback":`, r.Fallback)
	b = appendOptional(b, `,"instance":`, r.Instance)
	b = strconv.AppendInt(append(b, `,"attempts":`...), int64(r.Attempts), 10)
	if r.Held != 0 {
		b = appendSeconds(append(b, `,"held_seconds":`...), r.Held)
	}
	b = appendSeconds(append(b, `,"upstream_seconds":`...), r.Upstream)
	return append(b, "}\n"...)
}

func appendOptional(b []byte, key, s string) []byte {
	if s == "" {
		return b
	}
	return appendText(append(b, key...), s)
}

// appendText appends a string of JSON (RFC 8259, section 7). What is no UTF-8 becomes U+FFFD. The two line separators that JavaScript knows
// are escaped too.
func appendText(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	begin := 0
	for i := 0; i < len(s); {
		c := s[i]
		if ' ' <= c && c < utf8.RuneSelf && c != '"' && c != '\\' {
			i++
			continue
		}
		size := 1
		var r rune
		if c >= utf8.RuneSelf {
			if r, size = utf8.DecodeRuneInString(s[i:]); !(r == utf8.RuneError && size == 1) && r != 0x2028 && r != 0x2029 {
				i += size
				continue
			}
		}
		b = append(b, s[begin:i]...)
		switch {
		case c >= utf8.RuneSelf && size == 1:
			b = append(b, `\ufffd`...)
		case c >= utf8.RuneSelf:
			b = append(b, `\u202`...)
			b = append(b, hex[r&15])
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c == '\b':
			b = append(b, '\\', 'b')
		case c == '\f':
			b = append(b, '\\', 'f')
		case c == '\n':
			b = append(b, '\\', 'n')
		case c == '\r':
			b = append(b, '\\', 'r')
		case c == '\t':
			b = append(b, '\\', 't')
		default:
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
		i += size
		begin = i
	}
	b = append(b, s[begin:]...)
	return append(b, '"')
}

// appendSeconds appends the shortest number that is read as the same float64 again. Where a whole number of nanoseconds, of no
// more than 15 digits, is that number, there is no shorter one: decimals of so many digits are all different as float64.
func appendSeconds(b []byte, seconds float64) []byte {
	if n := math.Round(seconds * 1e9); 1000 <= n && n < 1e15 && n/1e9 == seconds {
		whole, part := uint64(n)/1e9, uint64(n)%1e9
		return appendFraction(strconv.AppendUint(b, whole, 10), uint32(part))
	}
	if size := math.Abs(seconds); size == 0 || size >= 1e-6 && size < 1e21 {
		return strconv.AppendFloat(b, seconds, 'f', -1, 64)
	}
	b = strconv.AppendFloat(b, seconds, 'e', -1, 64)
	if n := len(b); n >= 4 && b[n-4] == 'e' && b[n-3] == '-' && b[n-2] == '0' { // e-09 is written e-9
		b[n-2] = b[n-1]
		b = b[:n-1]
	}
	return b
}

// appendFraction appends the decimal places of nanoseconds, without zeros at the end.
func appendFraction(b []byte, nanoseconds uint32) []byte {
	if nanoseconds == 0 {
		return b
	}
	var digits [10]byte
	digits[0] = '.'
	for i := len(digits) - 1; i > 0; i-- {
		digits[i] = '0' + byte(nanoseconds%10)
		nanoseconds /= 10
	}
	end := len(digits)
	for digits[end-1] == '0' {
		end--
	}
	return append(b, digits[:end]...)
}

// A clock writes times. It keeps the second that it wrote last.
type clock struct {
	second int64
	place  *time.Location
	text   [19]byte // of the second, in place
	zone   [6]byte
	length int // of zone
}

// append appends the time as RFC 3339 has it.
func (c *clock) append(b []byte, t time.Time) []byte {
	if c.length == 0 || c.second != t.Unix() || c.place != t.Location() {
		c.second, c.place = t.Unix(), t.Location()
		t.AppendFormat(c.text[:0], "2006-01-02T15:04:05")
		c.length = len(t.AppendFormat(c.zone[:0], "Z07:00"))
	}
	b = appendFraction(append(b, c.text[:]...), uint32(t.Nanosecond()))
	return append(b, c.zone[:c.length]...)
}
