package engine

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/fsnotify/fsnotify"

	"mainstay/topology"
)

// Files is the Source that reads the files at paths, later ones over earlier ones, and watches them: by inotify
// on their directories, since editors save by renaming and a watch on the file itself ends with
// that, and by looking every few seconds, since network file systems tell nothing. Only a change of content
// counts. What the files refer to, such as certificates, is not watched; a Reload sees it.
func Files(log *slog.Logger, paths ...string) Source {
	return &files{log: log, paths: paths, newWatcher: fsnotify.NewWatcher}
}

type files struct {
	log        *slog.Logger
	paths      []string
	newWatcher func() (*fsnotify.Watcher, error)
	first      atomic.Pointer[string] // digest of what the first Load saw
}

func (f *files) Load(context.Context) ([]topology.File, error) {
	read, err := topology.Read(f.paths)
	sum := digest(read, err)
	f.first.CompareAndSwap(nil, &sum)
	return read, err
}

// Watch implements Source. A file that is missing or empty is given a moment to come back.
func (f *files) Watch(ctx context.Context, changed func()) error {
	var known string
	if first := f.first.Load(); first != nil {
		known = *first
	}
	hints := make(chan struct{}, 1)
	var watching sync.WaitGroup
	defer watching.Wait()

	follow := func() {}
	switch watcher, err := f.newWatcher(); {
	case err != nil:
		f.log.Warn("file events unavailable, looking every few seconds instead", "err", err)
	default:
		defer watcher.Close() // before the wait: it ends the goroutine
		watching.Go(func() { pass(watcher, hints) })
		follow = f.follower(watcher)
	}
	settle(ctx, known, hints, watched{stamp: f.stamp, content: f.content, follow: follow, changed: changed})
	return nil
}

// pass turns the watcher's events into hints until it is closed. Which file an event is about says little: a
// symlink anywhere on the way may have been swapped.
func pass(watcher *fsnotify.Watcher, hints chan<- struct{}) {
	for {
		select {
		case _, ok := <-watcher.Events:
			if !ok {
				return
			}
		case _, ok := <-watcher.Errors: // most of all an overflow: events were lost
			if !ok {
				return
			}
		}
		select {
		case hints <- struct{}{}:
		default: // one is waiting already
		}
	}
}

// follower returns a function that makes watcher watch the directories where the files are now, and
// no others.
func (f *files) follower(watcher *fsnotify.Watcher) func() {
	warned := false
	return func() {
		wanted := f.directories()
		for _, dir := range watcher.WatchList() {
			if !slices.Contains(wanted, dir) {
				watcher.Remove(dir) // it may be gone: then there is nothing to remove
			}
		}
		for _, dir := range wanted {
			// Added again even if it is watched: another directory may have taken its name.
			if err := watcher.Add(dir); err != nil && !os.IsNotExist(err) && !warned {
				warned = true
				f.log.Warn("directory gives no file events, looking every few seconds instead", "directory", dir, "err", err)
			}
		}
	}
}

// directories returns where the files are, both by the names they are given and, where those are
// symlinks, in truth.
func (f *files) directories() []string {
	var dirs []string
	for _, path := range f.paths {
		dirs = append(dirs, filepath.Dir(path))
		if target, err := filepath.EvalSymlinks(path); err == nil {
			dirs = append(dirs, filepath.Dir(target))
		}
	}
	slices.Sort(dirs)
	return slices.Compact(dirs)
}

// stamp returns what a stat shows of the files.
func (f *files) stamp() string {
	var stamp strings.Builder
	for _, path := range f.paths {
		info, err := os.Stat(path)
		if err != nil {
			fmt.Fprintln(&stamp, err)
			continue
		}
		fmt.Fprintln(&stamp, info.Size(), info.ModTime().UnixNano())
		if stat, ok := info.Sys().(*syscall.Stat_t); ok {
			fmt.Fprintln(&stamp, stat.Dev, stat.Ino)
		}
	}
	return stamp.String()
}

// content returns the digest of the files' contents, and whether all of them are there and none is empty.
func (f *files) content() (sum string, whole bool) {
	read, err := topology.Read(f.paths)
	whole = err == nil
	for _, file := range read {
		whole = whole && len(bytes.TrimSpace(file.Content)) > 0
	}
	return digest(read, err), whole
}

// digest returns a digest of what reading gave.
func digest(read []topology.File, err error) string {
	hash := sha256.New()
	if err != nil {
		fmt.Fprintln(hash, err)
	}
	for _, f := range read {
		fmt.Fprintf(hash, "%d %s %d %s", len(f.Path), f.Path, len(f.Content), f.Content)
	}
	return string(hash.Sum(nil))
}
