package http1

import (
	"fmt"
	"testing"
	"time"
)

// receive gives c the request and all of its content, and returns what is left.
func receive(t *testing.T, c *Incoming, in string, l *Limits) string {
	t.Helper()
	n, err := c.Head([]byte(in), l)
	if n == 0 || err != nil {
		t.Fatalf("%q: %d %v", in, n, err)
	}
	for in = in[n:]; !c.Received() && in != ""; in = in[n:] {
		if _, n, _, err = c.Content([]byte(in)); err != nil {
			t.Fatalf("%q: %v", in, err)
		}
	}
	return in
}

func TestIncomingReply(t *testing.T) {
	const (
		get    = "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
		head   = "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n"
		last   = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
		old    = "GET / HTTP/1.0\r\n\r\n"
		oldOn  = "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
		post   = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n"
		chunks = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"
	)
	l := DefaultLimits()
	for _, test := range []struct {
		request string
		status  int
		framing Framing
		length  int64
		end     bool
		want    string // the field lines, the framing, and whether another request follows
	}{
		{get, 200, Length, 5, false, "Content-Length: 5\r\n length true"},
		{get, 200, None, -1, false, "Content-Length: 0\r\n length true"},
		{get, 200, Chunked, -1, false, "Transfer-Encoding: chunked\r\n chunked true"},
		{get, 200, UntilClose, -1, false, "Transfer-Encoding: chunked\r\n chunked true"},
		{get, 200, Length, 5, true, "Content-Length: 5\r\nConnection: close\r\n length false"},
		{get, 204, None, 0, false, " none true"},
		{get, 304, None, 7, false, "Content-Length: 7\r\n none true"},
		{get, 304, None, -1, false, " none true"},
		{head, 200, None, 9, false, "Content-Length: 9\r\n none true"},
		{head, 200, Length, 9, false, "Content-Length: 9\r\n none true"},
		{head, 200, Chunked, -1, false, " none true"},
		{last, 200, Length, 5, false, "Content-Length: 5\r\nConnection: close\r\n length false"},
		{last, 200, Chunked, -1, false, "Transfer-Encoding: chunked\r\nConnection: close\r\n chunked false"},
		{old, 200, Length, 5, false, "Content-Length: 5\r\nConnection: close\r\n length false"},
		{old, 200, Chunked, -1, false, "Connection: close\r\n until close false"},
		{oldOn, 200, Length, 5, false, "Content-Length: 5\r\nConnection: keep-alive\r\n length true"},
		{oldOn, 200, Chunked, -1, false, "Connection: close\r\n until close false"},
		{oldOn, 204, None, -1, false, "Connection: keep-alive\r\n none true"},
		{post + "abc", 200, Length, 5, false, "Content-Length: 5\r\n length true"},
		{post + "ab", 200, Length, 5, false, "Content-Length: 5\r\nConnection: close\r\n length false"},
		{chunks + "\r\n", 200, Length, 5, false, "Content-Length: 5\r\n length true"},
		{chunks, 200, Length, 5, false, "Content-Length: 5\r\nConnection: close\r\n length false"},
	} {
		var c Incoming
		receive(t, &c, test.request, &l)
		r := c.Respond(test.status, test.framing, test.length, test.end)
		if got := fmt.Sprintf("%s %s %t", r.AppendFields(nil), r.Framing, c.Next()); got != test.want {
			t.Errorf("%d %s to %q:\n got %q\nwant %q", test.status, test.framing, test.request, got, test.want)
		}
	}
}

func TestIncomingPipeline(t *testing.T) {
	var c Incoming
	l := DefaultLimits()
	in := "POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx\r\nGET /2 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\nGET /3"
	if !c.Between() {
		t.Error("a new connection is not between two requests")
	}
	in = receive(t, &c, in, &l)
	if c.Between() || c.Next() {
		t.Error("goes on without a response")
	}
	c.Reset()
	if in = receive(t, &c, "GET /1 HTTP/1.1\r\nHost: a\r\n\r\n"+in, &l); !c.TakesInterim() {
		t.Error("takes no interim response")
	}
	c.Respond(200, Length, 0, false)
	if c.TakesInterim() || !c.Next() || !c.Between() {
		t.Error("does not go on after the first response")
	}
	if n, err := c.Head([]byte(in[:3]), &l); n != 0 || err != nil || c.Between() {
		t.Error("is between two requests though one has begun")
	}
	in = receive(t, &c, in, &l)
	if c.Respond(200, Length, 0, false); in != "GET /3" || c.Next() || c.Between() {
		t.Errorf("goes on after close, with %q", in)
	}
	c.Reset()
	if _, err := c.Head([]byte("GET\r\n"), &l); err == nil {
		t.Error("no error")
	}
	if r := c.Respond(400, Length, 3, false); !r.Close || c.Next() {
		t.Errorf("the answer to what is no request: %+v", r)
	}
}

func TestIncomingContinue(t *testing.T) {
	var c Incoming
	l := DefaultLimits()
	in := "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
	receive(t, &c, in, &l)
	if !c.OwesContinue() {
		t.Error("owes nothing")
	}
	if got := string(c.AppendContinue(nil)); got != "HTTP/1.1 100 Continue\r\n\r\n" || c.OwesContinue() || len(c.AppendContinue(nil)) > 0 {
		t.Errorf("got %q", got)
	}
	c.Reset()
	if receive(t, &c, in+"x", &l); c.OwesContinue() {
		t.Error("owes what the client did not wait for")
	}
	c.Reset()
	receive(t, &c, in, &l)
	if r := c.Respond(401, Length, 0, false); !r.Close || c.OwesContinue() || c.Next() {
		t.Errorf("an answer instead: %+v", r)
	}
}

func TestOutgoing(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"
	for _, test := range []struct {
		method    Method
		webSocket bool
		unsent    bool
		in        string
		want      string // status, content, what is left, whether it ended when the connection did and whether it could have been reused
	}{
		{MethodGet, false, false, ok + "hi", `200 "hi" "" <nil> reusable`},
		{MethodGet, false, true, ok + "hi", `200 "hi" "" <nil>`},
		{MethodGet, false, false, ok + "hi!", `200 "hi" "!" <nil>`},
		{MethodGet, false, false, ok + "h", `200 "h" "" the connection ended within the content (RFC 9112, section 8)`},
		{MethodGet, false, false, ok[:30], `0 "" "HTTP/1.1 200 OK\r\nContent-Lengt" the connection ended before the response's header section (RFC 9112, section 8)`},
		{MethodHead, false, false, ok, `200 "" "" <nil> reusable`},
		{MethodHead, false, false, ok + "hi", `200 "" "hi" <nil>`},
		{MethodGet, false, false, "HTTP/1.1 204 No Content\r\n\r\n", `204 "" "" <nil> reusable`},
		{MethodGet, false, false, "HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\n" + ok, `304 "" "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n" <nil>`},
		{MethodGet, false, false, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + ok + "hi", `200 "hi" "" <nil> reusable`},
		{MethodGet, false, false, "HTTP/1.1 100 Continue\r\n\r\n", `0 "" "" the connection ended before the response's header section (RFC 9112, section 8)`},
		{MethodGet, false, false, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi", `200 "hi" "" <nil>`},
		{MethodGet, false, false, "HTTP/1.1 200 OK\r\n\r\nhi", `200 "hi" "" <nil>`},
		{MethodGet, false, false, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", `200 "hi" "" <nil> reusable`},
		{MethodGet, false, false, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n", `200 "hi" "" the connection ended within the content (RFC 9112, section 8)`},
		{MethodGet, false, false, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhix", `200 "hi" "" a chunk does not end with CRLF (RFC 9112, section 7.1)`},
		{MethodGet, false, false, "HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", `0 "" "" the protocol was switched without being asked (RFC 9110, section 15.2.2)`},
		{MethodGet, true, false, "HTTP/1.1 101 S\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n", `0 "" "" the protocol was switched without being asked (RFC 9110, section 15.2.2)`},
		{MethodGet, true, false, "HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nframes", `101 "" "frames" <nil> switched`},
		{MethodGet, true, false, ok + "hi", `200 "hi" "" <nil> reusable`},
	} {
		got := splits(t, test.in, func(in string, cuts ...int) string {
			return exchange(test.method, test.webSocket, test.unsent, in, cuts)
		})
		if got != test.want {
			t.Errorf("%q:\n got %s\nwant %s", test.in, got, test.want)
		}
	}
	var interim string
	for range 17 {
		interim += "HTTP/1.1 103 Early Hints\r\n\r\n"
	}
	if got := exchange(MethodGet, false, false, interim, nil); got != `0 "" "" there are too many interim responses (RFC 9110, section 15.2)` {
		t.Errorf("17 interim responses: %s", got)
	}
}

// exchange feeds an Outgoing and tells what came of it.
func exchange(m Method, webSocket, unsent bool, in string, cuts []int) string {
	var c Outgoing
	l := DefaultLimits()
	c.Begin(m, webSocket)
	if !unsent {
		c.Sent()
	}
	var content []byte
	at := 0
	var err error
	for _, cut := range append(cuts, len(in)) {
		for at < cut && err == nil {
			var n int
			if !c.Answered() {
				if n, err = c.Head([]byte(in[at:cut]), &l); n == 0 {
					break
				}
			} else {
				var part []byte
				part, n, _, err = c.Content([]byte(in[at:cut]))
				content = append(content, part...)
				if n == 0 {
					break
				}
			}
			at += n
		}
	}
	rest := in[at:]
	if err != nil { // how far it came is of no use
		rest = ""
	}
	status, after := 0, ""
	if c.Answered() {
		status = c.Response.Status
	}
	if c.Switched() {
		after = " switched"
	}
	if c.Reusable(len(rest)) {
		after += " reusable"
	}
	if err == nil {
		err = c.End()
	}
	if c.Reusable(0) {
		after += " though it has ended"
	}
	return fmt.Sprintf("%d %q %q %v%s", status, content, rest, err, after)
}

func TestAppend(t *testing.T) {
	var p []byte
	at := time.Date(2026, 11, 3, 4, 5, 6, 7, time.FixedZone("", 3600))
	compose := func() {
		p = AppendRequestLine(p[:0], "GET", "/a?b")
		p = AppendStatusLine(p, 200, "OK")
		p = AppendStatusLine(p, 404, ReasonPhrase(404))
		p = AppendStatusLine(p, 999, "")
		p = AppendField(p, "Name", "value")
		p = AppendField(p, "Date", "")
		p = AppendDate(p, at)
		p = AppendLength(p, 1234567890123)
		p = AppendChunk(p, []byte("0123456789abcdef0"))
		p = AppendChunk(p, nil)
		p = AppendLastChunk(p)
	}
	compose()
	want := "GET /a?b HTTP/1.1\r\nHTTP/1.1 200 OK\r\nHTTP/1.1 404 Not Found\r\nHTTP/1.1 999 \r\nName: value\r\nDate: \r\nTue, 03 Nov 2026 03:05:06 GMT" +
		"Content-Length: 1234567890123\r\n11\r\n0123456789abcdef0\r\n0\r\n"
	if string(p) != want {
		t.Errorf("got %q\nwant %q", p, want)
	}
	if n := testing.AllocsPerRun(100, compose); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
