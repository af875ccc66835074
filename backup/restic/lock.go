package restic

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"mainstay/backup/store"
)

// ErrLocked is in the error of a call that another program's lock did not let begin.
var ErrLocked = errors.New("repository is locked")

const (
	lockRefresh = 5 * time.Minute
	lockStale   = 30 * time.Minute
	lockSettle  = 200 * time.Millisecond // for others' locks to appear that were written at the same time
	// Who would only share the repository waits so long for someone, such as a prune, to let go of it.
	lockPatience = 5 * time.Minute
	lockRetry    = 5 * time.Second
)

// A lockFile says who uses the repository. Any number may at the same time, but one that is exclusive only alone.
type lockFile struct {
	Time      time.Time `json:"time"`
	Exclusive bool      `json:"exclusive"`
	Hostname  string    `json:"hostname"`
	Username  string    `json:"username"`
	PID       int       `json:"pid"`
	UID       uint32    `json:"uid,omitempty"`
	GID       uint32    `json:"gid,omitempty"`
}

func (f *lockFile) String() string {
	kind := "shared"
	if f.Exclusive {
		kind = "exclusive"
	}
	return fmt.Sprintf("%s lock of %s on %s, process %d, since %s", kind, cmp.Or(f.Username, "?"), cmp.Or(f.Hostname, "?"), f.PID, f.Time.Local().Format(time.DateTime))
}

// stale tells whether whoever wrote the lock is gone: it would have been refreshed, or its process would be there.
func (f *lockFile) stale(who identity) bool {
	if time.Since(f.Time) > lockStale {
		return true
	}
	if f.Hostname != who.hostname || f.PID <= 0 || f.PID == os.Getpid() {
		return false
	}
	return errors.Is(syscall.Kill(f.PID, 0), syscall.ESRCH)
}

// A lock is held by this process until it is released.
type lock struct {
	repo      *Repository
	exclusive bool
	id        ID // of the lock file that counts
	cancel    context.CancelCauseFunc
	refreshed chan struct{} // closed when the refreshing has ended
}

// lock acquires a lock; for a shared one it waits a while. The context returned, derived from ctx, is done as soon as the lock can no longer be relied on.
func (r *Repository) lock(ctx context.Context, exclusive bool) (*lock, context.Context, error) {
	l := &lock{repo: r, exclusive: exclusive, refreshed: make(chan struct{})}
	start := time.Now()
	for {
		err := l.acquire(ctx)
		if err == nil {
			break
		}
		if exclusive || !errors.Is(err, ErrLocked) || time.Since(start) > lockPatience {
			return nil, nil, fmt.Errorf("lock repository: %w", err)
		}
		r.log.Warn("waiting for the repository's lock", "reason", err)
		select {
		case <-ctx.Done():
			return nil, nil, fmt.Errorf("lock repository: %w", context.Cause(ctx))
		case <-time.After(lockRetry):
		}
	}
	ctx, l.cancel = context.WithCancelCause(ctx)
	go l.refresh(ctx)
	return l, ctx, nil
}

func (l *lock) acquire(ctx context.Context) error {
	if err := l.conflict(ctx); err != nil {
		return err
	}
	if err := l.write(ctx); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
	case <-time.After(l.repo.settle):
	}
	err := l.conflict(ctx) // which fails too when ctx is done
	if err != nil {
		l.remove(ctx)
	}
	return err
}

// conflict returns ErrLocked if another's lock is in the way. It removes those that are stale.
func (l *lock) conflict(ctx context.Context) error {
	var found error
	err := l.repo.eachObject(ctx, "locks", func(id ID, o store.Object) {
		if found != nil || id == l.id {
			return
		}
		var f lockFile
		if err := l.repo.getJSON(ctx, o, maxLock, &f); err != nil {
			if !errors.Is(err, store.ErrNotExist) { // it would be gone by now
				found = err
			}
			return
		}
		switch {
		case f.stale(l.repo.who):
			if err := l.repo.store.Delete(ctx, o.Name); err == nil {
				l.repo.log.Info("stale lock removed", "lock", f.String())
			}
		case f.Exclusive || l.exclusive:
			found = fmt.Errorf("%w: %s", ErrLocked, &f)
		}
	})
	return cmp.Or(err, found)
}

// write stores a lock file with the time of now, and makes it the one that counts.
func (l *lock) write(ctx context.Context) error {
	who := l.repo.who
	id, err := l.repo.putJSON(ctx, "locks", &lockFile{
		Time: time.Now(), Exclusive: l.exclusive, PID: os.Getpid(),
		Hostname: who.hostname, Username: who.username, UID: who.uid, GID: who.gid,
	})
	if err == nil {
		l.id = id
	}
	return err
}

// refresh writes the lock anew from time to time, and cancels ctx's work before others take it for stale.
func (l *lock) refresh(ctx context.Context) {
	defer close(l.refreshed)
	ticker := time.NewTicker(lockRefresh)
	defer ticker.Stop()
	last := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		old := l.id
		if err := l.write(ctx); err != nil {
			l.repo.log.Warn("lock not refreshed", "error", err)
			if time.Since(last) > lockStale-2*lockRefresh {
				l.cancel(fmt.Errorf("lock lost: %w", err))
			}
			continue
		}
		last = time.Now()
		if err := l.repo.store.Delete(ctx, "locks/"+old.String()); err != nil {
			l.repo.log.Warn("old lock not removed", "error", err)
		}
	}
}

// release gives the lock up.
func (l *lock) release(ctx context.Context) {
	l.cancel(nil)
	<-l.refreshed
	l.remove(ctx)
}

func (l *lock) remove(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTime)
	defer cancel()
	if err := l.repo.store.Delete(ctx, "locks/"+l.id.String()); err != nil {
		l.repo.log.Warn("lock not removed, it will become stale", "error", err)
	}
}
