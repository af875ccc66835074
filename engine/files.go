package engine

import (
	"context"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/fsnotify/fsnotify"

	"mainstay/topology"
)

// Files is the Source that reads the files at paths, later ones over earlier ones, and watches them: by inotify
// on their directories, since editors save by renaming and a watch on the file itself ends with
// that, and by looking every few seconds, since network file systems tell nothing. Only a change of content
// counts. What the files refer to is watched in the same way.
func Files(log *slog.Logger, paths ...string) Source {
	return &files{log: log, paths: paths, newWatcher: fsnotify.NewWatcher, moved: make(chan struct{}, 1)}
}

type files struct {
	log        *slog.Logger
	paths      sheaf
	newWatcher func() (*fsnotify.Watcher, error)
	first      atomic.Pointer[string] // digest of what the first Load saw
	moved      chan struct{}          // referred is another one

	mu       sync.Mutex // guards the field below
	referred referred
}

// referred are the files that the files refer to.
type referred struct {
	paths sheaf
	sum   string // digest of their contents when they were named
}

func (f *files) Load(context.Context) ([]topology.File, error) {
	read, err := topology.Read(f.paths)
	sum := digest(read)
	if err != nil {
		sum, _ = f.paths.content()
	}
	f.first.CompareAndSwap(nil, &sum)
	return read, err
}

// Refer implements Source. What is no plain file, such as a pipe, cannot be read again and is not watched.
func (f *files) Refer(paths []string) {
	paths = slices.DeleteFunc(slices.Clone(paths), func(path string) bool {
		info, err := os.Stat(path)
		return err == nil && !info.Mode().IsRegular()
	})
	f.mu.Lock()
	defer f.mu.Unlock()
	if slices.Equal(paths, f.referred.paths) {
		return
	}
	f.referred.paths = paths
	f.referred.sum, _ = f.referred.paths.content()
	select {
	case f.moved <- struct{}{}:
	default: // it has not been looked at yet
	}
}

// Watch implements Source. A file that is missing or empty is given a moment to come back.
func (f *files) Watch(ctx context.Context, changed func()) error {
	var known string
	if first := f.first.Load(); first != nil {
		known = *first
	}
	var watching sync.WaitGroup
	defer watching.Wait()
	watching.Go(func() { f.watchReferred(ctx, changed) })
	f.watch(ctx, f.paths, known, changed)
	return nil
}

// watchReferred watches what the files refer to, whatever that is at the moment, until ctx is done.
func (f *files) watchReferred(ctx context.Context, changed func()) {
	for ctx.Err() == nil {
		f.mu.Lock()
		now := f.referred
		f.mu.Unlock()
		until, end := context.WithCancel(ctx)
		var watching sync.WaitGroup
		watching.Go(func() { f.watch(until, now.paths, now.sum, changed) })
		select {
		case <-ctx.Done():
		case <-f.moved:
		}
		end()
		watching.Wait()
	}
}

// watch calls changed after each change of the paths' contents from the one with the digest known, until ctx is done.
func (f *files) watch(ctx context.Context, paths sheaf, known string, changed func()) {
	if len(paths) == 0 {
		return
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
		follow = f.follower(watcher, paths)
	}
	settle(ctx, known, hints, watched{stamp: paths.stamp, content: paths.content, follow: follow, changed: changed})
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

// follower returns a function that makes watcher watch the directories where the files at paths are now, and
// no others.
func (f *files) follower(watcher *fsnotify.Watcher, paths sheaf) func() {
	warned := false
	return func() {
		wanted := paths.directories()
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
