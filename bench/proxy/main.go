//go:build linux

// Command proxy measures Mainstay's proxy beside others: CPU time, throughput, latency and memory.
//
// It builds Mainstay and the peers that come from the module proxy, starts three backends, one for WebSockets and all proxies on loopback,
// each in a directory of its own, and ends them. All proxies are held on the same cores, the generator and the backends on the others.
// The rounds alternate: each peer once, and again. A ratio is between two peers of one round; what is printed are medians with the lowest
// and the highest.
//
// There are two generators. Plain HTTP and WebSockets have this program's own (load.go): in a closed loop for saturation, and open for paced
// rows, where requests are due at random moments whatever was answered, and latency counts from then. TLS has h2load. Each response must be
// 2xx and of the right length; of the generator's own, each of at most 1 KiB and one in 16 of the others is compared byte by byte.
//
//	go run ./bench/proxy                              everything
//	go run ./bench/proxy -quick                       nginx and Mainstay, small responses, less than a minute
//	go run ./bench/proxy -rows '119B*,idle*' -peers 'nginx,haproxy,mainstay' -rounds 3
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	// The children are told when the thread ends that has started them.
	runtime.LockOSThread()
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	cancel()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// run is this program, or one of the processes that it starts.
func run(ctx context.Context, args []string) error {
	if len(args) > 0 {
		switch args[0] {
		case "load":
			var l load
			if err := json.Unmarshal([]byte(args[1]), &l); err != nil {
				return fmt.Errorf("read load: %w", err)
			}
			return runLoad(l, os.Stdout)
		case "echo":
			return runEcho(args[1])
		case "reverseproxy":
			return runReverseProxy(args[1], args[2], args[3], args[4], args[5], strings.Split(args[6], ","))
		}
	}
	return measureAll(ctx, args)
}

// options are the flags.
type options struct {
	rows, peers           string
	rounds                int
	time, warm            time.Duration
	proxyCores, loadCores string
	engine, binary        string
	profiles              string
	port, nice            int
	quick, list           bool
	json, markdown        string
}

func parseOptions(args []string) (options, error) {
	var o options
	flags := flag.NewFlagSet("bench/proxy", flag.ContinueOnError)
	flags.StringVar(&o.rows, "rows", "*", "names or patterns of rows, with commas between them")
	flags.StringVar(&o.peers, "peers", "*", "names or patterns of proxies, with commas between them; nginx is needed for paced rows")
	flags.IntVar(&o.rounds, "rounds", 5, "how often each is measured, in turn")
	flags.DurationVar(&o.time, "time", 3*time.Second, "how long each measurement lasts")
	flags.DurationVar(&o.warm, "warm", 700*time.Millisecond, "load before each measurement")
	last := runtime.NumCPU() - 1
	flags.StringVar(&o.proxyCores, "proxy-cores", strconv.Itoa(last), "the cores that every proxy is held on, as taskset has them")
	flags.StringVar(&o.loadCores, "load-cores", fmt.Sprintf("0-%d", max(0, last-1)), "the cores that the generator and the backends are held on")
	flags.StringVar(&o.engine, "engine", "auto", "proxy.engine of mainstay and mainstay-log")
	flags.StringVar(&o.binary, "mainstay", "", "the binary; built from the sources unless given")
	flags.IntVar(&o.port, "port", 17000, "the first port to try")
	flags.StringVar(&o.profiles, "profiles", "", "a directory for profiles of Mainstay, which perf makes in a round more")
	flags.IntVar(&o.nice, "nice", 0, "niceness of everything that is started; below zero it goes before what else the machine does")
	flags.BoolVar(&o.quick, "quick", false, "less than a minute: nginx and mainstay, 119 B, 64 connections, saturated and at 25 %, three rounds of 2 s")
	flags.BoolVar(&o.list, "list", false, "print the names of rows and proxies")
	flags.StringVar(&o.json, "json", "build/bench-proxy.json", "where the raw results go")
	flags.StringVar(&o.markdown, "markdown", "", "where the tables go as Markdown, too")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if flags.NArg() > 0 {
		return o, fmt.Errorf("what is %q? everything is said with flags: -h", flags.Arg(0))
	}
	given := make(map[string]bool)
	flags.Visit(func(f *flag.Flag) { given[f.Name] = true })
	preset := func(name, value string) {
		if o.quick && !given[name] {
			flags.Set(name, value)
		}
	}
	preset("rows", "119B-64-saturated,119B-64-paced-25")
	preset("peers", "nginx,mainstay")
	preset("rounds", "3")
	preset("time", "2s")
	if o.rounds < 1 || o.time <= 0 {
		return o, errors.New("there must be at least one round, and it must last")
	}
	return o, nil
}

// A report is what is kept as JSON.
type report struct {
	Time     string
	Machine  string
	Kernel   string
	Commit   string
	Flags    []string
	Cores    map[string]string
	Versions map[string]string
	LeftOut  map[string]string // peers that could not be had, and why
	Samples  []sample
}

func measureAll(ctx context.Context, args []string) (err error) {
	o, err := parseOptions(args)
	if err != nil {
		return err
	}
	chosenRows, err := match(rows(), func(r row) string { return r.name }, o.rows)
	if err != nil {
		return err
	}
	chosen, err := match(peers(), func(p peer) string { return p.name }, o.peers)
	if err != nil {
		return err
	}
	if o.list {
		for _, r := range chosenRows {
			fmt.Println("row  ", title(nil, r))
		}
		for _, p := range chosen {
			fmt.Println("proxy", p.name+":", p.note)
		}
		return nil
	}
	root, err := sources()
	if err != nil {
		return err
	}
	for _, tool := range []string{"taskset", "nginx", "h2load", "stdbuf"} {
		if _, err := exec.LookPath(tool); err != nil {
			return fmt.Errorf("%w: apt-get install util-linux nginx nghttp2-client coreutils haproxy", err)
		}
	}
	dir, err := os.MkdirTemp("", "bench-proxy-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	s, err := newSite(dir, root)
	if err != nil {
		return err
	}
	s.engine, s.binary = o.engine, o.binary
	if s.binary != "" {
		if s.binary, err = filepath.Abs(s.binary); err != nil {
			return err
		}
	}
	b := &bench{site: s, launcher: launcher{o.nice}, ports: ports{next: o.port}, proxyCores: o.proxyCores, loadCores: o.loadCores, threads: coreCount(o.loadCores), rounds: o.rounds,
		warm: o.warm, time: o.time, progress: os.Stderr, profiles: o.profiles, running: make(map[string]*running), maxima: make(map[string][]float64)}
	result := report{Time: time.Now().UTC().Format(time.RFC3339), Machine: machine(), Kernel: kernel(), Flags: args,
		Commit:   output(root, "git", "describe", "--always", "--dirty"),
		Cores:    map[string]string{"proxy": o.proxyCores, "load": o.loadCores},
		Versions: make(map[string]string), LeftOut: make(map[string]string)}
	backends, err := s.startBackends(b.launcher, &b.ports, o.loadCores)
	defer func() {
		for _, p := range backends {
			p.stop()
		}
	}()
	if err != nil {
		return err
	}
	for i, address := range s.backends {
		if err := backends[0].until(ctx, func() error { return s.fetch(ctx, "http://"+address, "/119B") }); err != nil {
			return fmt.Errorf("start backend %d: %w", i, err)
		}
	}
	defer func() {
		for _, r := range b.running {
			r.stop()
		}
	}()
	var present []peer
	for _, p := range chosen {
		if err := b.bring(ctx, p, &result); ctx.Err() != nil {
			return ctx.Err()
		} else if err != nil {
			if strings.HasPrefix(p.name, "mainstay") || p.name == "nginx" {
				return err
			}
			result.LeftOut[p.name] = err.Error()
			continue
		}
		present = append(present, p)
	}
	out := io.Writer(os.Stdout)
	printTop(out, result, present)
	err = b.measureRows(ctx, chosenRows, present, &result, out, o)
	return err
}

// bring builds and starts a peer.
func (b *bench) bring(ctx context.Context, p peer, result *report) error {
	fmt.Fprintf(b.progress, "bringing in %s\n", p.name)
	version, err := p.prepare(ctx, b.site)
	if err != nil {
		return err
	}
	r, err := b.start(ctx, p)
	if err != nil {
		return err
	}
	b.running[p.name] = r
	result.Versions[p.name] = version
	return nil
}

// measureRows measures, and prints each row when it is complete. What was measured is kept, however this ends.
func (b *bench) measureRows(ctx context.Context, chosen []row, present []peer, result *report, out io.Writer, o options) error {
	var markdown strings.Builder
	keep := func() error {
		result.Samples = b.samples
		text, err := json.MarshalIndent(result, "", " ")
		if err != nil {
			return err
		}
		if err := os.MkdirAll(filepath.Dir(o.json), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(o.json, append(text, '\n'), 0o644); err != nil {
			return err
		}
		if o.markdown == "" {
			return nil
		}
		return os.WriteFile(o.markdown, []byte(markdown.String()), 0o644)
	}
	for _, r := range chosen {
		err := b.measureRow(ctx, r, present)
		if err == nil {
			lines := cells(b.samples, r, present)
			fmt.Fprintf(out, "\n%s\n", title(b.samples, r))
			printTable(out, lines)
			fmt.Fprintf(&markdown, "**%s**\n\n", title(b.samples, r))
			printMarkdown(&markdown, lines)
			fmt.Fprintln(&markdown)
		}
		if err := errors.Join(err, keep()); err != nil {
			return err
		}
	}
	fmt.Fprintf(out, "\nraw results: %s\n", o.json)
	return nil
}

func printTop(out io.Writer, result report, present []peer) {
	fmt.Fprintf(out, "%s, Linux %s; proxies on core %s, generator and backends on %s; Mainstay %s\n", result.Machine, result.Kernel,
		result.Cores["proxy"], result.Cores["load"], result.Commit)
	for _, p := range present {
		fmt.Fprintf(out, "  %-18s %s: %s\n", p.name, result.Versions[p.name], p.note)
	}
	for name, why := range result.LeftOut {
		fmt.Fprintf(out, "  %-18s LEFT OUT: %s\n", name, why)
	}
}

// sources returns the directory of the sources: the first above the working directory with the module's go.mod.
func sources() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		text, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && strings.HasPrefix(string(text), "module mainstay\n") {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("find the sources: run this inside them")
		}
		dir = filepath.Dir(dir)
	}
}

// coreCount returns how many cores a list as 0-3,5 names.
func coreCount(list string) int {
	count := 0
	for part := range strings.SplitSeq(list, ",") {
		from, to, isRange := strings.Cut(part, "-")
		first, _ := strconv.Atoi(from)
		last := first
		if isRange {
			last, _ = strconv.Atoi(to)
		}
		count += max(0, last-first) + 1
	}
	return count
}

func machine() string {
	text, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(text)) {
		if name, ok := strings.CutPrefix(line, "model name"); ok {
			return fmt.Sprintf("%d × %s", runtime.NumCPU(), strings.TrimSpace(strings.TrimLeft(name, "\t :")))
		}
	}
	return fmt.Sprintf("%d cores, %s", runtime.NumCPU(), runtime.GOARCH)
}

func kernel() string {
	text, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	return strings.TrimSpace(string(text))
}

func output(dir string, command ...string) string {
	c := exec.Command(command[0], command[1:]...)
	c.Dir = dir
	out, _ := c.Output()
	return strings.TrimSpace(string(out))
}
