package proxy

import (
	crand "crypto/rand"
	"math/rand/v2"
	"net/netip"
	"net/textproto"
	"strings"

	"mainstay/proxy/http1"
)

// An identity is who sent a request to what, as the socket tells and, if the peer is a trusted proxy, as it tells.
type identity struct {
	peer    netip.Addr
	node    string // peer as text
	trusted bool
	client  string // peer, or whom trusted proxies name, as text
	host    string // the Host field, validated
	secure  bool   // came over TLS
	port    string // that the request came in on
	prefix  string // of the path, that is stripped; empty: none
	id      string // of the request
	version string // of HTTP that the client speaks: 1.1
	proxy   string // the name of this proxy
}

// isIdentity reports whether a field says who the client is or what it asked for.
func isIdentity(n http1.Name, field string) bool {
	switch n {
	case http1.NameForwarded, http1.NameXRealIP, http1.NameXRequestID, http1.NameXForwardedFor, http1.NameXForwardedHost,
		http1.NameXForwardedPort, http1.NameXForwardedPrefix, http1.NameXForwardedProto:
		return true
	case http1.NameOther:
		const prefix = "x-forwarded-"
		return len(field) >= len(prefix) && strings.EqualFold(field[:len(prefix)], prefix)
	}
	return false
}

// isFraming reports whether a field says where the message ends or what its connection is for.
func isFraming(n http1.Name) bool {
	switch n {
	case http1.NameContentLength, http1.NameTransferEncoding, http1.NameConnection, http1.NameKeepAlive,
		http1.NameProxyConnection, http1.NameUpgrade, http1.NameTE, http1.NameTrailer, http1.NameExpect:
		return true
	}
	return false
}

// replaces reports whether a field that passes is not sent on as it came, because the identity's own stand for it: of those that
// tell who the client is, all of an untrusted peer's, and those of a trusted one that are continued. Aliases with
// underscores of these, and of those that frame the message, are dropped always: many instances, all that are told fields in
// environment variables, read them as the same name.
func (d *identity) replaces(n http1.Name, field string) bool {
	switch n {
	case http1.NameForwarded, http1.NameXForwardedFor, http1.NameXRealIP, http1.NameXRequestID, http1.NameVia:
		return true
	case http1.NameOther:
		if strings.IndexByte(field, '_') >= 0 {
			field = strings.ReplaceAll(field, "_", "-")
			n = nameOf(field)
			return isIdentity(n, field) || isFraming(n)
		}
	}
	return !d.trusted && isIdentity(n, field)
}

// A forwarding is what a request says already in the fields that an identity continues or keeps. It can be used again.
type forwarding struct {
	clients, elements, via    []string // of X-Forwarded-For, Forwarded and Via
	proto, host, port, prefix bool
}

// note takes note of a field line of the request. What an untrusted peer says is passed over.
func (f *forwarding) note(d *identity, n http1.Name, value string) {
	switch {
	case n == http1.NameVia:
		f.via = append(f.via, value)
	case !d.trusted:
	case n == http1.NameXForwardedFor:
		f.clients = append(f.clients, value)
	case n == http1.NameForwarded:
		f.elements = append(f.elements, value)
	case n == http1.NameXForwardedProto:
		f.proto = true
	case n == http1.NameXForwardedHost:
		f.host = true
	case n == http1.NameXForwardedPort:
		f.port = true
	case n == http1.NameXForwardedPrefix:
		f.prefix = true
	}
}

// reset forgets what was noted.
func (f *forwarding) reset() {
	clear(f.clients)
	clear(f.elements)
	clear(f.via)
	*f = forwarding{clients: f.clients[:0], elements: f.elements[:0], via: f.via[:0]}
}

// appendFields appends the field lines that tell the instance who the client is, and Via, but for those that e removes or replaces.
// X-Forwarded-* and Forwarded (RFC 7239) of a trusted peer are continued.
func (d *identity) appendFields(b []byte, have *forwarding, e *edits) []byte {
	proto := "http"
	if d.secure {
		proto = "https"
	}
	if !e.overrides("X-Forwarded-For") {
		b = append(appendList(append(b, "X-Forwarded-For: "...), have.clients), d.node...)
		b = append(b, "\r\n"...)
	}
	if !e.overrides("Forwarded") {
		b = d.appendElement(appendList(append(b, "Forwarded: "...), have.elements), proto)
		b = append(b, "\r\n"...)
	}
	b = e.appendField(b, "X-Real-Ip", d.client)
	b = e.appendField(b, "X-Request-Id", d.id)
	if !have.proto {
		b = e.appendField(b, "X-Forwarded-Proto", proto)
	}
	if !have.host && d.host != "" {
		b = e.appendField(b, "X-Forwarded-Host", d.host)
	}
	if !have.port && d.port != "" {
		b = e.appendField(b, "X-Forwarded-Port", d.port)
	}
	if !have.prefix && d.prefix != "" {
		b = e.appendField(b, "X-Forwarded-Prefix", d.prefix)
	}
	if !e.overrides("Via") {
		b = append(appendList(append(b, "Via: "...), have.via), d.version...)
		b = append(append(append(b, ' '), d.proxy...), "\r\n"...)
	}
	return b
}

// appendList appends the items of the lines, to be followed by another.
func appendList(b []byte, lines []string) []byte {
	for _, line := range lines {
		b = append(append(b, line...), ", "...)
	}
	return b
}

// appendElement appends the element of Forwarded (RFC 7239, section 4).
func (d *identity) appendElement(b []byte, proto string) []byte {
	if d.peer.Is6() {
		b = append(append(append(b, `for="[`...), d.node...), `]"`...)
	} else {
		b = append(append(b, "for="...), d.node...)
	}
	b = append(append(b, ";proto="...), proto...)
	if d.host != "" {
		b = append(append(append(b, `;host="`...), d.host...), '"')
	}
	return b
}

// clientAddress returns whom the X-Forwarded-For lines of a trusted peer name: read from the right, the first that is
// not a trusted proxy itself. Where the list ends, or becomes unreadable, that is the last one that was read.
func clientAddress(lines []string, peer netip.Addr, trusts func(netip.Addr) bool) netip.Addr {
	client := peer
	for i := len(lines) - 1; i >= 0; i-- {
		for rest, more := lines[i], true; more; {
			item := rest
			if comma := strings.LastIndexByte(rest, ','); comma >= 0 {
				rest, item = rest[:comma], rest[comma+1:]
			} else {
				more = false
			}
			addr, ok := parseNode(textproto.TrimString(item))
			if !ok {
				return client
			}
			if client = addr; !trusts(addr) {
				return client
			}
		}
	}
	return client
}

// parseNode reads an address with or without a port, as proxies write it into X-Forwarded-For.
func parseNode(s string) (netip.Addr, bool) {
	if ap, err := netip.ParseAddrPort(s); err == nil {
		return ap.Addr().Unmap().WithZone(""), true
	}
	if inner, ok := strings.CutPrefix(s, "["); ok {
		s = strings.TrimSuffix(inner, "]")
	}
	addr, err := netip.ParseAddr(s)
	return addr.Unmap().WithZone(""), err == nil
}

// isRequestID reports whether a request id from outside can be kept: a token (RFC 9110, section 5.6.2) of at most 128 bytes.
func isRequestID(s string) bool {
	for i := range len(s) {
		if !isAlphanumeric(s[i]) && strings.IndexByte("!#$%&'*+-.^_`|~", s[i]) < 0 {
			return false
		}
	}
	return 0 < len(s) && len(s) <= 128
}

// An idSource makes ids for requests: 26 letters and digits, of 130 random bits, without asking the system each time. It is for
// one goroutine.
type idSource struct{ random *rand.ChaCha8 }

func newIDSource() idSource {
	var seed [32]byte
	_, _ = crand.Read(seed[:]) // it never fails
	return idSource{rand.NewChaCha8(seed)}
}

// idLength is the length of an id.
const idLength = 26

// appendID appends an id.
func (s idSource) appendID(b []byte) []byte {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567" // RFC 4648, section 6
	for left := idLength; left > 0; {
		bits := s.random.Uint64()
		for range min(left, 12) {
			b = append(b, alphabet[bits&31])
			bits >>= 5
			left--
		}
	}
	return b
}
