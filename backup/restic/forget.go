package restic

import (
	"context"
	"fmt"
)

// A Forgotten tells what Forget removed.
type Forgotten struct {
	Snapshots int
	Pruned    Pruned
}

// Forget removes the snapshots that choose picks among all, oldest first, and then what only they needed.
// Nothing happens, and no lock is taken, if it picks none. Otherwise the lock is exclusive: the error
// is ErrLocked if anyone else uses the repository.
func (r *Repository) Forget(ctx context.Context, choose func([]*Snapshot) []*Snapshot) (Forgotten, error) {
	var done Forgotten
	snapshots, err := r.Snapshots(ctx)
	if err != nil {
		return done, err
	}
	if len(choose(snapshots)) == 0 {
		return done, nil
	}
	l, ctx, err := r.lock(ctx, true)
	if err != nil {
		return done, fmt.Errorf("forget snapshots: %w", err)
	}
	defer l.release(ctx)
	if snapshots, err = r.Snapshots(ctx); err != nil { // again, now that nobody adds any
		return done, err
	}
	for _, s := range choose(snapshots) {
		if err := r.store.Delete(ctx, "snapshots/"+s.ID.String()); err != nil {
			return done, fmt.Errorf("forget snapshot %s: %w", s.ID.Short(), err)
		}
		r.log.Info("snapshot forgotten", "snapshot", s.ID.Short(), "taken", s.Time)
		done.Snapshots++
	}
	done.Pruned, err = r.prune(ctx)
	return done, err
}

// Prune removes what no snapshot needs. The error is ErrLocked if anyone else uses the repository.
func (r *Repository) Prune(ctx context.Context) (Pruned, error) {
	l, ctx, err := r.lock(ctx, true)
	if err != nil {
		return Pruned{}, fmt.Errorf("prune: %w", err)
	}
	defer l.release(ctx)
	return r.prune(ctx)
}
