//go:build linux

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// A bench is one run of this program.
type bench struct {
	site       *site
	launcher   launcher
	ports      ports
	proxyCores string
	loadCores  string
	threads    int // of the generator
	rounds     int
	warm, time time.Duration
	progress   io.Writer
	profiles   string // a directory for profiles of Mainstay, if there should be any
	running    map[string]*running
	samples    []sample
	maxima     map[string][]float64 // nginx's requests a second, by shape
}

// A running peer is a process with its addresses.
type running struct {
	peer peer
	at   addresses
	*process
}

// A sample is what one peer did in one round of one row.
type sample struct {
	Row, Peer string
	Round     int
	Rate      float64 // requests a second that were answered
	Offered   float64 // that were asked for; 0 is as many as can be
	CPU       float64 // microseconds of the proxy for each request
	CPUTicks  float64 // the same from utime + stime
	Busy      float64 // share of one core that the proxy used
	Others    float64 // share of the proxies' core that somebody else used; -1 if they have more than one
	Resident  int64   // bytes of the proxy's processes at the end
	PerIdle   float64 // bytes that each idle connection added
	Allocs    float64 // for each request; -1 if it does not tell
	LoadAvg   float64 // of the machine, in the last minute
	loadResult
}

// start starts p in a directory of its own and waits until it answers on both ports.
func (b *bench) start(ctx context.Context, p peer) (*running, error) {
	dir, err := os.MkdirTemp(b.site.dir, p.name+"-")
	if err != nil {
		return nil, err
	}
	r := &running{peer: p}
	for _, address := range []*string{&r.at.plain, &r.at.tls, &r.at.metrics} {
		if *address, err = b.ports.address(); err != nil {
			return nil, err
		}
	}
	command, err := p.command(b.site, dir, r.at)
	if err != nil {
		return nil, err
	}
	if r.process, err = b.launcher.start(p.name, dir, b.proxyCores, nil, command...); err != nil {
		return nil, err
	}
	err = r.until(ctx, func() error {
		return errors.Join(b.site.fetch(ctx, "http://"+r.at.plain, "/119B"), b.site.fetch(ctx, "https://"+r.at.tls, "/119B"))
	})
	if err != nil {
		r.stop()
		return nil, fmt.Errorf("start %s: %w", p.name, err)
	}
	return r, nil
}

// measureRow measures all peers in interleaved rounds.
func (b *bench) measureRow(ctx context.Context, r row, chosen []peer) error {
	rate := 0.0
	if r.percent > 0 {
		most, err := b.maximum(ctx, r)
		if err != nil {
			return err
		}
		rate = most * float64(r.percent) / 100
	}
	for round := 1; round <= b.rounds; round++ {
		for _, p := range chosen {
			s, err := b.measure(ctx, r, p, rate)
			if err != nil {
				return fmt.Errorf("measure %s with %s: %w", r.name, p.name, err)
			}
			s.Round = round
			b.samples = append(b.samples, s)
			if p.name == "nginx" && r.percent == 0 && !r.tls && r.idle == 0 {
				b.maxima[r.shape()] = append(b.maxima[r.shape()], s.Rate)
			}
			fmt.Fprintf(b.progress, "%s  round %d/%d  %-17s %8.2f µs/request  %8.0f/s  p99 %.2f ms", r.name, round, b.rounds, p.name, s.CPU, s.Rate, s.P99)
			if r.idle > 0 {
				fmt.Fprintf(b.progress, "  %.2f KiB/connection", s.PerIdle/1024)
			}
			if s.Errors+s.Unanswered > 0 {
				fmt.Fprintf(b.progress, "  %d errors, %d unanswered: %s", s.Errors, s.Unanswered, s.FirstError)
			}
			fmt.Fprintln(b.progress)
		}
	}
	for _, p := range chosen {
		if b.profiles != "" && strings.HasPrefix(p.name, "mainstay") && r.idle == 0 {
			if err := b.profile(ctx, r, p, rate); err != nil {
				return fmt.Errorf("profile %s with %s: %w", r.name, p.name, err)
			}
		}
	}
	return nil
}

// profile has perf watch p in a round more, which is not measured.
func (b *bench) profile(ctx context.Context, r row, p peer, rate float64) error {
	if err := os.MkdirAll(b.profiles, 0o755); err != nil {
		return err
	}
	file, err := filepath.Abs(filepath.Join(b.profiles, r.name+"-"+p.name+".perf"))
	if err != nil {
		return err
	}
	perf, err := b.launcher.start("perf", b.site.dir, b.loadCores, nil, "perf", "record", "-q", "-F", "997", "-g", "-o", file,
		"-p", strconv.Itoa(b.running[p.name].cmd.Process.Pid), "--", "sleep", fmt.Sprint((b.warm + b.time).Seconds()))
	if err != nil {
		return err
	}
	defer perf.stop()
	if _, err := b.measure(ctx, r, p, rate); err != nil {
		return err
	}
	select {
	case <-perf.done:
	case <-ctx.Done():
		return ctx.Err()
	}
	if perf.err != nil {
		return fmt.Errorf("%w: %s", perf.err, perf.tail())
	}
	fmt.Fprintf(b.progress, "profile: perf report --no-children -i %s\n", file)
	return nil
}

// maximum returns what nginx can do of r's shape, in requests a second: what was measured in this run, or else is now.
func (b *bench) maximum(ctx context.Context, r row) (float64, error) {
	if len(b.maxima[r.shape()]) == 0 {
		saturated := r
		saturated.percent = 0
		for range 3 {
			s, err := b.measure(ctx, saturated, peer{name: "nginx"}, 0)
			if err != nil {
				return 0, fmt.Errorf("measure what nginx can do: %w", err)
			}
			b.maxima[r.shape()] = append(b.maxima[r.shape()], s.Rate)
		}
	}
	return summarise(b.maxima[r.shape()]).median, nil
}

// measure measures one peer once.
func (b *bench) measure(ctx context.Context, r row, p peer, rate float64) (sample, error) {
	s := sample{Row: r.name, Peer: p.name, Offered: rate, Allocs: -1, Others: -1}
	proxy := b.running[p.name]
	if r.idle > 0 { // in a process that has not held anything before
		fresh, err := b.start(ctx, p)
		if err != nil {
			return s, err
		}
		defer fresh.stop()
		proxy = fresh
	}
	l := load{Address: proxy.at.plain, Path: r.path, BodyFile: b.site.body(r.path), Echo: r.echo, Connections: r.connections, Rate: rate,
		Warm: b.warm, Time: b.time, Threads: min(b.threads, r.connections), Seed: 1}
	if r.tls {
		l.Address = proxy.at.tls
	}
	if r.idle > 0 {
		l.Connections, l.Idle, l.Time = r.idle, 3*time.Second, 0
	}
	if r.echo == 0 {
		scheme := "http://"
		if r.tls {
			scheme = "https://"
		}
		if err := b.site.fetch(ctx, scheme+l.Address, r.path); err != nil {
			return s, err
		}
	}
	before, err := b.counters(ctx, proxy)
	if err != nil {
		return s, err
	}
	empty := proxy.resident()
	var used [2]cpuTime
	var core [2]time.Duration
	var begun time.Time
	var elapsed time.Duration
	watch := func(at int) func() error {
		return func() (err error) {
			used[at], err = proxy.cpu()
			core[at] = busy(b.proxyCores)
			if at == 0 {
				begun = time.Now()
			} else {
				elapsed = time.Since(begun)
				s.Resident = proxy.resident()
			}
			return err
		}
	}
	if s.loadResult, err = b.generate(ctx, l, r, watch(0), watch(1)); err != nil {
		return s, err
	}
	after, err := b.counters(ctx, proxy)
	if err != nil {
		return s, err
	}
	s.LoadAvg = loadAverage()
	if r.idle > 0 {
		s.PerIdle = float64(s.Resident-empty) / float64(r.idle)
		return s, nil
	}
	exact, ticks := used[1].exact-used[0].exact, used[1].ticks-used[0].ticks
	n := float64(max(1, s.Requests))
	s.CPU, s.CPUTicks = float64(exact)/1e3/n, float64(ticks)/1e3/n
	s.Busy = exact.Seconds() / elapsed.Seconds()
	s.Rate = float64(s.Requests) / s.Seconds
	if _, err := strconv.Atoi(b.proxyCores); err == nil {
		s.Others = max(0, ((core[1]-core[0])-ticks).Seconds()/elapsed.Seconds())
	}
	if before.known {
		s.Allocs = max(0, (after.allocs-before.allocs-before.allocsOfAsking)/float64(max(1, s.Total)))
		if counted := after.requests - before.requests; !r.tls && r.echo == 0 && s.Errors+s.Unanswered == 0 && counted != float64(s.Total) {
			s.Errors++
			s.FirstError = fmt.Sprintf("its metrics count %.0f requests of %d", counted, s.Total)
		}
	}
	return s, nil
}

// generate runs a generator, and calls begin and end when what is measured begins and when it ends.
func (b *bench) generate(ctx context.Context, l load, r row, begin, end func() error) (loadResult, error) {
	log := filepath.Join(b.site.dir, "h2load.tsv")
	command, mark := h2loadCommand(l, r.streams, log), h2loadBegin
	if r.tls {
		os.Remove(log)
	} else {
		text, err := json.Marshal(l)
		if err != nil {
			return loadResult{}, err
		}
		command, mark = []string{b.site.self, "load", string(text)}, "begin"
	}
	read, written, err := os.Pipe()
	if err != nil {
		return loadResult{}, err
	}
	defer read.Close()
	p, err := b.launcher.start("load", b.site.dir, b.loadCores, written, command...)
	written.Close()
	if err != nil {
		return loadResult{}, err
	}
	defer p.stop()
	defer context.AfterFunc(ctx, p.stop)()
	var out strings.Builder
	var failed error
	var from, to time.Time
	for lines := bufio.NewScanner(read); lines.Scan(); {
		line := lines.Text()
		switch {
		case from.IsZero() && strings.Contains(line, mark):
			if r.tls {
				failed = wait(ctx, l.Warm)
			}
			from, failed = time.Now(), errors.Join(failed, begin())
			if r.tls {
				failed = errors.Join(failed, wait(ctx, l.Time), end())
				to = time.Now()
			}
		case !r.tls && to.IsZero() && line == "end":
			failed = errors.Join(failed, end())
			to = time.Now()
		default:
			out.WriteString(line + "\n")
		}
	}
	<-p.done
	if err := errors.Join(ctx.Err(), p.err, failed); err != nil || to.IsZero() {
		return loadResult{}, fmt.Errorf("generate load: %w\n%s%s", err, out.String(), p.tail())
	}
	if !r.tls {
		var result loadResult
		err := json.Unmarshal([]byte(out.String()), &result)
		return result, err
	}
	file, err := os.Open(log)
	if err != nil {
		return loadResult{}, err
	}
	defer file.Close()
	return parseH2load(out.String(), file, l, r.streams, r.size, from, to)
}

// wait waits for so long, or until ctx is done.
func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// counters are what Mainstay says of itself.
type counters struct {
	known          bool
	allocs         float64
	allocsOfAsking float64
	requests       float64
}

func (b *bench) counters(ctx context.Context, proxy *running) (counters, error) {
	if !strings.HasPrefix(proxy.peer.name, "mainstay") {
		return counters{}, nil
	}
	var c [2]counters
	for i := range c {
		text, err := scrape(ctx, "http://"+proxy.at.metrics+"/metrics")
		if err != nil {
			return counters{}, fmt.Errorf("ask for metrics: %w", err)
		}
		c[i] = counters{known: true, allocs: sumOf(text, "go_memstats_mallocs_total"), requests: sumOf(text, "mainstay_proxy_requests_total")}
	}
	c[1].allocsOfAsking = 2 * (c[1].allocs - c[0].allocs) // between one call's second and the next call's second are two
	return c[1], nil
}

func scrape(ctx context.Context, url string) (string, error) {
	request, err := http.NewRequestWithContext(ctx, "GET", url, nil)
	if err != nil {
		return "", err
	}
	request.Header.Set("Accept-Encoding", "identity") // what it costs to compress is nobody's request
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return string(text), err
}

// sumOf adds up all series of a metric in Prometheus' text form.
func sumOf(text, metric string) float64 {
	sum := 0.0
	for line := range strings.Lines(text) {
		rest, ok := strings.CutPrefix(line, metric)
		if !ok || rest[0] != ' ' && rest[0] != '{' {
			continue
		}
		fields := strings.Fields(rest[strings.LastIndexByte(rest, '}')+1:])
		if len(fields) > 0 {
			value, _ := strconv.ParseFloat(fields[0], 64)
			sum += value
		}
	}
	return sum
}

func loadAverage() float64 {
	text, _ := os.ReadFile("/proc/loadavg")
	word, _, _ := strings.Cut(string(text), " ")
	value, _ := strconv.ParseFloat(word, 64)
	return value
}
