package backup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"

	"mainstay/backup/restic"
	"mainstay/backup/store"
	"mainstay/topology"
)

// A repository is open until it is closed.
type repository struct {
	*restic.Repository
	store store.Store
}

func (r *repository) close() {
	r.Repository.Close()
	r.store.Close()
}

// open opens spec's repository, which must be there.
func open(ctx context.Context, log *slog.Logger, spec topology.Backup) (*repository, error) {
	return reach(ctx, log, spec, func(s store.Store, password string) (*restic.Repository, error) {
		if password == "" {
			return nil, missingPassword(spec)
		}
		return restic.Open(ctx, log, s, password)
	})
}

// openOrCreate opens spec's repository, or creates it if there is none, with a new password if there is no password file.
func openOrCreate(ctx context.Context, log *slog.Logger, spec topology.Backup) (*repository, error) {
	if err := check(spec); err != nil { // before anything is made
		return nil, err
	}
	return reach(ctx, log, spec, func(s store.Store, password string) (*restic.Repository, error) {
		exists, err := restic.Exists(ctx, s)
		if err != nil {
			return nil, err
		}
		if password == "" {
			if exists {
				return nil, missingPassword(spec)
			}
			if password, err = createPassword(log, spec.PasswordFile); err != nil {
				return nil, err
			}
		}
		if !exists {
			r, err := restic.Create(ctx, log, s, password)
			if !errors.Is(err, store.ErrExist) { // else another was faster
				return r, err
			}
		}
		return restic.Open(ctx, log, s, password)
	})
}

// reach opens spec's store and hands it to f with the password, which is empty if its file is missing.
func reach(ctx context.Context, log *slog.Logger, spec topology.Backup, f func(s store.Store, password string) (*restic.Repository, error)) (*repository, error) {
	if err := checkRepository(spec); err != nil {
		return nil, err
	}
	password, err := readPassword(log, spec.PasswordFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	s, err := store.Open(ctx, log, spec.Repository)
	if err != nil {
		return nil, err
	}
	r, err := f(s, password)
	if err != nil {
		s.Close()
		return nil, err
	}
	return &repository{r, s}, nil
}

func missingPassword(spec topology.Backup) error {
	return fmt.Errorf("password file %s is missing; bring it back from where its copy is kept, as nothing in the repository can be read without it", spec.PasswordFile)
}
