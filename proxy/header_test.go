package proxy

import (
	"net/http"
	"net/textproto"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestRemoveHopByHop(t *testing.T) {
	h := http.Header{
		"Connection":        {"close, X-Hop", "x-other,X-Forwarded-For , Authorization"},
		"X-Hop":             {"1"},
		"X-Other":           {"1"},
		"X-Forwarded-For":   {"10.0.0.1"},
		"Authorization":     {"Basic x"},
		"Keep-Alive":        {"5"},
		"Proxy-Connection":  {"keep-alive"},
		"Te":                {"gzip"},
		"Trailer":           {"X"},
		"Upgrade":           {"h2c"},
		"Http2-Settings":    {"AAMAAABk"},
		"Transfer-Encoding": {"chunked"},
		"X-Stays":           {"1"},
	}
	removeHopByHop(h)
	want := http.Header{"X-Forwarded-For": {"10.0.0.1"}, "Authorization": {"Basic x"}, "X-Stays": {"1"}}
	if d := cmp.Diff(want, h); d != "" {
		t.Error(d)
	}
}

func TestKeepTrailer(t *testing.T) {
	for name, want := range map[string]bool{
		"X-Checksum": true, "Grpc-Status": true, "Server-Timing": true, "x_checksum": true,
		"Content-Length": false, "content_length": false, "Transfer-Encoding": false, "Host": false, "Trailer": false, "te": false,
		"X-Forwarded-For": false, "x_forwarded_else": false, "X-Forwarded-Else": false, "Authorization": false, "Set-Cookie": false,
		"Location": false, "WWW-Authenticate": false, "Expect": false, "http2-settings": false,
	} {
		if keepTrailer(name) != want {
			t.Errorf("%s kept: %t", name, !want)
		}
	}
}

// removeHopByHop removes the fields that do not pass.
func removeHopByHop(h fields) {
	for _, line := range h["Connection"] {
		for option := range strings.SplitSeq(line, ",") {
			if name := textproto.CanonicalMIMEHeaderKey(textproto.TrimString(option)); !passes(nameOf(name), name, true) {
				delete(h, name)
			}
		}
	}
	for name := range h {
		if !passes(nameOf(name), name, false) {
			delete(h, name)
		}
	}
}
