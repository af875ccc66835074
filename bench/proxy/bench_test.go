//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestSummarise(t *testing.T) {
	for _, c := range []struct {
		values []float64
		want   summary
	}{
		{nil, summary{}},
		{[]float64{3}, summary{3, 3, 3}},
		{[]float64{4, 1}, summary{2.5, 1, 4}},
		{[]float64{9, 1, 5, 2, 4}, summary{4, 1, 9}},
	} {
		if got := summarise(c.values); got != c.want {
			t.Errorf("summarise(%v) = %v, want %v", c.values, got, c.want)
		}
	}
}

func TestPercentile(t *testing.T) {
	var values []int64
	for i := range int64(1000) {
		values = append(values, (i+1)*1_000_000)
	}
	for p, want := range map[float64]float64{50: 500, 99: 990, 99.9: 999, 100: 1000} {
		if got := percentile(values, p); got != want {
			t.Errorf("p%v = %v, want %v", p, got, want)
		}
	}
	if got := percentile(values[:1], 99.9); got != 1 {
		t.Errorf("p99.9 of one value = %v, want that", got)
	}
	if got := percentile(nil, 50); got != 0 {
		t.Errorf("p50 of none = %v, want 0", got)
	}
}

// Ratios are of one round: the second, in which the base is missing, has none.
func TestRatios(t *testing.T) {
	samples := []sample{
		{Row: "a", Peer: "nginx", Round: 1, CPU: 20}, {Row: "a", Peer: "ours", Round: 1, CPU: 10},
		{Row: "a", Peer: "ours", Round: 2, CPU: 10},
		{Row: "a", Peer: "nginx", Round: 3, CPU: 10}, {Row: "a", Peer: "ours", Round: 3, CPU: 10},
		{Row: "b", Peer: "nginx", Round: 2, CPU: 1},
	}
	got := summarise(ratios(samples, "a", "ours", "nginx", func(s sample) float64 { return s.CPU }))
	if want := (summary{0.75, 0.5, 1}); got != want {
		t.Errorf("ratios: %v, want %v", got, want)
	}
}

func TestParseHead(t *testing.T) {
	whole := "HTTP/1.1 200 OK\r\nServer: x\r\ncontent-length: 12\r\nCONNECTION:  Close \r\n\r\n"
	for i := range len(whole) {
		if h, err := parseHead([]byte(whole[:i])); h.size != 0 || err != nil {
			t.Errorf("the first %d bytes: %+v, %v, want more to be needed", i, h, err)
		}
	}
	h, err := parseHead([]byte(whole + "content"))
	if want := (head{size: len(whole), status: 200, length: 12, close: true}); h != want || err != nil {
		t.Errorf("got %+v, %v, want %+v", h, err, want)
	}
	for _, bad := range []string{"HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\n", "HTTP/1.1 xyz\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"} {
		if h, err := parseHead([]byte(bad)); err == nil {
			t.Errorf("%q: %+v, want an error", bad, h)
		}
	}
}

func TestFrames(t *testing.T) {
	for _, size := range []int{0, 1, 125, 126, 4000, 65535} {
		payload := bytes.Repeat([]byte("abc"), size)[:size]
		got, err := readMasked(bytes.NewReader(maskedFrame(payload)), make([]byte, 1<<16))
		if err != nil || !bytes.Equal(got, payload) {
			t.Errorf("%d bytes came back as %d: %v", size, len(got), err)
		}
	}
	// RFC 6455 section 1.3
	if got, want := acceptKey("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="; got != want {
		t.Errorf("accept key %q, want %q", got, want)
	}
}

func TestReadProc(t *testing.T) {
	ticks, err := statTicks([]byte("12 (a) b (c) S 1 12 12 0 -1 4194560 100 0 0 0 250 31 5 6 20 0 1 0 100 1000 100"))
	if ticks != 281 || err != nil {
		t.Errorf("utime + stime = %d, %v, want 281", ticks, err)
	}
	if _, err := statTicks([]byte("nothing")); err == nil {
		t.Error("no error of what is no stat")
	}
	stat := "cpu  10 0 10 80 0 0 0 0 0 0\ncpu0 1 2 3 40 5 6 7 8 9 10\ncpu1 5 0 5 40 0 0 0 0 0 0\n"
	if got := busyOf(stat, "0"); got != 270*time.Millisecond {
		t.Errorf("core 0 was busy for %v, want 270ms", got)
	}
	if got := statusKiB([]byte("Name:\tx\nVmRSS:\t  1234 kB\n"), "VmRSS"); got != 1234 {
		t.Errorf("VmRSS %d, want 1234", got)
	}
}

func TestSumOf(t *testing.T) {
	text := "# HELP x_total of x\nx_total{a=\"} 7\"} 3\nx_total{a=\"2\"} 4e2\nx_total_other 5\ny 1\n"
	if got := sumOf(text, "x_total"); got != 403 {
		t.Errorf("sum %v, want 403", got)
	}
}

func TestParseH2load(t *testing.T) {
	out := `TLS Protocol: TLSv1.3
Application protocol: h2
requests: 1010 total, 1010 started, 1000 done, 1000 succeeded, 0 failed, 0 errored, 0 timeout
status codes: 1000 2xx, 0 3xx, 0 4xx, 0 5xx
traffic: 250.00KB (250000) total, 100.00KB (100000) headers (space savings 50.00%), 116.21KB (119000) data
`
	l := load{Connections: 2}
	from, to := time.UnixMicro(1000000), time.UnixMicro(3000000)
	// The first ends before from, the last after to.
	log := "998000\t200\t1000\n1000000\t200\t1500\n1700001\t200\t500\t1\n2999999\t200\t2\n"
	r, err := parseH2load(out, strings.NewReader(log), l, 1, 119, from, to)
	want := loadResult{Requests: 2, Total: 1000, Seconds: 2, P50: 0.5, P99: 1.5, P999: 1.5, Max: 1.5}
	if diff := cmp.Diff(want, r); diff != "" || err != nil {
		t.Errorf("error %v, result (-want +got):\n%s", err, diff)
	}
	for name, change := range map[string]*strings.Replacer{
		"a status of 502":     strings.NewReplacer("1000 2xx, 0 3xx, 0 4xx, 0 5xx", "999 2xx, 0 3xx, 0 4xx, 1 5xx"),
		"a broken connection": strings.NewReplacer("0 errored", "3 errored"),
		"a short response":    strings.NewReplacer("(119000) data", "(118000) data"),
	} {
		if r, err := parseH2load(change.Replace(out), strings.NewReader(""), l, 1, 119, from, to); err != nil || r.Errors == 0 {
			t.Errorf("%s: %+v, %v, want errors to be counted", name, r, err)
		}
	}
	for name, change := range map[string]*strings.Replacer{
		"TLS 1.2":       strings.NewReplacer("TLSv1.3", "TLSv1.2"),
		"HTTP/1.1":      strings.NewReplacer("protocol: h2", "protocol: http/1.1"),
		"no statistics": strings.NewReplacer("traffic:", ""),
	} {
		if _, err := parseH2load(change.Replace(out), strings.NewReader(""), l, 1, 119, from, to); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestMatch(t *testing.T) {
	self := func(s string) string { return s }
	all := []string{"nginx", "haproxy", "nginx-log"}
	got, err := match(all, self, "nginx-log,ngin?")
	if diff := cmp.Diff([]string{"nginx", "nginx-log"}, got); diff != "" || err != nil {
		t.Errorf("error %v, chosen (-want +got):\n%s", err, diff)
	}
	if _, err := match(all, self, "nginx,apache"); err == nil || !strings.Contains(err.Error(), `"apache"`) {
		t.Errorf("error %v, want one that names apache", err)
	}
	seen := make(map[string]bool)
	for _, r := range rows() {
		if seen[r.name] {
			t.Errorf("two rows are called %s", r.name)
		}
		seen[r.name] = true
	}
}

func TestCoreCount(t *testing.T) {
	for list, want := range map[string]int{"0": 1, "0-0": 1, "0-3": 4, "1,3,5-6": 4} {
		if got := coreCount(list); got != want {
			t.Errorf("%s names %d cores, want %d", list, got, want)
		}
	}
}

// serve starts an HTTP server that answers with handler and returns its address.
func serve(t *testing.T, handler http.HandlerFunc) string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: handler}
	go server.Serve(listener)
	t.Cleanup(func() { server.Close() })
	return listener.Addr().String()
}

// generate runs the generator in this process and returns what it says.
func generate(t *testing.T, l load) loadResult {
	t.Helper()
	l.BodyFile = filepath.Join(t.TempDir(), "body")
	if err := os.WriteFile(l.BodyFile, []byte("right"), 0o600); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := runLoad(l, &out); err != nil {
		t.Fatal(err)
	}
	var r loadResult
	if err := json.Unmarshal([]byte(strings.TrimPrefix(out.String(), "begin\nend\n")), &r); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestGeneratorCountsEachRequestOnce(t *testing.T) {
	for name, l := range map[string]load{
		"closed": {Connections: 3, Threads: 2},
		"open":   {Connections: 3, Threads: 1, Rate: 2000},
	} {
		t.Run(name, func(t *testing.T) {
			var served atomic.Int64
			l.Address = serve(t, func(w http.ResponseWriter, _ *http.Request) {
				served.Add(1)
				io.WriteString(w, "right")
			})
			l.Path, l.Warm, l.Time = "/", 50*time.Millisecond, 200*time.Millisecond
			r := generate(t, l)
			if r.Total == 0 || int64(r.Total) != served.Load() || r.Errors+r.Unanswered > 0 || r.Compared != r.Total {
				t.Errorf("%d served, result %+v", served.Load(), r)
			}
			if r.Requests > r.Total || r.P50 <= 0 || r.P50 > r.P999 {
				t.Errorf("result %+v", r)
			}
		})
	}
}

// What is wrong must be seen: a status, a length, a byte, a connection that is closed.
func TestGeneratorChecksResponses(t *testing.T) {
	for name, c := range map[string]struct {
		handler http.HandlerFunc
		want    string
	}{
		"status":     {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(502); io.WriteString(w, "right") }, "status 502"},
		"length":     {func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "wrong!") }, "Content-Length 6, want 5"},
		"content":    {func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "wrong") }, "wrong content"},
		"connection": {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "read: the connection was closed"},
	} {
		t.Run(name, func(t *testing.T) {
			address := serve(t, c.handler)
			r := generate(t, load{Address: address, Path: "/", Connections: 1, Threads: 1, Rate: 100, Time: 100 * time.Millisecond})
			if r.Errors == 0 || r.Requests != 0 || r.FirstError != c.want {
				t.Errorf("result %+v, want %q", r, c.want)
			}
		})
	}
}

// With a rate, a stall of the server is in the latency of every request that was due meanwhile, not only of the one that it held.
func TestGeneratorHasNoCoordinatedOmission(t *testing.T) {
	var served atomic.Int64
	address := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		if served.Add(1) == 20 {
			<-time.After(200 * time.Millisecond)
		}
		io.WriteString(w, "right")
	})
	r := generate(t, load{Address: address, Path: "/", Connections: 1, Threads: 1, Rate: 500, Time: 500 * time.Millisecond})
	// About 100 of 250 requests are due in the stall.
	if r.Errors+r.Unanswered > 0 || r.P99 < 100 {
		t.Errorf("result %+v, want a p99 of at least half the stall", r)
	}
}

func TestGeneratorEchoes(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				echo(conn)
			}()
		}
	}()
	for _, size := range []int{125, 2000} {
		r := generate(t, load{Address: listener.Addr().String(), Path: "/echo", Echo: size, Connections: 2, Threads: 1, Time: 100 * time.Millisecond})
		if r.Requests == 0 || r.Errors+r.Unanswered > 0 || r.Compared != r.Total {
			t.Errorf("messages of %d bytes: %+v", size, r)
		}
	}
}

func TestTable(t *testing.T) {
	r := row{name: "a", path: "/1KiB", connections: 2}
	samples := []sample{
		{Row: "a", Peer: "nginx", Round: 1, CPU: 20, Rate: 1000, Busy: 1, Allocs: -1, Resident: 3 << 20},
		{Row: "a", Peer: "haproxy", Round: 1, CPU: 10, Rate: 1000, Busy: 1, Allocs: -1, Resident: 3 << 20},
		{Row: "a", Peer: "mainstay", Round: 1, CPU: 15, Rate: 1250, Busy: 0.9, Allocs: 0, Resident: 10 << 20, loadResult: loadResult{P50: 1, P99: 2, P999: 3}},
	}
	var out strings.Builder
	printTable(&out, cells(samples, r, []peer{{name: "nginx", base: "nginx"}, {name: "haproxy", base: "nginx"}, {name: "mainstay", base: "nginx"}}))
	want := `proxy          CPU µs/request          to nginx        to haproxy        requests/s   core  p50 ms            p99 ms  p99.9 ms  MiB  allocs  errors
nginx     20.00 (20.00–20.00)  1.00 (1.00–1.00)  2.00 (2.00–2.00)  1000 (1000–1000)  100 %    0.00  0.00 (0.00–0.00)      0.00    3       –       0
haproxy   10.00 (10.00–10.00)  0.50 (0.50–0.50)  1.00 (1.00–1.00)  1000 (1000–1000)  100 %    0.00  0.00 (0.00–0.00)      0.00    3       –       0
mainstay  15.00 (15.00–15.00)  0.75 (0.75–0.75)  1.50 (1.50–1.50)  1250 (1250–1250)   90 %    1.00  2.00 (2.00–2.00)      3.00   10    0.00       0
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("table (-want +got):\n%s", diff)
	}
}

// A child ends with stop, and what it used is seen.
func TestProcess(t *testing.T) {
	p, err := launcher{}.start("sh", t.TempDir(), "0", nil, "sh", "-c", "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; sleep 100 & wait")
	if err != nil {
		t.Fatal(err)
	}
	defer p.stop()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := p.until(ctx, func() error {
		if len(p.pids()) < 2 {
			return io.EOF
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	used, err := p.cpu()
	if err != nil || used.exact <= 0 || p.resident() <= 0 {
		t.Errorf("used %+v, resident %d: %v", used, p.resident(), err)
	}
	if math.Abs((used.exact - used.ticks).Seconds()) > 0.05 {
		t.Errorf("the scheduler has counted %v and utime + stime are %v", used.exact, used.ticks)
	}
}
