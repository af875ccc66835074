package proxy

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestSessionsApart holds that each client gets the responses to its own requests, in order, however many share a loop, whatever they
// send together and wherever it is cut.
func TestSessionsApart(t *testing.T) {
	const clients, requests = 20, 40
	r := newRig(t)
	for i := range 3 {
		r.instance("web", fmt.Sprint("web/", i), func(w http.ResponseWriter, req *http.Request) {
			body, err := io.ReadAll(req.Body)
			if err != nil {
				return
			}
			w.Header().Set("X-Path", req.URL.Path)
			if req.URL.Query().Has("length") {
				w.Header().Set("Content-Length", strconv.Itoa(len(body)))
			}
			for ; len(body) > 3000; body = body[3000:] {
				_, _ = w.Write(body[:3000])
				_ = http.NewResponseController(w).Flush()
			}
			_, _ = w.Write(body)
		})
	}
	var all sync.WaitGroup
	for n := range clients {
		all.Go(func() {
			if err := r.converse(rand.New(rand.NewPCG(1, uint64(n))), n, requests); err != nil {
				t.Errorf("client %d: %v", n, err)
			}
		})
	}
	all.Wait()
}

// converse sends requests on one connection, several together, and compares what comes back.
func (r *rig) converse(random *rand.Rand, client, requests int) error {
	c, br := r.dial()
	defer c.Close()
	type request struct{ method, path, content string }
	var sent []request
	var text strings.Builder
	for n := range requests {
		q := request{method: "GET", path: fmt.Sprintf("/%d/%d", client, n)}
		target := q.path
		if random.IntN(2) == 0 {
			target += "?length"
		}
		switch random.IntN(4) {
		case 0:
			fmt.Fprintf(&text, "GET %s HTTP/1.1\r\nHost: a\r\n\r\n", target)
		case 1:
			q.method = "HEAD"
			fmt.Fprintf(&text, "HEAD %s HTTP/1.1\r\nHost: a\r\n\r\n", target)
		case 2:
			q.method, q.content = "POST", strings.Repeat(q.path+" ", random.IntN(2)*random.IntN(2000))
			fmt.Fprintf(&text, "POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s", target, len(q.content), q.content)
		case 3:
			q.method = "PUT"
			fmt.Fprintf(&text, "PUT %s HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", target)
			for range random.IntN(5) {
				part := strings.Repeat(q.path+" ", 1+random.IntN(300))
				q.content += part
				fmt.Fprintf(&text, "%x\r\n%s\r\n", len(part), part)
			}
			text.WriteString("0\r\nX-T: 1\r\n\r\n")
		}
		sent = append(sent, q)
	}
	done := make(chan struct{})
	defer func() { <-done }()
	go func() {
		defer close(done)
		for rest := text.String(); rest != ""; {
			n := min(len(rest), 1+random.IntN(1+random.IntN(8000)))
			if _, err := io.WriteString(c, rest[:n]); err != nil {
				return
			}
			if rest = rest[n:]; n%7 == 0 {
				<-time.After(time.Duration(n%5) * 100 * time.Microsecond) // or all would come at once
			}
		}
	}()
	for _, q := range sent {
		res, err := http.ReadResponse(br, &http.Request{Method: q.method})
		if err != nil {
			c.Close()
			return err
		}
		body, err := io.ReadAll(res.Body)
		if q.method == "HEAD" {
			q.content = ""
		}
		if res.StatusCode != 200 || res.Header.Get("X-Path") != q.path || string(body) != q.content || err != nil {
			c.Close()
			return fmt.Errorf("%s %s: %s, %v, %d bytes instead of %d, %v", q.method, q.path, res.Status, res.Header, len(body), len(q.content), err)
		}
	}
	return nil
}
