package supervisor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"mainstay/topology"
)

type piece struct {
	Text    string
	Partial bool
}

// readLines cuts r into lines as a stream does.
func readLines(r io.Reader, emit func(text []byte, partial bool)) {
	var l lines
	for buf := make([]byte, 5<<10); ; {
		n, err := r.Read(buf)
		l.add(buf[:n], emit)
		if err != nil {
			l.end(false, emit)
			return
		}
	}
}

func pieces(r io.Reader) []piece {
	var list []piece
	readLines(r, func(text []byte, partial bool) { list = append(list, piece{string(text), partial}) })
	return list
}

func TestReadLines(t *testing.T) {
	long := strings.Repeat("x", lineLimit)
	tests := []struct {
		name, in string
		want     []piece
	}{
		{"nothing", "", nil},
		{"lines", "a\n\nb\r\n", []piece{{"a", false}, {"", false}, {"b", false}}},
		{"last words", "a\nthe end", []piece{{"a", false}, {"the end", false}}},
		{"bytes", "a\x00b\xff\n", []piece{{"a\x00b\xff", false}}},
		{"progress", "1%\r2%\r\n", []piece{{"1%\r2%", false}}},
		{"long", long + long + "yz\nb\n", []piece{{long, true}, {long, true}, {"yz", false}, {"b", false}}},
		{"long to the end", long, []piece{{long, true}}},
		{"long with a rune across the limit", long[1:] + "é\n", []piece{{long[1:], true}, {"é", false}}},
	}
	for _, tt := range tests {
		for name, r := range map[string]io.Reader{
			"whole": strings.NewReader(tt.in), "byte by byte": iotest.OneByteReader(strings.NewReader(tt.in)), "with its end": iotest.DataErrReader(strings.NewReader(tt.in)),
		} {
			if diff := cmp.Diff(tt.want, pieces(r)); diff != "" {
				t.Errorf("%s, %s: %s", tt.name, name, diff)
			}
		}
	}
}

func FuzzReadLines(f *testing.F) {
	f.Add([]byte("a\nb\r\n\r\nc"), 3)
	f.Add([]byte(strings.Repeat("é", lineLimit)), 7)
	f.Add([]byte("\x00\xff\xfe\n"), 1)
	f.Fuzz(func(t *testing.T, in []byte, step int) {
		var got []byte
		readLines(&steps{in, 1 + max(step, -step-1)%5000}, func(text []byte, partial bool) {
			if len(text) > lineLimit || bytes.IndexByte(text, '\n') >= 0 {
				t.Errorf("a piece of %d bytes, or with the end of a line in it", len(text))
			}
			if got = append(got, text...); !partial {
				got = append(got, '\n')
			}
		})
		want := append(slices.Clone(in), '\n')
		want = bytes.ReplaceAll(want, []byte("\r\n"), []byte("\n"))
		if bytes.HasSuffix(in, []byte("\r")) { // no end of a line followed
			want = append(bytes.TrimSuffix(want, []byte("\n")), "\r\n"...)
		}
		if n := len(in); n == 0 || in[n-1] == '\n' || len(got) == len(want)-1 {
			want = want[:len(want)-1]
		}
		if !bytes.Equal(bytes.ReplaceAll(got, []byte("\r\n"), []byte("\n")), bytes.ReplaceAll(want, []byte("\r\n"), []byte("\n"))) {
			t.Errorf("read %q\nof %q", got, in)
		}
	})
}

// steps reads b so many bytes at a time.
type steps struct {
	b    []byte
	step int
}

func (s *steps) Read(p []byte) (int, error) {
	if len(s.b) == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), s.step)], s.b)
	s.b = s.b[n:]
	return n, nil
}

func FuzzParseLine(f *testing.F) {
	f.Add("2026-01-02T03:04:05.123456789Z stdout F hello world")
	f.Add("2026-01-02T03:04:05Z stderr P ")
	f.Add("garbage")
	f.Fuzz(func(t *testing.T, s string) {
		l, ok := parseLine(s)
		if !ok || l.Time.Year() > 9999 || strings.Contains(s, "\n") {
			return
		}
		again, ok := parseLine(strings.TrimSuffix(string(appendLine(nil, l)), "\n"))
		if !ok || !again.Time.Equal(l.Time) || again.Text != l.Text || again.Partial != l.Partial || again.Stream != l.Stream {
			t.Errorf("%q became %+v, then %+v", s, l, again)
		}
	})
}

func newTestJournal(t *testing.T, dir string) (*journal, prometheus.Counter) {
	t.Helper()
	dropped := prometheus.NewCounter(prometheus.CounterOpts{Name: "dropped_total"})
	a := newArchive(slog.New(slog.DiscardHandler), prometheus.NewCounter(prometheus.CounterOpts{Name: "removed_total"}))
	return a.open("web", topology.Output{}, dir, slog.New(slog.DiscardHandler), dropped), dropped
}

// read reads of j's service alone.
func (j *journal) read(ctx context.Context, q LogQuery, emit func(LogLine) error) error {
	if len(q.Of) == 0 {
		q.Of = []LogSource{{Service: j.service}}
	}
	return j.archive.read(ctx, q, emit)
}

func readAll(t *testing.T, j *journal, q LogQuery) []string {
	t.Helper()
	var texts []string
	if err := j.read(t.Context(), q, func(l LogLine) error {
		texts = append(texts, l.Instance+" "+l.Text)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return texts
}

func TestJournalTail(t *testing.T) {
	for _, dir := range []string{"", t.TempDir()} { // in memory, on disk
		j, _ := newTestJournal(t, dir)
		for i := range 3 {
			j.output(1).add("stdout", fmt.Appendf(nil, "a%d", i), false)
			j.output(2).add("stderr", fmt.Appendf(nil, "b%d", i), false)
		}
		tests := []struct {
			q    LogQuery
			want []string
		}{
			{LogQuery{Tail: -1}, []string{"web/1 a0", "web/2 b0", "web/1 a1", "web/2 b1", "web/1 a2", "web/2 b2"}},
			{LogQuery{Tail: 1}, []string{"web/1 a2", "web/2 b2"}},
			{LogQuery{Tail: 2, Of: []LogSource{{"web", 2}}}, []string{"web/2 b1", "web/2 b2"}},
			{LogQuery{Tail: 0}, nil},
		}
		for _, tt := range tests {
			if diff := cmp.Diff(tt.want, readAll(t, j, tt.q)); diff != "" {
				t.Errorf("%+v in %q: %s", tt.q, dir, diff)
			}
		}
		if err := j.read(t.Context(), LogQuery{Of: []LogSource{{"web", 9}}}, nil); err == nil || err.Error() != "read logs: there is no instance web/9" {
			t.Errorf("an instance that is not there: %v", err)
		}
		j.close()
	}
}

// Whoever begins to follow in the middle gets every line once, in order, whatever is written meanwhile.
func TestFollowHasNoGapAndNoDouble(t *testing.T) {
	const total = 30000
	j, dropped := newTestJournal(t, t.TempDir())
	var writers, readers sync.WaitGroup
	begun := make(chan struct{})
	writers.Go(func() {
		o := j.output(1)
		for i := range total {
			if i == total/10 {
				close(begun)
			}
			o.add("stdout", fmt.Appendf(nil, "%d", i), false)
			if i%50 == 0 {
				runtime.Gosched()
			}
		}
	})
	<-begun
	for range 3 {
		readers.Go(func() {
			want := 0
			enough := errors.New("enough")
			err := j.read(t.Context(), LogQuery{Tail: -1, Follow: true}, func(l LogLine) error {
				if l.Text != strconv.Itoa(want) {
					return fmt.Errorf("line %q, want %d", l.Text, want)
				}
				if want++; want == total {
					return enough
				}
				return nil
			})
			if err != enough {
				t.Errorf("after line %d: %v", want, err)
			}
		})
	}
	writers.Wait()
	j.close() // who is behind reads on from the disk
	readers.Wait()
	if n := testutil.ToFloat64(dropped); n != 0 {
		t.Errorf("%g lines were dropped before a healthy disk", n)
	}
}

// Who is behind when the service is removed gets what it has yet to read, whether it follows that service or all of them, and whether or not
// there is another of the name by then.
func TestFollowIsBehindWhenTheServiceIsRemoved(t *testing.T) {
	for name, of := range map[string][]LogSource{"all": nil, "one": {{Service: "web"}}, "instance": {{Service: "web", Replica: 1}}} {
		for _, again := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, again %t", name, again), func(t *testing.T) {
				const total = 3 * followerLines
				dir := t.TempDir()
				j, dropped := newTestJournal(t, dir)
				j.output(1).add("stdout", []byte("0"), false)
				begun, removed := make(chan struct{}), make(chan struct{})
				want, last := 0, total
				if again {
					last++
				}
				ctx, enough := context.WithCancel(t.Context())
				defer enough()
				var reader sync.WaitGroup
				reader.Go(func() {
					err := j.archive.read(ctx, LogQuery{Of: of, Tail: -1, Follow: true}, func(l LogLine) error {
						if l.Text != strconv.Itoa(want) {
							return fmt.Errorf("line %q, want %d", l.Text, want)
						}
						if want++; want == 1 {
							close(begun)
							<-removed
						}
						if want == last && again {
							enough() // nothing else ends it
						}
						return nil
					})
					if err != nil || want != last {
						t.Errorf("after line %d of %d: %v", want, last, err)
					}
				})
				<-begun
				for i := 1; i < total; i++ {
					j.output(1).add("stdout", []byte(strconv.Itoa(i)), false)
				}
				j.close()
				if again {
					next := j.archive.open("web", topology.Output{}, dir, j.log, j.dropped)
					defer next.close()
					next.output(1).add("stdout", []byte(strconv.Itoa(total)), false)
				}
				close(removed)
				reader.Wait()
				if n := testutil.ToFloat64(dropped); n != 0 {
					t.Errorf("%g lines were dropped before a healthy disk", n)
				}
			})
		}
	}
}

// waits reports whether lines wait for the writer.
func (o *output) waits() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.writing
}

func TestFollowSeesPlacesThatCome(t *testing.T) {
	j, _ := newTestJournal(t, t.TempDir())
	j.output(1).add("stdout", []byte("old"), false)
	lines := make(chan string, 10)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		done <- j.read(ctx, LogQuery{Tail: -1, Follow: true}, func(l LogLine) error { lines <- l.Instance + " " + l.Text; return nil })
	}()
	if got := <-lines; got != "web/1 old" {
		t.Errorf("first %q", got)
	}
	j.output(2).add("stdout", []byte("new"), false)
	if got := <-lines; got != "web/2 new" {
		t.Errorf("then %q", got)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	for _, o := range j.outputs {
		if len(o.followers) != 0 {
			t.Error("one who left is still followed up")
		}
	}
	j.close()
}

func TestSlowFollowerIsToldWhatItMissed(t *testing.T) {
	j, _ := newTestJournal(t, "")
	o := j.output(1)
	entered, proceed := make(chan struct{}), make(chan struct{})
	var got []string
	enough := errors.New("enough")
	done := make(chan error)
	o.add("stdout", []byte("first"), false)
	go func() {
		first := true
		done <- j.read(t.Context(), LogQuery{Tail: 1, Follow: true}, func(l LogLine) error {
			if first {
				first = false
				close(entered)
				<-proceed
			}
			got = append(got, l.Text)
			if l.Text == "last" {
				return enough
			}
			return nil
		})
	}()
	<-entered
	for range followerLines + 7 {
		o.add("stdout", []byte("many"), false)
	}
	close(proceed)
	f := func() *follower {
		o.mu.Lock()
		defer o.mu.Unlock()
		for f := range o.followers {
			return f
		}
		return nil
	}()
	for len(f.lines) > 0 {
		runtime.Gosched()
	}
	o.add("stdout", []byte("last"), false)
	if err := <-done; err != enough {
		t.Error(err)
	}
	if n := len(got); n != 1+followerLines+2 || got[n-2] != "7 lines skipped: they came faster than they were read here" {
		t.Errorf("%d lines, at the end %q", n, got[max(0, n-3):])
	}
	j.close()
}

// What a slow follower has no room for is read from the disk.
func TestSlowFollowerCatchesUp(t *testing.T) {
	j, _ := newTestJournal(t, t.TempDir())
	o := j.output(1)
	entered, proceed, done := make(chan struct{}), make(chan struct{}), make(chan error)
	const total = 3 * followerLines
	o.add("stdout", []byte("0"), false)
	go func() {
		want := 0
		enough := errors.New("enough")
		err := j.read(t.Context(), LogQuery{Tail: 1, Follow: true}, func(l LogLine) error {
			if l.Text != fmt.Sprint(want) {
				return fmt.Errorf("got %q, want %d", l.Text, want)
			}
			if want == 0 || want == total/2 {
				entered <- struct{}{}
				<-proceed
			}
			if want++; want == total {
				return enough
			}
			return nil
		})
		if err == enough {
			err = nil
		}
		done <- err
	}()
	n := 1
	for _, until := range []int{total / 3 * 2, total} {
		select {
		case <-entered:
		case err := <-done:
			t.Fatal(err)
		}
		for ; n < until; n++ {
			o.add("stdout", fmt.Append(nil, n), false)
		}
		proceed <- struct{}{}
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	j.close()
}

// A full disk costs lines, which are counted; what is in memory can still be read, and nobody waits for long.
func TestFullDiskCostsOnlyLines(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "logs", "web"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/dev/full", filepath.Join(dir, "logs", "web", "1.log")); err != nil {
		t.Fatal(err)
	}
	j, dropped := newTestJournal(t, dir)
	for i := range 500 {
		j.output(1).add("stdout", fmt.Appendf(nil, "line %d", i), false)
	}
	for j.output(1).waits() {
		runtime.Gosched()
	}
	if got := readAll(t, j, LogQuery{Tail: 2}); !slices.Equal(got, []string{"web/1 line 498", "web/1 line 499"}) {
		t.Errorf("%q", got)
	}
	j.close()
	if n := testutil.ToFloat64(dropped); n != 500 {
		t.Errorf("%g lines are counted as lost, want 500", n)
	}
}

// A disk that does not answer costs lines too, and memory stays bounded.
func TestStalledDiskCostsOnlyLines(t *testing.T) {
	j, dropped := newTestJournal(t, t.TempDir())
	o := j.output(1)
	o.turn <- struct{}{} // the writer is busy
	line := bytes.Repeat([]byte("x"), 1000)
	for range 5000 {
		o.add("stdout", line, false)
	}
	o.mu.Lock()
	size := len(o.queue)
	o.mu.Unlock()
	if size > queueLimit+2*lineLimit {
		t.Errorf("%d bytes wait", size)
	}
	<-o.turn
	j.close()
	r, err := os.ReadFile(o.path)
	if err != nil {
		t.Fatal(err)
	}
	if kept := bytes.Count(r, []byte("\n")); kept == 0 || kept+int(testutil.ToFloat64(dropped)) != 5000 {
		t.Errorf("%d kept and %g dropped of 5000", kept, testutil.ToFloat64(dropped))
	}
}

func TestOutputOfAnyKind(t *testing.T) {
	f := newFleet(t)
	f.apply(
		program("long", "-long-line", "3000000", "-say", "begin"),
		program("binary", "-binary", "-die-after", "20ms"),
		program("spew", "-spew", "20000"),
	)
	f.said("binary", "end")
	if got := f.logs("binary")[0]; got != "nul \x00 bad \uFFFD end" || !utf8.ValidString(got) {
		t.Errorf("binary: %q", got)
	}
	f.said("spew", "line 19999")
	if n := len(f.logs("spew")); n != 20000 {
		t.Errorf("%d lines of 20000 are kept", n)
	}
	f.eventually("the long line has ended", func() bool {
		total := 0
		for _, text := range f.logs("long")[1:] {
			total += len(text)
		}
		return total == 3000000
	})
	err := f.Logs(t.Context(), LogQuery{Of: []LogSource{{Service: "nothing"}}}, nil)
	if err == nil || err.Error() != `read logs: there is no service "nothing"` {
		t.Errorf("logs of a service that is not there: %v", err)
	}
}

// The file goes on where the one of an earlier Mainstay ended.
func TestLogsOutliveMainstay(t *testing.T) {
	f := newFleet(t)
	s := shell("web", "echo hello; exec sleep 100")
	for n := 1; n <= 2; n++ {
		f.apply(s)
		f.eventually("web says hello", func() bool { return len(f.logs("web")) == n })
		f.apply()
	}
}
