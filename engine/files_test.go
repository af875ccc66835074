package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"
)

// A watchedFile is a Files source being watched. What it held is read after each change.
type watchedFile struct {
	t       *testing.T
	path    string
	changes chan string
}

// watchFile watches the file at path, which has to exist.
func watchFile(t *testing.T, path string) *watchedFile {
	t.Helper()
	return watchSource(t, path, Files(slog.New(slog.DiscardHandler), path))
}

func watchSource(t *testing.T, path string, source Source) *watchedFile {
	t.Helper()
	f := &watchedFile{t: t, path: path, changes: make(chan string, 1000)}
	if _, err := source.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var watching sync.WaitGroup
	watching.Go(func() {
		err := source.Watch(ctx, func() {
			files, err := source.Load(ctx)
			if err != nil {
				f.changes <- err.Error()
				return
			}
			f.changes <- string(files[0].Content)
		})
		if err != nil {
			t.Errorf("Watch: %v", err)
		}
	})
	t.Cleanup(func() { cancel(); watching.Wait() })
	return f
}

// want waits for the change after which the file holds content, and returns how many came before it.
func (f *watchedFile) want(content string) (before int) {
	f.t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		select {
		case got := <-f.changes:
			if got == content {
				return before
			}
			before++
		case <-deadline:
			f.t.Fatalf("no change to %q was reported", content)
		}
	}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func rename(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

func symlink(t *testing.T, target, path string) {
	t.Helper()
	if err := os.Symlink(target, path); err != nil {
		t.Fatal(err)
	}
}

func mkdir(t *testing.T, path string) {
	t.Helper()
	if err := os.MkdirAll(path, 0o700); err != nil {
		t.Fatal(err)
	}
}

func TestFilesSeesSaves(t *testing.T) {
	path := filepath.Join(t.TempDir(), "topology.yaml")
	write(t, path, "one")
	f := watchFile(t, path)

	write(t, path, "in place")
	f.want("in place")
	for i := range 3 { // again and again: the watch must not end with the first file
		content := fmt.Sprint("renamed over ", i)
		write(t, path+".swp", content)
		rename(t, path+".swp", path)
		f.want(content)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	write(t, path, "removed and made again")
	if missing := f.want("removed and made again"); missing > 0 {
		t.Errorf("the short absence was reported")
	}
}

func TestFilesTellsOfAbsence(t *testing.T) {
	path := filepath.Join(t.TempDir(), "topology.yaml")
	write(t, path, "one")
	f := watchFile(t, path)

	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	select {
	case got := <-f.changes:
		if !strings.Contains(got, "no such file") {
			t.Errorf("the change was to %q, want the error", got)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the absence was not reported")
	}
	write(t, path, "two")
	f.want("two")
}

func TestFilesSeesSymlinksSwapped(t *testing.T) {
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a", "real.yaml"), filepath.Join(dir, "b", "real.yaml")
	for _, target := range []string{a, b} {
		mkdir(t, filepath.Dir(target))
		write(t, target, "in "+target)
	}
	path := filepath.Join(dir, "etc", "topology.yaml")
	mkdir(t, filepath.Dir(path))
	symlink(t, a, path)
	f := watchFile(t, path)

	write(t, a, "target changed")
	f.want("target changed")
	symlink(t, b, path+".new")
	rename(t, path+".new", path)
	f.want("in " + b)
	write(t, b, "other target changed")
	f.want("other target changed")
}

// A Kubernetes ConfigMap volume: every file is a symlink into ..data, which is a symlink that is replaced.
func TestFilesSeesConfigMapSwapped(t *testing.T) {
	dir := t.TempDir()
	publish := func(version, content string) {
		mkdir(t, filepath.Join(dir, version))
		write(t, filepath.Join(dir, version, "topology.yaml"), content)
		symlink(t, version, filepath.Join(dir, "..data_tmp"))
		rename(t, filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data"))
	}
	publish("..2026_01", "one")
	path := filepath.Join(dir, "topology.yaml")
	symlink(t, "..data/topology.yaml", path)
	f := watchFile(t, path)

	for i := range 3 {
		content, version := fmt.Sprint("version ", i), fmt.Sprintf("..2026_02_%d", i)
		publish(version, content)
		f.want(content)
	}
}

func TestFilesWatchesWhereSymlinksLead(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	etc, data := filepath.Join(dir, "etc"), filepath.Join(dir, "data")
	mkdir(t, etc)
	mkdir(t, data)
	write(t, filepath.Join(data, "real.yaml"), "one")
	symlink(t, "../data/real.yaml", filepath.Join(etc, "topology.yaml"))
	paths := sheaf{filepath.Join(etc, "topology.yaml"), filepath.Join(etc, "missing.yaml")}
	if got := paths.directories(); !slices.Equal(got, []string{data, etc}) {
		t.Errorf("directories: %v, want %v and %v", got, data, etc)
	}
}

func TestFilesJoinsManySaves(t *testing.T) {
	path := filepath.Join(t.TempDir(), "topology.yaml")
	write(t, path, "one")
	f := watchFile(t, path)

	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for i := range 100 {
		write(t, path+".swp", fmt.Sprint("save ", i))
		rename(t, path+".swp", path)
		<-tick.C
	}
	if before := f.want("save 99"); before > 10 {
		t.Errorf("%d changes were reported before the last of 100 saves, want few", before)
	}
}

func TestFilesWithoutEvents(t *testing.T) {
	path := filepath.Join(t.TempDir(), "topology.yaml")
	write(t, path, "one")
	var log record
	f := watchSource(t, path, &files{log: log.logger(), paths: []string{path}, newWatcher: func() (*fsnotify.Watcher, error) {
		return nil, errors.New("too many open files")
	}})

	write(t, path, "two")
	f.want("two")
	log.want(t, "file events unavailable")
}

func TestFilesReadsAllOfThem(t *testing.T) {
	dir := t.TempDir()
	base, prod := filepath.Join(dir, "base", "a.yaml"), filepath.Join(dir, "prod", "b.yaml")
	mkdir(t, filepath.Dir(base))
	mkdir(t, filepath.Dir(prod))
	write(t, base, "base")
	write(t, prod, "prod")
	source := Files(slog.New(slog.DiscardHandler), base, prod)
	f := watchSource(t, base, source)

	write(t, prod, "prod changed")
	f.want("base") // the change is told, the first file is as it was
	files, err := source.Load(t.Context())
	if err != nil || len(files) != 2 || string(files[1].Content) != "prod changed" {
		t.Errorf("Load: %v, %v", files, err)
	}
}

func TestFilesSeesWhatItRefersTo(t *testing.T) {
	dir := t.TempDir()
	path, secret, other := filepath.Join(dir, "topology.yaml"), filepath.Join(dir, "secrets", "password"), filepath.Join(dir, "tls", "key.pem")
	mkdir(t, filepath.Dir(secret))
	mkdir(t, filepath.Dir(other))
	write(t, path, "one")
	write(t, secret, "old")
	write(t, other, "old")
	source := Files(slog.New(slog.DiscardHandler), path)
	source.Refer([]string{secret, filepath.Join(dir, "missing")})
	f := watchSource(t, path, source)

	write(t, secret+".new", "new")
	rename(t, secret+".new", secret)
	f.want("one") // a change is told, of something else than the file

	source.Refer([]string{other})
	write(t, other, "new")
	f.want("one")
	write(t, secret, "newest")
	write(t, path, "two")
	if before := f.want("two"); before > 0 {
		t.Errorf("a change of a file that is referred to no more was told")
	}
}
