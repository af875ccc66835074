package proxy

import (
	"errors"
	"net"
	"net/netip"
	"strings"
)

// normaliseHost returns the name of a Host field or :authority that routes are matched against: lower case,
// without port and trailing dot. It refuses what is no host (RFC 9110, section 7.2), empty labels among it. An absent Host is "".
func normaliseHost(authority string) (string, error) {
	host := authority
	if strings.HasPrefix(host, "[") {
		end := strings.IndexByte(host, ']')
		if end < 0 || !isPort(host[end+1:]) {
			return "", errors.New("the host is malformed")
		}
		if _, err := netip.ParseAddr(host[1:end]); err != nil {
			return "", errors.New("the host is malformed")
		}
		return strings.ToLower(host[:end+1]), nil
	}
	if colon := strings.IndexByte(host, ':'); colon >= 0 {
		if !isPort(host[colon:]) {
			return "", errors.New("the host is malformed")
		}
		host = host[:colon]
	}
	host = strings.TrimSuffix(host, ".")
	for i := range len(host) {
		if c := host[i]; !isAlphanumeric(c) && c != '-' && c != '.' && c != '_' {
			return "", errors.New("the host is malformed")
		}
	}
	if strings.HasPrefix(host, ".") || strings.HasSuffix(host, ".") || strings.Contains(host, "..") || host == "" && authority != "" {
		return "", errors.New("the host is malformed")
	}
	return strings.ToLower(host), nil
}

// isPort reports whether s is nothing, or a colon and digits.
func isPort(s string) bool {
	if s == "" {
		return true
	}
	return s[0] == ':' && len(s) <= 6 && strings.Trim(s[1:], "0123456789") == ""
}

// withPort returns the host of an authority with another port; 443 is left out, being https's own.
func withPort(authority, port string) string {
	host := authority
	if i := strings.LastIndexByte(host, ':'); i > strings.LastIndexByte(host, ']') {
		host = host[:i]
	}
	if port == "443" {
		return host
	}
	return net.JoinHostPort(strings.Trim(host, "[]"), port)
}
