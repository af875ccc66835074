package proxy

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// A framingCase is one case of testdata/framing, whose README has the form of the files.
type framingCase struct {
	file, name string
	clause     string
	methods    []string // of the requests whose responses the client gets
	slow       bool     // waits for a limit, and is not split
	only       string   // the one engine that is meant; empty: all
	client     []step
	acts       []act // of the instance, one for each request; then it answers "ok"

	sees  []message // by the instance
	gets  []message // by the client
	ends  []ending
	told  bool   // the file says what the client gets
	state string // of the client's connection in the end: open, closes, cut (within the response) or any
	link  string // to the instance, in the end: kept, dropped or, if that does not matter, ""
}

// A step is one thing that a peer does.
type step struct {
	do   string // send, close (its half), reset, wait (until text has come at the client), head (until the instance has one)
	text []byte
}

// An act is what an instance does with a request.
type act struct {
	early bool // as soon as its head has come
	steps []step
}

// An ending is how a request ended, as the access log has it.
type ending struct {
	status int
	reason reason
	also   int // another status that will do; 0: none
}

// A message is a request or a response as it was seen: names of fields in lower case, in alphabetical order.
type message struct {
	line     string // of a response the status alone
	fields   []string
	content  string
	trailers []string
	cut      bool // it did not end

	refusal bool   // the proxy's own, of which only the status is told
	also    string // another status that will do
}

func (m message) String() string {
	s := strings.Join(append([]string{m.line}, m.fields...), " | ")
	s += " || " + strconv.Quote(m.content)
	if len(m.trailers) > 0 {
		s += " || " + strings.Join(m.trailers, " | ")
	}
	if m.cut {
		s += " || cut"
	}
	return s
}

// readFraming returns the cases of every file.
func readFraming(t *testing.T) []framingCase {
	t.Helper()
	files, err := filepath.Glob("testdata/framing/*.txt")
	if err != nil {
		t.Fatal(err)
	}
	var cases []framingCase
	seen := map[string]bool{}
	for _, path := range files {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		subject := strings.TrimSuffix(filepath.Base(path), ".txt")
		list, err := parseFraming(subject, string(b))
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		for _, c := range list {
			if seen[subject+"/"+c.name] {
				t.Errorf("%s: %s is there twice", path, c.name)
			}
			seen[subject+"/"+c.name] = true
		}
		cases = append(cases, list...)
	}
	return cases
}

func parseFraming(subject, text string) (cases []framingCase, err error) {
	var c *framingCase
	for number, line := range strings.Split(text, "\n") {
		if line == "" || strings.HasPrefix(line, "; ") {
			continue
		}
		if name, ok := strings.CutPrefix(line, "# "); ok {
			cases = append(cases, framingCase{file: subject, name: name})
			c = &cases[len(cases)-1]
			continue
		}
		if c == nil {
			return nil, fmt.Errorf("line %d comes before a case", number+1)
		}
		if err := c.read(line); err != nil {
			return nil, fmt.Errorf("line %d, case %s: %w", number+1, c.name, err)
		}
	}
	for i := range cases {
		if err := cases[i].complete(); err != nil {
			return nil, fmt.Errorf("case %s: %w", cases[i].name, err)
		}
	}
	return cases, nil
}

// read reads one line of a case.
func (c *framingCase) read(line string) (err error) {
	word, rest, _ := strings.Cut(line, " ")
	switch word {
	case "clause":
		c.clause = rest
	case "methods":
		c.methods = strings.Fields(rest)
	case "slow":
		c.slow = true
	case "only":
		c.only = rest
	case "<next":
		c.acts = append(c.acts, act{})
	case "<early":
		c.act().early = true
	case "@":
		return appendMessage(&c.sees, rest)
	case "&":
		c.told = true
		return appendMessage(&c.gets, rest)
	case "=":
		return c.readEnding(rest)
	default:
		return c.readStep(word, rest)
	}
	return nil
}

func (c *framingCase) act() *act {
	if len(c.acts) == 0 {
		c.acts = append(c.acts, act{})
	}
	return &c.acts[len(c.acts)-1]
}

func (c *framingCase) readStep(word, rest string) error {
	if word == "" || word[0] != '>' && word[0] != '<' {
		return fmt.Errorf("unknown line %q", word)
	}
	s := step{do: word[1:]}
	if s.do == "" {
		s.do = "send"
	}
	switch s.do {
	case "send", "wait", "read":
		text, err := unescape(rest)
		if err != nil {
			return err
		}
		s.text = text
	case "close", "reset", "head", "left":
	default:
		return fmt.Errorf("unknown step %q", word)
	}
	if word[0] == '>' {
		c.client = append(c.client, s)
	} else {
		c.act().steps = append(c.act().steps, s)
	}
	return nil
}

// readEnding reads "STATUS REASON [STATE [LINK]]", "refused STATUS[/STATUS] [REASON [STATE]]" or "none STATE".
func (c *framingCase) readEnding(rest string) error {
	words := strings.Fields(rest)
	if len(words) == 2 && words[0] == "none" {
		c.state = words[1]
		return nil
	}
	refused := len(words) > 1 && words[0] == "refused"
	if refused {
		words = words[1:]
		if len(words) == 1 {
			words = append(words, string(reasonBadRequest))
		}
		if len(words) == 2 {
			words = append(words, "closes")
		}
	}
	if len(words) < 2 {
		return errors.New("an ending is a status and a reason")
	}
	first, second, _ := strings.Cut(words[0], "/")
	e := ending{reason: reason(strings.TrimPrefix(words[1], "-"))}
	var err error
	if e.status, err = strconv.Atoi(first); err != nil {
		return err
	}
	if second != "" {
		if e.also, err = strconv.Atoi(second); err != nil {
			return err
		}
	}
	c.ends = append(c.ends, e)
	switch {
	case refused:
		c.gets = append(c.gets, message{line: first, refusal: true, also: second})
	case e.status == 200 && len(c.acts) == 0 && !c.told:
		c.gets = append(c.gets, message{line: "200", fields: []string{"content-length: 2"}, content: "ok"})
	}
	if len(words) > 2 {
		c.state = words[2]
	}
	if len(words) > 3 {
		c.link = words[3]
	}
	return nil
}

// complete fills in what a case leaves out and checks that it is whole.
func (c *framingCase) complete() error {
	if len(c.methods) == 0 && len(c.client) > 0 {
		method, _, _ := strings.Cut(string(bytes.TrimLeft(c.client[0].text, "\r\n")), " ")
		c.methods = append(c.methods, cmp.Or(method, "GET"))
	}
	for i := len(c.methods); i < len(c.gets); i++ {
		c.methods = append(c.methods, "GET")
	}
	for i := range c.gets {
		if !c.told && c.methods[i] == "HEAD" {
			c.gets[i].content = ""
		}
	}
	switch {
	case c.clause == "":
		return errors.New("no clause")
	case len(c.client) == 0:
		return errors.New("the client sends nothing")
	case c.state != "open" && c.state != "closes" && c.state != "cut" && c.state != "any":
		return fmt.Errorf("the client's connection ends as %q", c.state)
	case c.link != "" && c.link != "kept" && c.link != "dropped":
		return fmt.Errorf("the connection to the instance ends as %q", c.link)
	}
	return nil
}

// appendMessage reads "LINE | field | … || content || trailer | … || cut".
func appendMessage(list *[]message, text string) error {
	text, err := repeat(text)
	if err != nil {
		return err
	}
	parts := strings.Split(text, " || ")
	head := strings.Split(parts[0], " | ")
	m := message{line: head[0], fields: head[1:]}
	for i := range m.fields {
		b, err := unescape(m.fields[i])
		if err != nil {
			return err
		}
		m.fields[i] = string(b)
	}
	b, err := unescape(m.line)
	if err != nil {
		return err
	}
	m.line = string(b)
	sortFields(m.fields)
	if n := len(parts); n > 1 && parts[n-1] == "cut" {
		m.cut, parts = true, parts[:n-1]
	}
	if len(parts) > 1 {
		b, err := unescape(parts[1])
		if err != nil {
			return err
		}
		m.content = string(b)
	}
	if len(parts) > 2 {
		m.trailers = strings.Split(parts[2], " | ")
		sortFields(m.trailers)
	}
	*list = append(*list, m)
	return nil
}

// repeat replaces {{TEXT*N}} by N times TEXT.
func repeat(s string) (string, error) {
	for {
		before, rest, ok := strings.Cut(s, "{{")
		if !ok {
			return s, nil
		}
		inner, after, ok := strings.Cut(rest, "}}")
		star := strings.LastIndexByte(inner, '*')
		if !ok || star < 0 {
			return "", fmt.Errorf("%q is no repetition", s)
		}
		n, err := strconv.Atoi(inner[star+1:])
		if err != nil {
			return "", err
		}
		s = before + strings.Repeat(inner[:star], n) + after
	}
}

// unescape returns the bytes that a text stands for: \r, \n, \t, \\, \xHH, and what repeat replaces.
func unescape(s string) ([]byte, error) {
	s, err := repeat(s)
	if err != nil {
		return nil, err
	}
	var out []byte
	for i := 0; i < len(s); {
		if s[i] != '\\' {
			out = append(out, s[i])
			i++
			continue
		}
		c, _, tail, err := strconv.UnquoteChar(s[i:], 0)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", s[i:], err)
		}
		out = append(out, byte(c))
		i = len(s) - len(tail)
	}
	return out, nil
}
