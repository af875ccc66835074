package http1

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// describe tells what was parsed, in one line.
func (r *Request) describe(p []byte, n int) string {
	var s strings.Builder
	fmt.Fprintf(&s, "%d %s(%d) %s=%s+%s 1.%d host=%s form=%d %s/%d keep=%t expect=%t ws=%t te=%t", n, r.Text.Of(p), r.Method, r.Target.Of(p),
		r.Path.Of(p), r.Query.Of(p), r.Minor, r.Authority.Of(p), r.Form, r.Framing, r.Length, r.KeepAlive, r.Expect100, r.WebSocket, r.Trailers)
	describeFields(&s, &r.Fields, p)
	return s.String()
}

func describeFields(s *strings.Builder, f *Fields, p []byte) {
	for _, l := range f.Lines {
		fmt.Fprintf(s, " [%s|%s|%s|%t]", l.Text.Of(p), l.Value.Of(p), l.Name, l.Nominated)
	}
}

// outcome is what came of parsing: a description, the need for more, or the error.
func outcome(description string, n int, err error) string {
	var e *Error
	switch {
	case errors.As(err, &e):
		return fmt.Sprintf("%d %s", e.Status, e.Text)
	case n == 0:
		return "more"
	}
	return description
}

func parseRequest(in string, l *Limits, cuts ...int) string {
	var r Request
	for _, cut := range append(cuts, len(in)) {
		p := []byte(in[:cut]) // moves each time
		n, err := r.Parse(p, l)
		if n > 0 || err != nil {
			return outcome(r.describe(p, n), n, err)
		}
	}
	return "more"
}

const browser = "GET /static/app/main.3f9a1c.js?v=17 HTTP/1.1\r\n" +
	"Host: shop.example.com\r\n" +
	"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n" +
	"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n" +
	"Accept-Language: en-US,en;q=0.5\r\n" +
	"Accept-Encoding: gzip, deflate, br, zstd\r\n" +
	"Connection: keep-alive\r\n" +
	"Cookie: session=0123456789abcdef0123456789abcdef; theme=dark\r\n" +
	"Referer: https://shop.example.com/cart\r\n\r\n"

const small = "GET /a HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nUser-Agent: bench/1\r\nAccept: */*\r\n\r\n"

func TestRequestAccepted(t *testing.T) {
	for in, want := range map[string]string{
		"GET / HTTP/1.1\r\nHost: a\r\n\r\n":               "27 GET(1) /=/+ 1.1 host=a form=0 none/0 keep=true expect=false ws=false te=false [Host|a|Host|false]",
		"\r\nGET /?x?y HTTP/1.0\r\n\r\nrest":              "24 GET(1) /?x?y=/+?x?y 1.0 host= form=0 none/0 keep=false expect=false ws=false te=false",
		"get http://a:1?q HTTP/1.1\r\nhOST:\t b \r\n\r\n": "40 get(0) http://a:1?q=+?q 1.1 host=a:1 form=1 none/0 keep=true expect=false ws=false te=false [hOST|b|Host|false]",
	} {
		if got := parseRequest(in, &Limits{}); got != want {
			t.Errorf("%q:\n got %s\nwant %s", in, got, want)
		}
	}
}

func BenchmarkRequest(b *testing.B) {
	for name, in := range map[string]string{"small": small, "browser": browser} {
		b.Run(name, func(b *testing.B) {
			var r Request
			p := []byte(in)
			l := DefaultLimits()
			b.SetBytes(int64(len(in)))
			b.ReportAllocs()
			for b.Loop() {
				r.Reset()
				if n, err := r.Parse(p, &l); n != len(p) || err != nil {
					b.Fatal(n, err)
				}
			}
		})
	}
}
