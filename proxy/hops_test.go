package proxy

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"mainstay/topology"
)

func TestCountHop(t *testing.T) {
	for _, c := range []struct {
		lines string // separated by |
		next  string
		last  bool
		fails bool
	}{
		{lines: "", fails: true},
		{lines: "0", last: true},
		{lines: "000", last: true},
		{lines: "1", next: "0"},
		{lines: "007", next: "6"},
		{lines: "10", next: "9"},
		{lines: "2147483649", next: "2147483647"},
		{lines: "99999999999999999999999", next: "2147483647"},
		{lines: "-1", fails: true},
		{lines: "+1", fails: true},
		{lines: "1, 2", fails: true},
		{lines: "0x1", fails: true},
		{lines: "0|0", fails: true},
	} {
		next, last, err := countHop(strings.Split(c.lines, "|"))
		if next != c.next || last != c.last || (err != nil) != c.fails {
			t.Errorf("%q: %q, %v, %v", c.lines, next, last, err)
		}
	}
	if next, last, err := countHop(nil); next != "" || last || err != nil {
		t.Errorf("none: %q, %v, %v", next, last, err)
	}
}

// TestMaxForwards holds that a client that asks the proxy with OPTIONS gets its answer, and an instance behind it one hop less.
func TestMaxForwards(t *testing.T) {
	r := newLimitedRig(t, topology.ClientLimits{})
	r.drop("web", "web/1")
	r.instance("web", "web/2", func(w http.ResponseWriter, req *http.Request) {
		io.WriteString(w, strings.Join(req.Header["Max-Forwards"], "|"))
	})
	for _, c := range []struct{ method, hops, status, content string }{
		{"OPTIONS", "0", "200 OK", ""},
		{"OPTIONS", "1", "200 OK", "0"},
		{"OPTIONS", "99", "200 OK", "98"},
		{"OPTIONS", "many", "400 Bad Request", ""},
		{"GET", "0", "200 OK", "0"},
		{"GET", "many", "200 OK", "many"},
	} {
		res, content := r.do(c.method, "/", nil, "Max-Forwards", c.hops)
		if res.Status != c.status || res.StatusCode == 200 && content != c.content {
			t.Errorf("%s with %s: %s, %q", c.method, c.hops, res.Status, content)
		}
		if here := res.Header.Get("Allow"); (here != "") != (c.method == "OPTIONS" && c.hops == "0") {
			t.Errorf("%s with %s: Allow is %q", c.method, c.hops, here)
		}
	}
	if first := r.log(6)[0]; first.Reason != reasonLastHop || first.Status != 200 || first.Attempts != 0 {
		t.Errorf("the log has %+v", first)
	}
}

// TestTE holds that an instance that is told of trailers is told that this is for the next hop only (RFC 9110, section 10.1.4).
func TestTE(t *testing.T) {
	r := newLimitedRig(t, topology.ClientLimits{})
	r.drop("web", "web/1")
	r.instance("web", "web/2", func(w http.ResponseWriter, req *http.Request) {
		io.WriteString(w, req.Header.Get("TE")+"/"+req.Header.Get("Connection"))
	})
	if _, got := r.do("GET", "/", nil, "TE", "trailers, deflate", "Connection", "TE"); got != "trailers/TE" {
		t.Errorf("the instance got %q", got)
	}
	route := route0("web")
	route.RequestHeaders.Remove = []string{"TE"}
	r.topology.Proxy.Routes = []topology.Route{route}
	r.apply()
	if _, got := r.do("GET", "/", nil, "TE", "trailers", "Connection", "TE"); got != "/" {
		t.Errorf("where TE is removed the instance got %q", got)
	}
}
