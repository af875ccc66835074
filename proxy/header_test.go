package proxy

import (
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestRemoveHopByHop(t *testing.T) {
	h := http.Header{
		"Connection":        {"close, X-Hop", "x-other,X-Forwarded-For , Authorization"},
		"X-Hop":             {"1"},
		"X-Other":           {"1"},
		"X-Forwarded-For":   {"10.0.0.1"},
		"Authorization":     {"Basic x"},
		"Keep-Alive":        {"5"},
		"Proxy-Connection":  {"keep-alive"},
		"Te":                {"gzip"},
		"Trailer":           {"X"},
		"Upgrade":           {"h2c"},
		"Http2-Settings":    {"AAMAAABk"},
		"Transfer-Encoding": {"chunked"},
		"X-Stays":           {"1"},
	}
	removeHopByHop(h)
	want := http.Header{"X-Forwarded-For": {"10.0.0.1"}, "Authorization": {"Basic x"}, "X-Stays": {"1"}}
	if d := cmp.Diff(want, h); d != "" {
		t.Error(d)
	}
}

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
			"X-Else":             {"1"},
			"X_else":             {"2"},
		}
	}
	peer := netip.MustParseAddr("10.0.0.1")
	d := identity{peer: peer, client: peer, host: "a.example:81", port: "8080", id: "ours"}
	h := spoofed()
	d.write(h)
	want := http.Header{
		"X-Forwarded-For":   {"10.0.0.1"},
		"X-Forwarded-Host":  {"a.example:81"},
		"X-Forwarded-Proto": {"http"},
		"X-Forwarded-Port":  {"8080"},
		"Forwarded":         {`for=10.0.0.1;proto=http;host="a.example:81"`},
		"X-Real-Ip":         {"10.0.0.1"},
		"X-Request-Id":      {"ours"},
		"X-Else":            {"1"},
		"X_else":            {"2"},
	}
	if d := cmp.Diff(want, h); d != "" {
		t.Errorf("untrusted: %s", d)
	}

	d.trusted, d.client, d.peer = true, netip.MustParseAddr("9.9.9.9"), netip.MustParseAddr("fd00::1")
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
