package http1

import "encoding/binary"

// A Name is a field name that is known, whatever its case. The zero Name is any other.
type Name uint8

// The known names.
const (
	NameOther Name = iota
	NameAccept
	NameAcceptEncoding
	NameAcceptLanguage
	NameAge
	NameAuthorization
	NameCacheControl
	NameConnection
	NameContentEncoding
	NameContentLength
	NameContentRange
	NameContentType
	NameCookie
	NameDate
	NameETag
	NameExpect
	NameForwarded
	NameHTTP2Settings
	NameHost
	NameIdempotencyKey
	NameIfModifiedSince
	NameIfNoneMatch
	NameKeepAlive
	NameLastModified
	NameLocation
	NameMaxForwards
	NameOrigin
	NameProxyAuthenticate
	NameProxyAuthorization
	NameProxyConnection
	NameProxyStatus
	NameRange
	NameReferer
	NameRetryAfter
	NameServer
	NameSetCookie
	NameTE
	NameTrailer
	NameTransferEncoding
	NameUpgrade
	NameUserAgent
	NameVary
	NameVia
	NameWWWAuthenticate
	NameXForwardedFor
	NameXForwardedHost
	NameXForwardedPort
	NameXForwardedPrefix
	NameXForwardedProto
	NameXRealIP
	NameXRequestID

	nameCount // no more than the bits of a nameSet
)

// String returns the name as it is usually written, or "" for NameOther.
func (n Name) String() string {
	switch n {
	case NameAccept:
		return "Accept"
	case NameAcceptEncoding:
		return "Accept-Encoding"
	case NameAcceptLanguage:
		return "Accept-Language"
	case NameAge:
		return "Age"
	case NameAuthorization:
		return "Authorization"
	case NameCacheControl:
		return "Cache-Control"
	case NameConnection:
		return "Connection"
	case NameContentEncoding:
		return "Content-Encoding"
	case NameContentLength:
		return "Content-Length"
	case NameContentRange:
		return "Content-Range"
	case NameContentType:
		return "Content-Type"
	case NameCookie:
		return "Cookie"
	case NameDate:
		return "Date"
	case NameETag:
		return "ETag"
	case NameExpect:
		return "Expect"
	case NameForwarded:
		return "Forwarded"
	case NameHTTP2Settings:
		return "HTTP2-Settings"
	case NameHost:
		return "Host"
	case NameIdempotencyKey:
		return "Idempotency-Key"
	case NameIfModifiedSince:
		return "If-Modified-Since"
	case NameIfNoneMatch:
		return "If-None-Match"
	case NameKeepAlive:
		return "Keep-Alive"
	case NameLastModified:
		return "Last-Modified"
	case NameLocation:
		return "Location"
	case NameMaxForwards:
		return "Max-Forwards"
	case NameOrigin:
		return "Origin"
	case NameProxyAuthenticate:
		return "Proxy-Authenticate"
	case NameProxyAuthorization:
		return "Proxy-Authorization"
	case NameProxyConnection:
		return "Proxy-Connection"
	case NameProxyStatus:
		return "Proxy-Status"
	case NameRange:
		return "Range"
	case NameReferer:
		return "Referer"
	case NameRetryAfter:
		return "Retry-After"
	case NameServer:
		return "Server"
	case NameSetCookie:
		return "Set-Cookie"
	case NameTE:
		return "TE"
	case NameTrailer:
		return "Trailer"
	case NameTransferEncoding:
		return "Transfer-Encoding"
	case NameUpgrade:
		return "Upgrade"
	case NameUserAgent:
		return "User-Agent"
	case NameVary:
		return "Vary"
	case NameVia:
		return "Via"
	case NameWWWAuthenticate:
		return "WWW-Authenticate"
	case NameXForwardedFor:
		return "X-Forwarded-For"
	case NameXForwardedHost:
		return "X-Forwarded-Host"
	case NameXForwardedPort:
		return "X-Forwarded-Port"
	case NameXForwardedPrefix:
		return "X-Forwarded-Prefix"
	case NameXForwardedProto:
		return "X-Forwarded-Proto"
	case NameXRealIP:
		return "X-Real-IP"
	case NameXRequestID:
		return "X-Request-ID"
	}
	return ""
}

// LookupName returns which known name the field name is.
func LookupName(name []byte) Name {
	if len(name) == 0 || !IsToken(name) {
		return NameOther
	}
	return lookup(name)
}

// A knownName is a name in lower case.
type knownName struct {
	length int
	name   Name
	text   [24]byte
}

const lower8 = 0x2020202020202020

// slot returns where the token stands in the table of known names. Names of the same slot are tried one after the other.
func slot(token []byte) uint8 {
	n := len(token)
	return uint8(n*5) ^ (token[0]|0x20)*7 ^ (token[n-1]|0x20)*29 ^ (token[n/2]|0x20)*3
}

// slots is the table of known names, by slot and then further on.
var slots = fillSlots()

func fillSlots() (table [256]knownName) {
	for n := NameOther + 1; n < nameCount; n++ {
		k := knownName{length: len(n.String()), name: n}
		copy(k.text[:], n.String())
		for i, c := range k.text {
			k.text[i] = lower[c]
		}
		at := slot(k.text[:k.length])
		for table[at].length != 0 {
			at++
		}
		table[at] = k
	}
	return table
}

// lookup returns which known name the token is. In a token only letters change with the bit of lower case.
func lookup(token []byte) Name {
	for at := slot(token); ; at++ {
		switch slots[at].length {
		case 0:
			return NameOther
		case len(token):
			if slots[at].is(token) {
				return slots[at].name
			}
		}
	}
}

func (k *knownName) is(token []byte) bool {
	i := 0
	for ; i+8 <= len(token); i += 8 {
		if binary.LittleEndian.Uint64(token[i:])|lower8 != binary.LittleEndian.Uint64(k.text[i:]) {
			return false
		}
	}
	for ; i < len(token); i++ {
		if token[i]|0x20 != k.text[i] {
			return false
		}
	}
	return true
}

// A nameSet is a set of known names.
type nameSet uint64

func (s nameSet) has(n Name) bool { return s>>n&1 != 0 }
