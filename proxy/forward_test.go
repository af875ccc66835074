package proxy

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"mainstay/topology"
)

func TestForwardContent(t *testing.T) {
	r := newRig(t)
	r.instance("web", "web/1", func(w http.ResponseWriter, req *http.Request) {
		b, err := io.ReadAll(req.Body)
		if err != nil {
			t.Error(err)
		}
		w.Header().Set("X-Method", req.Method)
		w.Header().Set("X-Framing", fmt.Sprint(req.ContentLength, req.TransferEncoding))
		if strings.HasSuffix(req.URL.Path, "chunked") {
			w.(http.Flusher).Flush()
		}
		w.Write(b)
	})
	closed := 0
	for _, size := range []int{0, 1, 4096, 70_000, 1 << 20} {
		for _, framing := range []string{"length", "chunked"} {
			for _, method := range []string{"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"} {
				want := strings.Repeat("x", size)
				var body io.Reader = strings.NewReader(want)
				wantFraming := fmt.Sprint(size, []string{})
				if framing == "chunked" && size > 0 {
					body = io.MultiReader(body) // hides the length
					wantFraming = "-1 [chunked]"
				}
				res, got := r.do(method, "/"+framing, body)
				if res.Close {
					closed++
				}
				if res.StatusCode != 200 || res.Header.Get("X-Method") != method || got != want || res.Header.Get("X-Framing") != wantFraming {
					t.Errorf("%s of %d bytes, %s: %s, method %s, framing %s, %d bytes", method, size, framing,
						res.Status, res.Header.Get("X-Method"), res.Header.Get("X-Framing"), len(got))
				}
			}
		}
	}
	if closed > 0 {
		t.Errorf("%d connections were not kept", closed)
	}
	if d := cmp.Diff([]string{"", "OPTIONS"}, []string{string(r.log(70)[69].Reason), r.log(70)[68].Method}); d != "" {
		t.Error(d)
	}
}

func TestForwardStatus(t *testing.T) {
	r := newRig(t)
	r.raw("web", "web/1", func(c net.Conn, br *bufio.Reader) {
		for {
			req, err := http.ReadRequest(br)
			if err != nil {
				return
			}
			fmt.Fprintf(c, "HTTP/1.1 %s\r\n\r\n", strings.ReplaceAll(req.URL.Query().Get("say"), "|", "\r\n"))
		}
	})
	for _, c := range []struct{ method, say, status, length, body string }{
		{"HEAD", "200 OK|Content-Length: 5", "200 OK", "5", ""},
		{"HEAD", "200 OK|Transfer-Encoding: chunked", "200 OK", "", ""},
		{"GET", "204 No Content", "204 No Content", "", ""},
		{"GET", "204 No Content|Content-Length: 0", "204 No Content", "", ""},
		{"GET", "304 Not Modified|Etag: x", "304 Not Modified", "", ""},
		{"GET", "404 Not Found|Content-Length: 0", "404 Not Found", "0", ""},
		{"GET", "418 I'm a teapot|Content-Length: 0", "418 I'm a teapot", "0", ""},
		{"POST", "307 Temporary Redirect|Location: /x|Content-Length: 0", "307 Temporary Redirect", "0", ""},
	} {
		res, body := r.do(c.method, "/?say="+strings.ReplaceAll(c.say, " ", "%20"), nil)
		if res.Status != c.status || res.Header.Get("Content-Length") != c.length || body != c.body || res.Header.Get("Content-Type") != "" {
			t.Errorf("%s %s: %s, length %q, type %q, body %q", c.method, c.say, res.Status, res.Header.Get("Content-Length"), res.Header.Get("Content-Type"), body)
		}
	}
}

func TestForwardTrailers(t *testing.T) {
	r := newRig(t)
	r.instance("web", "web/1", func(w http.ResponseWriter, req *http.Request) {
		io.Copy(io.Discard, req.Body)
		w.Header().Set("Trailer", "X-Announced, X-Sum")
		w.Write([]byte("content"))
		w.Header().Set("X-Announced", "yes")
		w.Header().Set("X-Sum", fmt.Sprint(req.Trailer))
		w.Header().Set(http.TrailerPrefix+"X-Unannounced", "yes")
		w.Header().Set(http.TrailerPrefix+"Set-Cookie", "a=b")
	})
	req, _ := http.NewRequest("POST", r.url("/"), io.MultiReader(strings.NewReader("content")))
	req.Trailer = http.Header{"X-Sent": {"1"}, "X-Forwarded-For": {"6.6.6.6"}, "X_forwarded_for": {"6.6.6.6"}, "Authorization": {"x"}}
	res, err := r.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if _, err := io.ReadAll(res.Body); err != nil {
		t.Fatal(err)
	}
	want := http.Header{"X-Announced": {"yes"}, "X-Sum": {"map[X-Sent:[1]]"}, "X-Unannounced": {"yes"}}
	if d := cmp.Diff(want, res.Trailer); d != "" {
		t.Error(d)
	}
}

func TestForwardInterim(t *testing.T) {
	r := newRig(t)
	r.instance("web", "web/1", func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path == "/flood" {
			for range 100 {
				w.WriteHeader(http.StatusProcessing)
			}
		}
		w.Header().Set("Link", "</a.css>")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Del("Link")
		io.Copy(io.Discard, req.Body)
		w.Write([]byte("done"))
	})
	var interim []string
	trace := &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
		interim = append(interim, fmt.Sprint(code, h.Get("Link")))
		return nil
	}}
	req, _ := http.NewRequestWithContext(httptrace.WithClientTrace(context.Background(), trace), "POST", r.url("/"), strings.NewReader("x"))
	req.Header.Set("Expect", "100-continue")
	res, err := r.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if d := cmp.Diff([]string{"103</a.css>", "100"}, interim); d != "" || res.Header.Get("Link") != "" {
		t.Errorf("interim responses %s, link %q", d, res.Header.Get("Link"))
	}
	if res, _ := r.do("GET", "/flood", nil); res.StatusCode != 502 {
		t.Errorf("flood of interim responses: %s", res.Status)
	}
	if _, body := r.send("GET / HTTP/1.0\r\n\r\n"); body != "done" {
		t.Errorf("HTTP/1.0 got %q", body)
	}
}

func TestForwardExpectContinueRefused(t *testing.T) {
	r := newRig(t)
	r.instance("web", "web/1", func(w http.ResponseWriter, req *http.Request) {
		w.WriteHeader(http.StatusExpectationFailed)
	})
	c, br := r.dial()
	io.WriteString(c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\nExpect: 100-continue\r\n\r\n")
	res, err := http.ReadResponse(br, nil)
	if err != nil {
		t.Fatal(err)
	}
	if res.StatusCode != 417 || !res.Close {
		t.Errorf("got %s, close %t", res.Status, res.Close)
	}
}

// TestForwardStream reads each event before the instance is allowed to send the next.
func TestForwardStream(t *testing.T) {
	r := newRig(t)
	next := make(chan struct{})
	r.instance("web", "web/1", func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		if req.URL.Path == "/length" {
			w.Header().Set("Content-Length", "27")
			w.Write(nil)
		}
		w.(http.Flusher).Flush()
		for i := range 3 {
			<-next
			fmt.Fprintf(w, "data: %d\n\n", i)
			w.(http.Flusher).Flush()
		}
	})
	res, err := r.client.Get(r.url("/"))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	br := bufio.NewReader(res.Body)
	for i := range 3 {
		next <- struct{}{}
		line, err := br.ReadString('\n')
		if err != nil || line != fmt.Sprintf("data: %d\n", i) {
			t.Fatalf("event %d: %q, %v", i, line, err)
		}
		br.ReadString('\n')
	}
	if _, err := br.ReadByte(); err != io.EOF {
		t.Errorf("after the last event: %v", err)
	}
}

// TestForwardBothWays has an instance answer each line of a request as it comes.
func TestForwardBothWays(t *testing.T) {
	r := newRig(t)
	r.instance("web", "web/1", func(w http.ResponseWriter, req *http.Request) {
		http.NewResponseController(w).EnableFullDuplex()
		for br := bufio.NewReader(req.Body); ; {
			line, err := br.ReadString('\n')
			if err != nil {
				return
			}
			io.WriteString(w, strings.ToUpper(line))
			w.(http.Flusher).Flush()
		}
	})
	pr, pw := io.Pipe()
	req, _ := http.NewRequest("POST", r.url("/"), pr)
	go io.WriteString(pw, "one\n")
	res, err := r.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	br := bufio.NewReader(res.Body)
	for _, want := range []string{"ONE\n", "TWO\n", "THREE\n"} {
		if got, err := br.ReadString('\n'); got != want || err != nil {
			t.Fatalf("got %q, %v", got, err)
		}
		if want != "THREE\n" {
			io.WriteString(pw, map[string]string{"ONE\n": "two\n", "TWO\n": "three\n"}[want])
		}
	}
	pw.Close()
	if rest, err := io.ReadAll(br); len(rest) != 0 || err != nil {
		t.Errorf("rest %q, %v", rest, err)
	}
}

func TestForwardTarget(t *testing.T) {
	strip := route0("web")
	strip.PathPrefix, strip.StripPrefix = "/shop", "/shop/"
	r := newRig(t, strip, route0("web"))
	r.instance("web", "web/1", func(w http.ResponseWriter, req *http.Request) {
		fmt.Fprint(w, req.RequestURI, " ", req.Host, " ", req.Header.Get("X-Forwarded-Prefix"))
	})
	for target, want := range map[string]string{
		"/a%2Fb/./c//d?x=%zz&y;z":      "/a%2Fb/./c//d?x=%zz&y;z a ",
		"/a%2fb":                       "/a%2fb a ",
		"//evil/x?y":                   "//evil/x?y a ",
		"//":                           "// a ",
		"/?":                           "/? a ",
		"/x|y{z}":                      "/x|y{z} a ",
		"/shop/a%2Fb?q":                "/a%2Fb?q a /shop",
		"/shop":                        "/ a /shop",
		"/shop//x":                     "//x a /shop",
		"/%73hop/a":                    "/a a /shop",
		"/shop/../shop/a%20b":          "/a%20b a /shop",
		"/shop/../b":                   "/shop/../b a ",
		"http://a/abs/x?y":             "/abs/x?y a ",
		"http://a":                     "/ a ",
		"/é":                           "/é a ",
		"/x?redirect=http://b/../c/./": "/x?redirect=http://b/../c/./ a ",
	} {
		if res, got := r.send("GET " + target + " HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"); got != want {
			t.Errorf("%s: %s %q, want %q", target, res.Status, got, want)
		}
	}
}

func TestForwardHeader(t *testing.T) {
	edited := route0("web")
	edited.PathPrefix = "/edit"
	edited.RequestHeaders = topology.HeaderEdits{
		Set: map[string]string{"X-Set": "set", "Host": "inner"}, Add: map[string]string{"X-Add": "2"}, Remove: []string{"X-Gone"},
	}
	edited.ResponseHeaders = topology.HeaderEdits{
		Set: map[string]string{"Server": "ours"}, Add: map[string]string{"X-Multi": "3"}, Remove: []string{"X-Powered-By"},
	}
	r := newRig(t, edited, route0("web"))
	var got http.Header
	var host string
	r.instance("web", "web/1", func(w http.ResponseWriter, req *http.Request) {
		got, host = req.Header.Clone(), req.Host
		w.Header()["X-Multi"] = []string{"1", "2"}
		w.Header()["Set-Cookie"] = []string{"a=1", "b=2"}
		w.Header().Set("X-Powered-By", "x")
		w.Header().Set("Server", "theirs")
		w.Header().Set("Connection", "X-Hop")
		w.Header().Set("X-Hop", "1")
		w.Header().Set("Keep-Alive", "timeout=1")
	})
	res, _ := r.send("GET / HTTP/1.1\r\nHost: A.example:81\r\nx-mixed: a\r\nX-Mixed: b\r\nConnection: x-hop, close, forwarded\r\nX-Hop: 1\r\n" +
		"TE: trailers, gzip\r\nX-Forwarded-For: 6.6.6.6\r\nX_Forwarded_For: 6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\nX-Request-Id: mine\r\nVia: 1.0 other\r\n\r\n")
	id := got.Get("X-Request-Id")
	want := http.Header{
		"X-Mixed": {"a", "b"}, "Connection": {"TE"}, "Te": {"trailers"},
		"X-Forwarded-For": {"127.0.0.1"}, "X-Forwarded-Host": {"A.example:81"}, "X-Forwarded-Proto": {"http"},
		"X-Forwarded-Port": {strings.TrimPrefix(r.address(), "127.0.0.1:")}, "X-Real-Ip": {"127.0.0.1"},
		"Forwarded":    {`for=127.0.0.1;proto=http;host="A.example:81"`},
		"X-Request-Id": {id}, "Via": {"1.0 other, 1.1 " + r.policies.name},
	}
	if d := cmp.Diff(want, got); d != "" || host != "A.example:81" || id == "mine" || !isRequestID(id) {
		t.Errorf("request: %s, host %s, id %s", d, host, id)
	}
	res.Header.Del("Date")
	wantBack := http.Header{
		"X-Multi": {"1", "2"}, "Set-Cookie": {"a=1", "b=2"}, "X-Powered-By": {"x"}, "Server": {"theirs"},
		"Content-Length": {"0"},
	}
	if d := cmp.Diff(wantBack, res.Header); d != "" {
		t.Errorf("response: %s", d)
	}

	res, _ = r.send("GET /edit HTTP/1.1\r\nHost: a\r\nX-Set: 1\r\nX-Add: 1\r\nX-Gone: 1\r\nConnection: close\r\n\r\n")
	if host != "inner" || got.Get("X-Set") != "set" || got.Get("X-Gone") != "" || cmp.Diff([]string{"1", "2"}, got["X-Add"]) != "" {
		t.Errorf("edited request: host %s, %v", host, got)
	}
	if h := res.Header; h.Get("Server") != "ours" || h.Get("X-Powered-By") != "" || cmp.Diff([]string{"1", "2", "3"}, h["X-Multi"]) != "" {
		t.Errorf("edited response: %v", h)
	}
}

func TestForwardTrustedProxy(t *testing.T) {
	r := newRig(t)
	r.topology.Proxy.TrustedProxies = []string{"127.0.0.0/8"}
	r.apply()
	var got http.Header
	r.instance("web", "web/1", func(w http.ResponseWriter, req *http.Request) { got = req.Header.Clone() })
	r.do("GET", "/", nil, "X-Forwarded-For", "7.7.7.7, 1.2.3.4", "X-Forwarded-Proto", "https", "X-Request-Id", "outer-1", "X_Forwarded_Proto", "gopher")
	for name, want := range map[string]string{
		"X-Forwarded-For": "7.7.7.7, 1.2.3.4, 127.0.0.1", "X-Forwarded-Proto": "https", "X-Real-Ip": "1.2.3.4",
		"X-Request-Id": "outer-1", "X_forwarded_proto": "",
	} {
		if got.Get(name) != want {
			t.Errorf("%s is %q, want %q", name, got.Get(name), want)
		}
	}
	if rec := r.log(1)[0]; rec.Client != "1.2.3.4" || rec.ID != "outer-1" {
		t.Errorf("logged %+v", rec)
	}
	r.do("GET", "/", nil, "X-Request-Id", strings.Repeat("x", 129))
	if id := got.Get("X-Request-Id"); !isRequestID(id) || id[0] == 'x' {
		t.Errorf("request id %q", id)
	}
}

func TestForwardUpgradeIsOrdinary(t *testing.T) {
	r := newRig(t)
	var got http.Header
	r.instance("web", "web/1", func(w http.ResponseWriter, req *http.Request) { got = req.Header.Clone() })
	for _, head := range []string{
		"GET / HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
		"GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket, h2c\r\n",
		"GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n",
		"GET / HTTP/1.1\r\nUpgrade: websocket\r\n",
		"POST / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 0\r\n",
		"GET / HTTP/1.0\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n",
	} {
		res, _ := r.send(head + "Host: a\r\n\r\n")
		if res.StatusCode != 200 || got.Get("Upgrade") != "" || got.Get("Connection") != "" || got.Get("Http2-Settings") != "" {
			t.Errorf("%q: %s, instance got %v", head, res.Status, got)
		}
	}
}

func TestForwardUnexpectedSwitch(t *testing.T) {
	r := newRig(t)
	r.raw("web", "web/1", func(c net.Conn, br *bufio.Reader) {
		if _, err := http.ReadRequest(br); err == nil {
			io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: other\r\n\r\n")
			br.ReadByte()
		}
	})
	for _, upgrade := range []string{"", "Connection: Upgrade\r\nUpgrade: websocket\r\n"} {
		res, _ := r.send("GET / HTTP/1.1\r\nHost: a\r\n" + upgrade + "\r\n")
		if res.StatusCode != 502 || res.Header.Get("Proxy-Status") == "" {
			t.Errorf("%q: %s", upgrade, res.Status)
		}
	}
}

// TestRefuse sends what must not reach an instance.
func TestRefuse(t *testing.T) {
	r := newRig(t, topology.Route{Host: "a", PathPrefix: "/", Service: "web"}, topology.Route{Host: "none", PathPrefix: "/", Service: "none"})
	r.topology.Proxy.Limits.HeaderSize = 32 << 10
	r.apply()
	r.instance("web", "web/1", func(w http.ResponseWriter, req *http.Request) {
		t.Errorf("the instance got %s %s", req.Method, req.RequestURI)
	})
	for _, c := range []struct {
		request string
		status  int
		ours    string // the error of Proxy-Status
	}{
		{"GET / HTTP/1.1\r\nHost: b\r\n\r\n", 404, "destination_not_found"},
		{"GET / HTTP/1.1\r\nHost: none\r\n\r\n", 503, "destination_unavailable"},
		{"CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", 405, "http_request_denied"},
		{"TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", 405, "http_request_denied"},
		{"GET /%00 HTTP/1.1\r\nHost: a\r\n\r\n", 400, "http_request_error"},
		{"GET /a/../.. HTTP/1.1\r\nHost: a\r\n\r\n", 400, "http_request_error"},
		{"GET /#x HTTP/1.1\r\nHost: a\r\n\r\n", 400, "http_request_error"},
		{"GET http://u:p@a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400, "http_request_error"},
		{"GET / HTTP/1.1\r\nHost: a:b\r\n\r\n", 400, "http_request_error"},
		{"GET / HTTP/1.1\r\nHost: a,b\r\n\r\n", 400, "http_request_error"},
		{"POST / HTTP/1.1\r\nHost: b\r\nContent-Length: 1000000\r\n\r\n", 404, "destination_not_found"},
		{"GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n", 400, "http_request_error"},
		{"GET / HTTP/1.1\r\n\r\n", 400, "http_request_error"},
		{"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400, "http_request_error"},
		{"GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400, "http_request_error"},
		{"GET / HTTP/1.1\r\nHost: a\r\nX: a\x00b\r\n\r\n", 400, "http_request_error"},
		{"GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n", 400, "http_request_error"},
		{"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx", 400, "http_request_error"},
		{"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\nx", 400, "http_request_error"},
		{"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1,1\r\n\r\nx", 400, "http_request_error"},
		{"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501, "http_request_error"},
		{"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 400, "http_request_error"},
		{"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "http_request_error"},
		{"GET / HTTP/1.1\r\nHost: a\r\nExpect: 200-maybe\r\n\r\n", 417, "http_request_error"},
		{"GET / HTTP/1.1\r\nHost: a\r\nX: " + strings.Repeat("x", 40_000) + "\r\n\r\n", 431, "http_request_error"},
	} {
		res, body := r.send(c.request)
		want := "mainstay; error=" + c.ours + "; details="
		if res.StatusCode != c.status || !strings.HasPrefix(res.Header.Get("Proxy-Status"), want) {
			t.Errorf("%.80q: %s, %q", c.request, res.Status, res.Header.Get("Proxy-Status"))
		}
		if id := res.Header.Get("X-Request-Id"); !isRequestID(id) || !strings.Contains(body, id) {
			t.Errorf("%.80q: id %q, body %q", c.request, id, body)
		}
		if (c.status == 503) != (res.Header.Get("Retry-After") == "1") || (c.status == 405) != (res.Header.Get("Allow") != "") {
			t.Errorf("%.80q: %v", c.request, res.Header)
		}
	}
}

// TestForwardSmuggling sends what recipients have been known to read in two ways, and looks at the bytes that the
// instance gets: none, or one request, framed in one way.
func TestForwardSmuggling(t *testing.T) {
	r := newRig(t)
	got := make(chan []byte, 1)
	r.raw("web", "web/1", func(c net.Conn, _ *bufio.Reader) {
		var all bytes.Buffer
		br := bufio.NewReader(io.TeeReader(c, &all))
		req, err := http.ReadRequest(br)
		if err != nil {
			return
		}
		io.Copy(io.Discard, req.Body)
		got <- all.Bytes()
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
	})
	for _, c := range []struct{ request, framing, content string }{
		{"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\n", "", ""},
		{"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc", "", ""},
		{"GET / HTTP/1.1\r\nHost: a\r\nX-Folded: a\r\n b\r\n\r\n", "", ""},
		{"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;ext=\"x\"\r\nabc\r\n0\r\n\r\n", "Transfer-Encoding: chunked", "3\r\nabc\r\n0\r\n\r\n"},
	} {
		switch res, _ := r.send(c.request); {
		case c.framing == "" && res.StatusCode == 400:
			continue
		case c.framing == "" || res.StatusCode != 200:
			t.Errorf("%q: %s", c.request, res.Status)
			continue
		}
		head, content, _ := strings.Cut(string(<-got), "\r\n\r\n")
		both := strings.Contains(head, "Content-Length") && strings.Contains(head, "Transfer-Encoding")
		if both || !strings.Contains(head+"\r\n", "\r\n"+c.framing+"\r\n") || content != c.content {
			t.Errorf("%q became %q with %q", c.request, head, content)
		}
	}
}

func TestForwardLoop(t *testing.T) {
	r := newRig(t)
	r.Admit(topology.Instance{Service: "web", ID: "web/1", Address: r.address(), Weight: 1})
	res, _ := r.do("GET", "/", nil)
	if res.StatusCode != 502 || !strings.Contains(res.Header.Get("Proxy-Status"), "proxy_loop_detected") {
		t.Errorf("%s, %q", res.Status, res.Header.Get("Proxy-Status"))
	}
	// Which of the loops writes its line first is open.
	if log := r.log(maxLoops + 1); !slices.ContainsFunc(log, func(rec record) bool { return rec.Reason == reasonLoop }) {
		t.Errorf("logged %+v", log)
	}
}

// BenchmarkForward is a whole exchange with an instance and a client on the same machine, which cost most of it.
func BenchmarkForward(b *testing.B) {
	p := New(slog.New(slog.DiscardHandler), nil, nil)
	topo := &topology.Topology{Proxy: topology.Proxy{
		Listeners: map[string]topology.Listener{"http": {Address: "127.0.0.1:0"}},
		Routes:    []topology.Route{route0("web")},
	}}
	if err := p.Apply(b.Context(), topo); err != nil {
		b.Fatal(err)
	}
	instance := httptest.NewServer(http.HandlerFunc(echo))
	p.Admit(topology.Instance{Service: "web", ID: "web/1", Address: instance.Listener.Addr().String()})
	b.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = p.Apply(ctx, topology.Empty)
		_ = p.Drain(ctx, topology.Instance{Service: "web", ID: "web/1"})
		instance.Close()
	})
	address := p.Status().Listeners[0].Address
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		c, err := net.Dial("tcp", address)
		if err != nil {
			b.Error(err)
			return
		}
		defer c.Close()
		br := bufio.NewReader(c)
		for pb.Next() {
			io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
			res, err := http.ReadResponse(br, nil)
			if err != nil || res.StatusCode != 200 {
				b.Error(res, err)
				return
			}
		}
	})
}
