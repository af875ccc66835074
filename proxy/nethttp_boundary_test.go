package proxy

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
)

func BenchmarkBoundary(b *testing.B) {
	request := []byte("GET /some/path?query=1 HTTP/1.1\r\nHost: www.example.com\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\nCookie: session=0123456789abcdef0123456789abcdef\r\n\r\n")
	var at boundary
	b.SetBytes(int64(len(request)))
	for b.Loop() {
		at.advance(request)
		at.expect(0)
	}
	if !at.reached() {
		b.Error("lost")
	}
}

func TestBoundary(t *testing.T) {
	get, post := "GET / HTTP/1.1\r\nHost: x\r\n\r\n", "POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\n"
	tests := []struct {
		name  string
		reads []string // "=5" is expect(5)
		want  bool
	}{
		{"nothing", nil, true},
		{"request", []string{get, "=0"}, true},
		{"in pieces", []string{get[:3], get[3:25], get[25:], "=0"}, true},
		{"half a header", []string{get[:7]}, false},
		{"content", []string{post, "=5", "12345"}, true},
		{"content with the header", []string{post + "123", "=5", "45"}, true},
		{"content that is not whole", []string{post + "123", "=5", "4"}, false},
		{"a byte of the next", []string{post + "123", "=5", "45G"}, false},
		{"the next after its first byte", []string{get, "=0", "G", get[1:], "=0"}, true},
		{"two together", []string{get + get, "=0"}, false},
		{"two together, both over", []string{post + "12345" + get, "=5", "=0"}, true},
		{"one and a half", []string{get + get[:5], "=0"}, false},
		{"no expectation", []string{get}, false},
		{"chunks", []string{get + "1\r\nx\r\n", "=-1", "0\r\n", "\r", "\n"}, true},
		{"chunks with the next", []string{get + "A;x=\"y\"\r\n0123456789\r\n0\r\nT: 1\r\n\r\n" + get, "=-1", "=0"}, true},
		{"a byte after chunks", []string{get, "=-1", "0\r\n\r\nG"}, false},
		{"chunks that go on", []string{get + "1\r\nx\r\n", "=-1", "0\r\n"}, false},
		{"after chunks", []string{get, "=-1", "0\r\n\r\n", get, "=0"}, true},
		{"line end without CR", []string{"GET / HTTP/1.1\nHost: x\r\n\r\n", "=0"}, false},
	}
	for _, tt := range tests {
		var b boundary
		for _, read := range tt.reads {
			if n := 0; strings.HasPrefix(read, "=") {
				fmt.Sscan(read[1:], &n)
				b.expect(int64(n))
			} else {
				b.advance([]byte(read))
			}
		}
		if got := b.reached(); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

// FuzzBoundary compares with net/http: where a boundary says that a request has ended, one has.
func FuzzBoundary(f *testing.F) {
	f.Add([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n"), uint8(1))
	f.Add([]byte("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n12345GET / HTTP/1.1\r\nHost: x\r\n\r\n"), uint8(7))
	f.Add([]byte("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1;x=y\r\nx\r\n0\r\nT: 1\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n"), uint8(200))
	f.Fuzz(func(t *testing.T, input []byte, step uint8) {
		source := bytes.NewReader(input)
		br := bufio.NewReader(source)
		var lengths []int64
		ends := []int{0}
		for {
			r, err := http.ReadRequest(br)
			if err != nil {
				break
			}
			if _, err := io.Copy(io.Discard, r.Body); err != nil {
				break
			}
			lengths = append(lengths, r.ContentLength)
			ends = append(ends, len(input)-source.Len()-br.Buffered())
		}
		var b boundary
		for at := 0; at < ends[len(ends)-1]; {
			next := min(at+1+int(step), len(input))
			b.advance(input[at:next])
			at = next
			for b.phase == phaseHeaded && len(lengths) > 0 {
				b.expect(lengths[0])
				lengths = lengths[1:]
			}
			if b.reached() && at <= ends[len(ends)-1] && !slices.Contains(ends, at) {
				t.Fatalf("%d bytes of %q are no whole requests, they end at %v", at, input, ends)
			}
		}
	})
}
