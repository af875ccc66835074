package proxy

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"mainstay/topology"
)

// TestAgreement sends requests of every kind through the proxy and the very bytes that it sends on to net/http, nginx and HAProxy: of all of them each
// must understand the same method, target, host and content, and as many requests. What is beyond doubt must arrive as it was meant.
//
// It takes seconds; with MAINSTAY_SOAK=1 ten minutes an engine, or as MAINSTAY_SOAK_TIME says (make agreement). MAINSTAY_SEED repeats a run. What fails
// is made as small as it can be and left in testdata/agreement, where each run begins.
func TestAgreement(t *testing.T) {
	interpreters := newInterpreters(t)
	for _, engine := range []topology.ProxyEngine{topology.EngineAuto, topology.EngineNetHTTP} {
		t.Run(string(engine), func(t *testing.T) {
			a := newAgreement(t, engine, interpreters)
			a.replay()
			a.run(soakTime(t, 3*time.Second, 10*time.Minute))
		})
	}
}

// soakTime returns for how long a test is to go on that is the better the longer it does.
func soakTime(t *testing.T, short, long time.Duration) time.Duration {
	t.Helper()
	if os.Getenv("MAINSTAY_SOAK") == "" {
		return short
	}
	if given := os.Getenv("MAINSTAY_SOAK_TIME"); given != "" {
		d, err := time.ParseDuration(given)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	return long
}

const (
	agreementCases = "testdata/agreement"
	casesInFlight  = 48 // clients at once
	casesKept      = 1 << 14
	batchSize      = 64
	failuresKept   = 5
	quietTime      = 50 * time.Millisecond // without a byte, after which a client gives up
)

// A trial is one connection of a client: what it sends, and what came of that.
type trial struct {
	sent  []byte
	parts []int     // lengths of the pieces in which it is sent
	means []meaning // nil: nobody knows
	from  string    // the address that the client has for this trial alone, by which its requests are known at the instance

	alone bool // no other is under way, and the judge does not run

	mu    sync.Mutex
	seen  []sighting
	fault error // of what was forwarded
}

// An agreement is one engine with an instance that takes note of the bytes it is sent, and the interpreters who are sent the same.
type agreement struct {
	t            *testing.T
	rig          *rig
	interpreters []*interpreter
	forwarded    chan sighting
	judged       chan struct{}

	mu     sync.Mutex
	trials map[string]*trial // by client
	order  []string          // of them, oldest first
	number uint32

	sent, requests, answered atomic.Int64
	statuses                 [1000]atomic.Int64
	refusals                 map[string]int // by interpreter and why; only the judge writes
	failures                 atomic.Int64

	mending sync.Mutex
	failed  map[*trial]error // the first of them, with what was wrong first
}

func newAgreement(t *testing.T, engine topology.ProxyEngine, interpreters []*interpreter) *agreement {
	a := &agreement{
		t: t, rig: newRig(t), interpreters: interpreters, forwarded: make(chan sighting, 4*batchSize), judged: make(chan struct{}),
		trials: map[string]*trial{}, refusals: map[string]int{}, failed: map[*trial]error{},
	}
	a.rig.topology.Proxy.Engine = engine
	a.rig.topology.Proxy.AccessLog = false
	a.rig.apply()
	a.rig.raw("web", "web/1", a.witness)
	return a
}

// witness is the instance: it notes what it is sent and answers.
func (a *agreement) witness(c net.Conn, _ *bufio.Reader) {
	for r := bufio.NewReaderSize(c, 1<<17); ; {
		s, err := see(r, func(interim string) { _, _ = io.WriteString(c, interim) })
		switch {
		case errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed):
			return // between two requests, or because the client went before its request was whole
		case err != nil:
			var network net.Error
			if !errors.As(err, &network) {
				a.check(a.trial(s.client), fmt.Errorf("%w, in %q", err, s.raw))
			}
			return
		}
		t := a.trial(s.client)
		if t != nil {
			t.mu.Lock()
			t.seen = append(t.seen, s)
			t.mu.Unlock()
		}
		if t == nil || !t.alone {
			a.requests.Add(1)
			select {
			case a.forwarded <- s:
			case <-a.judged:
			}
		}
		if _, err := io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nNoted: 1\r\n\r\n"); err != nil {
			return
		}
	}
}

func (a *agreement) trial(client string) *trial {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.trials[client]
}

// enter gives a trial its address.
func (a *agreement) enter(t *trial) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.number++
	n := a.number % (250 << 16)
	t.from = fmt.Sprintf("127.%d.%d.%d", 1+n>>16, n>>8&0xff, n&0xff)
	a.trials[t.from] = t
	if a.order = append(a.order, t.from); len(a.order) > casesKept {
		delete(a.trials, a.order[0])
		a.order = a.order[1:]
	}
}

// replay runs what failed in earlier times, whole and cut in two.
func (a *agreement) replay() {
	files, err := filepath.Glob(filepath.Join(agreementCases, "*"))
	if err != nil {
		a.t.Fatal(err)
	}
	for _, file := range files {
		sent, err := readCase(file)
		if err != nil {
			a.t.Fatal(err)
		}
		for _, at := range []int{0, len(sent) / 3, len(sent) / 2, len(sent) - 1} {
			if err := a.try(sent, at); err != nil {
				a.t.Errorf("%s, cut at %d: %v", file, at, err)
				break
			}
		}
	}
}

// run sends what the grammar writes for so long.
func (a *agreement) run(d time.Duration) {
	seed := uint64(time.Now().UnixNano())
	if given := os.Getenv("MAINSTAY_SEED"); given != "" {
		var err error
		if seed, err = strconv.ParseUint(given, 10, 64); err != nil {
			a.t.Fatal(err)
		}
	}
	go func() {
		defer close(a.judged)
		a.judge()
	}()
	begun, over := time.Now(), time.Now().Add(d)
	seeds := seedCases(a.t)
	var clients sync.WaitGroup
	for i := range casesInFlight {
		g := newGrammar(seed+uint64(i), seeds)
		clients.Go(func() {
			for time.Now().Before(over) && a.failures.Load() < failuresKept {
				t := &trial{}
				t.sent, t.means = g.next()
				t.parts = g.parts(len(t.sent))
				a.enter(t)
				if err := a.send(t); err != nil {
					a.check(t, err)
				}
			}
		})
	}
	clients.Wait()
	a.forwarded <- sighting{} // the last
	<-a.judged
	took := time.Since(begun).Seconds()
	for t, err := range a.failed {
		a.t.Errorf("%v\nafter a client sent %q", err, t.sent)
		a.leave(t)
	}
	a.t.Logf("seed %d: %d cases in %.0f s (%.0f a second), %d requests forwarded and asked about, %d answers received", seed, a.sent.Load(), took, float64(a.sent.Load())/took, a.requests.Load(), a.answered.Load())
	var statuses strings.Builder
	for status := range a.statuses {
		if n := a.statuses[status].Load(); n > 0 {
			fmt.Fprintf(&statuses, " %d: %d", status, n)
		}
	}
	a.t.Logf("first answers (0: none):%s", statuses.String())
	for _, why := range slices.Sorted(maps.Keys(a.refusals)) {
		a.t.Logf("%s: %d", why, a.refusals[why])
	}
}

// parts cuts n bytes into up to three pieces.
func (g *grammar) parts(n int) []int {
	if g.chance(60) || n < 3 {
		return []int{n}
	}
	first := 1 + g.IntN(n-2)
	second := 1 + g.IntN(n-first-1)
	return []int{first, second, n - first - second}
}

// send sends a trial's bytes from its address and waits for what can be told of it.
func (a *agreement) send(t *trial) error {
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(t.from)}}
	c, err := dialer.Dial("tcp", a.rig.address())
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.(*net.TCPConn).SetLinger(0) // else each port stays in use for a minute
	a.sent.Add(1)
	written := make(chan struct{})
	go func() {
		defer close(written)
		at := 0
		for _, n := range t.parts {
			if _, err := c.Write(t.sent[at : at+n]); err != nil {
				return
			}
			at += n
			runtime.Gosched()
		}
	}()
	got, whole := a.receive(c, len(t.means))
	c.Close()
	<-written
	status := 0
	if len(got) > len("HTTP/1.1 200") {
		status, _ = strconv.Atoi(string(got[len("HTTP/1.1 "):len("HTTP/1.1 200")]))
	}
	a.statuses[max(0, min(status, 999))].Add(1)
	if t.means == nil {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if !whole {
		return fmt.Errorf("%d of %d honest requests were answered: %q", bytes.Count(got, noted), len(t.means), got)
	}
	if len(t.seen) != len(t.means) {
		return fmt.Errorf("%d requests became %d", len(t.means), len(t.seen))
	}
	for i, m := range t.means {
		if got := t.seen[i].means.String(); got != m.String() {
			return fmt.Errorf("request %d was meant as %s and forwarded as %s", i+1, m, got)
		}
	}
	return nil
}

var noted = []byte("\r\nNoted: 1\r\n")

// receive reads until the instance's answer has come so often (0: as often as it comes), the connection ends or nothing comes for a while.
func (a *agreement) receive(c net.Conn, answers int) (got []byte, whole bool) {
	limit := quietTime
	if answers > 0 {
		limit = 20 * time.Second
	}
	buffer := make([]byte, 4096)
	for {
		_ = c.SetReadDeadline(time.Now().Add(limit))
		n, err := c.Read(buffer)
		got = append(got, buffer[:n]...)
		count := bytes.Count(got, noted)
		if whole = answers > 0 && count == answers; whole || err != nil {
			a.answered.Add(int64(count))
			return got, whole
		}
	}
}

// judge asks the interpreters about what was forwarded.
func (a *agreement) judge() {
	var batch []sighting
	for s := range a.forwarded {
		last := s.raw == nil
		if !last {
			batch = append(batch, s)
		}
		if len(batch) == batchSize || len(a.forwarded) == 0 || last {
			for _, w := range a.interpreters {
				a.ask(w, batch)
			}
			batch = batch[:0]
		}
		if last {
			return
		}
	}
}

// ask asks one interpreter about a batch.
func (a *agreement) ask(w *interpreter, batch []sighting) {
	for len(batch) > 0 {
		var raw [][]byte
		for _, s := range batch {
			raw = append(raw, s.raw)
		}
		seen, err := w.ask(raw)
		if err != nil { // which of them it is about shows when each is asked about by itself
			for _, s := range batch {
				a.check(a.trial(s.client), askOne(w, s, a.refuse))
			}
			return
		}
		for i, said := range seen {
			a.check(a.trial(batch[i].client), compare(w, batch[i], said, a.refuse))
		}
		batch = batch[len(seen):]
	}
}

// askOne asks one interpreter about one request, and that nothing is left of it afterwards.
func askOne(w *interpreter, s sighting, refuse func(string)) error {
	last := sighting{raw: []byte("GET /last HTTP/1.1\r\nHost: last\r\n\r\n"), means: meaning{method: "GET", target: "/last", host: "last"}}
	w.close()
	seen, err := w.ask([][]byte{s.raw, last.raw})
	if err != nil {
		return fmt.Errorf("%s: %w, as it was sent %q", w.name, err, s.raw)
	}
	if err := compare(w, s, seen[0], refuse); err != nil || len(seen) == 1 {
		return err
	}
	return compare(w, last, seen[1], refuse)
}

// compare compares what an interpreter said with what was forwarded. An interpreter may refuse what Mainstay does not, if it is known to be
// narrower there than the standards: two who disagree so see no two requests in the same bytes.
func compare(w *interpreter, s sighting, said string, refuse func(string)) error {
	if said == s.means.String() {
		return nil
	}
	if strings.HasPrefix(said, "refused: ") {
		if why := narrow(w.name, s); why != "" {
			refuse(w.name + " " + said + ": " + why)
			return nil
		}
	}
	return fmt.Errorf("%s understood %s, not %s, as it was sent %q", w.name, said, s.means, s.raw)
}

func (a *agreement) refuse(why string) { a.refusals[why]++ }

// check takes note of an error.
func (a *agreement) check(t *trial, err error) {
	if err == nil {
		return
	}
	if t == nil {
		a.failures.Add(1)
		a.t.Errorf("of an unknown client: %v", err)
		return
	}
	if t.alone {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.fault = err
		return
	}
	a.mending.Lock()
	defer a.mending.Unlock()
	if a.failures.Add(1); len(a.failed) < failuresKept && a.failed[t] == nil {
		a.failed[t] = err
	}
}

// try runs one case alone, sent in two pieces, and returns what is wrong with it.
func (a *agreement) try(sent []byte, at int) error {
	t := &trial{sent: sent, parts: []int{at, len(sent) - at}, alone: true}
	a.enter(t)
	if err := a.send(t); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.fault != nil {
		return t.fault
	}
	for _, s := range t.seen {
		for _, w := range a.interpreters {
			if err := askOne(w, s, func(string) {}); err != nil {
				return err
			}
		}
	}
	return nil
}

// leave makes a case as small as it can be in some seconds, and leaves it in a file.
func (a *agreement) leave(t *trial) {
	sent := t.sent
	over := time.Now().Add(5 * time.Second)
	if err := a.try(sent, 0); err == nil {
		a.t.Log("alone it does not fail")
	} else {
		for size := len(sent) / 2; size > 0; size /= 2 {
			for at := 0; at+size <= len(sent) && time.Now().Before(over); {
				less := slices.Delete(bytes.Clone(sent), at, at+size)
				if a.try(less, 0) != nil {
					sent = less
				} else {
					at += size
				}
			}
		}
		a.t.Logf("as small as it becomes: %q: %v", sent, a.try(sent, 0))
	}
	sum := sha256.Sum256(sent)
	file := filepath.Join(agreementCases, fmt.Sprintf("%x", sum[:6]))
	if err := writeCase(file, sent); err != nil {
		a.t.Error(err)
	}
	a.t.Log("left in ", file)
}

// readCase reads a file that has a quoted string a line, all of which are sent together; other lines are comments.
func readCase(file string) (sent []byte, err error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, `"`) {
			continue
		}
		piece, err := strconv.Unquote(line)
		if err != nil {
			return nil, fmt.Errorf("read %s: %s: %w", file, line, err)
		}
		sent = append(sent, piece...)
	}
	return sent, nil
}

func writeCase(file string, sent []byte) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	var text strings.Builder
	for line := range bytes.Lines(sent) {
		fmt.Fprintf(&text, "%+q\n", line)
	}
	return os.WriteFile(file, []byte(text.String()), 0o644)
}

// seedCases returns what clients send in the framing corpus: the lines of its files that begin with ">".
func seedCases(t *testing.T) (seeds [][]byte) {
	files, err := filepath.Glob("testdata/framing/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			escaped, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "> ")
			if !ok {
				continue
			}
			if seed, err := strconv.Unquote(`"` + strings.ReplaceAll(escaped, `"`, `\"`) + `"`); err == nil {
				seeds = append(seeds, []byte(seed))
			}
		}
	}
	return seeds
}
