package http1

import (
	"fmt"
	"strings"
	"testing"
)

func (r *Response) describe(p []byte, n int) string {
	var s strings.Builder
	fmt.Fprintf(&s, "%d %d %q 1.%d %s/%d", n, r.Status, r.Reason.Of(p), r.Minor, r.Framing, r.Length)
	if r.KeepAlive {
		s.WriteString(" keep")
	}
	if r.WebSocket {
		s.WriteString(" ws")
	}
	describeFields(&s, &r.Fields, p)
	return s.String()
}

func parseResponse(in string, l *Limits, toHead bool, cuts ...int) string {
	var r Response
	for _, cut := range append(cuts, len(in)) {
		p := []byte(in[:cut])
		n, err := r.Parse(p, l, toHead)
		if n > 0 || err != nil {
			return outcome(r.describe(p, n), n, err)
		}
	}
	return "more"
}

const typical = "HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Mon, 23 Nov 2026 18:00:00 GMT\r\nContent-Type: text/plain\r\n" +
	"Content-Length: 119\r\nLast-Modified: Mon, 23 Nov 2026 15:00:00 GMT\r\nConnection: keep-alive\r\nETag: \"6743-77\"\r\nAccept-Ranges: bytes\r\n\r\n"

func TestResponse(t *testing.T) {
	limits := Limits{Head: 200, Fields: 5}
	for in, want := range map[string]string{
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello":                                             `38 200 "OK" 1.1 length/5 keep [Content-Length|5|Content-Length|false]`,
		"HTTP/1.1 200 \r\n\r\n":                                                                         `17 200 "" 1.1 until close/-1`,
		"HTTP/1.1 200\r\n\r\n":                                                                          `16 200 "" 1.1 until close/-1`,
		"HTTP/1.1 999 a\tb \xff\r\nContent-Length:0\r\n\r\n":                                            `40 999 "a\tb \xff" 1.1 length/0 keep [Content-Length|0|Content-Length|false]`,
		"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n":                                                  `38 200 "OK" 1.0 length/5 [Content-Length|5|Content-Length|false]`,
		"HTTP/1.0 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\n":                        `62 200 "OK" 1.0 length/5 keep [Content-Length|5|Content-Length|false] [Connection|keep-alive|Connection|false]`,
		"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\n":                                             `43 200 "OK" 1.0 until close/-1 [Connection|keep-alive|Connection|false]`,
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n":                                         `47 200 "OK" 1.1 chunked/-1 keep [Transfer-Encoding|chunked|Transfer-Encoding|false]`,
		"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\n":                             `57 200 "OK" 1.1 length/1 [Connection|close|Connection|false] [Content-Length|1|Content-Length|false]`,
		"HTTP/1.1 204 No Content\r\n\r\n":                                                               `27 204 "No Content" 1.1 none/-1 keep`,
		"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n":                                          `46 204 "No Content" 1.1 none/0 keep [Content-Length|0|Content-Length|false]`,
		"HTTP/1.1 204 No Content\r\nContent-Length: 1\r\n\r\n":                                          `46 204 "No Content" 1.1 none/1 [Content-Length|1|Content-Length|false]`,
		"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n":                                 `55 204 "No Content" 1.1 none/-1 [Transfer-Encoding|chunked|Transfer-Encoding|false]`,
		"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n":                                        `48 304 "Not Modified" 1.1 none/9 keep [Content-Length|9|Content-Length|false]`,
		"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n":                                          `25 100 "Continue" 1.1 none/-1 keep`,
		"HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n":                           `59 101 "S" 1.1 none/-1 keep ws [Connection|upgrade|Connection|false] [Upgrade|websocket|Upgrade|false]`,
		"HTTP/1.1 101 S\r\nUpgrade: websocket\r\n\r\n":                                                  `38 101 "S" 1.1 none/-1 keep [Upgrade|websocket|Upgrade|false]`,
		"HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: websocket\r\nUpgrade: websocket\r\n\r\n":     `79 101 "S" 1.1 none/-1 keep [Connection|upgrade|Connection|false] [Upgrade|websocket|Upgrade|false] [Upgrade|websocket|Upgrade|false]`,
		"HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: websocket, h2c\r\nContent-Length: 9\r\n\r\n": `83 101 "S" 1.1 none/9 [Connection|upgrade|Connection|false] [Upgrade|websocket, h2c|Upgrade|false] [Content-Length|9|Content-Length|false]`,
		"": "more", "HTTP/1.1 200": "more", "HTTP/1.1 200 ": "more", "HTTP/1.1 200 OK\r\nA: b\r\n": "more",

		"hello":                                              "502 the first line has no valid version",
		"\r\nHTTP/1.1 200 OK\r\n":                            "502 the first line has no valid version",
		"HTTP/1.1\r\n":                                       "502 the first line has no valid version",
		"HTTP/2.0 200 OK\r\n":                                "502 HTTP/2 is spoken where HTTP/1.1 is",
		"HTTP/0.9 200 OK\r\n":                                "502 the version is not HTTP/1",
		"HTTP/1.1  200 OK\r\n":                               "502 the status code is not three digits",
		"HTTP/1.1 20 OK\r\n":                                 "502 the status code is not three digits",
		"HTTP/1.1 2000 OK\r\n":                               "502 the status code is not three digits",
		"HTTP/1.1 +20 OK\r\n":                                "502 the status code is not three digits",
		"HTTP/1.1 200OK\r\n":                                 "502 the status code is not three digits",
		"HTTP/1.1 200\tOK\r\n":                               "502 the status code is not three digits",
		"HTTP/1.1 099 OK\r\n":                                "502 the status code is below 100",
		"HTTP/1.1 200 OK\n":                                  "502 a line ends without a carriage return",
		"HTTP/1.1 200\n":                                     "502 a line ends without a carriage return",
		"HTTP/1.1 \n":                                        "502 a line ends without a carriage return",
		"HTTP/1.1 200 O\rK\r\n":                              "502 a carriage return stands alone",
		"HTTP/1.1 200\r\r\n":                                 "502 a carriage return stands alone",
		"HTTP/1.1 200 O\x00K\r\n":                            "502 the reason phrase has a control character",
		"HTTP/1.1 200 OK\r\n a: b\r\n":                       "502 there is white space before the first field",
		"HTTP/1.1 200 OK\r\na: b\r\n c\r\n":                  "502 a field line is folded",
		"HTTP/1.1 200 OK\r\na : b\r\n":                       "502 there is white space in or after a field name",
		"HTTP/1.1 200 OK\r\na: b\nc: d\r\n":                  "502 a line ends without a carriage return",
		"HTTP/1.1 200 OK\r\nA:\r\nB:\r\nC:\r\nD:\r\nE:\r\nF": "502 there are too many field lines",
		"HTTP/1.1 200 OK\r\na: " + strings.Repeat("x", 200):  "502 the header section is too long",
		"HTTP/1.1 200 " + strings.Repeat("x", 200):           "502 the header section is too long",
		"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n":                   "502 there is more than one Content-Length",
		"HTTP/1.1 200 OK\r\nContent-Length: 1, 1\r\n\r\n":                                     "502 Content-Length is not a number",
		"HTTP/1.1 304 OK\r\nContent-Length: -1\r\n\r\n":                                       "502 Content-Length is not a number",
		"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n":          "502 there are both Content-Length and Transfer-Encoding",
		"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n":                               "502 there is a Transfer-Encoding in HTTP/1.0",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n":                         "502 there is a transfer coding other than chunked",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n":                                  "502 the last transfer coding is not chunked",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n": "502 there is more than one Transfer-Encoding",
	} {
		got := splits(t, in, func(in string, cuts ...int) string { return parseResponse(in, &limits, false, cuts...) })
		if got != want {
			t.Errorf("%q:\n got %s\nwant %s", in, got, want)
		}
	}
	for in, want := range map[string]string{
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n":          `38 200 "OK" 1.1 none/5 keep [Content-Length|5|Content-Length|false]`,
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n": `47 200 "OK" 1.1 none/-1 keep [Transfer-Encoding|chunked|Transfer-Encoding|false]`,
		"HTTP/1.1 200 OK\r\n\r\n":                               `19 200 "OK" 1.1 none/-1 keep`,
	} {
		if got := parseResponse(in, &limits, true); got != want {
			t.Errorf("to HEAD: %q:\n got %s\nwant %s", in, got, want)
		}
	}
}

func TestResponseAllocations(t *testing.T) {
	var r Response
	l := DefaultLimits()
	p := []byte(typical)
	if n := testing.AllocsPerRun(100, func() {
		r.Reset()
		_, _ = r.Parse(p[:len(p)/2], &l, false)
		_, _ = r.Parse(p, &l, false)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkResponse(b *testing.B) {
	var r Response
	p := []byte(typical)
	l := DefaultLimits()
	b.SetBytes(int64(len(p)))
	b.ReportAllocs()
	for b.Loop() {
		r.Reset()
		if n, err := r.Parse(p, &l, false); n != len(p) || err != nil {
			b.Fatal(n, err)
		}
	}
}
