package backup

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"mainstay/backup/restic"
	"mainstay/topology"
)

// A RestoreRequest says what to bring back and where to.
type RestoreRequest struct {
	Snapshot string   // id, a beginning of one, or "latest"
	Target   string   // directory that receives the snapshot's tree; empty: each path where it came from
	Include  []string // only these paths of the snapshot; empty: all
	Force    bool     // replace what is at the place; what was there is kept beside it with the suffix .pre-restore-TIME
}

// A Restored tells what a restore brought back.
type Restored struct {
	Snapshot string   `json:"snapshot"`
	Paths    []string `json:"paths"`          // what is now in place
	Kept     []string `json:"kept,omitempty"` // what was there before, set aside
	Files    uint64   `json:"files"`
	Bytes    uint64   `json:"bytes"`
}

// Restore brings a snapshot's files back: into a staging directory beside the target, verified, then
// renamed into place, so that the target is either untouched or whole. An empty directory in the place is no obstacle;
// anything else is [ErrOccupied], without Force. Of several paths, either all are put in place or none.
//
// "latest" is the newest snapshot that the backup named by spec has taken, or anyone of the same paths; of all if spec has no paths.
func Restore(ctx context.Context, log *slog.Logger, spec topology.Backup, req RestoreRequest) (*Restored, error) {
	r, err := open(ctx, log, spec)
	if err != nil {
		return nil, err
	}
	defer r.close()
	s, err := find(ctx, log, r, spec, req.Snapshot)
	if err != nil {
		return nil, err
	}
	if s.Partial() {
		log.Warn("snapshot is partial", "snapshot", s.ID.Short(), "unreadable", s.Unreadable)
	}
	places, err := stage(s, req)
	defer unstage(log, places)
	if err != nil {
		return nil, err
	}
	wanted := make([]restic.Placement, len(places))
	for i, p := range places {
		wanted[i] = restic.Placement{From: p.from, To: p.content(), Include: p.include}
	}
	done, err := r.Restore(ctx, s, wanted, new(space).take)
	if err != nil {
		return nil, err
	}
	restored := &Restored{Snapshot: s.ID.String(), Files: done.Files, Bytes: done.Bytes}
	if err := putInPlace(places, req.Force); err != nil {
		return nil, fmt.Errorf("restore snapshot %s: %w", s.ID.Short(), err)
	}
	for _, p := range places {
		restored.Paths = append(restored.Paths, p.target)
		if p.kept != "" {
			restored.Kept = append(restored.Kept, p.kept)
		}
	}
	return restored, nil
}

// find returns the snapshot that is asked for.
func find(ctx context.Context, log *slog.Logger, r *repository, spec topology.Backup, which string) (*restic.Snapshot, error) {
	all, damaged, err := r.ReadableSnapshots(ctx)
	if err != nil {
		return nil, err
	}
	for _, d := range damaged {
		if which != "" && strings.HasPrefix(d.ID.String(), strings.ToLower(which)) {
			return nil, d
		}
		log.Error("snapshot damaged, going on without it", "error", d)
	}
	if which == "latest" && len(spec.Paths) > 0 {
		paths := slices.Sorted(slices.Values(spec.Paths))
		all = slices.DeleteFunc(all, func(s *restic.Snapshot) bool {
			tagged := spec.Name != "" && slices.Contains(s.Tags, nameTag(spec.Name))
			return !tagged && !slices.Equal(paths, slices.Sorted(slices.Values(s.Paths)))
		})
		if len(all) == 0 {
			return nil, fmt.Errorf("find latest snapshot of %s: %w", strings.Join(spec.Paths, ", "), restic.ErrNoSnapshot)
		}
	}
	return restic.Find(all, which)
}

// stage makes a staging directory for each place that the request asks for.
func stage(s *restic.Snapshot, req RestoreRequest) ([]*place, error) {
	if req.Target != "" {
		p, err := newPlace("/", filepath.Clean(req.Target), req.Force)
		if err != nil {
			return nil, err
		}
		p.include = req.Include
		return []*place{p}, nil
	}
	var roots []string
	for _, path := range slices.Sorted(slices.Values(append(slices.Clone(req.Include), s.Paths...))) {
		wanted := slices.Contains(req.Include, path) || len(req.Include) == 0
		covered := slices.ContainsFunc(roots, func(root string) bool { return within(path, root) })
		if wanted && !covered {
			roots = append(roots, filepath.Clean(path))
		}
	}
	var places []*place
	for _, root := range roots {
		if !filepath.IsAbs(root) || root == "/" {
			return places, fmt.Errorf("cannot restore %q in its place; name a target", root)
		}
		p, err := newPlace(root, root, req.Force)
		if err != nil {
			return places, err
		}
		places = append(places, p)
	}
	return places, nil
}

// putInPlace renames everything into its place, or nothing.
func putInPlace(places []*place, force bool) error {
	for i, p := range places {
		if err := p.enter(force); err != nil {
			for _, done := range slices.Backward(places[:i+1]) {
				err = errors.Join(err, done.leave())
			}
			return err
		}
	}
	return nil
}

// A space knows how much is left on each file system.
type space struct{ left map[unix.Fsid]uint64 }

// take reserves so many bytes for what is to be written to path.
func (s *space) take(path string, need uint64) error {
	var st unix.Statfs_t
	if err := unix.Statfs(filepath.Dir(path), &st); err != nil {
		return fmt.Errorf("look for room in %s: %w", filepath.Dir(path), err)
	}
	if s.left == nil {
		s.left = map[unix.Fsid]uint64{}
	}
	left, seen := s.left[st.Fsid]
	if !seen {
		left = st.Bavail * uint64(st.Bsize)
	}
	if need > left {
		return fmt.Errorf("restore %s: it needs %d MiB, there is room for %d", path, need>>20, left>>20)
	}
	s.left[st.Fsid] = left - need
	return nil
}
