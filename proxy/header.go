package proxy

import (
	"net/textproto"
	"strings"

	"mainstay/proxy/http1"
)

// fields are the header fields of a message by canonical name, each with its lines in order: how net/http has them. The rules of
// this file are about one field at a time, so that they hold for field lines as well.
type fields = map[string][]string

func nameOf(field string) http1.Name { return http1.LookupName([]byte(field)) }

// passes reports whether a field of a message goes further than the next hop. nominated says that Connection names it. Not even
// then is one kept back that is meant for the instance: that would let a client remove what a trusted proxy
// before us has set (RFC 9110, section 7.6.1).
func passes(n http1.Name, field string, nominated bool) bool {
	switch n {
	case http1.NameConnection, http1.NameKeepAlive, http1.NameProxyConnection, http1.NameProxyAuthenticate,
		http1.NameProxyAuthorization, http1.NameTE, http1.NameTrailer, http1.NameTransferEncoding, http1.NameUpgrade,
		http1.NameHTTP2Settings:
		return false
	}
	return !nominated || endToEnd(n, field)
}

// endToEnd reports whether a field is never for one hop, whatever Connection says.
func endToEnd(n http1.Name, field string) bool {
	switch n {
	case http1.NameHost, http1.NameContentLength, http1.NameContentType, http1.NameContentEncoding, http1.NameContentRange,
		http1.NameAuthorization, http1.NameCookie, http1.NameSetCookie, http1.NameCacheControl, http1.NameDate,
		http1.NameVia, http1.NameOrigin, http1.NameReferer, http1.NameExpect:
		return true
	}
	return isIdentity(n, field)
}

// connectionOptions returns what Connection says in a request to an instance: what else of it is for the next hop only. upgrade is that it has Upgrade, trailers
// that it has TE (RFC 9110, sections 7.8 and 10.1.4).
func connectionOptions(upgrade, trailers bool) string {
	switch {
	case upgrade && trailers:
		return "Upgrade, TE"
	case upgrade:
		return "Upgrade"
	case trailers:
		return "TE"
	}
	return ""
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
func keepTrailer(field string) bool {
	n := nameOf(field)
	if strings.IndexByte(field, '_') >= 0 {
		field = strings.ReplaceAll(field, "_", "-")
		n = nameOf(field)
	}
	switch n {
	case http1.NameLocation, http1.NameWWWAuthenticate:
		return false
	}
	return passes(n, field, false) && !endToEnd(n, field)
}

// keptTrailers returns the names in a Trailer field of those fields that are sent on.
func keptTrailers(lines []string) (kept []string) {
	for _, line := range lines {
		for item := range strings.SplitSeq(line, ",") {
			if name := textproto.CanonicalMIMEHeaderKey(textproto.TrimString(item)); name != "" && keepTrailer(name) {
				kept = append(kept, name)
			}
		}
	}
	return kept
}
