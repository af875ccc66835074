package restic

import (
	"context"
	"errors"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// A file is one that is to be read.
type file struct {
	path   string
	node   *Node // as it was when it was found
	before *Node // what it was in the snapshot before, or nil
	dir    *directory
	slot   int // for its node in dir
}

// A chunk is a part of a file on its way to the store.
type chunk struct {
	data []byte
	of   *content
	part int
}

// A content collects the ids of a file's chunks while they are stored.
type content struct {
	mu      sync.Mutex
	ids     []ID
	pending int
	whole   func(ids []ID) error // called when nothing is pending; nil while there may be more chunks
}

// expect makes room for one more chunk and returns its number.
func (c *content) expect() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pending++
	c.ids = append(c.ids, ID{})
	return len(c.ids) - 1
}

// stored tells that a chunk is stored.
func (c *content) stored(part int, id ID) error {
	c.mu.Lock()
	c.ids[part] = id
	c.pending--
	whole := c.whole
	last := c.pending == 0 && whole != nil
	c.mu.Unlock()
	if !last {
		return nil
	}
	return whole(c.ids)
}

// end tells that there are no more chunks. whole is called once all are stored.
func (c *content) end(whole func(ids []ID) error) error {
	c.mu.Lock()
	c.whole = whole
	last := c.pending == 0
	c.mu.Unlock()
	if !last {
		return nil
	}
	return whole(c.ids)
}

// readFiles reads files until there are no more.
func (a *archiver) readFiles(ctx context.Context) error {
	reader := &chunkReader{cutter: a.cutter, buffers: &a.saver.buffers}
	for f := range a.files {
		if err := a.readFile(ctx, reader, f); err != nil {
			return err
		}
	}
	return nil
}

// saveChunks stores chunks until there are no more.
func (a *archiver) saveChunks(ctx context.Context) error {
	for c := range a.chunks {
		id, _, err := a.saver.save(DataBlob, c.data)
		a.saver.buffers.give(c.data)
		if err == nil {
			err = c.of.stored(c.part, id)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

var errChanged = errors.New("changed while it was read")

const (
	readAttempts = 3               // how often a file is read that changes meanwhile
	readPatience = 2 * time.Second // for all of a file that can make its reader wait
)

// readFile reads a file, and again if it changes meanwhile. Only a done ctx is an error.
func (a *archiver) readFile(ctx context.Context, reader *chunkReader, f *file) error {
	for attempt := 1; ; attempt++ {
		n, parts, err := a.readOnce(ctx, reader, f)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if errors.Is(err, errChanged) && attempt < readAttempts {
			continue
		}
		if err != nil {
			a.miss(f.path, err)
		}
		if n == nil {
			return a.done(ctx, f.dir)
		}
		return parts.end(func(ids []ID) error {
			n.Content = ids
			f.dir.nodes[f.slot] = n
			a.countFile(n, f.before)
			return a.done(ctx, f.dir)
		})
	}
}

// readOnce reads a file and passes its chunks on. With errChanged it returns what it has read nevertheless.
func (a *archiver) readOnce(ctx context.Context, reader *chunkReader, f *file) (*Node, *content, error) {
	file, err := openUnnoticed(f.path)
	if err != nil {
		return nil, nil, err
	}
	defer file.Close()
	// Files that lie on a disk know no deadline. Some in /proc say that they are regular and make a reader wait for what will happen.
	_ = file.SetReadDeadline(time.Now().Add(readPatience))
	var before, after unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &before); err != nil {
		return nil, nil, err
	}
	n := a.owners.newNode(f.node.Name, &before)
	if n.Type != File {
		return nil, nil, errors.New("is no regular file any more")
	}
	a.addXattrs(f.path, n, f.before)
	parts := new(content)
	var size uint64
	for reader.reset(file); ; {
		data, err := reader.next(before.Size - int64(size))
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, nil, err
		}
		size += uint64(len(data))
		select {
		case <-ctx.Done():
			return nil, nil, context.Cause(ctx)
		case a.chunks <- chunk{data: data, of: parts, part: parts.expect()}:
		}
	}
	if err := unix.Fstat(int(file.Fd()), &after); err != nil {
		return nil, nil, err
	}
	n.Size = size
	if !n.sameFile(a.owners.newNode(n.Name, &after)) {
		return n, parts, errChanged
	}
	return n, parts, nil
}

// openUnnoticed opens a file such that its access time stays, where that is allowed, and what has taken
// the place of a file meanwhile, such as a link or a fifo, does no harm.
func openUnnoticed(path string) (*os.File, error) {
	const flags = unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_CLOEXEC
	fd, err := unix.Open(path, flags|unix.O_NOATIME, 0)
	if errors.Is(err, unix.EPERM) {
		fd, err = unix.Open(path, flags, 0)
	}
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), path), nil
}
