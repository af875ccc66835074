package logfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t *testing.T, limit int64, keep int) (*File, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "logs", "web", "1.log")
	f, err := Open(path, limit, keep)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f, path
}

func write(t *testing.T, f *File, s string) {
	t.Helper()
	if n, err := f.Write([]byte(s)); err != nil || n != len(s) {
		t.Fatalf("Write(%q) = %d, %v", s, n, err)
	}
}

func content(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func tailed(t *testing.T, f *File, n int) string {
	t.Helper()
	r, err := f.Tail(n, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestWriteRotatesAndForgets(t *testing.T) {
	f, path := open(t, 8, 2)
	for _, s := range []string{"a1\n", "a2\n", "bbbbbb\n", "ccccccc\n", "d\n"} {
		write(t, f, s)
	}
	want := map[string]string{path: "d\n", path + ".1": "ccccccc\n", path + ".2": "bbbbbb\n"}
	for p, s := range want {
		if got := content(t, p); got != s {
			t.Errorf("%s holds %q, want %q", filepath.Base(p), got, s)
		}
	}
	if _, err := os.Stat(path + ".3"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a third old file is kept: %v", err)
	}
}

func TestWriteKeepsNoneWhenNoneAreAskedFor(t *testing.T) {
	f, path := open(t, 4, 0)
	write(t, f, "one\n")
	write(t, f, "two\n")
	if got := content(t, path); got != "two\n" {
		t.Errorf("file holds %q, want only the last line", got)
	}
}

func TestWriteTakesWhatIsLongerThanTheLimitWhole(t *testing.T) {
	f, path := open(t, 4, 1)
	long := strings.Repeat("x", 100) + "\n"
	write(t, f, "a\n")
	write(t, f, long)
	write(t, f, "b\n")
	if got := content(t, path+".1"); got != long {
		t.Errorf("old file holds %q, want the long line whole", got)
	}
}

func TestOpenAppendsAndCountsWhatIsThere(t *testing.T) {
	f, path := open(t, 6, 1)
	write(t, f, "one\n")
	f.Close()
	f, err := Open(path, 6, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	write(t, f, "two\n")
	if diff := cmp.Diff("one\n", content(t, path+".1")); diff != "" {
		t.Error(diff)
	}
}

func TestOpenEndsALineThatWasLeftInTheMiddle(t *testing.T) {
	f, path := open(t, 100, 1)
	write(t, f, "one\ntw")
	f.Close()
	f, err := Open(path, 100, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	write(t, f, "three\n")
	if diff := cmp.Diff("one\ntw\nthree\n", content(t, path)); diff != "" {
		t.Error(diff)
	}
}

func TestWriteAfterTheDirectoryWasDeleted(t *testing.T) {
	f, path := open(t, 100, 1)
	write(t, f, "one\n")
	if err := os.RemoveAll(filepath.Dir(path)); err != nil {
		t.Fatal(err)
	}
	write(t, f, "two\n")
	if got := content(t, path); got != "two\n" {
		t.Errorf("file holds %q after its directory was deleted, want the new line", got)
	}
}

func TestWriteAfterTheFileWasMovedAway(t *testing.T) {
	f, path := open(t, 100, 2)
	write(t, f, "old\n")
	if err := os.Rename(path, path+".moved"); err != nil {
		t.Fatal(err)
	}
	write(t, f, "new\n")
	if got := content(t, path); got != "new\n" {
		t.Errorf("path holds %q", got)
	}
	if got := content(t, path+".moved"); got != "old\n" {
		t.Errorf("what was moved away holds %q", got)
	}
}

func TestWriteAfterTheFileWasEmptied(t *testing.T) {
	f, path := open(t, 8, 2)
	write(t, f, "12345\n")
	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
	write(t, f, "abc\n")
	if got := content(t, path); got != "abc\n" {
		t.Errorf("path holds %q", got)
	}
	if _, err := os.Stat(path + ".1"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it was rotated although there was room: %v", err)
	}
}

func TestWriteAfterCloseIsRefused(t *testing.T) {
	f, _ := open(t, 100, 1)
	f.Close()
	if _, err := f.Write([]byte("x\n")); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Write after Close: %v, want %v", err, os.ErrClosed)
	}
}

// A full device refuses part of a write; what was there stays whole lines.
func TestWriteToAFullDisk(t *testing.T) {
	f := &File{path: "/dev/full", limit: 1 << 20}
	if _, err := os.Stat(f.path); err != nil {
		t.Skip("no /dev/full here")
	}
	for range 3 {
		if _, err := f.Write([]byte("lost\n")); err == nil {
			t.Fatal("a write to a full disk succeeded")
		}
	}
	f.Close()
}

func TestConcurrentWritesStayWhole(t *testing.T) {
	f, _ := open(t, 1000, 100)
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range 200 {
				fmt.Fprintf(f, "writer %d line %d\n", w, i)
			}
		})
	}
	wg.Wait()
	lines := strings.Split(strings.TrimSuffix(tailed(t, f, -1), "\n"), "\n")
	if len(lines) != 800 {
		t.Fatalf("%d lines are kept, want 800", len(lines))
	}
	next := map[int]int{}
	for _, l := range lines {
		var w, i int
		if _, err := fmt.Sscanf(l, "writer %d line %d", &w, &i); err != nil || i != next[w] {
			t.Fatalf("line %q out of order or torn: %v", l, err)
		}
		next[w]++
	}
}

func TestTail(t *testing.T) {
	f, _ := open(t, 12, 2)
	for i := range 9 {
		write(t, f, fmt.Sprintf("l%d\n", i))
	}
	tests := []struct {
		n    int
		want string
	}{
		{0, ""},
		{1, "l8\n"},
		{2, "l7\nl8\n"},
		{5, "l4\nl5\nl6\nl7\nl8\n"},
		{100, "l0\nl1\nl2\nl3\nl4\nl5\nl6\nl7\nl8\n"},
		{-1, "l0\nl1\nl2\nl3\nl4\nl5\nl6\nl7\nl8\n"},
	}
	for _, tt := range tests {
		if got := tailed(t, f, tt.n); got != tt.want {
			t.Errorf("Tail(%d) = %q, want %q", tt.n, got, tt.want)
		}
	}
}

func TestTailIsOfOneMoment(t *testing.T) {
	f, _ := open(t, 8, 1)
	write(t, f, "one\n")
	r, err := f.Tail(-1, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for range 5 {
		write(t, f, "later\n")
	}
	b, err := io.ReadAll(r)
	if err != nil || string(b) != "one\n" {
		t.Errorf("read %q, %v; want what was there when Tail was called", b, err)
	}
}

func FuzzLastLines(f *testing.F) {
	f.Add([]byte("a\nb\nc"), 2)
	f.Add([]byte("\n\n\n"), 2)
	f.Add([]byte(strings.Repeat("x", 70<<10)+"\ny\n"), 1)
	f.Fuzz(func(t *testing.T, b []byte, n int) {
		n = 1 + max(n, -n)%8
		from, lines, err := lastLines(bytes.NewReader(b), int64(len(b)), n)
		if err != nil {
			t.Fatal(err)
		}
		all := bytes.SplitAfter(b, []byte("\n"))
		if len(all[len(all)-1]) == 0 {
			all = all[:len(all)-1]
		}
		want := all[max(0, len(all)-n):]
		if got := b[from:]; !bytes.Equal(got, bytes.Join(want, nil)) || lines != len(want) {
			t.Errorf("last %d lines of %q: %q (%d), want %q", n, b, got, lines, want)
		}
	})
}

func TestBoundsAreChanged(t *testing.T) {
	f, path := open(t, 4, 3)
	for _, s := range []string{"aaa\n", "bbb\n", "ccc\n", "ddd\n"} {
		write(t, f, s)
	}
	if n := f.Rotations(); n != 3 {
		t.Errorf("%d rotations, want 3", n)
	}
	f.Bound(8, 1)
	write(t, f, "eee\n")
	if got := tailed(t, f, -1); got != "ccc\nddd\neee\n" {
		t.Errorf("kept %q", got)
	}
	if _, err := os.Stat(path + ".2"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what was kept by the bounds before is still there: %v", err)
	}
	f.Close()
	again, err := Open(path, 8, 0) // as a program would that is started with other bounds
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if got := tailed(t, again, -1); got != "ddd\neee\n" {
		t.Errorf("kept %q", got)
	}
	if _, err := os.Stat(path + ".1"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("opening it with other bounds left %v", err)
	}
}

func TestTailSince(t *testing.T) {
	f, path := open(t, 4, 3)
	for _, s := range []string{"aaa\n", "bbb\n", "ccc\n"} {
		write(t, f, s)
	}
	now := time.Now()
	for i, age := range []time.Duration{0, time.Minute, time.Hour} {
		if err := os.Chtimes(f.old(i), now, now.Add(-age)); err != nil {
			t.Fatal(err)
		}
	}
	r, err := f.Tail(-1, now.Add(-10*time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for range 2 {
		if b, err := io.ReadAll(r); err != nil || string(b) != "bbb\nccc\n" {
			t.Errorf("read %q, %v of %s", b, err, path)
		}
		r.Rewind()
	}
}

// TestOpenWhileAnotherWrites holds that what another program is writing is not taken for a line that was never ended.
func TestOpenWhileAnotherWrites(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	writer, err := Open(path, 1<<40, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer writer.Close()
	lines := []byte(strings.Repeat(strings.Repeat("x", 999)+"\n", 1000))
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for n := 0; n < 100; n++ {
			select {
			case <-stop:
				return
			default:
				if _, err := writer.Write(lines); err != nil {
					t.Error(err)
				}
			}
		}
	}()
	for range 200 {
		f, err := Open(path, 1<<40, 1)
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	close(stop)
	<-done
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(b), "\n\n"); n > 0 {
		t.Errorf("there are %d empty lines", n)
	}
}
