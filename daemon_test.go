package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A daemon is a Mainstay that runs for a test that is no script, because it looks at the process itself.
type daemon struct {
	t       *testing.T
	dir     string
	proxy   string // address
	metrics string // address
	pid     int
	cmd     *exec.Cmd
	output  *bytes.Buffer
	ended   chan struct{} // closed when it has
	client  http.Client   // for metrics
}

// startDaemon runs a topology in which PROXY and METRICS stand for addresses, and waits until the proxy answers GET / with 200. With a
// limit it may have no more than so many open files.
func startDaemon(t *testing.T, topology string, limit int) *daemon {
	t.Helper()
	d := &daemon{t: t, dir: scriptRoot(t), output: new(bytes.Buffer), ended: make(chan struct{})}
	d.proxy, d.metrics = freeAddress(t), freeAddress(t)
	d.write(topology)
	d.cmd = exec.Command("mainstay", "run")
	if limit > 0 {
		d.cmd = exec.Command("sh", "-c", fmt.Sprintf("ulimit -n %d; exec mainstay run", limit))
	}
	d.cmd.Dir = d.dir
	d.cmd.Env = append(os.Environ(), "WORK="+d.dir, "NO_COLOR=1", "GORACE=atexit_sleep_ms=0", "HOME="+d.dir)
	d.cmd.Stdout, d.cmd.Stderr = d.output, d.output
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	d.pid = d.cmd.Process.Pid
	go func() {
		defer close(d.ended)
		_ = d.cmd.Wait()
	}()
	t.Cleanup(d.stop)
	ready := poll(func() bool {
		response, err := http.Get("http://" + d.proxy + "/")
		if err != nil {
			return false
		}
		response.Body.Close()
		return response.StatusCode == http.StatusOK
	})
	if !ready {
		t.Fatal("the proxy does not answer")
	}
	return d
}

// freeAddress returns an address that nothing listens on.
func freeAddress(t *testing.T) string {
	for {
		address := net.JoinHostPort("127.0.0.1", strconv.Itoa(10000+rand.IntN(10000)))
		if l, err := net.Listen("tcp", address); err == nil {
			t.Cleanup(func() { l.Close() }) // is closed already, but known to be in use until then
			l.Close()
			return address
		}
	}
}

// write saves the topology as editors do.
func (d *daemon) write(topology string) {
	topology = strings.NewReplacer("PROXY", d.proxy, "METRICS", d.metrics).Replace(topology)
	file := filepath.Join(d.dir, "topology.yaml")
	if err := os.WriteFile(file+"~", []byte(topology), 0o600); err != nil {
		d.t.Fatal(err)
	}
	if err := os.Rename(file+"~", file); err != nil {
		d.t.Fatal(err)
	}
}

func (d *daemon) stop() {
	_ = d.cmd.Process.Signal(os.Interrupt)
	select {
	case <-d.ended:
	case <-time.After(patience):
		d.t.Error("it does not stop")
		_ = d.cmd.Process.Signal(syscall.SIGQUIT)
		<-d.ended
	}
	d.client.CloseIdleConnections()
	if d.t.Failed() {
		d.t.Logf("it said:\n%s", tail(d.output.Bytes(), 20000))
	}
}

// tail returns the last n bytes of b.
func tail(b []byte, n int) []byte { return b[max(0, len(b)-n):] }

// series returns what /metrics tells, by name and labels.
func (d *daemon) series() map[string]float64 {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+d.metrics+"/metrics", nil)
	if err != nil {
		d.t.Fatal(err)
	}
	response, err := d.client.Do(request)
	if err != nil {
		d.t.Error(err)
		return nil
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		d.t.Error(err)
	}
	all := map[string]float64{}
	for line := range strings.Lines(string(text)) {
		at := strings.LastIndexByte(line, ' ')
		if value, err := strconv.ParseFloat(strings.TrimSpace(line[at+1:]), 64); err == nil && line[0] != '#' {
			all[line[:at]] = value
		}
	}
	return all
}

// memory returns the resident memory in bytes.
func (d *daemon) memory() int {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", d.pid))
	if err != nil {
		d.t.Error(err)
		return 0
	}
	pages, err := strconv.Atoi(strings.Fields(string(status))[1])
	if err != nil {
		d.t.Error(err)
	}
	return pages * os.Getpagesize()
}

// descriptors returns how many files are open.
func (d *daemon) descriptors() int {
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", d.pid))
	if err != nil {
		d.t.Error(err)
	}
	return len(entries)
}

// worked returns how much of a core the process has used so far.
func (d *daemon) worked() time.Duration {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", d.pid))
	if err != nil {
		d.t.Error(err)
		return 0
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	words := strings.Fields(rest)
	var ticks int
	for _, word := range words[11:13] { // user and system
		n, err := strconv.Atoi(word)
		if err != nil {
			d.t.Error(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}
