package proxy

import (
	"io"
	"net"
	"net/http"
	"testing"

	"mainstay/topology"
)

// TestInstanceHasAName admits instances that are known by a name, and one whose name nobody knows.
func TestInstanceHasAName(t *testing.T) {
	r := newRig(t)
	known := r.instance("elsewhere", "elsewhere/1", func(w http.ResponseWriter, req *http.Request) { io.WriteString(w, req.URL.Path) })
	_, port, err := net.SplitHostPort(known.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	r.Admit(topology.Instance{Service: "web", ID: "web/1", Address: "localhost:" + port, Weight: 1})
	for range 3 {
		if res, body := r.do("GET", "/known", nil); res.StatusCode != 200 || body != "/known" {
			t.Errorf("an instance with a name: %d %q", res.StatusCode, body)
		}
	}
	r.drop("web", "web/1")
	r.Admit(topology.Instance{Service: "web", ID: "web/2", Address: "nobody.invalid:80", Weight: 1})
	if res, _ := r.do("GET", "/unknown", nil); res.StatusCode != 502 {
		t.Errorf("an instance with an unknown name: %d", res.StatusCode)
	}
}
