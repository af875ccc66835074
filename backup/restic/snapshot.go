package restic

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"mainstay/backup/store"
)

// A Snapshot is the state of some paths at a time.
type Snapshot struct {
	ID ID `json:"-"`

	Time           time.Time `json:"time"`
	Parent         *ID       `json:"parent,omitempty"`
	Tree           *ID       `json:"tree"`
	Paths          []string  `json:"paths"`
	Hostname       string    `json:"hostname,omitempty"`
	Username       string    `json:"username,omitempty"`
	UID            uint32    `json:"uid,omitempty"`
	GID            uint32    `json:"gid,omitempty"`
	Excludes       []string  `json:"excludes,omitempty"`
	Tags           []string  `json:"tags,omitempty"`
	Original       *ID       `json:"original,omitempty"`
	ProgramVersion string    `json:"program_version,omitempty"`
	Summary        *Summary  `json:"summary,omitempty"`
	// Unreadable is what could not be read whole, with the reason: the snapshot is partial. restic does not know
	// this field, and ignores it.
	Unreadable []string `json:"unreadable,omitempty"`
}

// PartialTag is the tag of a snapshot from which something is missing.
const PartialTag = "partial"

// Partial tells whether something is missing from the snapshot because it could not be read whole.
func (s *Snapshot) Partial() bool {
	return len(s.Unreadable) > 0 || slices.Contains(s.Tags, PartialTag)
}

// A Summary counts what a snapshot took. restic writes it since 0.17, and did not before.
type Summary struct {
	BackupStart         time.Time `json:"backup_start"`
	BackupEnd           time.Time `json:"backup_end"`
	FilesNew            uint64    `json:"files_new"`
	FilesChanged        uint64    `json:"files_changed"`
	FilesUnmodified     uint64    `json:"files_unmodified"`
	DirsNew             uint64    `json:"dirs_new"`
	DirsChanged         uint64    `json:"dirs_changed"`
	DirsUnmodified      uint64    `json:"dirs_unmodified"`
	DataBlobs           int64     `json:"data_blobs"`
	TreeBlobs           int64     `json:"tree_blobs"`
	DataAdded           uint64    `json:"data_added"`        // plain
	DataAddedPacked     uint64    `json:"data_added_packed"` // as stored
	TotalFilesProcessed uint64    `json:"total_files_processed"`
	TotalBytesProcessed uint64    `json:"total_bytes_processed"`
}

// ErrNoSnapshot is in the error of Find when none matches.
var ErrNoSnapshot = errors.New("no such snapshot")

// A DamagedSnapshot is one of which nothing but the id can be read.
type DamagedSnapshot struct {
	ID  ID
	Err error // why
}

func (d *DamagedSnapshot) Error() string {
	return fmt.Sprintf("snapshot %s cannot be read: %v; bring it back from a copy, or remove the object snapshots/%s to give it up", d.ID.Short(), d.Err, d.ID)
}

// Unwrap returns ErrDamaged beside why.
func (d *DamagedSnapshot) Unwrap() []error { return []error{ErrDamaged, d.Err} }

// Snapshots returns all snapshots, oldest first. That one is damaged is an error: who removes what no snapshot needs must know all.
func (r *Repository) Snapshots(ctx context.Context) ([]*Snapshot, error) {
	all, damaged, err := r.ReadableSnapshots(ctx)
	if err == nil && len(damaged) > 0 {
		err = fmt.Errorf("list snapshots: %w", damaged[0])
	}
	return all, err
}

// ReadableSnapshots returns the snapshots that can be read, oldest first, and those that cannot, by id.
func (r *Repository) ReadableSnapshots(ctx context.Context) ([]*Snapshot, []*DamagedSnapshot, error) {
	var mu sync.Mutex
	var all []*Snapshot
	var damaged []*DamagedSnapshot
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(8)
	err := r.eachObject(groupCtx, "snapshots", func(id ID, o store.Object) {
		group.Go(func() error {
			s := &Snapshot{ID: id}
			err := r.getJSON(groupCtx, o, maxSnapshot, s)
			if err == nil && s.Tree == nil {
				err = fmt.Errorf("%w: it has no tree", ErrDamaged)
			}
			mu.Lock()
			defer mu.Unlock()
			switch {
			case errors.Is(err, store.ErrNotExist): // forgotten since it was listed
			case errors.Is(err, ErrDamaged):
				damaged = append(damaged, &DamagedSnapshot{id, err})
			case err != nil:
				return err
			default:
				all = append(all, s)
			}
			return nil
		})
	})
	if err = cmp.Or(group.Wait(), err); err != nil {
		return nil, nil, fmt.Errorf("list snapshots: %w", err)
	}
	slices.SortFunc(damaged, func(a, b *DamagedSnapshot) int { return slices.Compare(a.ID[:], b.ID[:]) })
	slices.SortFunc(all, func(a, b *Snapshot) int {
		return cmp.Or(a.Time.Compare(b.Time), slices.Compare(a.ID[:], b.ID[:]))
	})
	return all, damaged, nil
}

// Find returns the one snapshot whose id begins with prefix, or the newest for "latest".
func Find(snapshots []*Snapshot, prefix string) (*Snapshot, error) {
	if prefix == "latest" {
		if len(snapshots) == 0 {
			return nil, fmt.Errorf("find latest snapshot: %w", ErrNoSnapshot)
		}
		return slices.MaxFunc(snapshots, func(a, b *Snapshot) int { return a.Time.Compare(b.Time) }), nil
	}
	var found *Snapshot
	for _, s := range snapshots {
		if prefix == "" || !strings.HasPrefix(s.ID.String(), strings.ToLower(prefix)) {
			continue
		}
		if found != nil {
			return nil, fmt.Errorf("find snapshot %q: more than one begins so: %s and %s", prefix, found.ID, s.ID)
		}
		found = s
	}
	if found == nil {
		return nil, fmt.Errorf("find snapshot %q: %w", prefix, ErrNoSnapshot)
	}
	return found, nil
}
