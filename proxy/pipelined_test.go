package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// What a client sends after the content of a request that waits for an instance is the next request, and stays what it was while others
// send something else.
func TestPipelinedAfterHeldContent(t *testing.T) {
	r := newRig(t)
	r.hold(holdFor(20 * time.Second))
	began, answer := make(chan struct{}), make(chan struct{})
	c, br := r.dial()
	fmt.Fprint(c, "POST /first HTTP/1.1\r\nHost: a\r\nContent-Length: 7\r\n\r\n")
	r.awaitHeld(1)
	fmt.Fprint(c, "contentGET /second HTTP/1.1\r\nHost: a\r\n\r\n")
	r.raw("web", "web/1", func(c net.Conn, br *bufio.Reader) {
		for {
			req, err := http.ReadRequest(br)
			if err != nil {
				return
			}
			if _, err := io.Copy(io.Discard, req.Body); err != nil {
				return
			}
			if req.URL.Path == "/first" {
				close(began)
				<-answer
			}
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(req.URL.Path), req.URL.Path)
		}
	})
	<-began
	for range 8 { // on every loop
		if res, body := r.send("GET /" + strings.Repeat("other", 100) + " HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"); res.StatusCode != 200 || len(body) != 501 {
			t.Errorf("another client: %s %q", res.Status, body)
		}
	}
	close(answer)
	for _, want := range []string{"/first", "/second"} {
		res, err := http.ReadResponse(br, nil)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		if err != nil || res.StatusCode != 200 || string(body) != want {
			t.Errorf("%s was answered with %s %q, %v", want, res.Status, body, err)
		}
	}
}
