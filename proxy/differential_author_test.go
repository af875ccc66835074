package proxy

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
)

// A scene is an exchange that was made up.
type scene struct {
	kind    string
	client  []step
	acts    []act
	path    string // that its requests begin with
	methods []string
	split   variant
	alone   bool   // no connection to the instance is there at first
	pair    string // two instances of this name take part; empty: one
}

func showSteps(steps []step) (s string) {
	for _, x := range steps {
		s += fmt.Sprintf("%s %.300q; ", x.do, x.text)
	}
	return s
}

func showActs(acts []act) (s string) {
	for _, a := range acts {
		s += fmt.Sprintf("[early %t: %s] ", a.early, showSteps(a.steps))
	}
	return s
}

// An author makes up scenes; the same number gives the same one.
type author struct {
	*rand.Rand
	number int
}

func newScene(number int) scene {
	a := author{rand.New(rand.NewPCG(7, uint64(number))), number}
	var s scene
	switch n := a.IntN(100); {
	case n < 32:
		s = a.valid()
	case n < 46:
		s = a.brokenHead()
	case n < 56:
		s = a.brokenContent()
	case n < 68:
		s = a.brokenResponse()
	case n < 82:
		s = a.failed()
	case n < 90:
		s = a.upgraded()
	default:
		s = a.aborted()
	}
	s.path = fmt.Sprintf("/%d/", number)
	s.split = variant{cut{at: a.IntN(120)}, cut{at: a.IntN(120)}}
	if a.IntN(8) == 0 {
		s.split.client.every = true
	}
	return s
}

func send(text string) step { return step{do: "send", text: []byte(text)} }

func pickOf[T any](a author, list ...T) T { return list[a.IntN(len(list))] }

// request makes up a request; last says that the connection is to close after it.
func (a author) request(k int, last bool) (text, method string) {
	method = pickOf(a, "GET", "GET", "GET", "HEAD", "POST", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "REPORT")
	version := "1.1"
	if last && a.IntN(8) == 0 {
		version = "1.0"
	}
	text = fmt.Sprintf("%s /%d/%d HTTP/%s\r\nHost: %s\r\n", method, a.number, k, version, pickOf(a, "a", "a:80", "A.b.", "[::1]"))
	for range a.IntN(4) {
		text += pickOf(a, "X-One: 1\r\n", "Cookie: a=b; c=d\r\n", "Accept: */*\r\n", "X-Forwarded-For: 6.6.6.6\r\n", "TE: trailers\r\n",
			"X-Empty:\r\n", "Via: 1.1 x\r\n", "Keep-Alive: 3\r\n", "Upgrade: h2c\r\n", "User-Agent: me\r\n", "Expect: 100-continue\r\n",
			"X_Real_IP: 6.6.6.6\r\n", "Idempotency-Key: k\r\n", "Forwarded: for=x\r\n", "Accept-Encoding: gzip\r\n", "If-None-Match: \"x\"\r\n",
			"Max-Forwards: 0\r\n", "Max-Forwards: 5\r\n", "TE: trailers, deflate\r\n", "TE: gzip\r\n", "Connection: TE\r\n", "Connection: X-One, Cookie\r\n",
			"Expect: 100-Continue\r\n", "Expect: x\r\n", "Trailer: X-Sum\r\n")
	}
	if strings.Count(text, "Expect:") > 1 || strings.Contains(text, "Expect:") && method == "HEAD" {
		for _, expected := range [...]string{"100-continue", "100-Continue", "x"} {
			text = strings.ReplaceAll(text, "Expect: "+expected+"\r\n", "")
		}
	}
	if last {
		text += "Connection: close\r\n"
	}
	return text + a.content(version == "1.1" && method != "HEAD"), method
}

// content makes up the rest of a message from its framing on.
func (a author) content(chunks bool) string {
	content := strings.Repeat("content ", a.IntN(40)*a.IntN(2))
	switch n := a.IntN(10); {
	case n < 4:
		return "\r\n"
	case n < 7 || !chunks:
		return fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(content), content)
	}
	text := "Transfer-Encoding: chunked\r\n\r\n"
	for len(content) > 0 {
		n := 1 + a.IntN(len(content))
		text += fmt.Sprintf("%x%s\r\n%s\r\n", n, pickOf(a, "", "", ";a=b", ";x"), content[:n])
		content = content[n:]
	}
	return text + "0\r\n" + pickOf(a, "", "", "X-Sum: 1\r\n", "Authorization: x\r\n") + "\r\n"
}

// response makes up a response, and says whether it ends with the connection.
func (a author) response(method string) (text string, closes bool) {
	for range a.IntN(3) * a.IntN(2) {
		text += pickOf(a, "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", "HTTP/1.1 102 Processing\r\n\r\n")
	}
	status := pickOf(a, "200 OK", "200 OK", "200 OK", "201 Created", "204 No Content", "304 Not Modified", "404 Not Found", "500 Oh", "302 Found")
	text += "HTTP/1.1 " + status + "\r\n"
	for range a.IntN(4) {
		text += pickOf(a, "Server: x\r\n", "Set-Cookie: a=b\r\n", "X-One: 1\r\n", "Content-Type: text/plain\r\n", "Keep-Alive: 3\r\n",
			"Location: /x\r\n", "Date: Mon, 23 Nov 2026 18:55:01 GMT\r\n", "ETag: \"x\"\r\n", "Proxy-Connection: close\r\n")
	}
	if status[0] == '2' && status[2] == '4' || strings.HasPrefix(status, "304") {
		return text + "\r\n", false
	}
	if method == "HEAD" {
		return text + pickOf(a, "", "Content-Length: 10\r\n") + "\r\n", false
	}
	if a.IntN(6) == 0 {
		return text + "\r\n" + strings.Repeat("until the end ", a.IntN(20)), true
	}
	rest := a.content(true)
	if rest == "\r\n" {
		rest = "Content-Length: 0\r\n\r\n"
	}
	return text + rest, false
}

func (a author) valid() scene {
	s := scene{kind: "valid"}
	var all string
	requests := 1 + a.IntN(3)
	for k := range requests {
		text, method := a.request(k, k == requests-1)
		all += text
		s.methods = append(s.methods, method)
		answer, closes := a.response(method)
		steps := []step{send(answer)}
		if closes {
			steps = append(steps, step{do: "close"})
		}
		s.acts = append(s.acts, act{steps: steps})
	}
	s.client = []step{send(all)}
	return s
}

// spoil changes a byte or two of text.
func (a author) spoil(text string) string {
	b := []byte(text)
	for range 1 + a.IntN(2) {
		at := a.IntN(len(b))
		c := pickOf(a, "\r", "\n", " ", "\t", ":", ",", ";", "\x00", "\x7f", "0", "9", "f", "-", "+", "_", "\r\n", "\xff", "/", "#", "\"")
		switch a.IntN(3) {
		case 0:
			b = slices.Replace(b, at, at+1, []byte(c)...)
		case 1:
			b = slices.Insert(b, at, []byte(c)...)
		default:
			b = slices.Delete(b, at, at+1)
		}
	}
	return string(b)
}

func (a author) last() string {
	return fmt.Sprintf("GET /%d/last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", a.number)
}

func (a author) brokenHead() scene {
	head := fmt.Sprintf("GET /%d/0?q HTTP/1.1\r\nHost: a\r\n%sX: y\r\n\r\n", a.number,
		pickOf(a, "", "Connection: keep-alive\r\n", "X-Forwarded-For: 6.6.6.6\r\n", "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n", "Content-Length: 0\r\n"))
	return scene{kind: "broken head", client: []step{send(a.spoil(head) + a.last() + "\r\n\r\n"), {do: "patience"}, {do: "close"}}, methods: []string{"GET", "GET", "GET"}}
}

func (a author) brokenContent() scene {
	head := fmt.Sprintf("POST /%d/0 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", a.number)
	content := a.spoil("3\r\nabc\r\n5;x=y\r\ndefgh\r\n0\r\nX-Sum: 1\r\n\r\n")
	return scene{kind: "broken content", client: []step{send(head + content + a.last()), {do: "patience"}, {do: "close"}}, methods: []string{"POST", "GET", "GET"}}
}

func (a author) brokenResponse() scene {
	text, method := a.request(0, true)
	answer, _ := a.response(method)
	kind := "broken response"
	switch a.IntN(3) {
	case 0:
		answer = a.spoil(answer)
	case 1:
		kind, answer = "cut response", answer[:a.IntN(len(answer))]
	default:
		kind, answer = "garbage after the response", answer+pickOf(a, "x", "\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
	}
	return scene{
		kind: kind, client: []step{send(text)}, methods: []string{method}, alone: true,
		acts: []act{{steps: []step{send(answer), {do: "close"}}}},
	}
}

// failed makes up an instance that dies before it has answered, on a connection that was used before or not, and has another or not.
func (a author) failed() scene {
	s := scene{kind: "instance dies", alone: true}
	if a.IntN(2) == 0 {
		s.pair = fmt.Sprint("pair", a.number)
	}
	text, method := a.request(1, true)
	if a.IntN(2) == 0 && s.pair == "" {
		s.kind = "instance dies on a connection that was used before"
		s.client = []step{send(fmt.Sprintf("GET /%d/0 HTTP/1.1\r\nHost: a\r\n\r\n", a.number)), {do: "wait", text: []byte("first")}}
		s.acts = []act{{steps: []step{send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfirst")}}}
		s.methods = []string{"GET"}
	}
	s.client = append(s.client, send(text))
	s.methods = append(s.methods, method)
	for range 1 + a.IntN(3) {
		steps := []step{{do: pickOf(a, "close", "reset")}}
		if a.IntN(4) == 0 {
			steps = []step{send(pickOf(a, "HTTP/1.1 200 OK\r\nX: ", "HTTP/1.1 103 Early Hints\r\n\r\n", "HT", "\x00\x00\r\n")), {do: "close"}}
		}
		s.acts = append(s.acts, act{steps: steps})
	}
	return s
}

// upgraded makes up what begins as a WebSocket.
func (a author) upgraded() scene {
	s := scene{kind: "upgrade", methods: []string{"GET"}, alone: true}
	head := fmt.Sprintf("%s /%d/0 HTTP/%s\r\nHost: a\r\n", pickOf(a, "GET", "GET", "GET", "GET", "POST"), a.number, pickOf(a, "1.1", "1.1", "1.1", "1.1", "1.0"))
	head += pickOf(a, "Connection: Upgrade\r\n", "Connection: keep-alive, upgrade\r\n", "Connection: Upgrade\r\n", "") + "Upgrade: " + pickOf(a, "websocket", "WebSocket", "websocket", "h2c", "websocket, x") + "\r\n"
	head += pickOf(a, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n", "", "Content-Length: 0\r\n") + "\r\n"
	const switching = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
	s.client = []step{send(head)}
	var steps []step
	switch a.IntN(6) {
	case 0, 1:
		early := pickOf(a, "", "early")
		s.client = []step{send(head + early), {do: "wait", text: []byte("hello")}, send("ping"), {do: "wait", text: []byte("pong")}, {do: "close"}}
		steps = []step{send(switching + "hello"), {do: "read", text: []byte(early + "ping")}, send("pong"), {do: "close"}}
	case 2: // the client has ended, and the instance goes on
		s.client = append(s.client, step{do: "wait", text: []byte("101")}, send("last"), step{do: "close"})
		steps = []step{send(switching), {do: "read", text: []byte("last")}, send("still"), {do: "close"}}
	case 3: // the instance ends at once
		steps = []step{send(switching + pickOf(a, "", "and gone")), {do: "close"}}
	case 4: // something else
		steps = []step{send("HTTP/1.1 101 Switching Protocols\r\n" + pickOf(a, "", "Upgrade: websocket\r\n", "Connection: upgrade\r\n", "Connection: upgrade\r\nUpgrade: h2c\r\n") + "\r\n"), {do: "close"}}
	default:
		answer, _ := a.response("GET")
		steps = []step{send(answer), {do: "close"}}
	}
	if !strings.Contains(head, "onnection: ") || strings.Contains(head, "Upgrade: h2c") || strings.Contains(head, ", x") || !strings.HasPrefix(head, "GET") || strings.Contains(head, "HTTP/1.0") {
		// Nothing is upgraded, and nobody waits for it.
		s.kind, s.client, s.methods = "upgrade that is none", []step{send(head), {do: "patience"}, {do: "close"}}, []string{head[:strings.IndexByte(head, ' ')]}
		steps = pickOf(a, []step{send(switching), {do: "close"}}, []step{send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno")})
	}
	s.client = append(s.client, step{do: "patience"}, step{do: "close"})
	s.acts = []act{{steps: steps}}
	return s
}

func (a author) aborted() scene {
	end := step{do: pickOf(a, "close", "reset")}
	s := scene{methods: []string{"POST"}}
	line := fmt.Sprintf("POST /%d/0 HTTP/1.1\r\nHost: a\r\n", a.number)
	switch a.IntN(5) {
	case 0:
		s.kind = "client leaves in the head"
		s.client = []step{send(line[:1+a.IntN(len(line)-1)]), end}
	case 1:
		s.kind = "client leaves in the content"
		s.client = []step{send(line + "Content-Length: 100\r\n\r\n" + strings.Repeat("x", a.IntN(99))), {do: "head"}, end}
	case 2:
		s.kind = "client leaves in the chunks"
		s.client = []step{send(line + "Transfer-Encoding: chunked\r\n\r\n" + pickOf(a, "", "5\r\nab", "2\r\nab\r\n", "2\r\nab")), {do: "head"}, end}
	case 3:
		s.kind = "client leaves while the instance works"
		s.client = []step{send(line + "Content-Length: 3\r\n\r\nabc"), {do: "seen"}, end}
		s.acts = []act{{steps: []step{{do: "left"}}}}
	default:
		s.kind = "instance answers early"
		s.client = []step{send(line + pickOf(a, "Content-Length: 100\r\n\r\nabc", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")), {do: "wait", text: []byte("too much")}}
		s.acts = []act{{early: true, steps: []step{send("HTTP/1.1 413 Content Too Large\r\nContent-Length: 8\r\n\r\ntoo much")}}}
	}
	return s
}
