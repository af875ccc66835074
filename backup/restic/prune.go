package restic

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"maps"
	"slices"

	"golang.org/x/sync/errgroup"

	"mainstay/backup/store"
)

// A Pruned tells what a prune did.
type Pruned struct {
	RemovedPacks  int    // including the repacked
	RepackedPacks int    // of which the needed part was stored anew
	FreedBytes    uint64 // in the store
}

const (
	// maxUnused is the share of what is needed that may stay stored though it is not: to remove the last bit of it
	// would mean to send nearly everything again.
	maxUnused = 0.05
	// Packs below smallPack are merged once there are manySmall of a type, and index files once there are manySmall.
	smallPack = packSize / 4
	manySmall = 32
	deletes   = 8 // at once
)

// A pruner knows what is stored and what of it is needed.
type pruner struct {
	repo   *Repository
	index  *index
	packs  map[ID]*storedPack
	files  map[ID][]ID // packs by index file
	needed [2]map[ID]struct{}
}

type storedPack struct {
	id     ID
	size   uint64
	blobs  []packedBlob
	used   uint64 // bytes of blobs that are needed, and needed from here
	unused uint64
	gone   bool // is to be removed
	adrift bool // was in no index
}

func newPruner(r *Repository) *pruner {
	return &pruner{repo: r, index: newIndex(), packs: map[ID]*storedPack{}, files: map[ID][]ID{}, needed: [2]map[ID]struct{}{{}, {}}}
}

// merge adds blobs that are not known to be in the pack.
func (s *storedPack) merge(blobs []packedBlob) {
	if len(s.blobs) == len(blobs) {
		return // the same index file twice, in all likelihood
	}
	for _, b := range blobs {
		if !slices.Contains(s.blobs, b) {
			s.blobs = append(s.blobs, b)
		}
	}
}

// prune removes what no snapshot needs. The caller holds an exclusive lock.
//
// The order keeps the repository sound at every moment: new packs, their index, old index files, old packs.
func (r *Repository) prune(ctx context.Context) (Pruned, error) {
	done, err := newPruner(r).run(ctx)
	if err != nil {
		return done, fmt.Errorf("prune: %w", cmp.Or(context.Cause(ctx), err))
	}
	if done.RemovedPacks > 0 {
		r.log.Info("repository pruned", "removed_packs", done.RemovedPacks, "repacked_packs", done.RepackedPacks, "freed_bytes", done.FreedBytes)
	}
	return done, nil
}

func (p *pruner) run(ctx context.Context) (Pruned, error) {
	var done Pruned
	snapshots, err := p.repo.Snapshots(ctx)
	if err != nil {
		return done, err
	}
	if err := p.inventory(ctx); err != nil {
		return done, err
	}
	if err := p.mark(ctx, snapshots); err != nil {
		return done, err
	}
	p.count()
	repack := p.choose()
	added, err := p.repack(ctx, repack)
	if err != nil {
		return done, err
	}
	if err := p.replaceIndex(ctx); err != nil {
		return done, err
	}
	var freed uint64
	var names []string
	for _, s := range p.packs {
		if s.gone && s.size > 0 {
			names = append(names, packName(s.id))
			freed += s.size
		}
	}
	if err := p.deleteAll(ctx, names); err != nil {
		return done, err
	}
	return Pruned{RemovedPacks: len(names), RepackedPacks: len(repack), FreedBytes: freed - min(freed, added)}, nil
}

// inventory finds out what is stored: what the index says, and what is there though no index says so.
func (p *pruner) inventory(ctx context.Context) error {
	err := p.repo.eachIndexFile(ctx, func(id ID, f *indexFile) {
		p.files[id] = []ID{}
		for _, pack := range f.Packs {
			p.files[id] = append(p.files[id], pack.ID)
			if known := p.packs[pack.ID]; known != nil {
				known.merge(pack.Blobs)
			} else {
				p.packs[pack.ID] = &storedPack{id: pack.ID, blobs: pack.Blobs}
			}
			p.index.add(pack)
		}
	}, nil)
	if err != nil {
		return err
	}
	var adrift []*storedPack
	err = p.repo.eachObject(ctx, "data", func(id ID, o store.Object) {
		s := p.packs[id]
		if s == nil {
			s = &storedPack{id: id, adrift: true}
			p.packs[id] = s
			adrift = append(adrift, s)
		}
		s.size = uint64(o.Size)
	})
	if err != nil {
		return err
	}
	return p.adopt(ctx, adrift)
}

// adopt reads what is in packs of which no index tells: an interrupted run has left them, or an index was lost.
func (p *pruner) adopt(ctx context.Context, packs []*storedPack) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(deletes)
	for _, s := range packs {
		group.Go(func() error {
			blobs, err := p.repo.packHeader(ctx, s.id, int64(s.size))
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if err != nil { // without a header it is of no use to anyone
				p.repo.log.Warn("unreadable pack", "pack", s.id.Short(), "error", err)
				return nil
			}
			s.blobs = blobs
			p.index.add(indexPack{ID: s.id, Blobs: blobs})
			return nil
		})
	}
	return group.Wait()
}

// mark collects the blobs that the snapshots need, and fails if one is not there.
func (p *pruner) mark(ctx context.Context, snapshots []*Snapshot) error {
	trees := &treeReader{repo: p.repo, index: p.index}
	var visit func(tree ID) error
	visit = func(tree ID) error {
		if _, seen := p.needed[TreeBlob][tree]; seen {
			return nil
		}
		p.needed[TreeBlob][tree] = struct{}{}
		if err := p.present(TreeBlob, tree); err != nil {
			return err
		}
		nodes, err := trees.read(ctx, tree)
		if err != nil {
			return err
		}
		for _, n := range nodes {
			for _, id := range n.Content {
				if err := p.present(DataBlob, id); err != nil {
					return fmt.Errorf("%s: %w", n.Name, err)
				}
				p.needed[DataBlob][id] = struct{}{}
			}
			if n.Subtree != nil {
				if err := visit(*n.Subtree); err != nil {
					return err
				}
			}
		}
		return nil
	}
	for _, s := range snapshots {
		if err := visit(*s.Tree); err != nil {
			return fmt.Errorf("snapshot %s: %w; nothing was removed", s.ID.Short(), err)
		}
	}
	return nil
}

func (p *pruner) present(t BlobType, id ID) error {
	at, ok := p.index.find(t, id)
	if !ok {
		return fmt.Errorf("%s blob %s is in no pack", t, id.Short())
	}
	if p.packs[at.pack].size == 0 {
		return fmt.Errorf("%s blob %s is in pack %s, which is missing", t, id.Short(), at.pack.Short())
	}
	return nil
}

// count finds out how much of each pack is needed. What is stored twice is needed once: where the index finds it.
func (p *pruner) count() {
	for _, s := range p.packs {
		for _, b := range s.blobs {
			if p.needs(s, b) {
				s.used += uint64(b.Length)
			} else {
				s.unused += uint64(b.Length)
			}
		}
	}
}

func (p *pruner) needs(s *storedPack, b packedBlob) bool {
	if _, needed := p.needed[b.Type][b.ID]; !needed {
		return false
	}
	at, _ := p.index.find(b.Type, b.ID)
	return at.pack == s.id && at.Offset == b.Offset
}

// choose marks the packs that are to go, and returns those of them that have something needed.
func (p *pruner) choose() []*storedPack {
	var repack, partly []*storedPack
	var small [2][]*storedPack
	var used, unused uint64
	for _, s := range p.packs {
		used += s.used
		switch {
		case s.used == 0:
			s.gone = true
			continue
		case s.unused > 0:
			unused += s.unused
			partly = append(partly, s)
		case s.size < smallPack:
			t := s.blobs[0].Type
			small[t] = append(small[t], s)
		}
	}
	slices.SortFunc(partly, func(a, b *storedPack) int { // the largest share of what is not needed first
		return cmp.Or(cmp.Compare(b.unused*a.used, a.unused*b.used), slices.Compare(a.id[:], b.id[:]))
	})
	for _, s := range partly {
		if float64(unused) <= maxUnused*float64(used) {
			break
		}
		unused -= s.unused
		repack = append(repack, s)
	}
	for _, packs := range small {
		if len(packs) >= manySmall {
			repack = append(repack, packs...)
		}
	}
	for _, s := range repack {
		s.gone = true
	}
	return repack
}

// repack stores the needed blobs of packs anew, and returns how many bytes that took.
func (p *pruner) repack(ctx context.Context, packs []*storedPack) (uint64, error) {
	if len(packs) == 0 {
		return 0, nil
	}
	saver, saveCtx := p.repo.newSaver(ctx, newIndex())
	err := func() error {
		for _, s := range packs {
			for b, err := range p.neededOf(saveCtx, s) {
				if err == nil {
					err = saver.add(b.ID, b.Type, b.sealed, int(b.Plain), int(b.plainLength()))
				}
				if err != nil {
					return fmt.Errorf("repack %s: %w", s.id.Short(), err)
				}
			}
		}
		return saver.finish(ctx)
	}()
	if err != nil {
		saver.abandon(ctx)
		return 0, err
	}
	return saver.addedBytes, nil
}

type sealedBlob struct {
	packedBlob
	sealed []byte
}

// neededOf yields the blobs of s that are needed, verified.
func (p *pruner) neededOf(ctx context.Context, s *storedPack) iter.Seq2[sealedBlob, error] {
	return func(yield func(sealedBlob, error) bool) {
		needed := slices.DeleteFunc(slices.Clone(s.blobs), func(b packedBlob) bool { return !p.needs(s, b) })
		slices.SortFunc(needed, func(a, b packedBlob) int { return cmp.Compare(a.Offset, b.Offset) })
		for len(needed) > 0 {
			n, end := together(needed)
			start := needed[0].Offset
			data, err := p.repo.store.Get(ctx, packName(s.id), int64(start), end-int64(start))
			for _, b := range needed[:n] {
				var sealed []byte
				if err == nil {
					sealed = data[b.Offset-start:][:b.Length]
					_, err = p.repo.openBlob(b.ID, slices.Clone(sealed), b.Plain)
				}
				if err != nil {
					sealed, _, err = p.repo.rescueBlob(ctx, s.id, b, err)
				}
				if !yield(sealedBlob{b, sealed}, err) || err != nil {
					return
				}
			}
			needed = needed[n:]
		}
	}
}

// replaceIndex writes anew what the index files say that mention a pack that is to go, or of all
// files if they are many, and removes those files.
func (p *pruner) replaceIndex(ctx context.Context) error {
	var old []string
	keep := map[ID]bool{}
	for file, packs := range p.files {
		if len(p.files) < manySmall && !slices.ContainsFunc(packs, func(id ID) bool { return p.packs[id].gone }) {
			continue
		}
		old = append(old, "index/"+file.String())
		for _, id := range packs {
			keep[id] = true
		}
	}
	for id, s := range p.packs {
		if s.adrift {
			keep[id] = true
		}
	}
	maps.DeleteFunc(keep, func(id ID, _ bool) bool { return p.packs[id].gone })
	var file indexFile
	blobs := 0
	for id := range keep {
		file.Packs = append(file.Packs, indexPack{ID: id, Blobs: p.packs[id].blobs})
		if blobs += len(p.packs[id].blobs); blobs >= indexBlobs {
			if err := p.repo.putIndex(ctx, file); err != nil {
				return err
			}
			file, blobs = indexFile{}, 0
		}
	}
	if err := p.repo.putIndex(ctx, file); err != nil {
		return err
	}
	return p.deleteAll(ctx, old)
}

func (p *pruner) deleteAll(ctx context.Context, names []string) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(deletes)
	for _, name := range names {
		group.Go(func() error { return p.repo.store.Delete(ctx, name) })
	}
	return group.Wait()
}
