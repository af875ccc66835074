package proxy

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"mainstay/topology"
)

// http2 makes the rig speak HTTP/2 over TLS and returns a client of it.
func (r *rig) http2() *http.Client {
	r.topology.Proxy.Listeners = map[string]topology.Listener{
		"http": {Name: "http", Address: "127.0.0.1:0", TLS: writeCertificate(r.t, r.t.TempDir(), 1)},
	}
	r.apply()
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true}
	r.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// TestHTTP2WithoutContent holds that an instance is not sent content that a client of HTTP/2 did not send.
func TestHTTP2WithoutContent(t *testing.T) {
	r := newRig(t)
	client := r.http2()
	r.instance("web", "web/1", func(w http.ResponseWriter, req *http.Request) {
		_, _ = io.WriteString(w, strings.Join(append(req.TransferEncoding, req.Header["Content-Length"]...), ","))
		if req.Body != http.NoBody {
			_, _ = io.WriteString(w, "content")
		}
	})
	for method, want := range map[string]string{"GET": "", "DELETE": "", "POST": "0"} {
		req, err := http.NewRequest(method, "https://"+r.address()+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(res.Body)
		res.Body.Close()
		if string(got) != want || res.ProtoMajor != 2 || err != nil {
			t.Errorf("%s: the instance saw %q, %s, %v", method, got, res.Proto, err)
		}
	}
}

// TestHTTP2ConnectionDies has an instance close a kept connection when the next request has come on it: what may be sent twice goes
// on another connection, as if that had not been there, and nothing else does.
func TestHTTP2ConnectionDies(t *testing.T) {
	for method, content := range map[string]string{
		"GET": "", "HEAD": "", "OPTIONS": "", "DELETE": "", "PUT": "content", "POST": "content", "PATCH": "",
	} {
		t.Run(method, func(t *testing.T) {
			route := route0("web")
			route.Retries.Attempts = 0
			r := newRig(t, route)
			client := r.http2()
			died := false // the connections come one after the other
			r.raw("web", "web/1", func(c net.Conn, br *bufio.Reader) {
				for n := 0; ; n++ {
					req, err := http.ReadRequest(br)
					if err != nil {
						return
					}
					b, _ := io.ReadAll(req.Body)
					if n == 1 && !died {
						died = true
						return
					}
					if req.Method == method && string(b) != content {
						t.Errorf("the instance read %q", b)
					}
					_, _ = io.WriteString(c, "HTTP/1.1 204 No Content\r\n\r\n")
				}
			})
			for _, m := range []string{"GET", method} {
				body := ""
				if m == method {
					body = content
				}
				req, err := http.NewRequest(m, "https://"+r.address()+"/", strings.NewReader(body))
				if err != nil {
					t.Fatal(err)
				}
				res, err := client.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				res.Body.Close()
			}
			want := record{Status: 204, Attempts: 1}
			if !idempotent(method, false) {
				want = record{Status: 502, Attempts: 1, Reason: reasonReset}
			}
			if got := r.log(2)[1]; got.Status != want.Status || got.Attempts != want.Attempts || got.Reason != want.Reason {
				t.Errorf("logged %+v", got)
			}
		})
	}
}
