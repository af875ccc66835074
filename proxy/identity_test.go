package proxy

import (
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"mainstay/proxy/http1"
	"mainstay/topology"
)

func TestIdentity(t *testing.T) {
	spoofed := func() http.Header {
		return http.Header{
			"X-Forwarded-For":    {"9.9.9.9", "10.0.0.2"},
			"X_forwarded_for":    {"8.8.8.8"},
			"X-Forwarded_host":   {"evil"},
			"X-Forwarded-Host":   {"outer.example"},
			"X-Forwarded-Proto":  {"https"},
			"X-Forwarded-Prefix": {"/outer"},
			"Forwarded":          {"for=9.9.9.9"},
			"X-Real-Ip":          {"9.9.9.9"},
			"X-Request-Id":       {"theirs"},
			"X_real_ip":          {"8.8.8.8"},
			"Transfer_encoding":  {"chunked"},
			"Content_length":     {"5"},
			"Via":                {"1.0 them"},
			"X-Else":             {"1"},
			"X_else":             {"2"},
		}
	}
	peer := netip.MustParseAddr("10.0.0.1")
	d := identity{peer: peer, node: "10.0.0.1", client: "10.0.0.1", host: "a.example:81", port: "8080", id: "ours", version: "1.1", proxy: "us"}
	h := spoofed()
	d.write(h)
	want := http.Header{
		"X-Forwarded-For":   {"10.0.0.1"},
		"X-Forwarded-Host":  {"a.example:81"},
		"X-Forwarded-Proto": {"http"},
		"X-Forwarded-Port":  {"8080"},
		"Forwarded":         {`for=10.0.0.1;proto=http;host="a.example:81"`},
		"X-Real-Ip":         {"10.0.0.1"},
		"Via":               {"1.0 them, 1.1 us"},
		"X-Request-Id":      {"ours"},
		"X-Else":            {"1"},
		"X_else":            {"2"},
	}
	if d := cmp.Diff(want, h); d != "" {
		t.Errorf("untrusted: %s", d)
	}

	d.trusted, d.client, d.peer, d.node = true, "9.9.9.9", netip.MustParseAddr("fd00::1"), "fd00::1"
	d.prefix = "/ours"
	h = spoofed()
	d.write(h)
	want = http.Header{
		"X-Forwarded-For":    {"9.9.9.9, 10.0.0.2, fd00::1"},
		"X-Forwarded-Host":   {"outer.example"},
		"X-Forwarded-Proto":  {"https"},
		"X-Forwarded-Port":   {"8080"},
		"X-Forwarded-Prefix": {"/outer"},
		"Forwarded":          {`for=9.9.9.9, for="[fd00::1]";proto=http;host="a.example:81"`},
		"X-Real-Ip":          {"9.9.9.9"},
		"Via":                {"1.0 them, 1.1 us"},
		"X-Request-Id":       {"ours"},
		"X-Else":             {"1"},
		"X_else":             {"2"},
	}
	if d := cmp.Diff(want, h); d != "" {
		t.Errorf("trusted: %s", d)
	}
}

func trustsTens(a netip.Addr) bool { return netip.MustParsePrefix("10.0.0.0/8").Contains(a) }

func TestClientAddress(t *testing.T) {
	peer := netip.MustParseAddr("10.0.0.1")
	for _, c := range []struct {
		lines []string
		want  string
	}{
		{nil, "10.0.0.1"},
		{[]string{"1.1.1.1"}, "1.1.1.1"},
		{[]string{"6.6.6.6, 1.1.1.1, 10.0.0.9"}, "1.1.1.1"},
		{[]string{"6.6.6.6", "1.1.1.1", "10.0.0.9,10.0.0.8"}, "1.1.1.1"},
		{[]string{"10.0.0.3, 10.0.0.2"}, "10.0.0.3"},
		{[]string{"1.1.1.1:443"}, "1.1.1.1"},
		{[]string{"[2001:db8::1]:443"}, "2001:db8::1"},
		{[]string{"[2001:db8::1]"}, "2001:db8::1"},
		{[]string{"2001:db8::1"}, "2001:db8::1"},
		{[]string{"::ffff:1.2.3.4"}, "1.2.3.4"},
		{[]string{"1.1.1.1, unknown"}, "10.0.0.1"},
		{[]string{"1.1.1.1, unknown, 10.0.0.7"}, "10.0.0.7"},
		{[]string{""}, "10.0.0.1"},
		{[]string{","}, "10.0.0.1"},
	} {
		if got := clientAddress(c.lines, peer, trustsTens); got.String() != c.want {
			t.Errorf("%q names %s, want %s", c.lines, got, c.want)
		}
	}
}

func FuzzClientAddress(f *testing.F) {
	for _, s := range []string{"", "1.1.1.1", "1.1.1.1, 10.0.0.1", "[::1]:80", "unknown", ",,", "fe80::1%eth0", "[[1.1.1.1]"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		peer := netip.MustParseAddr("10.0.0.1")
		got := clientAddress([]string{line}, peer, trustsTens)
		if !got.IsValid() || got.Is4In6() || got.Zone() != "" {
			t.Errorf("%q names %v", line, got)
		}
		if appended := clientAddress([]string{line, "10.0.0.5"}, peer, trustsTens); appended != got && got != peer {
			t.Errorf("%q names %v, behind one more trusted proxy %v", line, got, appended)
		}
		if behind := clientAddress([]string{line, "4.4.4.4"}, peer, trustsTens); behind.String() != "4.4.4.4" {
			t.Errorf("%q before an untrusted address names %v", line, behind)
		}
	})
}

func TestRequestID(t *testing.T) {
	for id, want := range map[string]bool{
		"": false, "a": true, "a-b_c.d~1": true, "a b": false, "a\n": false, "é": false, `a"b`: false,
		strings.Repeat("x", 128): true, strings.Repeat("x", 129): false,
	} {
		if isRequestID(id) != want {
			t.Errorf("%q taken: %t", id, !want)
		}
	}
}

func TestIDs(t *testing.T) {
	ids, seen := newIDSource(), map[string]bool{}
	letters := map[rune]int{}
	for range 10000 {
		id := string(ids.appendID(nil))
		if len(id) != idLength || !isRequestID(id) || seen[id] {
			t.Fatalf("made %q", id)
		}
		seen[id] = true
		for _, c := range id {
			letters[c]++
		}
	}
	for c, n := range letters {
		if n < 7500 || n > 8750 { // 8125 on the average, with a deviation of 89
			t.Errorf("%c was there %d times", c, n)
		}
	}
	if other := newIDSource(); seen[string(other.appendID(nil))] || len(letters) != 32 {
		t.Errorf("%d letters, or another source makes the same", len(letters))
	}
}

// What an instance is told costs no memory beside the message itself.
func TestIdentityAllocatesNothing(t *testing.T) {
	peer := netip.MustParseAddr("10.0.0.1")
	e := newEdits(topology.HeaderEdits{Set: map[string]string{"X-Shop": "main"}, Remove: []string{"X-Forwarded-Port"}})
	ids := newIDSource()
	b, id := make([]byte, 0, 4096), make([]byte, 0, idLength)
	var have forwarding
	fields := [...]string{"Accept", "Cookie", "X-Else", "X-Forwarded-For", "Via", "x-custom-thing", "Connection"}
	for _, trusted := range []bool{false, true} {
		if n := testing.AllocsPerRun(100, func() {
			d := identity{peer: peer, node: "10.0.0.1", client: "10.0.0.1", trusted: trusted, host: "a.example", port: "80", version: "1.1", proxy: "us"}
			b, id = b[:0], ids.appendID(id[:0])
			have.reset()
			for _, f := range fields {
				n := http1.LookupName([]byte(f))
				have.note(&d, n, "x")
				if passes(n, f, false) && !d.replaces(n, f) && !e.overrides(f) {
					b = append(b, f...)
				}
			}
			b = e.appendLines(d.appendFields(b, &have, &e))
		}); n != 0 {
			t.Errorf("%v allocations, trusted %t", n, trusted)
		}
	}
	if got := string(b); strings.Contains(got, "Port") || !strings.HasSuffix(got, "X-Shop: main\r\n") {
		t.Errorf("edited: %s", got)
	}
}

func BenchmarkIdentity(b *testing.B) {
	peer := netip.MustParseAddr("10.0.0.1")
	d := identity{peer: peer, node: "10.0.0.1", client: "10.0.0.1", host: "a.example", port: "80", version: "1.1", proxy: "mainstay-abcdefgh"}
	ids := newIDSource()
	p, id := make([]byte, 0, 4096), make([]byte, 0, idLength)
	var have forwarding
	var e edits
	b.ReportAllocs()
	for b.Loop() {
		id = ids.appendID(id[:0])
		d.appendFields(p[:0], &have, &e)
	}
}

// write puts the identity's fields into a header.
func (d *identity) write(h fields) {
	var have forwarding
	for name, lines := range h {
		n := nameOf(name)
		for _, line := range lines {
			have.note(d, n, line)
		}
		if d.replaces(n, name) {
			delete(h, name)
		}
	}
	own := string(d.appendFields(nil, &have, &edits{}))
	for line := range strings.SplitSeq(strings.TrimSuffix(own, "\r\n"), "\r\n") {
		name, value, _ := strings.Cut(line, ": ")
		h[name] = []string{value}
	}
}
