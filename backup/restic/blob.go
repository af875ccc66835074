package restic

import (
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"sync"

	"mainstay/backup/store"
)

// openBlob returns the plain content of a blob, verified. It overwrites sealed, of which the result may be a part.
func (r *Repository) openBlob(id ID, sealed []byte, plainLength uint32) ([]byte, error) {
	plain, err := r.key.open(sealed)
	if err == nil && plainLength != 0 {
		plain, err = r.unzip.DecodeAll(plain, make([]byte, 0, plainLength))
		if err == nil && len(plain) != int(plainLength) {
			err = fmt.Errorf("%d bytes instead of %d", len(plain), plainLength)
		}
	}
	if err == nil && sha256.Sum256(plain) != id {
		err = fmt.Errorf("content does not match its hash")
	}
	if err != nil {
		return nil, fmt.Errorf("open blob %s: %w: %w", id.Short(), ErrDamaged, err)
	}
	return plain, nil
}

// rescueBlob reads a blob, sealed and plain, from a mirror on which it is sound. err is what is wrong with the one that was read.
func (r *Repository) rescueBlob(ctx context.Context, pack ID, b packedBlob, err error) (sealed, plain []byte, _ error) {
	err = r.rescue(ctx, packName(pack), err, func(s store.Store) error {
		var err error
		if sealed, err = s.Get(ctx, packName(pack), int64(b.Offset), int64(b.Length)); err == nil {
			plain, err = r.openBlob(b.ID, slices.Clone(sealed), b.Plain)
		}
		return err
	})
	return sealed, plain, err
}

// A treeReader reads directories. Trees are small and stored in the order in which they are asked for, so it
// fetches a stretch of a pack at a time and keeps the last few. It is safe for concurrent use.
type treeReader struct {
	repo  *Repository
	index *index

	mu      sync.Mutex
	fetched []*fetched // newest last
}

const (
	fetchSize = 1 << 20
	fetchKeep = 16
)

// A fetched is a stretch of a pack, there once done.
type fetched struct {
	pack        ID
	from, until uint32
	once        sync.Once
	data        []byte
	err         error
}

// read returns the entries of the directory with the given id.
func (t *treeReader) read(ctx context.Context, id ID) ([]*Node, error) {
	data, err := t.load(ctx, id)
	if err != nil {
		return nil, err
	}
	nodes, err := parseTree(data)
	if err != nil {
		return nil, fmt.Errorf("read tree %s: %w", id.Short(), err)
	}
	return nodes, nil
}

func (t *treeReader) load(ctx context.Context, id ID) ([]byte, error) {
	p, ok := t.index.find(TreeBlob, id)
	if !ok {
		return nil, fmt.Errorf("read tree %s: not in the index", id.Short())
	}
	f := t.stretch(p)
	f.once.Do(func() {
		f.data, f.err = t.repo.store.Get(ctx, packName(f.pack), int64(f.from), int64(f.until-f.from))
	})
	if f.err != nil {
		t.drop(f)
		_, plain, err := t.repo.rescueBlob(ctx, p.pack, p.packedBlob, f.err)
		return plain, err
	}
	sealed := slices.Clone(f.data[p.Offset-f.from : p.Offset-f.from+p.Length])
	plain, err := t.repo.openBlob(id, sealed, p.Plain)
	if err != nil {
		_, plain, err = t.repo.rescueBlob(ctx, p.pack, p.packedBlob, err)
	}
	return plain, err
}

// stretch returns one that has the blob at p.
func (t *treeReader) stretch(p place) *fetched {
	t.mu.Lock()
	defer t.mu.Unlock()
	until := p.Offset + p.Length
	for _, f := range slices.Backward(t.fetched) {
		if f.pack == p.pack && f.from <= p.Offset && until <= f.until {
			return f
		}
	}
	f := &fetched{pack: p.pack, from: p.Offset, until: max(until, min(p.end, p.Offset+fetchSize))}
	if len(t.fetched) == fetchKeep {
		t.fetched = slices.Delete(t.fetched, 0, 1)
	}
	t.fetched = append(t.fetched, f)
	return f
}

// drop lets the next read try again.
func (t *treeReader) drop(f *fetched) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if i := slices.Index(t.fetched, f); i >= 0 {
		t.fetched = slices.Delete(t.fetched, i, i+1)
	}
}
