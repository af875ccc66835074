package proxy

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"mainstay/topology"
)

// TestDifferential plays the same exchanges, valid, broken and aborted, on both engines and compares what the client saw, what
// the instance saw and what was logged. What may differ is in docs/proxy-engines.md.
func TestDifferential(t *testing.T) {
	count := 100
	if os.Getenv("MAINSTAY_SOAK") != "" {
		count = 10_000
	}
	const batch = 250 // before the access log turns over
	for from := 0; from < count; from += batch {
		loop, netHTTP := newFramingRig(t, topology.EngineAuto), newFramingRig(t, topology.EngineNetHTTP)
		different := 0
		for i := from; i < min(from+batch, count); i++ {
			s := newScene(i)
			a, b := loop.stage(s), netHTTP.stage(s)
			if a != b {
				t.Errorf("exchange %d, %s\nclient %s\ninstance %s\nloop:\n%s\nnet_http:\n%s", i, s.kind, showSteps(s.client), showActs(s.acts), a, b)
				if different++; different > 5 {
					t.FailNow()
				}
			}
		}
		a, b := settled(loop, netHTTP)
		for key, line := range a {
			if b[key] != line {
				t.Errorf("%s: loop logged %s, net_http %s", key, line, b[key])
			}
		}
		for key, line := range b {
			if _, ok := a[key]; !ok {
				t.Errorf("%s: loop logged nothing, net_http %s", key, line)
			}
		}
	}
}

// A scene is an exchange that was made up.
type scene struct {
	kind    string
	client  []step
	acts    []act
	methods []string
	split   variant
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
	case n < 40:
		s = a.valid()
	case n < 60:
		s = a.brokenHead()
	case n < 72:
		s = a.brokenContent()
	case n < 88:
		s = a.brokenResponse()
	default:
		s = a.aborted()
	}
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
			"X_Real_IP: 6.6.6.6\r\n", "Idempotency-Key: k\r\n", "Forwarded: for=x\r\n", "Accept-Encoding: gzip\r\n", "If-None-Match: \"x\"\r\n")
	}
	if strings.Count(text, "Expect:") > 1 || strings.Contains(text, "Expect:") && method == "HEAD" {
		text = strings.ReplaceAll(text, "Expect: 100-continue\r\n", "")
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
		kind: kind, client: []step{send(text)}, methods: []string{method},
		acts: []act{{steps: []step{send(answer), {do: "close"}}}},
	}
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

// stage plays the scene and returns what was seen.
func (r *framingRig) stage(s scene) string {
	client := newCaller(r.t, r.address())
	r.puppet.play(slices.Clone(s.acts), s.split.instance, client.heard)
	client.do(s.client, s.split.client, r.puppet)
	soon(5*time.Second, func() bool {
		client.mu.Lock()
		defer client.mu.Unlock()
		return client.ended
	})
	client.Close()
	<-client.done
	soon(5*time.Second, func() bool { return r.puppet.done(0) })
	list, rest, _, reset, err := client.responses(s.methods)

	port := r.address()[strings.LastIndexByte(r.address(), ':')+1:]
	instance := r.puppet.listener.Addr().String()
	old := strings.Contains(string(s.client[0].text), " HTTP/1.0\r\n")
	var seen strings.Builder
	for _, m := range list {
		own := len(valuesOf(m.fields, "proxy-status")) > 0
		if m = m.plain(port, instance); m.line == "100" {
			continue
		}
		if own {
			m = message{line: m.line, refusal: true}
		}
		if m.line == "304" {
			m.without("content-type")
		}
		if m.cut {
			if m.content == "" {
				continue // its head may have been sent already or not
			}
			m.content = ""
		}
		if old {
			m.fields = slices.DeleteFunc(m.fields, func(f string) bool { return f == "connection: close" })
			if reset {
				m.content = ""
			}
		}
		fmt.Fprintf(&seen, "client: %v\n", m)
	}
	if err != nil {
		fmt.Fprintf(&seen, "client: %v\n", err)
	}
	if len(rest) > 0 && err == nil && !reset {
		fmt.Fprintf(&seen, "client: then %q\n", rest)
	}
	for _, x := range r.puppet.sights() {
		m := x.message.plain(port, instance)
		if len(valuesOf(m.fields, "trailer")) == 0 {
			m.trailers = nil
		}
		if m.content == "" && len(m.trailers) == 0 {
			m.without("transfer-encoding")
		}
		if agents := valuesOf(m.fields, "user-agent"); len(agents) > 1 {
			m.without("user-agent")
			m.fields = append(m.fields, "user-agent: "+agents[0])
			sortFields(m.fields)
		}
		if !m.cut {
			fmt.Fprintf(&seen, "instance: %v\n", m)
		}
	}
	return seen.String()
}

// without leaves out a field.
func (m *message) without(name string) {
	m.fields = slices.DeleteFunc(m.fields, func(f string) bool { return strings.HasPrefix(f, name+":") })
}

// settled returns what was logged on two engines once that is the same, or, if that does not come about, what it is.
func settled(r, other *framingRig) (a, b map[string]string) {
	soon(3*time.Second, func() bool {
		a, b = r.logged(), other.logged()
		return maps.Equal(a, b)
	})
	return a, b
}

func (r *framingRig) logged() map[string]string {
	b, err := os.ReadFile(filepath.Join(r.topology.StateDir, "logs", "access.log"))
	if err != nil {
		return nil
	}
	lists := map[string][]string{}
	for line := range strings.Lines(string(b)) {
		var rec record
		if json.Unmarshal([]byte(line), &rec) != nil {
			break // half written
		}
		if rec.Status == statusClientClosedRequest || rec.Reason == reasonIncomplete {
			rec.BytesIn, rec.BytesOut = 0, 0 // depend on when
		}
		if rec.Reason != reasonNone || rec.Status == 413 {
			rec.BytesOut, rec.BytesIn = 0, 0
		}
		key := rec.Path
		lists[key] = append(lists[key], fmt.Sprintf("%s %d %q attempts %d in %d out %d", rec.Method, rec.Status, rec.Reason, rec.Attempts, rec.BytesIn, rec.BytesOut))
	}
	lines := map[string]string{}
	for key, list := range lists {
		slices.Sort(list)
		lines[key] = strings.Join(list, ", ")
	}
	return lines
}
