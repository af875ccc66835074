package proxy

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"mainstay/topology"
)

// An arrival is a request that an instance has got; the instance answers when told.
type arrival struct {
	instance int
	answer   chan struct{}
}

// TestSameAsNginx sends the same requests, begun and ended in the same order, through a real nginx and through the proxy,
// and compares which instance each one reaches.
func TestSameAsNginx(t *testing.T) {
	nginx, err := exec.LookPath("nginx")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("nginx is not installed")
		}
		t.Skip("nginx is not installed")
	}
	for seed, weights := range [][]int{{1, 1, 1}, {1, 2, 3}, {5, 1, 1, 2}} {
		arrivals := make(chan arrival)
		r := newRig(t)
		var upstreams strings.Builder
		for i, w := range weights {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				a := arrival{i, make(chan struct{})}
				arrivals <- a
				<-a.answer
			})}
			served := make(chan struct{})
			go func() {
				defer close(served)
				_ = s.Serve(l)
			}()
			t.Cleanup(func() {
				s.Close()
				<-served
			})
			r.Admit(topology.Instance{Service: "web", ID: fmt.Sprint("web/", i), Address: l.Addr().String(), Weight: w})
			fmt.Fprintf(&upstreams, "server %s weight=%d;", l.Addr(), w)
		}
		theirs := playSchedule(t, startNginx(t, nginx, upstreams.String()), uint64(seed), arrivals)
		ours := playSchedule(t, r.address(), uint64(seed), arrivals)
		if !slices.Equal(ours, theirs) {
			t.Errorf("weights %v:\n ours  %v\n nginx %v", weights, ours, theirs)
		}
	}
}

// startNginx runs nginx with one worker and returns its address.
func startNginx(t *testing.T, nginx, upstreams string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	dir := t.TempDir()
	config := filepath.Join(dir, "nginx.conf")
	text := fmt.Sprintf(`daemon off; master_process off; pid %[1]s/pid; error_log stderr crit;
events { worker_connections 256; }
http {
	access_log off; client_body_temp_path %[1]s/a; proxy_temp_path %[1]s/b; fastcgi_temp_path %[1]s/c; uwsgi_temp_path %[1]s/d; scgi_temp_path %[1]s/e;
	upstream web { least_conn; %[2]s }
	server { listen %[3]s; location / { proxy_pass http://web; } }
}`, dir, upstreams, address)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(nginx, "-p", dir, "-c", config)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	await(t, "nginx listens", func() bool {
		c, err := net.Dial("tcp", address)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	return address
}

// playSchedule begins and ends requests one after the other as the seed says and returns the instances that they reached.
func playSchedule(t *testing.T, address string, seed uint64, arrivals chan arrival) []int {
	t.Helper()
	rnd := rand.New(rand.NewPCG(seed, 3))
	type running struct {
		arrival
		done chan struct{}
	}
	var open []running
	var reached []int
	var clients sync.WaitGroup
	defer clients.Wait()
	end := func(i int) {
		close(open[i].answer)
		<-open[i].done
		open = slices.Delete(open, i, i+1)
	}
	for range 150 {
		if len(open) > 0 && rnd.IntN(5) < 2 || len(open) > 12 {
			end(rnd.IntN(len(open)))
			continue
		}
		done := make(chan struct{})
		clients.Go(func() {
			defer close(done)
			c, err := net.Dial("tcp", address)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(20 * time.Second))
			fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
			res, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil || res.StatusCode != 200 {
				t.Errorf("got %v, %v", res, err)
			}
		})
		select {
		case a := <-arrivals:
			reached = append(reached, a.instance)
			open = append(open, running{a, done})
		case <-done:
			t.Fatal("a request ended without reaching an instance")
		}
	}
	for len(open) > 0 {
		end(0)
	}
	return reached
}
