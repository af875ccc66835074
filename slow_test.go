package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// engines are what carries requests.
var engines = []string{"auto", "net_http"}

// patientTopology is two instances behind a proxy with the usual limits of clients.
const patientTopology = `version: 1
services:
  web: {command: service --listen, replicas: 2}
proxy:
  engine: ENGINE
  listeners: {http: {address: "PROXY"}}
  routes: [{service: web}]
metrics: {address: "METRICS"}
`

// A visitor sends GETs one after the other, some on connections of their own, while others make trouble.
type visitor struct {
	url    string
	stop   chan struct{}
	ended  chan struct{}
	took   []time.Duration
	errors []error
}

func startVisitor(d *daemon) *visitor {
	v := &visitor{url: "http://" + d.proxy + "/", stop: make(chan struct{}), ended: make(chan struct{})}
	go func() {
		defer close(v.ended)
		client := &http.Client{Transport: &http.Transport{}, Timeout: patience}
		defer client.CloseIdleConnections()
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for n := 0; ; n++ {
			select {
			case <-v.stop:
				return
			case <-tick.C:
			}
			if n%10 == 0 {
				client.CloseIdleConnections()
			}
			begun := time.Now()
			if err := fetch(client, v.url); err != nil {
				v.errors = append(v.errors, err)
			}
			v.took = append(v.took, time.Since(begun))
		}
	}()
	return v
}

// end stops the visitor, who must have been served always and within limit.
func (v *visitor) end(t *testing.T, limit time.Duration) {
	t.Helper()
	close(v.stop)
	<-v.ended
	if len(v.took) == 0 {
		t.Error("nothing was asked")
		return
	}
	slices.Sort(v.took)
	n := len(v.took)
	t.Logf("%d requests, p50 %s, p99 %s, longest %s, %d failed", n, v.took[n/2].Round(10*time.Microsecond), v.took[n*99/100].Round(10*time.Microsecond), v.took[n-1].Round(10*time.Microsecond), len(v.errors))
	for _, err := range v.errors[:min(3, len(v.errors))] {
		t.Error(err)
	}
	if v.took[n-1] > limit {
		t.Errorf("a request took %s", v.took[n-1])
	}
}

// TestSlowClients lets slowhttptest hold connections by sending headers and content slowly and by reading slowly. Others
// are served meanwhile, and what Mainstay holds for the slow ones is bounded.
func TestSlowClients(t *testing.T) {
	tool, err := exec.LookPath("slowhttptest")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("slowhttptest is not installed")
		}
		t.Skip("slowhttptest is not installed")
	}
	connections, seconds := 150, 6
	if os.Getenv("MAINSTAY_SOAK") != "" {
		connections, seconds = 1000, 60
	}
	for _, engine := range engines {
		t.Run(engine, func(t *testing.T) {
			t.Parallel()
			d := startDaemon(t, strings.Replace(patientTopology, "ENGINE", engine, 1), 0)
			before, files := d.memory(), d.descriptors()
			v := startVisitor(d)
			var attacks sync.WaitGroup
			for _, attack := range [][]string{
				{"-H", "-x", "24", "-u", "http://" + d.proxy + "/"},
				{"-B", "-s", "8192", "-x", "10", "-u", "http://" + d.proxy + "/upload"},
				{"-X", "-w", "10", "-y", "20", "-n", "2", "-z", "32", "-k", "3", "-u", "http://" + d.proxy + "/bytes?n=4000000"},
			} {
				attacks.Go(func() {
					args := append(attack, "-c", fmt.Sprint(connections), "-r", fmt.Sprint(connections), "-l", fmt.Sprint(seconds), "-i", "1", "-p", "3", "-v", "0")
					if output, err := exec.Command(tool, args...).CombinedOutput(); err != nil {
						t.Errorf("slowhttptest %s: %v: %s", attack[0], err, output)
					}
				})
			}
			most, open := 0, 0
			over := make(chan struct{})
			go func() {
				defer close(over)
				attacks.Wait()
			}()
			tick := time.NewTicker(100 * time.Millisecond)
			defer tick.Stop()
			for running := true; running; {
				select {
				case <-over:
					running = false
				case <-tick.C:
				}
				most, open = max(most, d.memory()), max(open, d.descriptors())
			}
			v.end(t, 5*time.Second)
			t.Logf("memory %d KiB before and at most %d KiB more, that is %d a slow client; files %d, at most %d", before>>10, (most-before)>>10, (most-before)>>10/(3*connections), files, open)
			if open < files+connections {
				t.Error("the slow clients were not there")
			}
			// Each may cost a header, a piece of content each way, and what the engine needs to wait for it.
			allowed := 16<<20 + 3*connections*(96<<10)
			if underRace {
				allowed *= 6
			}
			if most-before > allowed {
				t.Errorf("memory grew by %d KiB", (most-before)>>10)
			}
			if !poll(func() bool { return d.descriptors() <= files+8 }) {
				t.Errorf("of %d files %d are open in the end", files, d.descriptors())
			}
		})
	}
}

// TestIdleConnections keeps thousands of connections open that ask for nothing any more.
func TestIdleConnections(t *testing.T) {
	connections := 2000
	if os.Getenv("MAINSTAY_SOAK") != "" {
		connections = 10000
	}
	for _, engine := range engines {
		t.Run(engine, func(t *testing.T) {
			d := startDaemon(t, strings.Replace(patientTopology, "ENGINE", engine, 1), 0)
			files, before := d.descriptors(), d.memory()
			idle := openIdle(t, d.proxy, connections, true)
			defer closeAll(idle)
			if got := d.descriptors(); got < files+connections {
				t.Errorf("%d files are open, not %d", got, files+connections)
			}
			t.Logf("%d idle connections cost %d bytes of memory each, with what the garbage collector has yet to find", connections, (d.memory()-before)/connections)
			rested := d.worked()
			<-time.After(time.Second)
			if worked := d.worked() - rested; worked > 250*time.Millisecond {
				t.Errorf("doing nothing for %d connections took %s in a second", connections, worked)
			}
			v := startVisitor(d)
			<-time.After(time.Second)
			v.end(t, 2*time.Second)
			for _, conn := range idle[:20] {
				if err := ask(conn); err != nil {
					t.Errorf("a connection that had been idle: %v", err)
				}
			}
			closeAll(idle)
			if !poll(func() bool { return d.descriptors() <= files+8 }) {
				t.Errorf("of %d files %d are open in the end", files, d.descriptors())
			}
		})
	}
}

// openIdle opens so many connections; used ones have had an answer, if they could get one.
func openIdle(t *testing.T, address string, n int, used bool) []net.Conn {
	t.Helper()
	conns := make([]net.Conn, 0, n)
	for range n {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, conn)
		if used {
			if err := ask(conn); err != nil {
				t.Errorf("connection %d: %v", len(conns), err)
				return conns
			}
		}
	}
	return conns
}

// ask sends a GET and reads the answer, which is short.
func ask(conn net.Conn) error {
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(conn, "GET /readyz HTTP/1.1\r\nHost: idle\r\n\r\n"); err != nil {
		return err
	}
	answer := make([]byte, 4096)
	n, err := conn.Read(answer)
	if err == nil && !strings.HasPrefix(string(answer[:n]), "HTTP/1.1 200 ") {
		err = fmt.Errorf("%q", answer[:n])
	}
	return err
}

func closeAll(conns []net.Conn) {
	for _, conn := range conns {
		conn.Close()
	}
}
