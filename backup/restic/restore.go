package restic

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// A Placement says what of a snapshot goes where.
type Placement struct {
	From    string   // path in the snapshot: "/" for all of it
	To      string   // path on the disk; nothing may be there, but its directory
	Include []string // only these paths of the snapshot; none: all below From
}

// A Restored counts what a restore brought back.
type Restored struct {
	Files uint64
	Bytes uint64
}

// Restore brings back what the placements say, with owners, permissions, times and attributes, every byte
// compared with its hash. Owners and attributes that this process may not set are left out, and logged. Before anything is written, room is
// asked whether there is room for so many bytes at each place. What was written when Restore returns
// nil is on the disk; after an error, what it has made is the caller's to remove.
//
// The snapshot is not trusted: nothing is ever written outside of the places.
// While it runs it holds a lock that keeps others, restic too, from pruning, if the store lets it write one.
func (r *Repository) Restore(ctx context.Context, s *Snapshot, places []Placement, room func(to string, need uint64) error) (Restored, error) {
	l, lockCtx, err := r.lock(ctx, false)
	switch {
	case err == nil:
		ctx = lockCtx
		defer l.release(ctx)
	case errors.Is(err, ErrLocked) || ctx.Err() != nil:
		return Restored{}, err
	default:
		r.log.Warn("restoring without a lock", "error", err)
	}
	restored, err := r.restore(ctx, s, places, room)
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return Restored{}, fmt.Errorf("restore snapshot %s: %w", s.ID.Short(), err)
	}
	return restored, nil
}

func (r *Repository) restore(ctx context.Context, s *Snapshot, places []Placement, room func(string, uint64) error) (Restored, error) {
	x, err := r.loadIndex(ctx)
	if err != nil {
		return Restored{}, err
	}
	plan := newPlan(r, x)
	for _, p := range places {
		need, err := plan.add(ctx, *s.Tree, p)
		if err == nil {
			err = room(p.To, need)
		}
		if err != nil {
			return Restored{}, err
		}
	}
	w := &restorer{repo: r, plan: plan}
	if err := w.run(ctx); err != nil {
		return Restored{}, err
	}
	for _, p := range places {
		if err := syncFileSystem(p.To); err != nil {
			return Restored{}, err
		}
	}
	return plan.restored, nil
}

// A restorer makes what a plan says.
type restorer struct {
	repo  *Repository
	plan  *plan
	unset atomic.Int64 // attributes that could not be restored
}

// run makes everything: directories, then files pack by pack, then the rest, then directories' attributes, deepest first.
func (r *restorer) run(ctx context.Context) error {
	for _, e := range r.plan.entries {
		if e.node.Type == Dir {
			if err := os.Mkdir(e.path, 0o700); err != nil {
				return err
			}
		}
	}
	if err := r.writeFiles(ctx); err != nil {
		return err
	}
	for _, e := range r.plan.entries {
		if err := ctx.Err(); err != nil {
			return err
		}
		if e.node.Type != Dir {
			if err := r.make(e); err != nil {
				return err
			}
		}
	}
	for _, e := range slices.Backward(r.plan.entries) {
		if e.node.Type == Dir {
			if err := r.setAttributes(e.path, e.node); err != nil {
				return err
			}
		}
	}
	if n := r.unset.Load(); n > 0 {
		r.repo.log.Warn("attributes not restored", "count", n)
	}
	return nil
}

// make makes what is neither a directory nor a file with content.
func (r *restorer) make(e restoredEntry) error {
	var err error
	switch {
	case e.same != "": // shares its attributes too
		if err = os.Link(e.same, e.path); err == nil {
			return nil
		}
	case e.node.Type == File:
		err = createHole(e.path, e.hole)
	case e.node.Type == Symlink:
		err = os.Symlink(e.node.LinkTarget, e.path)
	case e.node.Type == Fifo:
		err = unix.Mkfifo(e.path, 0o600)
	case e.node.Type == Device:
		err = unix.Mknod(e.path, unix.S_IFBLK|0o600, int(e.node.Device))
	case e.node.Type == CharDevice:
		err = unix.Mknod(e.path, unix.S_IFCHR|0o600, int(e.node.Device))
	}
	leftOut := errors.Is(err, unix.EPERM) || e.same != "" && errors.Is(err, unix.ENOENT) // it, or what it is another name of
	if leftOut && os.Geteuid() != 0 && (e.node.Type == Device || e.node.Type == CharDevice) {
		r.repo.log.Warn("device left out, only root may make it", "path", e.path)
		return nil
	}
	if err != nil {
		return fmt.Errorf("create %s: %w", e.path, err)
	}
	return r.setAttributes(e.path, e.node)
}

// createHole makes a file of nothing but zeros.
func createHole(path string, size int64) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(size), f.Close())
}

// writeFiles fetches each pack's blobs and writes them to where they belong.
func (r *restorer) writeFiles(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(fetches)
	for _, uses := range r.plan.packs {
		if ctx.Err() != nil {
			break
		}
		group.Go(func() error {
			slices.SortStableFunc(uses, func(a, b use) int { return cmp.Compare(a.Offset, b.Offset) })
			for len(uses) > 0 {
				n, end := together(uses)
				if err := r.writeBlobs(ctx, uses[:n], end); err != nil {
					return err
				}
				uses = uses[n:]
			}
			return nil
		})
	}
	return group.Wait()
}

// fetches is how many packs are read from at once.
const fetches = 4

// together returns how many of some blobs of a pack, sorted by offset, are worth one request, and where it ends.
func together[B interface {
	span() (offset, length uint32)
}](blobs []B) (n int, end int64) {
	const most, gap = 4 << 20, 128 << 10
	start, _ := blobs[0].span()
	end = int64(start)
	last := start
	for i, b := range blobs {
		offset, length := b.span()
		until := int64(offset) + int64(length)
		if offset != last && (int64(offset) > end+gap || until-int64(start) > most) {
			return i, end
		}
		last, end = offset, max(end, until)
	}
	return len(blobs), end
}

func (b packedBlob) span() (offset, length uint32) { return b.Offset, b.Length }

// writeBlobs fetches the stretch of a pack up to end, and writes the blobs that the uses need.
func (r *restorer) writeBlobs(ctx context.Context, uses []use, end int64) error {
	first := uses[0].place
	data, err := r.repo.store.Get(ctx, packName(first.pack), int64(first.Offset), end-int64(first.Offset))
	if err != nil {
		return err
	}
	var plain []byte
	for i, u := range uses {
		if i == 0 || u.ID != uses[i-1].ID { // of several uses of one blob the first opens it
			sealed := data[u.Offset-first.Offset:][:u.Length]
			if plain, err = r.repo.openBlob(u.ID, sealed, u.Plain); err != nil {
				_, plain, err = r.repo.rescueBlob(ctx, u.pack, u.packedBlob, err)
			}
			if err != nil {
				return fmt.Errorf("pack %s: %w", first.pack.Short(), err)
			}
		}
		if err := r.writePart(u.file, plain, u.at); err != nil {
			return fmt.Errorf("write %s: %w", u.file.path, err)
		}
	}
	return nil
}

// writePart writes a part of a file, and with the last one sets its attributes.
func (r *restorer) writePart(f *restoredFile, part []byte, offset int64) error {
	file, err := f.open()
	if err != nil {
		return err
	}
	_, err = file.WriteAt(part, offset)
	if err = errors.Join(err, file.Close()); err != nil {
		return err
	}
	if f.pending.Add(-1) > 0 {
		return nil
	}
	return r.setAttributes(f.path, f.node)
}

// syncFileSystem waits until all that was written beside path is on the disk.
func syncFileSystem(path string) error {
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer d.Close()
	if err := unix.Syncfs(int(d.Fd())); err != nil {
		return fmt.Errorf("sync %s: %w", path, err)
	}
	return nil
}
