package restic

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// walkTarget stores the paths that were asked for, and the directories on the way to them.
func (a *archiver) walkTarget(ctx context.Context, t *target, d *directory) error {
	if t.whole { // the root of the file system; others come to walkEntry
		a.found.Add(1)
		return a.walkDirectory(ctx, t.path, d)
	}
	before := a.nodesBefore(ctx, d)
	d.nodes = make([]*Node, len(t.entries))
	d.pending.Store(int64(len(t.entries)) + 1)
	for slot, e := range t.entries {
		if err := a.walkEntry(ctx, e, d, slot, before[e.name]); err != nil {
			return err
		}
	}
	return a.done(ctx, d)
}

func (a *archiver) walkEntry(ctx context.Context, t *target, d *directory, slot int, before *Node) error {
	var st unix.Stat_t
	stat := unix.Stat // the way to a path may lead over links
	if t.whole {
		stat = unix.Lstat
	}
	if err := stat(t.path, &st); err != nil {
		a.miss(t.path, err)
		return a.done(ctx, d)
	}
	if !t.whole {
		n := a.owners.newNode(t.name, &st)
		a.addXattrs(t.path, n, before)
		return a.walkTarget(ctx, t, enter(d, slot, n, before))
	}
	if st.Mode&unix.S_IFMT == unix.S_IFLNK { // the snapshot would hold nothing but the link
		return fmt.Errorf("%s is a symbolic link; name the place that it points to", t.path)
	}
	a.found.Add(1)
	return a.walkNode(ctx, t.path, a.owners.newNode(t.name, &st), d, slot, before)
}

// enter returns the directory that is to fill a slot of d.
func enter(d *directory, slot int, n, before *Node) *directory {
	if before != nil && before.Type != Dir {
		before = nil
	}
	return &directory{parent: d, slot: slot, node: n, before: before}
}

// walkDirectory stores all that is in the directory at path.
func (a *archiver) walkDirectory(ctx context.Context, path string, d *directory) error {
	names, err := readNames(path)
	if err != nil {
		a.miss(path, err)
	}
	before := a.nodesBefore(ctx, d)
	d.nodes = make([]*Node, len(names))
	d.pending.Store(int64(len(names)) + 1)
	for slot, name := range names {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		entry := filepath.Join(path, name)
		var st unix.Stat_t
		if err = unix.Lstat(entry, &st); err != nil {
			a.miss(entry, err)
			err = a.done(ctx, d)
		} else {
			err = a.walkNode(ctx, entry, a.owners.newNode(name, &st), d, slot, before[name])
		}
		if err != nil {
			return err
		}
	}
	return a.done(ctx, d)
}

// walkNode stores n, which is at path and goes into a slot of d, or passes it on. before is what was there in the snapshot before, or nil.
func (a *archiver) walkNode(ctx context.Context, path string, n *Node, d *directory, slot int, before *Node) error {
	switch n.Type {
	case File:
		if before.sameFile(n) && a.saver.index.hasAll(DataBlob, before.Content) {
			n.Content, n.Xattrs = before.Content, before.Xattrs
			a.countFile(n, before)
			break
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case a.files <- &file{path: path, node: n, before: before, dir: d, slot: slot}:
			return nil
		}
	case Dir:
		a.addXattrs(path, n, before)
		below := enter(d, slot, n, before)
		select {
		case a.moreWalks <- struct{}{}:
			a.walk(func() error {
				defer func() { <-a.moreWalks }()
				return a.walkDirectory(ctx, path, below)
			})
			return nil
		default:
			return a.walkDirectory(ctx, path, below)
		}
	case Symlink:
		var err error
		if n.LinkTarget, err = os.Readlink(path); err != nil {
			a.miss(path, err)
			return a.done(ctx, d)
		}
	case Socket:
		return a.done(ctx, d) // means nothing without its process; restic leaves it out too
	default:
		a.addXattrs(path, n, before)
	}
	d.nodes[slot] = n
	return a.done(ctx, d)
}

// nodesBefore returns the entries that d had in the snapshot before, by name.
func (a *archiver) nodesBefore(ctx context.Context, d *directory) map[string]*Node {
	if d.before == nil {
		return nil
	}
	nodes, err := a.before.read(ctx, *d.before.Subtree)
	if err != nil {
		if ctx.Err() == nil {
			a.repo.log.Warn("directory of the snapshot before unreadable, reading its files anew", "error", err)
		}
		return nil
	}
	named := make(map[string]*Node, len(nodes))
	for _, n := range nodes {
		named[n.Name] = n
	}
	return named
}

// addXattrs reads the extended attributes, unless nothing was changed about what is at path.
func (a *archiver) addXattrs(path string, n, before *Node) {
	if before != nil && before.Type == n.Type && before.Inode == n.Inode && before.ChangeTime.Equal(n.ChangeTime) {
		n.Xattrs = before.Xattrs
		return
	}
	var err error
	if n.Xattrs, err = readXattrs(path); err != nil {
		a.miss(path, err)
	}
}

// sameFile tells whether n is a file like the one before, as far as can be told without reading it.
func (before *Node) sameFile(n *Node) bool {
	return before != nil && before.Type == File && n.Type == File &&
		before.Size == n.Size && before.Inode == n.Inode &&
		before.ModTime.Equal(n.ModTime) && before.ChangeTime.Equal(n.ChangeTime)
}

// readNames returns the names in the directory at path in byte order, as far as it can be read.
func readNames(path string) ([]string, error) {
	d, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	slices.Sort(names)
	return names, err
}
