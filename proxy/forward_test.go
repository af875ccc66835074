package proxy

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestForwardContent(t *testing.T) {
	r := newRig(t)
	r.instance("web", "web/1", func(w http.ResponseWriter, req *http.Request) {
		b, err := io.ReadAll(req.Body)
		if err != nil {
			t.Error(err)
		}
		w.Header().Set("X-Method", req.Method)
		w.Header().Set("X-Length", http.StatusText(int(req.ContentLength)))
		w.Header().Set("X-Encoding", strings.Join(req.TransferEncoding, ","))
		w.Write(b)
	})
	for _, size := range []int{0, 1, 4096, 70_000, 1 << 20} {
		for _, chunked := range []bool{false, true} {
			for _, method := range []string{"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"} {
				want := strings.Repeat("x", size)
				var body io.Reader = strings.NewReader(want)
				if chunked {
					body = io.MultiReader(body) // hides the length
				}
				res, got := r.do(method, "/", body)
				if res.StatusCode != 200 || res.Header.Get("X-Method") != method || got != want {
					t.Errorf("%s of %d bytes, chunked %t: %s, method %s, %d bytes", method, size, chunked, res.Status, res.Header.Get("X-Method"), len(got))
				}
				if chunked && size > 0 && res.Header.Get("X-Encoding") != "chunked" {
					t.Errorf("%s of %d bytes came with %q", method, size, res.Header.Get("X-Encoding"))
				}
			}
		}
	}
	if d := cmp.Diff("", r.log(1)[0].Reason.Error()); d != "" {
		t.Error(d)
	}
}
