package proxy

import (
	"fmt"
	"math/rand/v2"
	"net/url"
	"path"
	"strings"
	"testing"

	"mainstay/topology"
)

func testTable(t testing.TB, routes ...topology.Route) *table {
	t.Helper()
	table, err := newTable(applied{proxy: topology.Proxy{Routes: routes}}, func(string) *pool { return nil }, nil)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func TestTableMatch(t *testing.T) {
	table := testTable(t,
		topology.Route{Host: "a.example.com", PathPrefix: "/api/v1", Service: "v1"},
		topology.Route{Host: "*.example.com", PathPrefix: "/api", Service: "wild-api"},
		topology.Route{Host: "a.example.com", PathPrefix: "/api/", Service: "never"},
		topology.Route{Host: "a.example.com", PathPrefix: "/", Service: "a"},
		topology.Route{PathPrefix: "/caf%C3%A9", Service: "café"},
		topology.Route{PathPrefix: "/any/", Service: "any"},
		topology.Route{Host: "late.example.com", PathPrefix: "/any", Service: "never"},
		topology.Route{Host: "*.example.com", PathPrefix: "/", Service: "wild"},
		topology.Route{Host: "x.org", PathPrefix: "/", Service: "x"},
		topology.Route{Host: "[::1]", PathPrefix: "/", Service: "six"},
	)
	for _, c := range []struct{ host, path, want string }{
		{"a.example.com", "/api/v1", "v1"},
		{"A.Example.COM.:8443", "/api/v1/x", "v1"},
		{"a.example.com", "/api/v12", "wild-api"},
		{"a.example.com", "/api", "wild-api"},
		{"a.example.com", "/apix", "a"},
		{"a.example.com", "/x/../api/v1/", "v1"},
		{"a.example.com", "/x/%2e%2E/api//v1", "v1"},
		{"a.example.com", "/api%2Fv1", "a"},
		{"a.example.com", "/%61pi/v1", "v1"},
		{"b.example.com", "/", "wild"},
		{"b.c.example.com", "/", ""},
		{"example.com", "/", ""},
		{"late.example.com", "/any/thing", "any"},
		{"other", "/any", "any"},
		{"other", "/anything", ""},
		{"other", "/café/x", "café"},
		{"", "/any", "any"},
		{"x.org", "/", "x"},
		{"[::1]:80", "/", "six"},
	} {
		host, err := normaliseHost(c.host)
		if err != nil {
			t.Fatal(err)
		}
		p, err := normalisePath(c.path)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		if r := table.match(host, p); r != nil {
			got = r.Service
		}
		if got != c.want {
			t.Errorf("%s%s goes to %q, want %q", c.host, c.path, got, c.want)
		}
	}
}

// TestTableMatchAsScan compares the index with reading the routes from top to bottom.
func TestTableMatchAsScan(t *testing.T) {
	hosts := []string{"", "a.b.c", "*.b.c", "b.c", "*.c", "x.c", "d"}
	prefixes := []string{"/", "/a", "/a/b", "/a/b/c", "/ab", "/b/"}
	paths := []string{"/", "/a", "/a/", "/a/b", "/a/bc", "/a/b/c/d", "/ab/c", "/b", "/b/b", "/c"}
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		var routes []topology.Route
		for i := range rnd.IntN(12) {
			routes = append(routes, topology.Route{
				Host: hosts[rnd.IntN(len(hosts))], PathPrefix: prefixes[rnd.IntN(len(prefixes))], Service: fmt.Sprint(i),
			})
		}
		table := testTable(t, routes...)
		for _, host := range []string{"", "a.b.c", "z.b.c", "b.c", "x.c", "c", "d"} {
			for _, p := range paths {
				want, got := "", ""
				for _, r := range routes {
					prefix := strings.TrimSuffix(r.PathPrefix, "/")
					_, rest, _ := strings.Cut(host, ".")
					fits := r.Host == "" || r.Host == host || r.Host == "*."+rest && rest != ""
					if fits && (p == prefix || strings.HasPrefix(p, prefix+"/")) {
						want = r.Service
						break
					}
				}
				if r := table.match(host, p); r != nil {
					got = r.Service
				}
				if got != want {
					t.Fatalf("%s%s goes to %q, want %q of %v", host, p, got, want, routes)
				}
			}
		}
	}
}

func TestTableRefuses(t *testing.T) {
	for _, p := range []topology.Proxy{
		{Routes: []topology.Route{{PathPrefix: "/%zz"}}},
		{Routes: []topology.Route{{PathPrefix: "/", StripPrefix: "x"}}},
		{TrustedProxies: []string{"10.0.0.0"}},
	} {
		if _, err := newTable(applied{proxy: p}, func(string) *pool { return nil }, nil); err == nil {
			t.Errorf("%+v was taken", p)
		}
	}
}

func TestTableKeepsCounters(t *testing.T) {
	routes := []topology.Route{{Host: "a", PathPrefix: "/", Service: "a"}, {PathPrefix: "/", Service: "b"}}
	first := testTable(t, routes...)
	first.routes[0].requests.Add(3)
	first.routes[1].requests.Add(4)
	routes[0].StripPrefix, routes[1].Service = "/x", "c"
	second, err := newTable(applied{proxy: topology.Proxy{Routes: routes}}, func(string) *pool { return nil }, first)
	if err != nil {
		t.Fatal(err)
	}
	if a, c := second.routes[0].requests.Load(), second.routes[1].requests.Load(); a != 3 || c != 0 {
		t.Errorf("counters are %d and %d, want 3 and 0", a, c)
	}
}

func TestNormalisePath(t *testing.T) {
	for raw, want := range map[string]string{
		"/":                "/",
		"/a/b":             "/a/b",
		"/a/b/":            "/a/b/",
		"//a///b//":        "/a/b/",
		"/a/./b/.":         "/a/b/",
		"/a/b/..":          "/a/",
		"/a/%2e%2E/b":      "/b",
		"/.well-known/x":   "/.well-known/x",
		"/a/...":           "/a/...",
		"/%7euser":         "/~user",
		"/a%2fb%2F%5c":     `/a%2Fb%2F\`,
		"/a%252fb":         "/a%252fb",
		"/a;b=c/@:!$&'()*": "/a;b=c/@:!$&'()*",
	} {
		if got, err := normalisePath(raw); err != nil || got != want {
			t.Errorf("%s becomes %q, %v; want %q", raw, got, err, want)
		}
	}
	for _, raw := range []string{"", "a", "*", "/a b", "/a\x00", "/a\x7f", "/a\n", "/%", "/%2", "/%2g", "/%00", "/..", "/a/../..", "/a/%2e./../b", "/a#b"} {
		if got, err := normalisePath(raw); err == nil {
			t.Errorf("%q was taken as %q", raw, got)
		}
	}
}

func TestSplitTargetRefuses(t *testing.T) {
	for _, target := range []string{"/?a#b", "/#", "http://a/?#", "/?a b", "/?\x7f", "/?a\tb", "*", "a:80", "http://u@a/"} {
		if path, query, err := splitTarget(target); err == nil {
			t.Errorf("%s is the path %s and the query %s", target, path, query)
		}
	}
}

func TestStripPath(t *testing.T) {
	for _, c := range []struct{ raw, prefix, want string }{
		{"/shop/a%2Fb//c", "/shop", "/a%2Fb//c"},
		{"/shop", "/shop", "/"},
		{"/shop/", "/shop", "/"},
		{"/shopping", "/shop", "/shopping"},
		{"/%73hop/a%20b", "/shop", "/a%20b"},
		{"/x/../shop/é", "/shop", "/%C3%A9"},
		{"/shop/../admin", "/shop", "/shop/../admin"},
		{"/shop/../shop/x", "/shop", "/x"},
		{"/a/b/c", "", "/a/b/c"},
	} {
		normal, err := normalisePath(c.raw)
		if err != nil {
			t.Fatal(err)
		}
		if got := stripPath(c.raw, normal, c.prefix); got != c.want {
			t.Errorf("%s without %s is %s, want %s", c.raw, c.prefix, got, c.want)
		}
	}
}

func FuzzNormalisePath(f *testing.F) {
	for _, s := range []string{"/", "/a/../b", "//", "/%2e%2e/", "/a%2Fb", "/%25", "/shop/x", "/shop/../shop", "/a/./", "/\\"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		normal, err := normalisePath(raw)
		if err != nil {
			return
		}
		if decoded, err := url.PathUnescape(raw); err != nil || !strings.HasPrefix(raw, "/") || strings.Contains(decoded, "\x00") {
			t.Fatalf("%q was taken", raw)
		}
		if c := path.Clean(normal); c != normal && c+"/" != normal {
			t.Errorf("%q becomes %q, which is not normal", raw, normal)
		}
		again, err := normalisePath(encodePath(normal))
		if err != nil || again != normal {
			t.Errorf("%q becomes %q and that %q, %v", raw, normal, again, err)
		}
		stripped := stripPath(raw, normal, "/shop")
		rest, ok := cutSegments(normal, "/shop")
		if !ok {
			if stripped != raw {
				t.Errorf("%q lost a prefix that it has not: %q", raw, stripped)
			}
		} else if n, err := normalisePath(stripped); err != nil || n != rest {
			t.Errorf("%q stripped is %q, which is %q, %v, not %q", raw, stripped, n, err, rest)
		}
	})
}

func FuzzNormaliseHost(f *testing.F) {
	for _, s := range []string{"", "a.b", "A.b.:80", "[::1]:8", "[::1", "a:b", "a@b", "a..b", "."} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, authority string) {
		host, err := normaliseHost(authority)
		if err != nil {
			return
		}
		if again, err := normaliseHost(host); err != nil || again != host {
			t.Errorf("%q becomes %q and that %q, %v", authority, host, again, err)
		}
		if strings.ContainsAny(host, "/@\\ \"") || strings.HasPrefix(host, ".") {
			t.Errorf("%q becomes %q", authority, host)
		}
	})
}

func BenchmarkTableMatch(b *testing.B) {
	var routes []topology.Route
	for i := range 1000 {
		routes = append(routes, topology.Route{Host: fmt.Sprintf("h%d.example.com", i%100), PathPrefix: fmt.Sprintf("/p%d", i), Service: "s"})
	}
	table := testTable(b, routes...)
	b.ReportAllocs()
	for b.Loop() {
		if table.match("h99.example.com", "/p999/a/b/c") == nil {
			b.Fatal("no match")
		}
	}
}
