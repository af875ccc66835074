package zmtp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// tight are limits that a short input can exceed.
var tight = Limits{Message: 4 << 10, Frames: 8, Command: 512}

// decode returns what a decoder finds in stream when it is read in pieces of the given size, and how it ended.
func decode(limits Limits, stream []byte, piece int) (found []string, err error) {
	d := NewDecoder(limits, make([]byte, 3))
	for len(stream) > 0 {
		if len(d.Free()) == 0 {
			d.Rewind()
		}
		if len(d.Free()) == 0 {
			d.Swap(make([]byte, 2*d.Cap()))
		}
		n := copy(d.Free()[:min(piece, len(d.Free()))], stream)
		d.Wrote(n)
		stream = stream[n:]
		for {
			kind, err := d.Next()
			if err != nil {
				return found, err
			}
			if kind == None {
				break
			}
			found = append(found, describe(d, kind))
		}
		if d.Need() > 0 && d.Need() <= d.Pending() {
			return found, fmt.Errorf("needs %d bytes with %d pending", d.Need(), d.Pending())
		}
	}
	return found, nil
}

func describe(d *Decoder, kind Kind) string {
	if kind == Command {
		return fmt.Sprintf("command %q %q", d.Name(), d.Data())
	}
	start, end := d.Span()
	if !bytes.Equal(d.Encoded(), d.buf[start:end]) {
		return "span differs"
	}
	return fmt.Sprintf("message %q of topic %q", Frames(d.Encoded()), d.Topic())
}

// specified returns what is in stream, taken apart in the plainest way: all at once and by copying.
func specified(limits Limits, stream []byte) (found []string, ok bool) {
	var frames [][]byte
	size := 0
	for len(stream) > 0 {
		flags := stream[0]
		if flags > 7 || flags&5 == 5 {
			return found, false
		}
		var length uint64
		body := 2
		switch {
		case flags&2 != 0 && len(stream) >= 9:
			length, body = binary.BigEndian.Uint64(stream[1:]), 9
		case flags&2 == 0 && len(stream) >= 2:
			length = uint64(stream[1])
		default:
			return found, true
		}
		if flags&4 != 0 && length > uint64(limits.Command) ||
			flags&4 == 0 && (length > uint64(limits.Message-size) || len(frames) == limits.Frames) {
			return found, false
		}
		if length > uint64(len(stream)-body) {
			return found, true
		}
		content := stream[body : body+int(length)]
		stream = stream[body+int(length):]
		if flags&4 != 0 {
			if length < 2 || content[0] == 0 || int(content[0]) >= len(content) {
				return found, false
			}
			name := 1 + int(content[0])
			found = append(found, fmt.Sprintf("command %q %q", content[1:name], content[name:]))
			continue
		}
		frames = append(frames, content)
		size += int(length)
		if flags&1 == 0 {
			found = append(found, fmt.Sprintf("message %q of topic %q", frames, frames[0]))
			frames, size = nil, 0
		}
	}
	return found, true
}

func compare(t *testing.T, limits Limits, stream []byte, piece int) {
	t.Helper()
	want, ok := specified(limits, stream)
	got, err := decode(limits, stream, piece)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("in pieces of %d (-want +got):\n%s", piece, diff)
	}
	var protocol *ProtocolError
	if ok != (err == nil) || err != nil && !errors.As(err, &protocol) {
		t.Errorf("in pieces of %d: error %v; the stream is good: %v", piece, err, ok)
	}
}

func FuzzDecoder(f *testing.F) {
	for _, s := range recordings(f) {
		traffic := s[greetingLen+2+int(s[greetingLen+1]):]
		f.Add(traffic, 1)
		f.Add(traffic, 100)
	}
	f.Add([]byte("\x02\x40\x00\x00\x00\x00\x00\x00\x00"), 3)
	f.Add([]byte("\x01\x01a\x04\x07\x04PING\x00\x00\x01\x00\x04\x03\x02AB\x00\x01b\x00\x01c"), 2)
	f.Add(appendCommand(nil, strings.Repeat("n", 255), 0), 5)
	f.Fuzz(func(t *testing.T, stream []byte, piece int) {
		if piece < 1 || len(stream) > 64<<10 {
			return
		}
		compare(t, tight, stream, piece)
	})
}

// recordings returns what libzmq 4.3.4 sent to testdata/record.py.
func recordings(tb testing.TB) map[string][]byte {
	tb.Helper()
	streams := map[string][]byte{}
	for _, name := range []string{"pub-3.0", "pub-3.1", "sub-3.0", "sub-3.1"} {
		s, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			tb.Fatal(err)
		}
		streams[name] = s
	}
	return streams
}

func TestRecordedTraffic(t *testing.T) {
	for name, s := range recordings(t) {
		t.Run(name, func(t *testing.T) {
			h := Accepting(XSUB)
			if strings.HasPrefix(name, "sub") {
				h = Accepting(XPUB)
			}
			n, err := h.Feed(s)
			if err != nil || !h.Done() {
				t.Fatalf("handshake done: %v, error: %v", h.Done(), err)
			}
			for _, piece := range []int{1, 2, 7, 64, 4096, len(s)} {
				compare(t, DefaultLimits(), s[n:], piece)
			}
		})
	}
}

func TestCommandsWithinMessage(t *testing.T) {
	ping := AppendPing(nil, time.Second, []byte("context"))
	var stream []byte
	var frames [][]byte
	for i := range 500 {
		frames = append(frames, bytes.Repeat([]byte{byte(i)}, i))
		flags := byte(flagMore)
		if i == 499 {
			flags = 0
		}
		stream = append(appendHeader(stream, flags, i), frames[i]...)
		if i < 499 {
			stream = append(stream, ping...)
		}
	}
	stream = AppendMessage(stream, []byte("next"))
	want := fmt.Sprintf("message %q of topic %q", frames, frames[0])
	for _, piece := range []int{1, 10, 1000, len(stream)} {
		found, err := decode(DefaultLimits(), stream, piece)
		if err != nil || len(found) != 501 || found[499] != want || !strings.Contains(found[500], "next") {
			t.Errorf("in pieces of %d: %d found, error %v", piece, len(found), err)
		}
	}
}

func TestDecoderMemory(t *testing.T) {
	// A frame that never ends and commands within an unfinished message cost no memory but their own.
	d := NewDecoder(DefaultLimits(), make([]byte, 64))
	feed := func(p []byte) {
		t.Helper()
		if len(d.Free()) < len(p) {
			d.Rewind()
		}
		d.Wrote(copy(d.Free(), p))
		for {
			kind, err := d.Next()
			if err != nil {
				t.Fatal(err)
			}
			if kind == None {
				return
			}
		}
	}
	feed([]byte{flagMore, 1, 'x'})
	for range 1000 {
		feed(AppendPing(nil, 0, nil))
	}
	if d.Pending() != 3 {
		t.Errorf("1000 PINGs within a message left %d bytes pending", d.Pending())
	}
	feed([]byte{flagLong, 0, 0, 0, 0, 3, 0, 0, 0})
	if want := 3 + 9 + 3<<24; d.Need() != want {
		t.Errorf("needs %d bytes, want %d", d.Need(), want)
	}
}

func TestLimits(t *testing.T) {
	long := func(flags byte, size uint64) []byte { return binary.BigEndian.AppendUint64([]byte{flags}, size) }
	tests := []struct {
		name   string
		stream []byte
		reason Reason
	}{
		{"frame of 2^62", long(flagLong, 1<<62), TooLarge},
		{"frame of 2^63", long(flagLong, 1<<63), TooLarge},
		{"frame of 2^64-1", long(flagLong, 1<<64-1), TooLarge},
		{"frame of 64 GiB", long(flagLong, 64<<30), TooLarge},
		{"frame over the limit by one", long(flagLong, uint64(tight.Message)+1), TooLarge},
		{"too many frames", AppendMessage(nil, make([][]byte, tight.Frames+1)...), TooLarge},
		{"command over the limit", long(flagLong|flagCommand, uint64(tight.Command)+1), TooLarge},
		{"command of 2^63", long(flagLong|flagCommand, 1<<63), TooLarge},
		{"command with MORE", []byte{flagCommand | flagMore, 2, 1, 'x'}, Malformed},
		{"command without a name", []byte{flagCommand, 0}, Malformed},
		{"command with an empty name", []byte{flagCommand, 2, 0, 0}, Malformed},
		{"command's name beyond its end", []byte{flagCommand, 3, 3, 'x', 'x'}, Malformed},
		{"reserved flags", []byte{8}, Malformed},
		{"as long as allowed", AppendMessage(nil, make([]byte, tight.Message)), ""},
		{"as many frames as allowed", AppendMessage(nil, make([][]byte, tight.Frames)...), ""},
		{"short size in a long frame", append(long(flagLong, 1), 'x'), ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := decode(tight, tt.stream, 16)
			if got := reason(err); got != tt.reason {
				t.Errorf("reason %q (%v), want %q", got, err, tt.reason)
			}
		})
	}
	over := append(appendHeader(nil, flagMore, tight.Message), make([]byte, tight.Message)...)
	if _, err := decode(tight, append(over, 0, 1), 16); reason(err) != TooLarge {
		t.Errorf("frames over the limit together: %v", err)
	}
}

func reason(err error) Reason {
	var protocol *ProtocolError
	if errors.As(err, &protocol) {
		return protocol.Reason
	}
	return ""
}

func TestPing(t *testing.T) {
	tests := []struct {
		body    string
		context string
		ttl     time.Duration
		bad     bool
	}{
		{"\x04PING\x00\x00", "", 0, false},
		{"\x04PING\x01\x00context", "context", 25600 * time.Millisecond, false},
		{"\x04PING\x00\x010123456789abcdef", "0123456789abcdef", 100 * time.Millisecond, false},
		{"\x04PING\x00\x010123456789abcdefX", "", 0, true},
		{"\x04PING", "", 0, true},
		{"\x04PING\x00", "", 0, true},
	}
	for _, tt := range tests {
		d := NewDecoder(tight, append([]byte{flagCommand, byte(len(tt.body))}, tt.body...))
		d.Wrote(len(d.Free()))
		if kind, err := d.Next(); kind != Command || err != nil {
			t.Fatalf("%q: kind %d, error %v", tt.body, kind, err)
		}
		context, ttl, ok, err := d.Ping()
		if string(context) != tt.context || ttl != tt.ttl || ok == tt.bad || (err != nil) != tt.bad {
			t.Errorf("%q: context %q, TTL %v, %v, error %v", tt.body, context, ttl, ok, err)
		}
	}
}

func TestSubscription(t *testing.T) {
	old, current := Peer{Minor: 0}, Peer{Minor: 1}
	tests := []struct {
		name      string
		encoded   []byte
		prefix    string
		subscribe bool
		ok        bool
	}{
		{"SUBSCRIBE", AppendSubscribe(nil, current, []byte("a")), "a", true, true},
		{"SUBSCRIBE to everything", AppendSubscribe(nil, current, nil), "", true, true},
		{"CANCEL", AppendCancel(nil, current, []byte("a")), "a", false, true},
		{"message 1", AppendSubscribe(nil, old, []byte("a")), "a", true, true},
		{"message 0", AppendCancel(nil, old, bytes.Repeat([]byte("a"), 300)), strings.Repeat("a", 300), false, true},
		{"message 2", AppendMessage(nil, []byte("\x02a")), "", false, false},
		{"empty message", AppendMessage(nil, nil), "", false, false},
		{"two frames", AppendMessage(nil, []byte("\x01a"), nil), "", false, false},
		{"PING", AppendPing(nil, 0, nil), "", false, false},
	}
	for _, tt := range tests {
		d := NewDecoder(DefaultLimits(), tt.encoded)
		d.Wrote(len(tt.encoded))
		kind, err := d.Next()
		if err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		prefix, subscribe, ok := d.Subscription(kind)
		if string(prefix) != tt.prefix || subscribe != tt.subscribe || ok != tt.ok {
			t.Errorf("%s: %q, %v, %v", tt.name, prefix, subscribe, ok)
		}
	}
}

func TestCountMessages(t *testing.T) {
	encoded := AppendMessage(nil, []byte("a"), []byte("b"))
	encoded = AppendMessage(encoded, nil)
	encoded = AppendMessage(encoded, make([]byte, 1000))
	for n, want := range map[int]int{0: 0, 5: 0, 6: 1, 7: 1, 8: 2, len(encoded) - 1: 2, len(encoded): 3} {
		if got := CountMessages(encoded, n); got != want {
			t.Errorf("%d whole messages in the first %d bytes, want %d", got, n, want)
		}
	}
}

func BenchmarkDecoder(b *testing.B) {
	message := AppendMessage(nil, make([]byte, 100))
	batch := bytes.Repeat(message, 600)
	d := NewDecoder(DefaultLimits(), batch)
	b.SetBytes(int64(len(batch)))
	for b.Loop() {
		d.start, d.joined, d.scan, d.end = 0, 0, 0, len(batch)
		for kind := Message; kind != None; {
			kind, _ = d.Next()
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*600), "ns/message")
}
