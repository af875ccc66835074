package proxy

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
)

// A grammar writes what clients may send: requests as they should be, and requests in which this or that is as an attacker would have
// it who wants two servers to see different requests in the same bytes.
type grammar struct {
	*rand.Rand
	seeds [][]byte // requests of others, to be changed
}

// newGrammar returns a grammar that always writes the same for the same seed.
func newGrammar(seed uint64, seeds [][]byte) *grammar {
	return &grammar{Rand: rand.New(rand.NewPCG(seed, 29)), seeds: seeds}
}

// sentinel ends what a case sends: an innocent request. Where what stands before it was understood otherwise than meant, it is swallowed.
const sentinel = "GET /sentinel HTTP/1.1\r\nHost: sentinel\r\nConnection: close\r\n\r\n"

// next writes one case: the bytes, and, if they are beyond doubt, what they mean.
func (g *grammar) next() (sent []byte, means []meaning) {
	switch kind := g.IntN(20); {
	case kind < 4:
		return g.honest()
	case kind < 15 || len(g.seeds) == 0:
		sent = g.hostile()
	default:
		sent = bytes.Clone(g.seeds[g.IntN(len(g.seeds))])
		sent = g.mutate(sent, 1+g.IntN(3))
	}
	if g.chance(30) {
		sent = g.mutate(sent, 1+g.IntN(3))
	}
	return append(sent, sentinel...), nil
}

func (g *grammar) chance(percent int) bool { return g.IntN(100) < percent }

func (g *grammar) pick(from ...string) string { return from[g.IntN(len(from))] }

// either returns one of right, or, seldom, one of wrong.
func (g *grammar) either(right, wrong []string) string {
	if len(wrong) > 0 && g.chance(7) {
		return g.pick(wrong...)
	}
	return g.pick(right...)
}

// honest writes one to four requests that every server must understand alike.
func (g *grammar) honest() (sent []byte, means []meaning) {
	for range 1 + g.IntN(4) {
		m := meaning{method: g.pick("GET", "GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD"), host: g.pick("example.com", "www.example.com:8080", "[::1]:80", "a_b.example")}
		m.target = g.pick("/", "/index.html", "/a/b/c?d=e&f", "/a%20b/%C3%A9?x=%2F", "/a;v=1/b,c", "/?", "/a/./b//c", "/~user/(x)!*'", "/x/%2e%2e/y", "/q?a=b?c=/../d")
		var b bytes.Buffer
		target := m.target
		if g.chance(15) {
			target = "http://" + m.host + m.target
		}
		fmt.Fprintf(&b, "%s %s HTTP/1.1\r\n", m.method, target)
		fields := []string{g.pick("Host", "host", "HOST", "hOsT") + ":" + g.pick("", " ", "  ", "\t") + m.host + g.pick("", " ", " \t")}
		for range g.IntN(5) {
			fields = append(fields, g.pick("Accept: */*", "X-Empty:", "Cookie: a=b; c=d", "X-Long: "+strings.Repeat("y", g.IntN(2000)), "x-obs: caf\xe9", "Accept-Encoding: gzip, deflate",
				"Connection: keep-alive", "X-Tab: a\tb", "User-Agent: Mozilla/5.0 (X11; Linux x86_64)", "Connection: X-Hop\r\nX-Hop: 1", "If-None-Match: W/\"x\"", "TE: trailers\r\nConnection: TE"))
		}
		var content []byte
		switch {
		case m.method == "GET" || m.method == "HEAD" || m.method == "OPTIONS" || g.chance(20):
			if m.method != "GET" && m.method != "HEAD" && m.method != "OPTIONS" {
				fields = append(fields, "Content-Length: 0")
			}
		case g.chance(50):
			m.content = g.content()
			fields = append(fields, fmt.Sprintf("%s:%s%d", g.pick("Content-Length", "content-length"), g.pick("", " "), len(m.content)))
			content = m.content
		default:
			m.content = g.content()
			fields = append(fields, "Transfer-Encoding: "+g.pick("chunked", "chunked", "Chunked", "CHUNKED"))
			content = g.chunks(m.content)
		}
		g.Shuffle(len(fields), func(i, j int) { fields[i], fields[j] = fields[j], fields[i] })
		b.WriteString(strings.Join(fields, "\r\n") + "\r\n\r\n")
		b.Write(content)
		sent, means = append(sent, b.Bytes()...), append(means, m)
	}
	return sent, means
}

// content returns content, which may look like a request.
func (g *grammar) content() []byte {
	switch g.IntN(5) {
	case 0:
		return nil
	case 1:
		return []byte("GET /smuggled HTTP/1.1\r\nHost: smuggled\r\n\r\n")
	case 2:
		return []byte("0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: smuggled\r\nX: ")
	case 3:
		return bytes.Repeat([]byte{byte(g.IntN(256))}, g.IntN(20000))
	}
	return []byte(strings.Repeat("content ", g.IntN(20)))
}

// chunks writes content as chunks, all as it should be.
func (g *grammar) chunks(content []byte) []byte {
	var b bytes.Buffer
	for len(content) > 0 {
		n := 1 + g.IntN(len(content))
		fmt.Fprintf(&b, g.pick("%x", "%X", "0%x", "000%x")+"%s\r\n", n, g.pick("", "", "", ";a", ";a=b", ";a=\"b c\"", ";a;b=c"))
		b.Write(content[:n])
		b.WriteString("\r\n")
		content = content[n:]
	}
	b.WriteString(g.pick("0", "0", "000", "0;last") + "\r\n" + g.pick("", "", "", "X-Trailer: x\r\n") + "\r\n")
	return b.Bytes()
}

// hostile writes one or two requests in which any part may be wrong.
func (g *grammar) hostile() []byte {
	var b bytes.Buffer
	b.WriteString(g.either([]string{""}, []string{"\r\n", "\n", "\r\n\r\n", " ", "\x00", "\r", "X\r\n"}))
	for range 1 + g.IntN(2) {
		g.requestLine(&b)
		content := g.hostileFields(&b)
		b.WriteString(content)
	}
	return b.Bytes()
}

func (g *grammar) requestLine(b *bytes.Buffer) {
	space := func() string {
		return g.either([]string{" "}, []string{"  ", "\t", "", "\x0b", "\x0c", "\r", " \t", "\xa0"})
	}
	b.WriteString(g.either([]string{"GET", "POST", "POST", "PUT", "HEAD"}, []string{"get", "GeT", "", "CONNECT", "TRACE", "PRI", "G(T", "FOO", "M-SEARCH", "!#$%&'*+.^_`|~", "GET\x00", "GET:", "X" + strings.Repeat("A", 40), "\xc3\xa9", "OPTIONS"}))
	b.WriteString(space())
	b.WriteString(g.either([]string{"/", "/a/b?c=d", "/x/../y", "/%41%2f", "/a//b", "//a", "/;x", "/*"}, []string{
		"*", "a", "?x", "#", "/#f", "/a b", "/a\tb", "/\x00", "/%00", "/%", "/%zz", "/..", "/%2e%2e/", "/\xff\xfe", "/\x7f", "http://a/", "http://a", "http://a?x", "http://u@a/", "http://a:80/b#c", "HTTP://A/", "https://b/c", "ftp://c/d",
		"http:///x", "http://a b/", "a:80", "/http://x/", "//evil/x", "///x", "/\\x", "\\\\x", "/{}|^`\"<>", "/?\"<>|{}", "/?a b", "/?\x80", "/?%zz", "/?#", "/a%0d%0aX:%20y", "/" + strings.Repeat("long/", 300), "http://[::1]/", "http://[::1%25lo]/", "/a?x=http://h/ HTTP/1.1", "/ HTTP/1.1\r\nX: y",
	}))
	b.WriteString(space())
	b.WriteString(g.either([]string{"HTTP/1.1"}, []string{"HTTP/1.0", "HTTP/1.2", "HTTP/2.0", "HTTP/0.9", "HTTP/1.10", "HTTP/01.1", "http/1.1", "HTTP/1.1 ", "HTTP/1,1", "HTTP /1.1", "HTTP/1.", "HTTP/+1.1", "HTTPS/1.1", "", "HTTP/1.1\x00"}))
	g.end(b)
}

// end ends a line.
func (g *grammar) end(b *bytes.Buffer) {
	if g.chance(3) {
		b.WriteString(g.pick("\n", "\r", "\r\r\n", "\r\n ", "\r\n\t", " \r\n", "\x00\r\n", "\x0b\r\n", "\n\r", "\r\n\r", "\r\n\x0b"))
		return
	}
	b.WriteString("\r\n")
}

// hostileFields writes fields and the empty line after them, and returns content that fits them more or less.
func (g *grammar) hostileFields(b *bytes.Buffer) string {
	content := string(g.content())
	content = content[:min(len(content), 500)]
	var lines []string
	add := func(name string, wrongNames []string, value string, wrongValues []string) {
		colon := g.either([]string{": ", ": ", ":"}, []string{" :", " : ", "\t:", ":\t", ":\r\n ", "", "=", "\x00:", ":\x0b", ":\x0c", ": \r\n\t", "\r\n:", "::"})
		lines = append(lines, g.either([]string{name}, wrongNames)+colon+g.either([]string{value}, wrongValues))
	}
	times := func() int { return len(g.either([]string{"1"}, []string{"", "22"})) }
	for range times() {
		add("Host", []string{"host", "Host\x00", "H\xc3\xb6st", "Ho st", "X-Host"}, "example.com", []string{
			"", "a, b", "a b", "a,b", "u@a", "a/b", "a:80", "a:", "a:99999", "a:b", "[::1", "[::1]:80", "::1", "a\x00b", "a_b", "A.COM.", "a\tb", "*", "a?b", "a#b", "a%41", "\xff", "a;b", "a\\b", "(a)", "\"a\"", "a\r\n b",
		})
	}
	length := []string{"+1", "-1", "0x10", "1_0", "1.0", "1e1", "00", "010", "", " ", "1 1", "1,1", "5, 5", "99999999999999999999", "18446744073709551617", "9223372036854775807", "\"5\"", "5;", "\xb2", "5\x00", "5\x0b", "0", "3", "5\r\n 6"}
	coding := []string{
		"Chunked", "xchunked", "chunked, chunked", "chunked, identity", "identity, chunked", "gzip, chunked", "identity", "gzip", "chunked;q=1", "\"chunked\"", "chunked,", ",chunked", "chunked\x0b", "chunked\x00", "\x0bchunked", "chunked\t",
		" chunked", "", "chun\r\n ked", "\r\n chunked", "chunked\r\n ", "c\xc5\xa5unked", "chunked chunked", "deflate\r\nTransfer-Encoding: chunked", "trailers",
	}
	lengthNames := []string{"content-length", "Content_Length", "Content-Length\x00", "Content Length", "X-Content-Length", "CONTENT-LENGTH", "Content-Length\xa0", " Content-Length"}
	codingNames := []string{"transfer-encoding", "Transfer_Encoding", "Transfer-Encoding\x00", "Transfer Encoding", "TRANSFER-ENCODING", "\tTransfer-Encoding", " Transfer-Encoding", "X: y\nTransfer-Encoding", "X: y\rTransfer-Encoding", "Transfer-Encoding\xa0", "TE", "transfer-encod\xc4\xb1ng"}
	body := content
	switch framing := g.IntN(10); {
	case framing < 4:
		for range times() {
			add("Content-Length", lengthNames, fmt.Sprint(len(content)+g.off()), length)
		}
	case framing < 8:
		for range times() {
			add("Transfer-Encoding", codingNames, "chunked", coding)
		}
		body = g.hostileChunks(content)
	case framing < 9:
		add("Content-Length", lengthNames, fmt.Sprint(len(content)), length)
		add("Transfer-Encoding", codingNames, "chunked", coding)
		if g.chance(70) {
			body = g.hostileChunks(content)
		}
	default:
		if g.chance(70) {
			body = ""
		}
	}
	for range g.IntN(3) {
		switch g.IntN(9) {
		case 0:
			add("Connection", nil, g.pick("close", "keep-alive", "Content-Length", "Transfer-Encoding, close", "Host", "X-Forwarded-For, Cookie", "upgrade", "close, \x00", ",,", "\"x\""), nil)
		case 1:
			lines = append(lines, "Connection: Upgrade\r\nUpgrade: "+g.pick("websocket", "h2c", "WebSocket, x", "HTTP/2.0", "", "websocket\x0b"))
		case 2:
			add("Expect", nil, "100-continue", []string{"100-Continue, x", "200-ok", "", "100-continue\x00", "100-continue, 100-continue"})
		case 3:
			add("Trailer", nil, g.pick("X-Trailer", "Content-Length", "Host", "Transfer-Encoding"), nil)
		case 4:
			lines = append(lines, g.pick("X-Forwarded-For: 1.2.3.4", "X_Real_IP: 127.9.9.9", "X-Real-IP: 127.9.9.9", "Forwarded: for=x", "Via: 1.1 x", "Max-Forwards: 0", "X-HTTP-Method-Override: DELETE", "X-Original-URL: /admin", "Proxy-Connection: close", "Keep-Alive: 1", "HTTP2-Settings: x"))
		case 5:
			lines = append(lines, g.pick("", ":", ": x", "x", "X", " X: y", "\tX: y", "X\r\n Y: z", "X: y\r\n z", "X: \x00", "X: a\rb", "X: a\nb", "X: \x7f", "X: \x01", "X\xff: y", "(X): y", "X[0]: y", "X@: y", "X{}: y", "\x00", "X: \x0b\x0c", "X: \xff\xfe", "X: "+strings.Repeat("z", 5000)))
		case 6:
			add("TE", nil, "trailers", []string{"chunked", "gzip, trailers", ""})
		case 7:
			add("Content-Encoding", nil, "gzip", []string{"chunked"})
		default:
			add("X-Any", []string{"X_Any", "X.Any", "X!Any", "x'any", "X|Any", "X~`"}, "value", []string{"va\tlue", "", "v\xc3\xa4lue", "\"q\\\"uoted\""})
		}
	}
	g.Shuffle(len(lines), func(i, j int) { lines[i], lines[j] = lines[j], lines[i] })
	for _, line := range lines {
		b.WriteString(line)
		g.end(b)
	}
	g.end(b)
	return body
}

// off is mostly nothing.
func (g *grammar) off() int {
	if g.chance(90) {
		return 0
	}
	return g.IntN(9) - 4
}

// hostileChunks writes content as chunks in which any part may be wrong.
func (g *grammar) hostileChunks(content string) string {
	var b bytes.Buffer
	line := func() string {
		return g.either([]string{"\r\n"}, []string{"\n", "\r", "\r\r\n", "", "\n\r", " \r\n", "\r\n ", "\x00\r\n", "\r\n\r\n"})
	}
	extension := func() string {
		return g.either([]string{""}, []string{";", ";a", "; a=b", " ;a", "\t;a", ";a=\"b\"", ";a=\"\r\n\"", ";a=\"b\nc\"", ";\x00", ";a\rb", ";a\nb", " ", "\t", "x", ",", "\x0b", ";" + strings.Repeat("e", 300), ";a=\xff", ";a b", ";=", ";\"a\""})
	}
	size := func(n int) string {
		right := fmt.Sprintf("%x", n)
		return g.either([]string{right}, []string{
			"0x" + right, "+" + right, "-" + right, " " + right, "\t" + right, "0" + right, "00000000000000000000" + right, "1000000000000000" + right, "fffffffffffffffff", "ffffffffffffffff", "7fffffffffffffff", "8000000000000000", strings.ToUpper(right), right + "h", "_" + right,
			right + "_", "", "\"" + right + "\"", fmt.Sprintf("%x", n+1), fmt.Sprintf("%x", max(0, n-1)), right + "\x00", "\x0b" + right, "g", right + ".0", "0\r\n\r\n" + right,
		})
	}
	for content != "" {
		n := 1 + g.IntN(len(content))
		b.WriteString(size(n) + extension() + line() + content[:n] + line())
		content = content[n:]
	}
	if g.chance(95) {
		b.WriteString(size(0) + extension() + line())
	}
	b.WriteString(g.either([]string{"", "", "X-Trailer: t\r\n"}, []string{
		"Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n", "Host: trailer\r\n", "X: y\n", " X: y\r\n", "X : y\r\n", "X\r\n", "\x00: y\r\n", "X: \x00\r\n", "X: y\r\n z\r\n", "X: a\rb\r\n", ": y\r\n", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", strings.Repeat("X: y\r\n", 50),
	}))
	b.WriteString(line())
	return b.String()
}

// mutate changes bytes n times.
func (g *grammar) mutate(b []byte, n int) []byte {
	splice := func(at, until int, with string) {
		b = append(append(append(make([]byte, 0, len(b)+len(with)), b[:at]...), with...), b[until:]...)
	}
	special := []string{"\x00", "\r", "\n", "\r\n", " ", "\t", ":", "\x0b", "\x0c", "\x7f", "\x80", "\xff", ";", ",", "\"", "\\", "0", "a", "%", "#", "?", "/", "@", "-", "+", "_", "\r\n\r\n", "\r\n ", "\xef\xbb\xbf", "\x1b", "\x85", "\xe2\x80\xa8"}
	for range n {
		if len(b) == 0 {
			return b
		}
		at := g.IntN(len(b))
		if line := bytes.IndexByte(b[at:], '\n'); g.chance(30) && line >= 0 {
			at += line // where lines end there is most to be misunderstood
		}
		until := min(len(b), at+1+g.IntN(4))
		switch g.IntN(7) {
		case 0, 1:
			splice(at, at, g.pick(special...))
		case 2:
			splice(at, until, "")
		case 3:
			splice(at, at+1, g.pick(special...))
		case 4:
			until = min(len(b), at+g.IntN(40))
			splice(until, until, string(b[at:until]))
		case 5:
			b = bytes.Clone(b)
			b[at] ^= 1 << g.IntN(8)
		case 6: // a line twice, or none
			from := bytes.LastIndexByte(b[:at], '\n') + 1
			end := bytes.IndexByte(b[at:], '\n')
			if end < 0 {
				continue
			}
			end += at + 1
			if g.chance(50) {
				splice(end, end, string(b[from:end]))
			} else {
				splice(from, end, "")
			}
		}
	}
	return b
}
