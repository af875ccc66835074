package restic

import (
	"context"
	"crypto/sha256"
	"math/rand/v2"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	packSize = 8 << 20 // half of restic's, as every pack on its way is held in memory
	// dataPacks are filled side by side, each blob going to one at random: the lengths of a file's chunks
	// could otherwise be read off a pack's upload ("Chunking Attacks on File Backup Services using
	// Content-Defined Chunking", eprint 2025/532).
	dataPacks = 2
	uploads   = 3 // packs on their way to the store at once
	// An index file is written when it has so many blobs, or the last is so old: what is
	// interrupted need not send again what it had sent by then.
	indexBlobs = 20_000
	indexAge   = 5 * time.Minute
	// cleanupTime is what an interrupted call may take to leave things tidy.
	cleanupTime = 5 * time.Second
)

// A saver stores blobs that the index does not have. It is safe for concurrent use.
type saver struct {
	repo  *Repository
	index *index
	ctx   context.Context // of uploads, which outlive the call that starts them
	group *errgroup.Group

	buffers buffers

	mu         sync.Mutex
	open       [2][]*pack // by type
	free       [][]byte   // buffers of stored packs
	unindexed  []indexPack
	blobs      int // of unindexed
	indexed    time.Time
	addedBlobs [2]int64 // by type
	addedPlain uint64   // bytes
	addedBytes uint64   // sealed
}

// newSaver returns a saver and the context, derived from ctx, that is done when it cannot store.
func (r *Repository) newSaver(ctx context.Context, x *index) (*saver, context.Context) {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(uploads)
	s := &saver{repo: r, index: x, ctx: ctx, group: group, indexed: time.Now()}
	s.open[DataBlob] = make([]*pack, dataPacks)
	s.open[TreeBlob] = make([]*pack, 1)
	return s, ctx
}

// save returns the id of plain, and whether it had to be stored. It keeps nothing of plain.
func (s *saver) save(t BlobType, plain []byte) (ID, bool, error) {
	id := ID(sha256.Sum256(plain))
	if !s.index.claim(t, id) {
		return id, false, nil
	}
	sealed := s.buffers.take(len(plain))[:ivSize]
	defer func() { s.buffers.give(sealed) }()
	plainLength := 0
	if s.repo.config.Version >= 2 {
		if sealed = s.repo.zip.EncodeAll(plain, sealed); len(sealed)-ivSize < len(plain) {
			plainLength = len(plain)
		}
	}
	if plainLength == 0 { // not smaller
		sealed = append(sealed[:ivSize], plain...)
	}
	sealed = s.repo.key.sealFrom(sealed, 0)
	return id, true, s.add(id, t, sealed, plainLength, len(plain))
}

// add puts a sealed blob into a pack, and hands over the pack that it does not fit into any more.
func (s *saver) add(id ID, t BlobType, sealed []byte, plainLength, size int) error {
	s.mu.Lock()
	place := &s.open[t][rand.IntN(len(s.open[t]))]
	var full *pack
	if *place != nil && (*place).full(len(sealed)) {
		full, *place = *place, nil
	}
	if *place == nil {
		*place = &pack{data: s.bufferLocked(t)}
	}
	(*place).add(id, t, sealed, plainLength)
	s.addedBlobs[t]++
	s.addedPlain += uint64(size)
	s.addedBytes += uint64(len(sealed))
	s.mu.Unlock()
	return s.upload(t, full)
}

func (s *saver) bufferLocked(t BlobType) []byte {
	if n := len(s.free); n > 0 {
		buffer := s.free[n-1]
		s.free = s.free[:n-1]
		return buffer[:0]
	}
	if t == DataBlob {
		return make([]byte, 0, packSize)
	}
	return nil // there may not be much
}

// upload stores a pack in the background. It blocks while too many are under way.
func (s *saver) upload(t BlobType, p *pack) error {
	if p == nil {
		return nil
	}
	if s.ctx.Err() != nil {
		return context.Cause(s.ctx)
	}
	s.group.Go(func() error {
		id := p.finish(s.repo.key)
		if err := s.repo.putNamed(s.ctx, packName(id), p.data, id); err != nil {
			return err
		}
		stored := indexPack{ID: id, Blobs: p.blobs}
		s.index.add(stored)

		s.mu.Lock()
		if cap(p.data) <= packSize {
			s.free = append(s.free, p.data)
		}
		s.unindexed = append(s.unindexed, stored)
		s.blobs += len(stored.Blobs)
		var file indexFile
		if s.blobs >= indexBlobs || time.Since(s.indexed) > indexAge {
			file.Packs = s.takeUnindexedLocked()
		}
		s.mu.Unlock()
		return s.repo.putIndex(s.ctx, file)
	})
	return nil
}

func (s *saver) takeUnindexedLocked() []indexPack {
	packs := s.unindexed
	s.unindexed, s.blobs, s.indexed = nil, 0, time.Now()
	return packs
}

// finish stores what is still open, then the index of it. No save may be under way. ctx is the one from newSaver's caller.
func (s *saver) finish(ctx context.Context) error {
	s.mu.Lock()
	open := s.open
	s.mu.Unlock()
	var err error
	for t, packs := range open {
		for _, p := range packs {
			if err == nil {
				err = s.upload(BlobType(t), p)
			}
		}
	}
	if groupErr := s.group.Wait(); groupErr != nil {
		err = groupErr
	}
	if err == nil {
		err = s.flushIndex(ctx)
	}
	return err
}

// abandon waits for uploads that are under way and makes the stored packs known to whoever tries again.
func (s *saver) abandon(ctx context.Context) {
	_ = s.group.Wait() // told already
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTime)
	defer cancel()
	if err := s.flushIndex(ctx); err != nil {
		s.repo.log.Warn("stored data left without index, it will be sent again", "error", err)
	}
}

func (s *saver) flushIndex(ctx context.Context) error {
	s.mu.Lock()
	file := indexFile{Packs: s.takeUnindexedLocked()}
	s.mu.Unlock()
	return s.repo.putIndex(ctx, file)
}

// putIndex stores an index file, unless it is empty.
func (r *Repository) putIndex(ctx context.Context, file indexFile) error {
	if len(file.Packs) == 0 {
		return nil
	}
	_, err := r.putJSON(ctx, "index", file)
	return err
}
