package restic

import (
	"context"
	"errors"
	"io/fs"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
)

// An archiver turns directories and files into blobs. Walkers list directories and pass files on to readers,
// which cut them into chunks and pass those on to savers. Nobody waits for a directory: whoever finishes its
// last entry stores its tree, and thereby finishes an entry of the directory above.
type archiver struct {
	repo   *Repository
	saver  *saver
	before *treeReader // of the snapshot before
	cutter *cutter
	owners owners

	group     *errgroup.Group
	walking   sync.WaitGroup
	reading   sync.WaitGroup
	moreWalks chan struct{} // has room for the walkers that may run beside the first
	files     chan *file
	chunks    chan chunk

	root  ID           // once its directory is done
	found atomic.Int64 // of the paths that were asked for

	mu         sync.Mutex
	unreadable []string
	summary    Summary
}

// A directory is one whose entries are not all finished.
type directory struct {
	parent  *directory
	slot    int     // of its node in the parent's nodes
	node    *Node   // nil for the root of the snapshot
	before  *Node   // what it was in the snapshot before, or nil
	nodes   []*Node // by slot; nil for what is left out
	pending atomic.Int64
}

// archive stores what is at root and returns the id of its tree and what could not be read. before is the tree of an earlier
// snapshot, or nil. It counts files and directories in summary.
func (r *Repository) archive(ctx context.Context, saver *saver, root *target, before *ID, summary *Summary) (ID, []string, error) {
	group, ctx := errgroup.WithContext(ctx)
	workers := runtime.GOMAXPROCS(0)
	a := &archiver{
		repo: r, saver: saver, group: group,
		before:    &treeReader{repo: r, index: saver.index},
		cutter:    newCutter(r.config.Polynomial),
		moreWalks: make(chan struct{}, workers-1),
		files:     make(chan *file, 128),
		chunks:    make(chan chunk),
	}
	a.reading.Add(workers)
	for range workers {
		group.Go(func() error { return a.saveChunks(ctx) })
		group.Go(func() error {
			defer a.reading.Done()
			return a.readFiles(ctx)
		})
	}
	top := &directory{}
	if before != nil {
		top.before = &Node{Type: Dir, Subtree: before}
	}
	a.walk(func() error { return a.walkTarget(ctx, root, top) })
	a.walking.Wait()
	close(a.files)
	a.reading.Wait()
	close(a.chunks)
	if err := group.Wait(); err != nil {
		return ID{}, nil, err
	}
	if a.found.Load() == 0 {
		return ID{}, nil, errors.New(strings.Join(a.unreadable, "; "))
	}
	a.summary.BackupStart = summary.BackupStart
	*summary = a.summary
	return a.root, a.unreadable, nil
}

// walk runs f in a goroutine of its own.
func (a *archiver) walk(f func() error) {
	a.walking.Add(1)
	a.group.Go(func() error {
		defer a.walking.Done()
		return f()
	})
}

// done finishes one entry of d, and with the last one d itself, and so on upwards.
func (a *archiver) done(ctx context.Context, d *directory) error {
	for d != nil && d.pending.Add(-1) == 0 {
		nodes := slices.DeleteFunc(d.nodes, func(n *Node) bool { return n == nil })
		id, added, err := a.saver.save(TreeBlob, appendTree(nil, nodes))
		if err != nil {
			return err
		}
		d.nodes = nil
		if d.node == nil {
			a.root = id
			return nil
		}
		d.node.Subtree = &id
		a.countDirectory(d, added)
		d.parent.nodes[d.slot] = d.node
		d = d.parent
	}
	return nil
}

// miss notes that something could not be read whole.
func (a *archiver) miss(path string, err error) {
	var pathErr *fs.PathError
	if errors.As(err, &pathErr) {
		err = pathErr.Err // the path is said already
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case len(a.unreadable) < maxUnreadable:
		a.unreadable = append(a.unreadable, path+": "+err.Error())
	case len(a.unreadable) == maxUnreadable:
		a.unreadable = append(a.unreadable, "and more")
	}
}

// maxUnreadable is how many reasons a snapshot lists.
const maxUnreadable = 1000

func (a *archiver) countFile(n, before *Node) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.summary.TotalFilesProcessed++
	a.summary.TotalBytesProcessed += n.Size
	switch {
	case before == nil:
		a.summary.FilesNew++
	case before.sameFile(n):
		a.summary.FilesUnmodified++
	default:
		a.summary.FilesChanged++
	}
}

func (a *archiver) countDirectory(d *directory, added bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case d.before == nil:
		a.summary.DirsNew++
	case added || *d.before.Subtree != *d.node.Subtree:
		a.summary.DirsChanged++
	default:
		a.summary.DirsUnmodified++
	}
}
