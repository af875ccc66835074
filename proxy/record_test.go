package proxy

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"math"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// encoded returns the line that encoding/json makes of a record.
func (r record) encoded() string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	r.Path, r.UserAgent = clip(r.Path), clip(r.UserAgent)
	if err := e.Encode(r); err != nil {
		panic(err)
	}
	return b.String()
}

func TestRecordLine(t *testing.T) {
	zone := time.FixedZone("", 5*3600+1800)
	full := record{
		Time: time.Date(2026, 11, 23, 1, 2, 3, 40_500, zone), ID: "ID", Client: "::1", Method: "GET", Host: "a.example", Path: "/a\"\\<&>\x00\x1f\x7f\u2028é",
		Protocol: "HTTP/1.1", TLS: "TLS 1.3", UserAgent: "\xff\b\f\n\r\t" + strings.Repeat("é", 1000), Status: 503, Reason: reasonHoldExpired,
		BytesIn: 1, BytesOut: math.MaxInt64, Duration: 1.5, Route: "a/", Service: "web", Fallback: "f", Instance: "web/1.1", Attempts: 3, Held: 0.25, Upstream: 1e-9,
	}
	var c clock
	for _, r := range []record{{}, full, {Time: time.Now()}, {Time: time.Now().UTC()}, {Time: time.Unix(1_000_000, 0)}} {
		if got, want := string(r.append(nil, &c)), r.encoded(); got != want {
			t.Errorf("wrote\n%swant\n%s", got, want)
		}
	}
}

// Durations are written as encoding/json writes them, those that come of subtracting times above all.
func TestRecordSeconds(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	values := []float64{0, 1, 1e-6, 999e-9, 1e-9, 1e-10, 0.1 + 0.2, 1e6, 999999.999999999, 1e15, 1e20, 1e21, 1e300, 5e-324, 123456.789}
	for range 50_000 {
		d := time.Duration(rnd.Int64N(int64(1) << (1 + rnd.IntN(62))))
		values = append(values, d.Seconds(), d.Seconds()+time.Duration(rnd.Int64N(1e10)).Seconds(), rnd.Float64(), -d.Seconds())
	}
	var got []byte
	for _, v := range values {
		want, err := json.Marshal(v)
		if got = appendSeconds(got[:0], v); err != nil || string(got) != string(want) {
			t.Errorf("%v was written %s, not %s", v, got, want)
		}
	}
}

func FuzzRecordLine(f *testing.F) {
	f.Add("/", "agent", int64(1_000_000_007), int64(1), 200)
	f.Add("\xe2\x80\xa8\xe2\x80", "\xed\xa0\x80\"", int64(-1), int64(999), -1)
	f.Fuzz(func(t *testing.T, path, agent string, at, took int64, status int) {
		r := record{
			Time: time.Unix(0, at).UTC(), Path: path, UserAgent: agent, Host: agent + path, Status: status,
			Duration: time.Duration(took).Seconds(), Upstream: math.Float64frombits(uint64(took)), Held: float64(took),
		}
		if math.IsNaN(r.Upstream) || math.IsInf(r.Upstream, 0) {
			r.Upstream = 0
		}
		var c clock
		if got, want := string(r.append(nil, &c)), r.encoded(); got != want {
			t.Errorf("wrote\n%swant\n%s", got, want)
		}
	})
}

// nowhere is a file that keeps nothing.
type nowhere struct{ io.Writer }

func (nowhere) Close() error { return nil }

func plainRecord() record {
	return record{
		Time: time.Now(), ID: "ABCDEFGHIJKLMNOPQRSTUVWXYZ", Client: "127.0.0.1", Method: "GET", Host: "shop.example.com", Path: "/index.html", Protocol: "HTTP/1.1",
		UserAgent: "Mozilla/5.0 (X11; Linux x86_64)", Status: 200, BytesOut: 119, Duration: .000712345, Route: "/", Service: "web", Instance: "web/1.1", Attempts: 1, Upstream: .000654321,
	}
}

func TestAccessLogAllocatesNothing(t *testing.T) {
	a := startAccessLog(slog.New(slog.DiscardHandler), nowhere{io.Discard}, func(int) {})
	defer a.close()
	r := plainRecord()
	for range 2000 { // both buffers have their size then
		a.write(&r)
	}
	if n := testing.AllocsPerRun(1000, func() { a.write(&r) }); n > 0.01 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkRecordLine(b *testing.B) {
	r, c, line := plainRecord(), clock{}, make([]byte, 0, 1024)
	b.ReportAllocs()
	for b.Loop() {
		r.append(line[:0], &c)
	}
}

func BenchmarkAccessLog(b *testing.B) {
	var dropped atomic.Int64
	a := startAccessLog(slog.New(slog.DiscardHandler), nowhere{io.Discard}, func(n int) { dropped.Add(int64(n)) })
	defer a.close()
	r := plainRecord()
	b.ReportAllocs()
	for b.Loop() {
		a.write(&r)
	}
	b.ReportMetric(float64(dropped.Load())/float64(b.N), "dropped/op")
}
