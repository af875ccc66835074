package http1

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httputil"
	"net/textproto"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
)

// fuzzLimits are reached by short inputs.
var fuzzLimits = Limits{Head: 2000, Target: 500, Fields: 20, Trailer: 200, Extension: 100, Interim: 3}

// compareFields tells where net/http has other fields than f. A name that is left out there may be missing.
func compareFields(f *Fields, p []byte, h http.Header, without ...string) error {
	for name, values := range collect(f, p) {
		if got := h[name]; !slices.Equal(got, values) && !(got == nil && slices.Contains(without, name)) {
			return fmt.Errorf("%s: %q, net/http has %q", name, values, got)
		}
	}
	return nil
}

func collect(f *Fields, p []byte) http.Header {
	h := http.Header{}
	for _, l := range f.Lines {
		name := textproto.CanonicalMIMEHeaderKey(string(l.Text.Of(p)))
		h[name] = append(h[name], string(l.Value.Of(p)))
	}
	return h
}

// FuzzRequest holds that what is accepted means the same to net/http, and that it does not matter how the input is cut.
func FuzzRequest(f *testing.F) {
	for _, in := range []string{
		small, browser, "GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n", "\r\nPOST http://a:1/b?c HTTP/1.0\r\nHost: b\r\nContent-Length: 3\r\n\r\nabc",
		"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: A\r\n\r\n3;x=y\r\nabc\r\n0\r\nA: b\r\n\r\nGET",
		"OPTIONS * HTTP/1.1\r\nHost: a\r\nConnection: close, x\r\nX: 1\r\n\r\n", "CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", "PUT / HTTP/1.1\nHost: a\n\n",
		"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nExpect: 100-continue\r\n\r\n",
	} {
		f.Add([]byte(in), uint(len(in)/2))
	}
	f.Fuzz(func(t *testing.T, in []byte, cut uint) {
		whole := parseRequest(string(in), &fuzzLimits)
		if got := parseRequest(string(in), &fuzzLimits, int(cut%uint(len(in)+1))); got != whole {
			t.Fatalf("cut at %d: %s\nwhole: %s", cut, got, whole)
		}
		var each []int
		for i := range in {
			each = append(each, i)
		}
		if got := parseRequest(string(in), &fuzzLimits, each...); got != whole {
			t.Fatalf("byte by byte: %s\nwhole: %s", got, whole)
		}
		var c Incoming
		n, err := c.Head(in, &fuzzLimits)
		if err != nil || n == 0 {
			var e *Error
			if err != nil && (!errors.As(err, &e) || e.Status < 400 || e.Status > 505 || e.Text == "" || e.Clause == "") {
				t.Fatalf("a poor error: %#v", err)
			}
			return
		}
		r := &c.Request
		if _, err := url.ParseRequestURI(string(r.Target.Of(in))); err != nil && r.Method != MethodConnect {
			return // the table of routes refuses it
		}
		reader := bufio.NewReader(bytes.NewReader(bytes.TrimPrefix(in, []byte("\r\n"))))
		theirs, err := http.ReadRequest(reader)
		if err != nil {
			if r.Fields.Has(NameTrailer) || r.Method == MethodConnect {
				return // net/http has its own opinion on these
			}
			t.Fatalf("net/http refuses it: %v\n%s", err, whole)
		}
		if theirs.Method != string(r.Text.Of(in)) || theirs.RequestURI != string(r.Target.Of(in)) || theirs.ProtoMinor != int(r.Minor) ||
			r.Method != MethodConnect && theirs.Host != string(r.Authority.Of(in)) {
			t.Fatalf("net/http has %s %s %s for %s\n%s", theirs.Method, theirs.RequestURI, theirs.Proto, theirs.Host, whole)
		}
		if (r.Framing == Chunked) != (len(theirs.TransferEncoding) == 1) || r.Framing != Chunked && r.Length != theirs.ContentLength {
			t.Fatalf("net/http has %v %d\n%s", theirs.TransferEncoding, theirs.ContentLength, whole)
		}
		if err := compareFields(&r.Fields, in, theirs.Header, "Host", "Content-Length", "Transfer-Encoding", "Trailer"); err != nil {
			t.Fatalf("%v\n%s", err, whole)
		}
		content, err := decode(in[n:], c.Content)
		if err != nil {
			return
		}
		want, err := io.ReadAll(theirs.Body)
		if c.Received() && (err != nil || !bytes.Equal(content, want)) || !bytes.HasPrefix(want, content) && !bytes.HasPrefix(content, want) {
			t.Fatalf("content %q, net/http has %q %v\n%s", content, want, err, whole)
		}
		if c.Received() && r.Framing == Chunked {
			if err := compareFields(&c.Body.Trailer, c.Body.TrailerBytes(), theirs.Trailer); err != nil {
				t.Fatalf("trailers: %v\n%s", err, whole)
			}
		}
	})
}

// decode gives in to an exchange.
func decode(in []byte, next func([]byte) ([]byte, int, bool, error)) (all []byte, err error) {
	for len(in) > 0 {
		content, n, done, err := next(in)
		all = append(all, content...)
		if done || err != nil {
			return all, err
		}
		in = in[n:]
	}
	return all, nil
}

// FuzzResponse holds the same of responses, with their content.
func FuzzResponse(f *testing.F) {
	for _, in := range []string{
		typical, "HTTP/1.1 200\r\n\r\nabc", "HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nabcd", "HTTP/1.1 204 No Content\r\nContent-Length: 3\r\n\r\nabc",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nA: b\r\n\r\n", "HTTP/1.1 304 Not Modified\r\nETag: a\r\n\r\n",
		"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 101 x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
		"HTTP/1.1 200 OK\r\nA : b\r\n\r\n", "HTTP/1.1 200 OK\nContent-Length: 1\n\na",
	} {
		f.Add([]byte(in), uint(len(in)/2), false)
	}
	f.Fuzz(func(t *testing.T, in []byte, cut uint, toHead bool) {
		method := MethodGet
		if toHead {
			method = MethodHead
		}
		whole := exchange(method, true, false, string(in), nil)
		if got := exchange(method, true, false, string(in), []int{int(cut % uint(len(in)+1))}); got != whole {
			t.Fatalf("cut at %d: %s\nwhole: %s", cut, got, whole)
		}
		var each []int
		for i := range in {
			each = append(each, i)
		}
		if got := exchange(method, true, false, string(in), each); got != whole {
			t.Fatalf("byte by byte: %s\nwhole: %s", got, whole)
		}
		var c Outgoing
		c.Begin(method, true)
		n, err := c.Head(in, &fuzzLimits)
		if err != nil || n == 0 {
			return
		}
		r := &c.Response
		theirs, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(in)), &http.Request{Method: method.String()})
		if err != nil {
			if r.Fields.Has(NameTrailer) {
				return
			}
			t.Fatalf("net/http refuses it: %v\n%s", err, whole)
		}
		if theirs.StatusCode != r.Status || theirs.ProtoMinor != int(r.Minor) {
			t.Fatalf("net/http has %d %s\n%s", theirs.StatusCode, theirs.Proto, whole)
		}
		if err := compareFields(&r.Fields, in, theirs.Header, "Transfer-Encoding", "Trailer"); err != nil {
			t.Fatalf("%v\n%s", err, whole)
		}
		if !c.Answered() || c.Switched() {
			return
		}
		content, err := decode(in[n:], c.Content)
		if err != nil {
			return
		}
		want, err := io.ReadAll(theirs.Body)
		if ended := c.End() == nil; ended && (err != nil || !bytes.Equal(content, want)) || !bytes.HasPrefix(want, content) && !bytes.HasPrefix(content, want) {
			t.Fatalf("content %q, net/http has %q %v\n%s", content, want, err, whole)
		}
	})
}

// FuzzBody holds that chunked content which is accepted is the same to net/http.
func FuzzBody(f *testing.F) {
	for _, in := range []string{"3\r\nabc\r\n0\r\n\r\n", "a;b=\"c\"\r\n0123456789\r\n0\r\nA: b\r\n\r\n", "1\na\n0\n\n", "0x1\r\na\r\n", "1 \r\na\r\n0\r\n\r\n"} {
		f.Add([]byte(in), uint(len(in)/2))
	}
	f.Fuzz(func(t *testing.T, in []byte, cut uint) {
		var b Body
		b.Begin(Chunked, 0, &fuzzLimits)
		whole := decodeAll(string(in), &b)
		done := b.Done()
		b.Begin(Chunked, 0, &fuzzLimits)
		if got := decodeAll(string(in), &b, int(cut%uint(len(in)+1))); got != whole {
			t.Fatalf("cut at %d: %s\nwhole: %s", cut, got, whole)
		}
		if !done {
			return
		}
		b.Begin(Chunked, 0, &fuzzLimits)
		content, err := decode(in, b.Decode)
		want, theirErr := io.ReadAll(httputil.NewChunkedReader(bytes.NewReader(in)))
		if err != nil || theirErr != nil || !bytes.Equal(content, want) {
			t.Fatalf("content %q %v, net/http has %q %v", content, err, want, theirErr)
		}
		// What is written anew is read as the same.
		again := append(AppendLastChunk(AppendChunk(nil, content)), "\r\n"...)
		b.Begin(Chunked, 0, &fuzzLimits)
		if got, err := decode(again, b.Decode); err != nil || !bytes.Equal(got, content) || !b.Done() {
			t.Fatalf("written anew: %q %v", got, err)
		}
	})
}

func TestLikeNetHTTP(t *testing.T) {
	for status := range 1000 {
		if got, want := ReasonPhrase(status), http.StatusText(status); got != want && got != "" && status != 0 {
			t.Errorf("%d is %q, net/http says %q", status, got, want)
		}
	}
	for at := time.Date(1999, 12, 30, 23, 59, 58, 0, time.UTC); at.Year() < 2002; at = at.Add(25*time.Hour + 61*time.Second) {
		if got, want := string(AppendDate(nil, at)), at.Format(http.TimeFormat); got != want {
			t.Fatalf("got %s, want %s", got, want)
		}
	}
	for c := range 256 {
		s := "a" + string([]byte{byte(c)}) + "a"
		if got, want := IsToken([]byte(s)), len(strings.TrimFunc(s, isTokenRune)) == 0 && c < 0x80; got != want {
			t.Errorf("%q is a token: %t", s, got)
		}
	}
	if IsToken(nil) {
		t.Error("nothing is a token")
	}
}

func isTokenRune(r rune) bool {
	return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("!#$%&'*+-.^_`|~", r)
}
