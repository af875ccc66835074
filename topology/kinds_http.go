package topology

import (
	"fmt"
	"net/netip"
	"net/textproto"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// The kinds of scalars that routes and probes over HTTP take.

// routeHost is the host of requests, in lower case.
var routeHost = &typ{
	name: "a host", schema: map[string]any{"type": "string"},
	parse: func(s scalar) (any, error) {
		host := strings.ToLower(strings.TrimSuffix(s.String(), "."))
		name := strings.TrimPrefix(host, "*.")
		switch {
		case host == "*":
			return nil, faultf(`"*" is not a host; leave host out to match every one`)
		case strings.Contains(host, "://") || strings.Contains(host, "/"):
			return nil, faultf("%q is not a host: it has no scheme and no path", s)
		case strings.Contains(name, "*"):
			return nil, faultf("%q is not a host: * stands for the first label only, as in *.example.com", s)
		}
		if ip, err := netip.ParseAddr(strings.Trim(name, "[]")); err == nil && name == host {
			return ip.String(), nil
		}
		if i := strings.LastIndexByte(name, ':'); i >= 0 {
			return nil, fault{fmt.Sprintf("%q is not a host: it has no port", s), host[:strings.LastIndexByte(host, ':')]}
		}
		if !isHost(name) {
			return nil, faultf("%q is not a host; names outside of ASCII are written in punycode (xn--…)", s)
		}
		return host, nil
	},
}

const maxPathPrefix = 1024

// pathPrefix is the beginning of a request's path, without a slash at its end.
var pathPrefix = &typ{
	name: "a path prefix", schema: map[string]any{"type": "string", "pattern": `^/|\$\{`},
	parse: func(s scalar) (any, error) {
		text := s.String()
		if !strings.HasPrefix(text, "/") {
			return nil, fault{fmt.Sprintf("%q does not begin with a slash", text), "/" + text}
		}
		if len(text) > maxPathPrefix {
			return nil, faultf("is longer than %d bytes", maxPathPrefix)
		}
		if i := strings.IndexFunc(text, func(r rune) bool { return r <= ' ' || r >= 0x7f || strings.ContainsRune(`?#"<>\^{|}`+"`", r) }); i >= 0 {
			return nil, faultf("%q has a character in it that no path of a request has", text)
		}
		if _, err := url.PathUnescape(text); err != nil {
			return nil, faultf("%q has a %% in it that is not followed by two hex digits", text)
		}
		trimmed := strings.TrimSuffix(text, "/")
		if trimmed == "" {
			return "/", nil
		}
		for _, segment := range strings.Split(trimmed[1:], "/") {
			if segment == "" || segment == "." || segment == ".." {
				return nil, faultf("%q has the segment %q in it, which a request's path never has", text, segment)
			}
		}
		return trimmed, nil
	},
}

// requestPath is what a probe asks for.
var requestPath = &typ{
	name: "a path", schema: map[string]any{"type": "string", "pattern": `^/|\$\{`},
	parse: func(s scalar) (any, error) {
		text := s.String()
		if u, err := url.Parse(text); err == nil && u.Scheme != "" && u.Host != "" {
			return nil, fault{fmt.Sprintf("%q is a URL; the address is the instance's own", text), u.RequestURI()}
		}
		if !strings.HasPrefix(text, "/") {
			return nil, fault{fmt.Sprintf("%q does not begin with a slash", text), "/" + text}
		}
		if _, err := url.ParseRequestURI(text); err != nil || strings.ContainsAny(text, " #") {
			return nil, faultf("%q is not the path of a request", text)
		}
		return text, nil
	},
}

// Field names are tokens (RFC 9110 §5.1, §5.6.2).
var fieldName = regexp.MustCompile("^[-!#$%&'*+.^_`|~0-9A-Za-z]+$")

// framing are the fields that belong to one connection or to the message's own form (RFC 9110 §7.6.1, RFC 9112 §6).
var framing = []string{
	"Connection", "Content-Length", "Keep-Alive", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade",
}

func checkHeaderName(name string) error {
	if !fieldName.MatchString(name) {
		return faultf("%q is not the name of a header", name)
	}
	if slices.Contains(framing, textproto.CanonicalMIMEHeaderKey(name)) {
		return faultf("%s belongs to the connection and is not for editing", name)
	}
	return nil
}

// checkListName is checkHeaderName for fields that may be there several times, or not at all: a request has
// one Host (RFC 9110 §7.2).
func checkListName(name string) error {
	if strings.EqualFold(name, "Host") {
		return faultf("a request has exactly one Host; write it under set")
	}
	return checkHeaderName(name)
}

var headerName = &typ{
	name: "a header", schema: map[string]any{"type": "string"},
	parse: func(s scalar) (any, error) {
		if err := checkListName(s.String()); err != nil {
			return nil, err
		}
		return textproto.CanonicalMIMEHeaderKey(s.String()), nil
	},
}

// headerValue is a field value (RFC 9110 §5.5).
var headerValue = &typ{
	name: "a string", yaml: "any", schema: map[string]any{"type": []string{"string", "number", "boolean"}},
	parse: func(s scalar) (any, error) {
		text := s.String()
		if strings.Trim(text, " \t") != text {
			return nil, faultf("%q has blanks at an end", text)
		}
		if strings.ContainsFunc(text, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
			return nil, faultf("%q has control characters in it", text)
		}
		return text, nil
	},
}
