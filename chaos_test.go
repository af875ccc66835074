package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// chaosTopology is three instances; ENGINE, TURN and EXTRA change while it runs.
const chaosTopology = `version: 1
services:
  web:
    command: service --listen
    replicas: 3
    environment: {GREETING: hello}
    probes: {readiness: {http_get: /readyz, period: 200ms}}
    restart: {backoff: {initial: 50ms, max: 50ms}}
    when_unavailable: {hold: 10s}
proxy:
  engine: ENGINE
  limits: {header_timeout: 5m} # a header that a starved client sends may take long, and one that is refused has no User-Agent
  listeners: {http: {address: "PROXY"}}
  routes:
    EXTRA
    - service: web
      headers: {response: {set: {x-turn: "TURN"}}, request: {set: {x-turn: "TURN"}}}
metrics: {address: "METRICS"}
`

// TestChaos has everything happen at once: as many requests as there can be, a reload every 100 ms, an instance killed every second, and
// clients that reset, stall and trickle. No byte that arrives may be wrong, no request may be counted twice or not at all, and no
// descriptor or memory may be left behind.
//
// It takes seconds; with MAINSTAY_SOAK=1 half a minute an engine, or as MAINSTAY_SOAK_TIME says (make chaos).
func TestChaos(t *testing.T) {
	lasts := 6 * time.Second
	if os.Getenv("MAINSTAY_SOAK") != "" {
		lasts = 30 * time.Second
		if given := os.Getenv("MAINSTAY_SOAK_TIME"); given != "" {
			var err error
			if lasts, err = time.ParseDuration(given); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, engine := range engines {
		t.Run(engine, func(t *testing.T) {
			c := &chaos{t: t, engine: engine, classes: map[string]*class{}}
			c.daemon = startDaemon(t, c.topology(0), 0)
			c.run(lasts)
		})
	}
}

// A chaos is one run of an engine.
type chaos struct {
	*daemon
	t       *testing.T
	engine  string
	classes map[string]*class // of clients, by name
	reloads int
	kills   int
	lines   accessLines
	memory  []int
	files   []int
}

// A class is what clients that do the same have done.
type class struct {
	polite   bool         // each request is sent whole and its answer waited for
	sent     atomic.Int64 // requests
	good     atomic.Int64 // answers that were whole and right
	failed   atomic.Int64 // answers that said they failed, or ended early
	failures sync.Map     // examples
}

// errWrong is an answer that looks right and is not: nothing may ever lead to one.
var errWrong = errors.New("wrong bytes")

func (c *chaos) topology(turn int) string {
	extra := ""
	if turn%3 == 0 {
		extra = fmt.Sprintf("- {match: {path_prefix: /extra%d}, service: web}", turn%7)
	}
	return strings.NewReplacer("ENGINE", c.engine, "TURN", strconv.Itoa(turn), "EXTRA", extra).Replace(chaosTopology)
}

func (c *chaos) run(lasts time.Duration) {
	files := c.descriptors()
	worked := c.worked()
	ctx, cancel := context.WithTimeout(context.Background(), lasts)
	defer cancel()
	var clients, others sync.WaitGroup
	begin := func(name string, n int, polite bool, session func(ctx context.Context, k *class, r *rand.Rand)) {
		k := &class{polite: polite}
		c.classes[name] = k
		for i := range n {
			r := rand.New(rand.NewPCG(uint64(i), 7))
			clients.Go(func() {
				for ctx.Err() == nil {
					session(ctx, k, r)
				}
			})
		}
	}
	begin("steady", 16, true, c.steady)
	begin("upload", 4, true, c.upload)
	begin("download", 4, true, c.download)
	begin("trickle", 8, true, c.trickle)
	begin("reset", 4, false, c.reset)
	begin("stall", 8, false, c.stall)
	over := make(chan struct{})
	others.Go(func() { c.lines.follow(c.t, filepath.Join(c.dir, ".mainstay", "logs", "access.log"), over) })
	others.Go(func() { every(ctx, 100*time.Millisecond, c.reload) })
	others.Go(func() { every(ctx, time.Second, c.kill) })
	others.Go(func() { every(ctx, max(100*time.Millisecond, lasts/200), c.sample) })
	clients.Wait()
	took := c.worked() - worked
	c.settle()
	close(over)
	others.Wait()
	c.judge(lasts, took, files)
}

// every calls f so often until ctx is done.
func every(ctx context.Context, d time.Duration, f func()) {
	tick := time.NewTicker(d)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			f()
		}
	}
}

func (c *chaos) reload() {
	c.reloads++
	c.write(c.topology(c.reloads))
	if err := syscall.Kill(c.pid, syscall.SIGHUP); err != nil {
		c.t.Error(err)
	}
}

// kill kills one of the instances.
func (c *chaos) kill() {
	client := http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", filepath.Join(c.dir, ".mainstay", "admin.sock"))
	}}}
	response, err := client.Get("http://mainstay/v1/status")
	if err != nil {
		c.t.Error(err)
		return
	}
	defer response.Body.Close()
	var status struct {
		Services []struct{ Instances []struct{ PID int } }
	}
	if err := json.NewDecoder(response.Body).Decode(&status); err != nil {
		c.t.Error(err)
		return
	}
	for _, service := range status.Services {
		for _, i := range rand.Perm(len(service.Instances)) {
			if pid := service.Instances[i].PID; pid > 0 && syscall.Kill(pid, syscall.SIGKILL) == nil {
				c.kills++
				return
			}
		}
	}
}

func (c *chaos) sample() {
	c.memory = append(c.memory, c.daemon.memory())
	c.files = append(c.files, c.descriptors())
}

// A link is a client's connection, made when it is needed.
type link struct {
	net.Conn
	*bufio.Reader
}

func (c *chaos) connect() (*link, error) {
	conn, err := net.Dial("tcp", c.proxy)
	if err != nil {
		return nil, err
	}
	_ = conn.SetDeadline(time.Now().Add(patience))
	return &link{conn, bufio.NewReader(conn)}, nil
}

// converse sends up to n requests on one connection, until one fails or ctx is done.
func (c *chaos) converse(ctx context.Context, k *class, n int, one func(l *link) error) {
	l, err := c.connect()
	if err != nil {
		c.t.Error(err)
		return
	}
	defer l.Close()
	for range n {
		if ctx.Err() != nil {
			return
		}
		_ = l.SetDeadline(time.Now().Add(patience))
		k.sent.Add(1)
		if err := one(l); err != nil {
			k.failed.Add(1)
			if errors.Is(err, errWrong) {
				c.t.Error(err)
			}
			k.failures.LoadOrStore(reasonOf(err), true)
			return
		}
		k.good.Add(1)
	}
}

// reasonOf returns an error without what differs each time.
func reasonOf(err error) string {
	text, _, _ := strings.Cut(err.Error(), "request ")
	if at := strings.LastIndex(text, ": "); strings.Contains(text, "->") && at >= 0 {
		text = text[at+2:]
	}
	return strings.Join(strings.Fields(text), " ")
}

// answer reads a response and returns its content, or an error if it says that it failed or is not whole.
func (l *link) answer() ([]byte, error) {
	response, err := http.ReadResponse(l.Reader, nil)
	if err != nil {
		return nil, err
	}
	content, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", response.Status, content)
	}
	return content, nil
}

// steady sends small GETs as fast as it can.
func (c *chaos) steady(ctx context.Context, k *class, r *rand.Rand) {
	c.converse(ctx, k, 1+r.IntN(1000), func(l *link) error {
		if _, err := io.WriteString(l, "GET / HTTP/1.1\r\nHost: chaos\r\nUser-Agent: steady\r\n\r\n"); err != nil {
			return err
		}
		content, err := l.answer()
		if err == nil && (!bytes.HasPrefix(content, []byte("web/")) || !bytes.HasSuffix(content, []byte(" says hello\n"))) {
			err = fmt.Errorf("%w: %q", errWrong, content)
		}
		return err
	})
}

// upload sends content, chunked or not, and is told its sum.
func (c *chaos) upload(ctx context.Context, k *class, r *rand.Rand) {
	c.converse(ctx, k, 1+r.IntN(20), func(l *link) error {
		content := make([]byte, r.IntN(1<<r.IntN(19)))
		_, _ = noise(r.Int()).Read(content)
		var b bytes.Buffer
		b.WriteString("POST /upload HTTP/1.1\r\nHost: chaos\r\nUser-Agent: upload\r\n")
		if r.IntN(2) == 0 {
			fmt.Fprintf(&b, "Content-Length: %d\r\n\r\n", len(content))
			b.Write(content)
		} else {
			b.WriteString("Transfer-Encoding: chunked\r\n\r\n")
			for rest := content; len(rest) > 0; {
				n := 1 + r.IntN(len(rest))
				fmt.Fprintf(&b, "%x\r\n%s\r\n", n, rest[:n])
				rest = rest[n:]
			}
			b.WriteString("0\r\n\r\n")
		}
		// An answer may come before all was sent; then the connection ends.
		wrote := make(chan error, 1)
		go func() {
			_, err := l.Write(b.Bytes())
			wrote <- err
		}()
		answer, err := l.answer()
		if err != nil {
			l.Close()
		}
		if werr := <-wrote; err == nil {
			err = werr
		}
		if want := fmt.Sprintf("%d %x\n", len(content), sha256.Sum256(content)); err == nil && string(answer) != want {
			err = fmt.Errorf("%w: sent %q, which arrived as %q", errWrong, want, answer)
		}
		return err
	})
}

// download gets content that it knows the sum of.
func (c *chaos) download(ctx context.Context, k *class, r *rand.Rand) {
	c.converse(ctx, k, 1+r.IntN(20), func(l *link) error { return l.get(r, "download", 1<<19, l) })
}

// get asks for up to so many bytes, through w.
func (l *link) get(r *rand.Rand, agent string, most int, w io.Writer) error {
	n, seed := r.IntN(1+r.IntN(most)), r.IntN(1<<30)
	if _, err := fmt.Fprintf(w, "GET /noise?n=%d&seed=%d HTTP/1.1\r\nHost: chaos\r\nUser-Agent: %s\r\n\r\n", n, seed, agent); err != nil {
		return err
	}
	content, err := l.answer()
	if err != nil {
		return err
	}
	want := make([]byte, n)
	_, _ = io.ReadFull(noise(seed), want)
	if !bytes.Equal(content, want) {
		return fmt.Errorf("%w: %d bytes were asked for, and %d came that are others", errWrong, n, len(content))
	}
	return nil
}

// A trickler writes a byte at a time.
type trickler struct{ net.Conn }

func (w trickler) Write(p []byte) (n int, err error) {
	tick := time.NewTicker(3 * time.Millisecond)
	defer tick.Stop()
	for n < len(p) && err == nil {
		<-tick.C
		_, err = w.Conn.Write(p[n : n+1])
		n++
	}
	return n, err
}

// trickle sends byte by byte.
func (c *chaos) trickle(ctx context.Context, k *class, r *rand.Rand) {
	c.converse(ctx, k, 3, func(l *link) error { return l.get(r, "trickle", 1<<14, trickler{l.Conn}) })
}

// reset breaks a connection off wherever it may be.
func (c *chaos) reset(ctx context.Context, k *class, r *rand.Rand) {
	l, err := c.connect()
	if err != nil {
		c.t.Error(err)
		return
	}
	defer l.Close()
	get := "GET /noise?n=1000000&seed=1 HTTP/1.1\r\nHost: chaos\r\nUser-Agent: reset\r\n\r\n"
	post := "POST /upload HTTP/1.1\r\nHost: chaos\r\nUser-Agent: reset\r\nContent-Length: 100000\r\n\r\n" + strings.Repeat("x", 50000)
	chunked := "PUT /upload HTTP/1.1\r\nHost: chaos\r\nUser-Agent: reset\r\nTransfer-Encoding: chunked\r\n\r\nffff\r\n" + strings.Repeat("y", 30000)
	all := []string{"", get, post, chunked, get + get + get, "GET /slow?ms=50 HTTP/1.1\r\nHost: chaos\r\nUser-Agent: reset\r\n\r\n"}[r.IntN(6)]
	if len(all) > 0 && r.IntN(3) == 0 {
		all = all[:r.IntN(len(all))]
	}
	k.sent.Add(1)
	_, _ = io.WriteString(l, all)
	if n := r.IntN(1 << r.IntN(18)); n > 10 {
		_ = l.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
		_, _ = io.CopyN(io.Discard, l.Reader, int64(n))
	}
	if r.IntN(4) > 0 {
		_ = l.Conn.(*net.TCPConn).SetLinger(0)
	}
}

// stall stops in the middle: of a header, of content, of reading.
func (c *chaos) stall(ctx context.Context, k *class, r *rand.Rand) {
	l, err := c.connect()
	if err != nil {
		c.t.Error(err)
		return
	}
	defer l.Close()
	k.sent.Add(1)
	_, _ = io.WriteString(l, []string{
		"GET / HTTP/1.1\r\nHost: chaos\r\nUser-Agent: st",
		"POST /upload HTTP/1.1\r\nHost: chaos\r\nUser-Agent: stall\r\nContent-Length: 100000\r\n\r\nsome",
		"GET /noise?n=50000000&seed=2 HTTP/1.1\r\nHost: chaos\r\nUser-Agent: stall\r\n\r\n",
		"GET /noise?n=50000000&seed=3 HTTP/1.1\r\nHost: chaos\r\nUser-Agent: stall\r\n\r\n",
	}[r.IntN(4)])
	select {
	case <-ctx.Done():
	case <-time.After(time.Duration(r.IntN(3000)) * time.Millisecond):
	}
	if r.IntN(2) == 0 {
		_ = l.Conn.(*net.TCPConn).SetLinger(0)
	}
}

// settle lets all requests end and all lines be written, and then takes everything away that holds connections to instances.
func (c *chaos) settle() {
	quiet := func() bool {
		now := c.series()
		return now[`mainstay_proxy_connections{listener="http"}`] == 0 && c.lines.count()+int(now["mainstay_proxy_access_log_dropped_total"]) == requestsIn(now)
	}
	if !poll(quiet) {
		now := c.series()
		c.t.Errorf("%d requests were counted, but there are %d lines in the access log and %g are said to be missing; %g connections", requestsIn(now), c.lines.count(), now["mainstay_proxy_access_log_dropped_total"], now[`mainstay_proxy_connections{listener="http"}`])
	}
}

// requestsIn returns how many requests were counted.
func requestsIn(series map[string]float64) (n int) {
	for name, value := range series {
		if strings.HasPrefix(name, "mainstay_proxy_requests_total{") {
			n += int(value)
		}
	}
	return n
}

func (c *chaos) judge(lasts, worked time.Duration, files int) {
	c.t.Logf("%s: %d reloads, %d kills, %d requests (%.0f a second), %s of processor time", lasts, c.reloads, c.kills, c.lines.count(), float64(c.lines.count())/lasts.Seconds(), worked)
	now := c.series()
	if generation := int(now["mainstay_config_generation"]); generation < 2+c.reloads/10 {
		c.t.Errorf("after %d reloads it is at generation %d", c.reloads, generation)
	}
	c.lines.mu.Lock()
	defer c.lines.mu.Unlock()
	dropped := int(now["mainstay_proxy_access_log_dropped_total"])
	for _, name := range slices.Sorted(maps.Keys(c.classes)) {
		k := c.classes[name]
		sent, good, failed := int(k.sent.Load()), int(k.good.Load()), int(k.failed.Load())
		c.t.Logf("%s: %d sent, %d good, %d failed; in the log %d, good %d", name, sent, good, failed, c.lines.agents[name], c.lines.whole[name])
		k.failures.Range(func(why, _ any) bool {
			c.t.Logf("  %s failed: %s", name, why)
			return true
		})
		if !k.polite {
			continue
		}
		if good == 0 {
			c.t.Errorf("%s was never answered", name)
		}
		if dropped == 0 && (c.lines.agents[name] != sent || c.lines.whole[name] != good) {
			c.t.Errorf("%s: %d were sent and %d answered, but the log has %d, %d of them whole", name, sent, good, c.lines.agents[name], c.lines.whole[name])
		}
		if most := c.kills * 16; failed > most {
			c.t.Errorf("%s: %d failed, though only %d instances were killed", name, failed, c.kills)
		}
	}
	counted := map[string]int{}
	for name, value := range now {
		if labels, ok := strings.CutPrefix(name, "mainstay_proxy_requests_total{"); ok {
			counted[labels] += int(value)
		}
	}
	if dropped == 0 && !maps.Equal(counted, c.lines.series) {
		c.t.Errorf("counted %v, logged %v", counted, c.lines.series)
	}
	c.leaks(files)
}

// leaks looks for what is left behind and for what grows.
func (c *chaos) leaks(files int) {
	n := len(c.memory)
	if n < 8 {
		c.t.Error("there are no samples")
		return
	}
	early, late := mean(c.memory[n/4:n/2]), mean(c.memory[3*n/4:])
	c.t.Logf("memory: %d KiB in the second quarter, %d KiB in the last; files: %d, then %d; %d before", early>>10, late>>10, mean(c.files[n/4:n/2]), mean(c.files[3*n/4:]), files)
	allowed := early/8 + 8<<20
	if underRace {
		allowed *= 3
	}
	if late > early+allowed {
		c.t.Errorf("memory has grown from %d to %d KiB", early>>10, late>>10)
	}
	c.write(fmt.Sprintf("version: 1\nproxy: {engine: %s, listeners: {http: {address: \"PROXY\"}}}\nmetrics: {address: \"METRICS\"}\n", c.engine))
	if err := syscall.Kill(c.pid, syscall.SIGHUP); err != nil {
		c.t.Error(err)
	}
	if !poll(func() bool { return c.descriptors() <= files }) {
		c.t.Errorf("%d files are open in the end, %d were before there were clients", c.descriptors(), files)
	}
}

func mean(of []int) (sum int) {
	for _, n := range of {
		sum += n
	}
	return sum / max(1, len(of))
}

// accessLines counts the lines of an access log while it is written and its files are exchanged.
type accessLines struct {
	mu     sync.Mutex
	all    int
	agents map[string]int // lines, by user agent
	whole  map[string]int // of those, what the instance sent was sent on whole with 200
	series map[string]int // lines, by the labels of mainstay_proxy_requests_total
}

func (a *accessLines) count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.all
}

// follow reads until over is closed.
func (a *accessLines) follow(t *testing.T, path string, over <-chan struct{}) {
	a.mu.Lock()
	a.agents, a.whole, a.series = map[string]int{}, map[string]int{}, map[string]int{}
	a.mu.Unlock()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	var file *os.File
	var part []byte
	defer func() { file.Close() }()
	read := func() {
		more, err := io.ReadAll(file)
		if err != nil {
			t.Error(err)
		}
		part = a.add(t, append(part, more...))
	}
	for {
		select {
		case <-over:
			return
		case <-tick.C:
		}
		if file == nil {
			var err error
			if file, err = os.Open(path); err != nil {
				continue
			}
		}
		read()
		here, err := file.Stat()
		if err != nil {
			t.Error(err)
			return
		}
		if there, err := os.Stat(path); err == nil && !os.SameFile(here, there) {
			read() // what came before the exchange
			file.Close()
			file = nil
		}
	}
}

// add counts whole lines and returns the rest.
func (a *accessLines) add(t *testing.T, text []byte) []byte {
	a.mu.Lock()
	defer a.mu.Unlock()
	for {
		line, rest, ok := bytes.Cut(text, []byte("\n"))
		if !ok {
			return text
		}
		text = rest
		var record struct {
			Method, Service, Reason string
			Agent                   string `json:"user_agent"`
			Status                  int
		}
		if err := json.Unmarshal(line, &record); err != nil {
			t.Errorf("%q: %v", line, err)
			continue
		}
		a.all++
		a.agents[record.Agent]++
		if record.Reason == "" && record.Status == http.StatusOK {
			a.whole[record.Agent]++
		}
		a.series[fmt.Sprintf("code=\"%d\",method=%q,service=%q}", record.Status, record.Method, record.Service)]++
	}
}
