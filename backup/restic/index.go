package restic

import (
	"context"
	"errors"
	"fmt"
	"path"
	"sync"

	"golang.org/x/sync/errgroup"

	"mainstay/backup/store"
)

// An indexFile says what some packs hold.
type indexFile struct {
	Supersedes []ID        `json:"supersedes,omitempty"`
	Packs      []indexPack `json:"packs"`
}

type indexPack struct {
	ID    ID           `json:"id"`
	Blobs []packedBlob `json:"blobs"`
}

// check tells what is impossible about an index file.
func (f *indexFile) check() error {
	for _, p := range f.Packs {
		for _, b := range p.Blobs {
			if err := b.check(); err != nil {
				return fmt.Errorf("pack %s: %w", p.ID.Short(), err)
			}
		}
	}
	return nil
}

// A place is where a blob is.
type place struct {
	packedBlob
	pack ID
	end  uint32 // of the pack's last blob
}

// An index knows where every blob of the repository is, and which are on their way there. It is safe for concurrent use.
type index struct {
	mu      sync.RWMutex
	packs   []indexedPack
	blobs   [2]map[ID]entry    // by type
	claimed [2]map[ID]struct{} // by type; not yet in a stored pack
}

type indexedPack struct {
	id  ID
	end uint32 // of its last blob
}

type entry struct {
	pack                  uint32 // in packs
	offset, length, plain uint32
}

func newIndex() *index {
	return &index{
		blobs:   [2]map[ID]entry{{}, {}},
		claimed: [2]map[ID]struct{}{{}, {}},
	}
}

// add makes a stored pack's blobs known. Of blobs that are stored twice the first counts.
func (x *index) add(p indexPack) {
	x.mu.Lock()
	defer x.mu.Unlock()
	n := uint32(len(x.packs))
	var end uint32
	for _, b := range p.Blobs {
		end = max(end, b.Offset+b.Length)
		delete(x.claimed[b.Type], b.ID)
		if _, known := x.blobs[b.Type][b.ID]; !known {
			x.blobs[b.Type][b.ID] = entry{pack: n, offset: b.Offset, length: b.Length, plain: b.Plain}
		}
	}
	x.packs = append(x.packs, indexedPack{p.ID, end})
}

// claim tells whether a blob is new. It is only once: whoever is told so must store it.
func (x *index) claim(t BlobType, id ID) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if _, known := x.blobs[t][id]; known {
		return false
	}
	if _, known := x.claimed[t][id]; known {
		return false
	}
	x.claimed[t][id] = struct{}{}
	return true
}

func (x *index) find(t BlobType, id ID) (place, bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	e, ok := x.blobs[t][id]
	if !ok {
		return place{}, false
	}
	pack := x.packs[e.pack]
	return place{packedBlob{ID: id, Type: t, Offset: e.offset, Length: e.length, Plain: e.plain}, pack.id, pack.end}, true
}

// hasAll tells whether all these blobs are stored.
func (x *index) hasAll(t BlobType, ids []ID) bool {
	x.mu.RLock()
	defer x.mu.RUnlock()
	for _, id := range ids {
		if _, ok := x.blobs[t][id]; !ok {
			return false
		}
	}
	return true
}

// loadIndex reads all index files. Snapshots whose blobs are to be found must have been listed before. What a damaged file tells of is
// not found, and to be stored anew.
func (r *Repository) loadIndex(ctx context.Context) (*index, error) {
	x := newIndex()
	add := func(_ ID, f *indexFile) {
		for _, p := range f.Packs {
			x.add(p)
		}
	}
	err := r.eachIndexFile(ctx, add, func(_ ID, err error) {
		r.log.Error("index file damaged, going on without it", "error", err)
	})
	if err != nil {
		return nil, fmt.Errorf("load index: %w", err)
	}
	return x, nil
}

// eachIndexFile calls f with every index file, one after the other, and damaged with those that cannot be read; one is an error if damaged is nil.
func (r *Repository) eachIndexFile(ctx context.Context, f func(id ID, file *indexFile), damaged func(id ID, err error)) error {
	var mu sync.Mutex
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(4)
	err := r.eachObject(ctx, "index", func(id ID, o store.Object) {
		group.Go(func() error {
			var file indexFile
			err := r.getJSON(ctx, o, maxIndex, &file)
			if err == nil {
				if err = file.check(); err != nil {
					err = fmt.Errorf("%s is %w: %w", o.Name, ErrDamaged, err)
				}
			}
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				f(id, &file)
			case errors.Is(err, ErrDamaged) && damaged != nil:
				damaged(id, err)
			default:
				return err
			}
			return nil
		})
	})
	if groupErr := group.Wait(); groupErr != nil {
		return groupErr
	}
	return err
}

// eachObject calls f with the objects in dir that are named by an id.
func (r *Repository) eachObject(ctx context.Context, dir string, f func(id ID, o store.Object)) error {
	for o, err := range r.store.List(ctx, dir) {
		if err != nil {
			return err
		}
		if id, err := ParseID(path.Base(o.Name)); err == nil {
			f(id, o)
		}
	}
	return nil
}
