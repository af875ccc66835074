package restic

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// A BackupRequest says what a snapshot is to hold.
type BackupRequest struct {
	Paths   []string // absolute
	Tags    []string
	Program string // name and version of what asks, for the snapshot's program_version
}

// Backup stores the paths as they are now and returns the new snapshot. Files that have the size, times and inode
// that they had in the newest snapshot of the same paths and host are not read again. What cannot
// be read whole, or changes while it is read, makes the snapshot partial. If none of the paths
// is there, or anything cannot be stored, there is no snapshot, only an error.
//
// While it runs it holds a lock that keeps others, restic too, from pruning.
func (r *Repository) Backup(ctx context.Context, req BackupRequest) (*Snapshot, error) {
	lock, ctx, err := r.lock(ctx, false)
	if err != nil {
		return nil, err
	}
	defer lock.release(ctx)
	snapshot, err := r.backup(ctx, req)
	if err != nil {
		return nil, fmt.Errorf("snapshot %s: %w", strings.Join(req.Paths, ", "), cmp.Or(context.Cause(ctx), err))
	}
	return snapshot, nil
}

func (r *Repository) backup(ctx context.Context, req BackupRequest) (*Snapshot, error) {
	root, paths, err := newTargets(req.Paths)
	if err != nil {
		return nil, err
	}
	s := &Snapshot{
		Time: time.Now(), Paths: paths, Tags: slices.Clone(req.Tags), ProgramVersion: req.Program,
		Hostname: r.who.hostname, Username: r.who.username, UID: r.who.uid, GID: r.who.gid,
		Summary: &Summary{BackupStart: time.Now()},
	}
	snapshots, damaged, err := r.ReadableSnapshots(ctx)
	if err != nil {
		return nil, err
	}
	for _, d := range damaged {
		r.log.Error("snapshot damaged, going on without it", "error", d)
	}
	x, err := r.loadIndex(ctx)
	if err != nil {
		return nil, err
	}
	var before *ID
	if parent := newestLike(snapshots, s); parent != nil {
		s.Parent, before = &parent.ID, parent.Tree
	}
	saver, saveCtx := r.newSaver(ctx, x)
	var tree ID
	tree, s.Unreadable, err = r.archive(saveCtx, saver, root, before, s.Summary)
	if err != nil {
		err = cmp.Or(context.Cause(saveCtx), err) // why the saver has stopped is why all the others have
	} else {
		err = saver.finish(ctx)
	}
	if err != nil {
		saver.abandon(ctx)
		return nil, err
	}
	s.Tree = &tree
	if len(s.Unreadable) > 0 && !slices.Contains(s.Tags, PartialTag) {
		s.Tags = append(s.Tags, PartialTag)
	}
	s.Summary.BackupEnd = time.Now()
	s.Summary.DataBlobs, s.Summary.TreeBlobs = saver.addedBlobs[DataBlob], saver.addedBlobs[TreeBlob]
	s.Summary.DataAdded, s.Summary.DataAddedPacked = saver.addedPlain, saver.addedBytes
	s.ID, err = r.putJSON(ctx, "snapshots", s)
	return s, err
}

// newestLike returns the newest snapshot of the same host and paths, or nil.
func newestLike(snapshots []*Snapshot, s *Snapshot) *Snapshot {
	for _, before := range slices.Backward(snapshots) {
		if before.Hostname == s.Hostname && samePaths(before.Paths, s.Paths) {
			return before
		}
	}
	return nil
}

func samePaths(a, b []string) bool {
	a, b = slices.Clone(a), slices.Clone(b)
	slices.Sort(a)
	slices.Sort(b)
	return slices.Equal(slices.Compact(a), slices.Compact(b))
}

// A target is a path to store, or a directory on the way to one, of which only such entries are stored.
type target struct {
	name, path string
	whole      bool
	entries    []*target // unless whole
}

// newTargets returns the root of the file system with the way to each path, and the paths in order, those left out
// that are below another.
func newTargets(paths []string) (*target, []string, error) {
	if len(paths) == 0 {
		return nil, nil, errors.New("no paths to store")
	}
	root := &target{path: "/"}
	paths = slices.Clone(paths)
	slices.Sort(paths)
	var stored []string
	for _, path := range paths {
		if !filepath.IsAbs(path) {
			return nil, nil, fmt.Errorf("path %q is not absolute", path)
		}
		path = filepath.Clean(path)
		t := root
		for name := range strings.SplitSeq(strings.Trim(path, "/"), "/") {
			if name == "" || t.whole {
				break
			}
			t = t.enter(name)
		}
		if !t.whole {
			t.whole = true
			stored = append(stored, path)
		}
	}
	return root, stored, nil
}

func (t *target) enter(name string) *target {
	for _, e := range t.entries {
		if e.name == name {
			return e
		}
	}
	e := &target{name: name, path: filepath.Join(t.path, name)}
	t.entries = append(t.entries, e)
	slices.SortFunc(t.entries, func(a, b *target) int { return strings.Compare(a.name, b.name) })
	return e
}
