package proxy

import (
	"net/netip"
	"net/textproto"
	"strings"

	"mainstay/topology"
)

// fields are the header fields of a message by canonical name, each with its lines in order.
type fields = map[string][]string

// removeHopByHop removes what is meant for the next hop only: the fields that Connection names and those that are
// known to be (RFC 9110, section 7.6.1). Connection may not name a field that is meant for the instance: that would
// let a client remove what a trusted proxy before us has set.
func removeHopByHop(h fields) {
	for _, line := range h["Connection"] {
		for option := range strings.SplitSeq(line, ",") {
			if name := textproto.CanonicalMIMEHeaderKey(textproto.TrimString(option)); !endToEnd(name) {
				delete(h, name)
			}
		}
	}
	for _, name := range [...]string{
		"Connection", "Keep-Alive", "Proxy-Connection", "Proxy-Authenticate", "Proxy-Authorization",
		"Te", "Trailer", "Transfer-Encoding", "Upgrade", "Http2-Settings",
	} {
		delete(h, name)
	}
}

// endToEnd reports whether a field is never for one hop, whatever Connection says.
func endToEnd(name string) bool {
	switch name {
	case "Host", "Content-Length", "Content-Type", "Content-Encoding", "Content-Range", "Authorization", "Cookie",
		"Set-Cookie", "Cache-Control", "Date", "Via", "Origin", "Referer", "Expect":
		return true
	}
	return isIdentity(strings.ToLower(name))
}

// hasToken reports whether one of the comma-separated lists has the token, in any case.
func hasToken(lines []string, token string) bool {
	for _, line := range lines {
		for item := range strings.SplitSeq(line, ",") {
			if strings.EqualFold(textproto.TrimString(item), token) {
				return true
			}
		}
	}
	return false
}

// keepTrailer reports whether a field may stand in a trailer section: nothing that frames or routes the message, that
// says who the client is, or that a recipient acts on before the content (RFC 9110, section 6.5.1).
func keepTrailer(name string) bool {
	switch name {
	case "Connection", "Keep-Alive", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade",
		"Proxy-Authenticate", "Proxy-Authorization", "Expect", "Location", "Www-Authenticate":
		return false
	}
	plain := strings.ReplaceAll(name, "_", "-")
	return !endToEnd(textproto.CanonicalMIMEHeaderKey(plain))
}

// edit applies a route's edits: remove, then set, then add.
func edit(h fields, e topology.HeaderEdits) {
	for _, name := range e.Remove {
		delete(h, textproto.CanonicalMIMEHeaderKey(name))
	}
	for name, value := range e.Set {
		h[textproto.CanonicalMIMEHeaderKey(name)] = []string{value}
	}
	for name, value := range e.Add {
		name = textproto.CanonicalMIMEHeaderKey(name)
		h[name] = append(h[name], value)
	}
}

// An identity is who sent a request to what, as the socket tells and, if the peer is a trusted proxy, as it tells.
type identity struct {
	peer    netip.Addr
	trusted bool
	client  netip.Addr // peer, or whom trusted proxies name
	host    string     // the Host field, validated
	secure  bool       // came over TLS
	port    string     // that the request came in on
	id      string     // of the request
}

// isIdentity reports whether a field, in lower case, says who the client is or what it asked for.
func isIdentity(name string) bool {
	return name == "forwarded" || name == "x-real-ip" || name == "x-request-id" || strings.HasPrefix(name, "x-forwarded-")
}

// isFraming reports whether a field, in lower case, says where the message ends or what its connection is for.
func isFraming(name string) bool {
	switch name {
	case "content-length", "transfer-encoding", "connection", "keep-alive", "proxy-connection", "upgrade", "te", "trailer", "expect":
		return true
	}
	return false
}

// write replaces the fields that tell who the client is. An untrusted peer's are dropped, a trusted one's are kept and
// continued (X-Forwarded-*, and Forwarded of RFC 7239). Aliases with underscores of these, and of those that frame the message,
// are dropped always: many instances, all that are told fields in environment variables, read them as the same name.
func (d identity) write(h fields) {
	for name := range h {
		alias := strings.IndexByte(name, '_') >= 0
		if !alias && name[0] != 'F' && name[0] != 'X' {
			continue
		}
		lower := strings.ToLower(name)
		plain := strings.ReplaceAll(lower, "_", "-")
		if isIdentity(plain) && (!d.trusted || alias) || alias && isFraming(plain) {
			delete(h, name)
		}
	}
	proto := "http"
	if d.secure {
		proto = "https"
	}
	node := d.peer.String()
	element := "for=" + node + ";proto=" + proto
	if d.peer.Is6() {
		element = `for="[` + node + `]";proto=` + proto
	}
	if d.host != "" {
		element += `;host="` + d.host + `"`
	}
	h["X-Forwarded-For"] = []string{continued(h["X-Forwarded-For"], node)}
	h["Forwarded"] = []string{continued(h["Forwarded"], element)}
	h["X-Real-Ip"] = []string{d.client.String()}
	h["X-Request-Id"] = []string{d.id}
	keep(h, "X-Forwarded-Proto", proto)
	keep(h, "X-Forwarded-Host", d.host)
	keep(h, "X-Forwarded-Port", d.port)
}

// continued returns the lists in one line, with item at the end.
func continued(lines []string, item string) string {
	if len(lines) == 0 {
		return item
	}
	return strings.Join(lines, ", ") + ", " + item
}

// keep sets a field that is not there.
func keep(h fields, name, value string) {
	if len(h[name]) == 0 && value != "" {
		h[name] = []string{value}
	}
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
