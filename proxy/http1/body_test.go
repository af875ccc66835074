package http1

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// decodeAll decodes in, given in parts that end at the cuts, and tells what came of it: content, the number of bytes consumed, trailers.
func decodeAll(in string, b *Body, cuts ...int) string {
	var content []byte
	consumed := 0
	end := func(what string) string {
		s := fmt.Sprintf("%q %d %s", content, consumed, what)
		if b.Passed() != int64(len(content)) {
			s += fmt.Sprintf(" but %d passed", b.Passed())
		}
		return s
	}
	for _, cut := range append(cuts, len(in)) {
		for consumed < cut && !b.Done() {
			c, n, done, err := b.Decode([]byte(in[consumed:cut]))
			content = append(content, c...)
			consumed += n
			var e *Error
			switch {
			case errors.As(err, &e):
				return fmt.Sprintf("%q: %d %s", content, e.Status, e.Text)
			case done != b.Done() || n == 0 && !done:
				return end("stuck")
			}
		}
	}
	if !b.Done() {
		return end("more")
	}
	var s strings.Builder
	describeFields(&s, &b.Trailer, b.TrailerBytes())
	return end("done" + s.String())
}

func TestBody(t *testing.T) {
	limits := Limits{Trailer: 40, Fields: 3, Extension: 8}
	for in, want := range map[string]string{
		"0\r\n\r\nrest":              `"" 5 done`,
		"000\r\n\r\n":                `"" 7 done`,
		"5\r\nhello\r\n0\r\n\r\nGET": `"hello" 15 done`,
		"1\r\na\r\nA\r\n0123456789\r\n00b\r\nbcdefghijkl\r\n0\r\n\r\n": `"a0123456789bcdefghijkl" 44 done`,
		"1;a=\"\xff\"\r\na\r\n0;b\r\n\r\n":                             `"a" 19 done`,
		"1\r\na\r\n0\r\nA: 1\r\nb:\t2 \r\n\r\n":                        `"a" 24 done [A|1||false] [b|2||false]`,
		"1\r\na\r\n0\r\nSet-Cookie: 1\r\n\r\n":                         `"a" 26 done [Set-Cookie|1|Set-Cookie|false]`,
		"":                                                             `"" 0 more`, "5\r\nhel": `"hel" 6 more`, "5\r\nhello\r\n": `"hello" 10 more`, "0\r\n": `"" 3 more`,
		"0\r\nA: b\r\n":         `"" 9 more`,
		"7fffffffffffffff\r\nx": `"x" 19 more`,

		"\r\n":                               `"": 400 a chunk size is not a hexadecimal number`,
		";a\r\n":                             `"": 400 a chunk size is not a hexadecimal number`,
		" 1\r\na\r\n":                        `"": 400 a chunk size is not a hexadecimal number`,
		"-1\r\na\r\n":                        `"": 400 a chunk size is not a hexadecimal number`,
		"+1\r\na\r\n":                        `"": 400 a chunk size is not a hexadecimal number`,
		"0x1\r\na\r\n":                       `"": 400 a chunk size is not a hexadecimal number`,
		"1_0\r\na\r\n":                       `"": 400 a chunk size is not a hexadecimal number`,
		"g\r\na\r\n":                         `"": 400 a chunk size is not a hexadecimal number`,
		"1 \r\na\r\n":                        `"": 400 there is white space after a chunk size`,
		"1\t;a\r\na\r\n":                     `"": 400 there is white space after a chunk size`,
		"8000000000000000\r\n":               `"": 400 a chunk is too large`,
		"ffffffffffffffff\r\n":               `"": 400 a chunk is too large`,
		"10000000000000000\r\n":              `"": 400 a chunk is too large`,
		"00000000000000001\r\n":              `"": 400 a chunk is too large`,
		"1\na\r\n":                           `"": 400 the line of a chunk size ends without CRLF`,
		"1\rXa\r\n":                          `"": 400 the line of a chunk size ends without CRLF`,
		"1;a\na\r\n":                         `"": 400 the line of a chunk size ends without CRLF`,
		"1;a\rXa\r\n":                        `"": 400 the line of a chunk size ends without CRLF`,
		"1;\x00\r\na\r\n":                    `"": 400 a chunk extension has a control character`,
		"1;\x7f\r\na\r\n":                    `"": 400 a chunk extension has a control character`,
		"1;12345678\r\na\r\n1;123456789":     `"a": 400 chunk extensions are too long`,
		"1\r\nab\r\n":                        `"a": 400 a chunk does not end with CRLF`,
		"1\r\na\n":                           `"a": 400 a chunk does not end with CRLF`,
		"1\r\na\rb":                          `"a": 400 a chunk does not end with CRLF`,
		"1\r\na0\r\n\r\n":                    `"a": 400 a chunk does not end with CRLF`,
		"1\r\na\r\n0\r\n b":                  `"a": 400 there is white space before the first field`,
		"0\r\nA: b\r\n c":                    `"": 400 a field line is folded`,
		"0\r\nA: b\n":                        `"": 400 a line ends without a carriage return`,
		"0\r\n\n":                            `"": 400 a line ends without a carriage return`,
		"0\r\n\rx":                           `"": 400 a carriage return stands alone`,
		"0\r\nGET / HTTP/1.1\r\n":            `"": 400 there is white space in or after a field name`,
		"0\r\nA:\r\nB:\r\nC:\r\nD:\r\n":      `"": 431 there are too many field lines`,
		"0\r\nA: " + strings.Repeat("x", 40): `"": 431 the trailer section is too long`,
		"1\r\na\r\n0\r\nContent-Length: 1\r\n\r\n": `"a": 400 the trailer section has a field that frames or routes`,
		"0\r\nTransfer-Encoding: chunked\r\n\r\n":  `"": 400 the trailer section has a field that frames or routes`,
		"0\r\nHost: b\r\n\r\n":                     `"": 400 the trailer section has a field that frames or routes`,
	} {
		got := splits(t, in, func(in string, cuts ...int) string {
			var b Body
			b.Begin(Chunked, 0, &limits)
			return decodeAll(in, &b, cuts...)
		})
		if got != want {
			t.Errorf("%q:\n got %s\nwant %s", in, got, want)
		}
	}
	// Extensions may be as long as the content and some more in all.
	var b Body
	b.Begin(Chunked, 0, &limits)
	if got := decodeAll(strings.Repeat("1;1234567\r\na\r\n", 100), &b); !strings.Contains(got, "chunk extensions are too long") {
		t.Errorf("many extensions: %s", got)
	}
	for _, test := range []struct {
		framing Framing
		length  int64
		want    string
	}{
		{None, 0, `"" 0 done`}, {Length, 0, `"" 0 done`}, {Length, 3, `"abc" 3 done`}, {Length, 5, `"abcd" 4 more`}, {UntilClose, 0, `"abcd" 4 more`},
	} {
		got := splits(t, "abcd", func(in string, cuts ...int) string {
			b.Begin(test.framing, test.length, &limits)
			return decodeAll(in, &b, cuts...)
		})
		if got != test.want {
			t.Errorf("%s %d: got %s, want %s", test.framing, test.length, got, test.want)
		}
		if err := b.End(); (err == nil) != (b.Done()) {
			t.Errorf("%s %d: at the end %v", test.framing, test.length, err)
		}
	}
}

func TestBodySkip(t *testing.T) {
	var b Body
	b.Begin(Chunked, 0, &Limits{})
	if n := b.Contiguous(); n != 0 {
		t.Errorf("%d bytes before a chunk", n)
	}
	got := decodeAll("6\r\nab", &b)
	n := b.Contiguous()
	b.Skip(3)
	left := b.Contiguous()
	b.Skip(1)
	c, _, done, err := b.Decode([]byte("\r\n0\r\n\r\n"))
	if got != `"ab" 5 more` || n != 4 || left != 1 || len(c) != 0 || !done || err != nil || b.Passed() != 6 || b.Contiguous() != 0 {
		t.Errorf("chunked: %s, %d then %d, %q %t %v, %d", got, n, left, c, done, err, b.Passed())
	}
	b.Begin(Length, 5, &Limits{})
	b.Skip(4)
	c, _, done, err = b.Decode([]byte("ab"))
	if string(c) != "a" || !done || err != nil {
		t.Errorf("length: %q %t %v", c, done, err)
	}
}

func TestBodyMemory(t *testing.T) {
	var b Body
	l := DefaultLimits()
	in := []byte("5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n")
	if n := testing.AllocsPerRun(100, func() {
		b.Begin(Chunked, 0, &l)
		for rest := in; len(rest) > 0; {
			_, n, _, err := b.Decode(rest)
			if err != nil {
				t.Fatal(err)
			}
			rest = rest[n:]
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	b.Begin(Chunked, 0, &l)
	decodeAll("0\r\nA: "+strings.Repeat("x", 8000), &b)
	if b.Begin(None, 0, &l); cap(b.kept) > keptTrailer {
		t.Errorf("keeps %d bytes", cap(b.kept))
	}
}

func BenchmarkBody(b *testing.B) {
	var in []byte
	for range 16 {
		in = AppendChunk(in, make([]byte, 4096))
	}
	in = append(AppendLastChunk(in), '\r', '\n')
	var body Body
	l := DefaultLimits()
	b.SetBytes(int64(len(in)))
	b.ReportAllocs()
	for b.Loop() {
		body.Begin(Chunked, 0, &l)
		for rest := in; !body.Done(); {
			_, n, _, err := body.Decode(rest)
			if err != nil {
				b.Fatal(err)
			}
			rest = rest[n:]
		}
	}
}
