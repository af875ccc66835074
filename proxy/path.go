package proxy

import (
	"errors"
	"strings"
)

// splitTarget returns the path and the query (with its "?") of a request target in origin-form or
// absolute-form (RFC 9112, section 3.2), byte for byte as they were sent. A fragment is no part of either: some instances would cut
// the target there, and others refuse it.
func splitTarget(target string) (path, query string, err error) {
	if strings.IndexByte(target, '#') >= 0 {
		return "", "", errors.New("the request target has a fragment")
	}
	if !strings.HasPrefix(target, "/") {
		_, rest, ok := strings.Cut(target, "://")
		if !ok {
			return "", "", errors.New("the request target is neither a path nor a URL")
		}
		end := strings.IndexAny(rest, "/?")
		if end < 0 {
			end = len(rest)
		}
		if strings.Contains(rest[:end], "@") {
			return "", "", errors.New("the request target has user information")
		}
		target = rest[end:]
	}
	path = target
	if mark := strings.IndexByte(target, '?'); mark >= 0 {
		path, query = target[:mark], target[mark:]
	}
	if strings.IndexFunc(query, mustBeEscaped) >= 0 { // which HTTP/2 can carry, and which would end the target in HTTP/1.1
		return "", "", errors.New("the query has a character that must be escaped")
	}
	if path == "" {
		path = "/"
	}
	return path, query, nil
}

func mustBeEscaped(r rune) bool { return r <= ' ' || r == 0x7f }

// normalisePath returns the copy of a path that routes are matched against: escapes decoded, empty and dot
// segments removed (RFC 3986, sections 5.2.4 and 6.2.2). An escaped slash stays "%2F", so that it cannot end a
// segment, and an escaped percent sign "%25", so that the result can be told apart from it.
//
// It refuses what no honest client sends and what instances disagree about: control characters, spaces and
// "#" as such, escapes that are none, an escaped NUL, and dot segments that leave the root (which nginx refuses too).
func normalisePath(raw string) (string, error) {
	if !strings.HasPrefix(raw, "/") {
		return "", errors.New("the path does not begin with a slash")
	}
	plain := true
	for i := range len(raw) {
		switch c := raw[i]; {
		case c <= ' ' || c == 0x7f || c == '#':
			return "", errors.New("the path has a character that must be escaped")
		case c == '%', c == '/' && i+1 < len(raw) && (raw[i+1] == '/' || raw[i+1] == '.'):
			plain = false
		}
	}
	if plain {
		return raw, nil
	}
	decoded, err := decodePath(raw)
	if err != nil {
		return "", err
	}
	return removeSegments(decoded)
}

func decodePath(raw string) (string, error) {
	if !strings.Contains(raw, "%") {
		return raw, nil
	}
	var out strings.Builder
	out.Grow(len(raw))
	for i := 0; i < len(raw); i++ {
		if raw[i] != '%' {
			out.WriteByte(raw[i])
			continue
		}
		if i+2 >= len(raw) {
			return "", errors.New("the path has an invalid escape")
		}
		high, low := unhex(raw[i+1]), unhex(raw[i+2])
		if high < 0 || low < 0 {
			return "", errors.New("the path has an invalid escape")
		}
		i += 2
		switch c := byte(high<<4 | low); c {
		case 0:
			return "", errors.New("the path has an escaped NUL")
		case '/':
			out.WriteString("%2F")
		case '%':
			out.WriteString("%25")
		default:
			out.WriteByte(c)
		}
	}
	return out.String(), nil
}

// removeSegments removes empty and dot segments; a path that ended in one ends in a slash.
func removeSegments(path string) (string, error) {
	var kept []string
	segments := strings.Split(path[1:], "/")
	for i, s := range segments {
		last := i == len(segments)-1
		switch s {
		case "", ".":
		case "..":
			if len(kept) == 0 {
				return "", errors.New("the path leaves the root")
			}
			kept = kept[:len(kept)-1]
		default:
			kept = append(kept, s)
			if last {
				return "/" + strings.Join(kept, "/"), nil
			}
		}
	}
	if len(kept) == 0 {
		return "/", nil
	}
	return "/" + strings.Join(kept, "/") + "/", nil
}

// stripPath returns raw without the leading prefix (as cleanPrefix returns it), where normal is raw's normalised
// form. What remains keeps raw's bytes, unless raw spells the prefix in another way (/%61pi, /x/../api): then it
// is what remains of the normalised path, escaped anew. A path that does not have the prefix is returned as it is.
func stripPath(raw, normal, prefix string) string {
	rest, ok := cutSegments(normal, prefix)
	if !ok || prefix == "" {
		return raw
	}
	if tail, ok := cutSegments(raw, prefix); ok {
		if n, err := normalisePath(tail); err == nil && n == rest {
			return tail
		}
	}
	return encodePath(rest)
}

// cutSegments returns what follows prefix in path, if prefix is whole segments of it; it begins with a slash.
func cutSegments(path, prefix string) (string, bool) {
	rest, ok := strings.CutPrefix(path, prefix)
	if !ok || rest != "" && rest[0] != '/' {
		return "", false
	}
	if rest == "" {
		rest = "/"
	}
	return rest, true
}

// encodePath escapes what may not stand in a path (RFC 3986, section 3.3). The escapes that a normalised path has stay.
func encodePath(normal string) string {
	const digits = "0123456789ABCDEF"
	var out strings.Builder
	for i := range len(normal) {
		c := normal[i]
		if isAlphanumeric(c) || strings.IndexByte("/%-._~!$&'()*+,;=:@", c) >= 0 {
			out.WriteByte(c)
			continue
		}
		out.WriteByte('%')
		out.WriteByte(digits[c>>4])
		out.WriteByte(digits[c&15])
	}
	return out.String()
}

func unhex(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

func isAlphanumeric(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}
