package supervisor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"mainstay/topology"
)

func newTestArchive(t *testing.T) (*archive, prometheus.Counter) {
	t.Helper()
	removed := prometheus.NewCounter(prometheus.CounterOpts{Name: "removed_total"})
	return newArchive(slog.New(slog.DiscardHandler), removed), removed
}

func (a *archive) openTest(service, dir string, bounds topology.Output) *journal {
	dropped := prometheus.NewCounter(prometheus.CounterOpts{Name: "dropped_total"})
	return a.open(service, bounds, dir, slog.New(slog.DiscardHandler), dropped)
}

// texts returns "instance text" of each line that q selects.
func texts(t *testing.T, a *archive, q LogQuery) []string {
	t.Helper()
	var list []string
	if err := a.read(t.Context(), q, func(l LogLine) error {
		list = append(list, l.Instance+" "+l.Text)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return list
}

func TestArchiveForgetsTheOldest(t *testing.T) {
	dir := t.TempDir()
	logs := filepath.Join(dir, "logs")
	now := time.Now()
	for name, minutes := range map[string]int{
		"web/1.log": 50, "web/1.log.1": 60, "web/1.log.2": 90, // written to, and rotated
		"api/2.log": 40, "api/2.log.1": 70,
		"gone/1.log": 80,                       // of a service that there is no more
		"access.log": 100, "access.log.1": 110, // another room's
		"web/notes.txt": 200, // nobody's
	} {
		path := filepath.Join(logs, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, path, strings.Repeat("x", 100), 0o600)
		if err := os.Chtimes(path, now, now.Add(-time.Duration(minutes)*time.Minute)); err != nil {
			t.Fatal(err)
		}
	}
	left := func() []string {
		var names []string
		for _, pattern := range []string{"*", "*/*"} {
			found, err := filepath.Glob(filepath.Join(logs, pattern))
			if err != nil {
				t.Fatal(err)
			}
			for _, path := range found {
				if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
					names = append(names, strings.TrimPrefix(path, logs+"/"))
				}
			}
		}
		return names
	}
	a, removed := newTestArchive(t)
	web, api := a.openTest("web", dir, topology.Output{}), a.openTest("api", dir, topology.Output{})
	defer web.close()
	defer api.close()
	a.bound(dir, 650) // three of nine must go
	if diff := cmp.Diff([]string{"access.log", "api/2.log", "api/2.log.1", "web/1.log", "web/1.log.1", "web/notes.txt"}, left()); diff != "" {
		t.Errorf("left (-want +got): %s", diff)
	}
	if n := testutil.ToFloat64(removed); n != 3 {
		t.Errorf("%g are counted", n)
	}
	a.bound(dir, 1) // what is written to stays
	if diff := cmp.Diff([]string{"access.log", "api/2.log", "web/1.log", "web/notes.txt"}, left()); diff != "" {
		t.Errorf("left (-want +got): %s", diff)
	}
}

func TestArchiveStaysWithinItsLimitWhileItGrows(t *testing.T) {
	dir := t.TempDir()
	a, removed := newTestArchive(t)
	a.bound(dir, 40_000)
	bounds := topology.Output{MaxSize: 4_000, MaxFiles: 1000}
	for i := range 3 {
		j := a.openTest(fmt.Sprintf("s%d", i), dir, bounds)
		for n := range 500 {
			j.output(1).add("stdout", fmt.Appendf(nil, "%d %s", n, strings.Repeat("x", 80)), false)
			if n%10 == 9 {
				j.writers.Wait() // otherwise a batch may be as long as it likes
			}
		}
		defer j.close()
	}
	total, _ := a.survey(filepath.Join(dir, "logs"))
	if total > 40_000+3*4_000 || testutil.ToFloat64(removed) == 0 {
		t.Errorf("%d bytes are kept, %g files were removed", total, testutil.ToFloat64(removed))
	}
	got := texts(t, a, LogQuery{Of: []LogSource{{Service: "s2"}}, Tail: 1})
	if len(got) != 1 || !strings.HasPrefix(got[0], "s2/1 499 ") {
		t.Errorf("the last line is %q", got)
	}
}

func TestLogsAreSearched(t *testing.T) {
	dir := t.TempDir()
	// What an earlier Mainstay has kept, in two files.
	begin := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	path := filepath.Join(dir, "logs", "web", "1.log")
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	var files [2][]byte
	for i := range 10 {
		stream, text := "stdout", fmt.Sprintf("line %d", i)
		if i%3 == 0 {
			text = fmt.Sprintf("error %d", i)
		}
		files[i/5] = appendLine(files[i/5], LogLine{Time: begin.Add(time.Duration(i) * time.Minute), Stream: stream, Text: text})
	}
	write(t, path+".1", string(files[0]), 0o600)
	write(t, path, string(files[1]), 0o600)

	a, _ := newTestArchive(t)
	web, api := a.openTest("web", dir, topology.Output{}), a.openTest("api", dir, topology.Output{})
	api.output(2).add("stderr", []byte("error of the api"), false)
	at := func(minutes int) time.Time { return begin.Add(time.Duration(minutes) * time.Minute) }
	errorLines := regexp.MustCompile("^error")
	for name, c := range map[string]struct {
		q    LogQuery
		want []string
	}{
		"all":                    {LogQuery{Tail: 2}, []string{"web/1 line 8", "web/1 error 9", "api/2 error of the api"}},
		"one service":            {LogQuery{Tail: -1, Of: []LogSource{{Service: "api"}}}, []string{"api/2 error of the api"}},
		"an instance and others": {LogQuery{Tail: 1, Of: []LogSource{{"web", 1}, {Service: "api"}}}, []string{"web/1 error 9", "api/2 error of the api"}},
		"since and until":        {LogQuery{Tail: -1, Since: at(2), Until: at(5)}, []string{"web/1 line 2", "web/1 error 3", "web/1 line 4", "web/1 line 5"}},
		"the last before":        {LogQuery{Tail: 1, Until: at(5)}, []string{"web/1 line 5"}},
		"none before":            {LogQuery{Tail: 0, Until: at(5)}, nil},
		"grep":                   {LogQuery{Tail: -1, Grep: errorLines, Until: at(100)}, []string{"web/1 error 0", "web/1 error 3", "web/1 error 6", "web/1 error 9"}},
		"the last that match":    {LogQuery{Tail: 2, Grep: errorLines}, []string{"web/1 error 6", "web/1 error 9", "api/2 error of the api"}},
		"after a line": {LogQuery{Tail: 1, Since: at(1000), Of: []LogSource{{Service: "web"}}, After: map[string]time.Time{"web/1": at(7)}},
			[]string{"web/1 line 8", "web/1 error 9"}},
		"after a line that is not kept": {LogQuery{Tail: 0, Of: []LogSource{{Service: "web"}}, After: map[string]time.Time{"web/1": at(7).Add(time.Second)}},
			[]string{"web/1 line 8", "web/1 error 9"}},
		"after a line that was removed": {LogQuery{Tail: 0, Until: at(1), Of: []LogSource{{Service: "web"}}, After: map[string]time.Time{"web/1": at(-1)}},
			[]string{"web/1 lines skipped: they were removed before they were read here", "web/1 error 0", "web/1 line 1"}},
		"after the last line": {LogQuery{Tail: -1, Of: []LogSource{{Service: "web"}}, After: map[string]time.Time{"web/1": at(9)}}, nil},
	} {
		if diff := cmp.Diff(c.want, texts(t, a, c.q)); diff != "" {
			t.Errorf("%s (-want +got): %s", name, diff)
		}
	}
	web.close()
	api.close()
}

// Whoever follows goes on across rotations and a new Supervisor: what it asks for then is what came after the last line that it has.
func TestFollowGoesOnAfterARestart(t *testing.T) {
	dir := t.TempDir()
	bounds := topology.Output{MaxSize: 300, MaxFiles: 100}
	after := map[string]time.Time{}
	enough := errors.New("enough")
	want := 0
	for run := range 3 {
		a, _ := newTestArchive(t)
		j := a.openTest("web", dir, bounds)
		if run > 0 {
			for n := range 20 { // before anybody is back
				j.output(1).add("stdout", fmt.Appendf(nil, "%d", run*1000+n), false)
			}
		}
		done := make(chan error)
		first := make(chan struct{})
		go func() {
			seen := 0
			done <- a.read(context.Background(), LogQuery{Tail: -1, Follow: true, After: after}, func(l LogLine) error {
				if l.Text != fmt.Sprint(want) {
					return fmt.Errorf("got %s, want %d", l.Text, want)
				}
				after[l.Instance] = l.Time
				if want++; want%1000 == 60 {
					want = want/1000*1000 + 1000
					return enough
				}
				if seen++; seen == 1 {
					close(first)
				}
				return nil
			})
		}()
		if run == 0 {
			j.output(1).add("stdout", []byte("0"), false)
			<-first
			for n := 1; n < 60; n++ {
				j.output(1).add("stdout", fmt.Append(nil, n), false)
			}
		} else {
			<-first
			for n := 20; n < 60; n++ {
				j.output(1).add("stdout", fmt.Append(nil, run*1000+n), false)
			}
		}
		if err := <-done; !errors.Is(err, enough) {
			t.Fatal(err)
		}
		j.close()
	}
}

func TestFollowOfAllSeesServicesThatCome(t *testing.T) {
	a, _ := newTestArchive(t)
	web := a.openTest("web", "", topology.Output{})
	web.output(1).add("stdout", []byte("old"), false)
	lines, done := make(chan string, 10), make(chan error)
	go func() {
		done <- a.read(context.Background(), LogQuery{Tail: -1, Follow: true}, func(l LogLine) error { lines <- l.Instance + " " + l.Text; return nil })
	}()
	if got := <-lines; got != "web/1 old" {
		t.Errorf("first %q", got)
	}
	api := a.openTest("api", "", topology.Output{})
	api.output(3).add("stdout", []byte("new"), false)
	if got := <-lines; got != "api/3 new" {
		t.Errorf("then %q", got)
	}
	web.close()
	api.output(3).add("stdout", []byte("more"), false)
	if got := <-lines; got != "api/3 more" {
		t.Errorf("then %q", got)
	}
	api.close()
	if err := <-done; err != nil {
		t.Errorf("after the last: %v", err)
	}
}

// What waits for the disk while it is busy is written at once, and in files of the size that was asked for.
func TestBurstStaysWithinTheBounds(t *testing.T) {
	dir := t.TempDir()
	a, _ := newTestArchive(t)
	j := a.openTest("web", dir, topology.Output{MaxSize: 1000, MaxFiles: 1000})
	defer j.close()
	o := j.output(1)
	o.turn <- struct{}{} // the disk is busy
	for n := range 500 {
		o.add("stdout", fmt.Appendf(nil, "%d", n), false)
	}
	o.add("stdout", bytes.Repeat([]byte("x"), 3000), false) // is written whole
	<-o.turn
	j.writers.Wait()
	files, err := filepath.Glob(filepath.Join(dir, "logs", "web", "1.log*"))
	if err != nil || len(files) < 20 {
		t.Errorf("%d files, %v", len(files), err)
	}
	for _, f := range files {
		if info, err := os.Stat(f); err != nil || info.Size() > 1000 && info.Size() < 3000 {
			t.Errorf("%v, %v", info, err)
		}
	}
	if lines := texts(t, a, LogQuery{Tail: -1}); len(lines) != 501 || lines[499] != "web/1 499" {
		t.Errorf("%d lines are kept", len(lines))
	}
}

func TestBoundsOfAServiceAreChanged(t *testing.T) {
	dir := t.TempDir()
	a, _ := newTestArchive(t)
	j := a.openTest("web", dir, topology.Output{MaxSize: 200, MaxFiles: 5})
	defer j.close()
	fill := func() int {
		for n := range 50 {
			j.output(1).add("stdout", fmt.Appendf(nil, "line %d", n), false)
			j.writers.Wait()
		}
		files, err := filepath.Glob(filepath.Join(dir, "logs", "web", "1.log*"))
		if err != nil {
			t.Fatal(err)
		}
		return len(files)
	}
	if n := fill(); n != 5 {
		t.Errorf("%d files, want 5", n)
	}
	j.bound(topology.Output{MaxSize: 200, MaxFiles: 2})
	if n := fill(); n != 2 {
		t.Errorf("%d files, want 2", n)
	}
}
