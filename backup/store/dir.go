package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// unfinished is the directory, below a store's root, of objects that are being written.
const unfinished = "tmp"

// A dir is the Store in a directory: one file per object.
type dir struct {
	root  string
	sweep sync.Once // removes what interrupted writers left, before the first Put
}

func newDir(root string) *dir { return &dir{root: root} }

func (d *dir) String() string { return "file://" + d.root }

func (d *dir) Close() {}

func (d *dir) file(ctx context.Context, name string) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	if err := valid(name); err != nil {
		return "", err
	}
	return filepath.Join(d.root, filepath.FromSlash(name)), nil
}

// Put writes a temporary file, and renames it once it is on the disk.
func (d *dir) Put(ctx context.Context, name string, data []byte, _ [32]byte) error {
	target, err := d.file(ctx, name)
	if err == nil {
		err = d.put(target, data)
	}
	if err != nil {
		return fmt.Errorf("put %s: %w", name, plain(err))
	}
	return nil
}

func (d *dir) put(target string, data []byte) error {
	if _, err := os.Lstat(target); err == nil {
		return ErrExist // the rename below decides; this spares the writing
	}
	tmp := filepath.Join(d.root, unfinished)
	if err := makeDir(tmp); err != nil {
		return err
	}
	d.sweep.Do(func() { removeAbandoned(tmp) })
	f, err := os.CreateTemp(tmp, "")
	if err != nil {
		return err
	}
	_ = unix.Flock(int(f.Fd()), unix.LOCK_EX) // tells others that someone still writes, where files can be locked
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = makeDir(filepath.Dir(target))
	}
	if err == nil {
		err = moveNew(f.Name(), target)
	}
	if err != nil {
		os.Remove(f.Name())
		return err
	}
	return syncDir(filepath.Dir(target))
}

// Get reads the range and nothing else of the file.
func (d *dir) Get(ctx context.Context, name string, offset, length int64) ([]byte, error) {
	data, err := d.get(ctx, name, offset, length)
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", name, plain(err))
	}
	return data, nil
}

func (d *dir) get(ctx context.Context, name string, offset, length int64) ([]byte, error) {
	target, err := d.file(ctx, name)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(target)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if offset < 0 || length < 0 || length > info.Size()-offset {
		return nil, io.ErrUnexpectedEOF
	}
	data := make([]byte, length)
	if n, err := f.ReadAt(data, offset); n < len(data) {
		return nil, err
	}
	return data, nil
}

// Stat asks the file system.
func (d *dir) Stat(ctx context.Context, name string) (int64, error) {
	target, err := d.file(ctx, name)
	var info fs.FileInfo
	if err == nil {
		info, err = os.Stat(target)
	}
	if err != nil {
		return 0, fmt.Errorf("stat %s: %w", name, plain(err))
	}
	return info.Size(), nil
}

// List walks the directory.
func (d *dir) List(ctx context.Context, below string) iter.Seq2[Object, error] {
	return func(yield func(Object, error) bool) {
		top, err := d.file(ctx, below)
		if err == nil {
			err = filepath.WalkDir(top, func(path string, entry fs.DirEntry, err error) error {
				if err == nil {
					err = ctx.Err()
				}
				if err != nil {
					if path == top && errors.Is(err, fs.ErrNotExist) {
						return filepath.SkipAll
					}
					return err
				}
				if !entry.Type().IsRegular() {
					return nil
				}
				info, err := entry.Info()
				if errors.Is(err, fs.ErrNotExist) {
					return nil // deleted since
				}
				if err != nil {
					return err
				}
				name, err := filepath.Rel(d.root, path)
				if err != nil {
					return err
				}
				if !yield(Object{Name: filepath.ToSlash(name), Size: info.Size()}, nil) {
					return filepath.SkipAll
				}
				return nil
			})
		}
		if err != nil {
			yield(Object{}, fmt.Errorf("list %s: %w", below, plain(err)))
		}
	}
}

// Delete removes the file.
func (d *dir) Delete(ctx context.Context, name string) error {
	target, err := d.file(ctx, name)
	if err == nil {
		err = os.Remove(target)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("delete %s: %w", name, plain(err))
	}
	return nil
}

// plain says the two sentinels in the package's own words.
func plain(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return ErrNotExist
	case errors.Is(err, fs.ErrExist):
		return ErrExist
	}
	return err
}

// moveNew renames a file to a name that must not be taken.
func moveNew(from, to string) error {
	err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) { // the file system cannot
		if err = os.Link(from, to); err == nil {
			return os.Remove(from)
		}
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("rename %s: %w", to, err)
	}
	return err
}

// makeDir creates the directory and its parents, durably.
func makeDir(path string) error {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return nil
	}
	parent := filepath.Dir(path)
	if err := makeDir(parent); err != nil {
		return err
	}
	if err := os.Mkdir(path, 0o700); err != nil {
		if errors.Is(err, fs.ErrExist) {
			if info, statErr := os.Stat(path); statErr == nil && info.IsDir() {
				return nil // made by another just now
			}
			return fmt.Errorf("create directory %s: something else is in its place", path)
		}
		return err
	}
	return syncDir(parent)
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, unix.EINVAL) { // not every file system can
		return err
	}
	return nil
}

const (
	unlockedAge = time.Minute    // between a file's creation and its lock is less
	lockedAge   = 24 * time.Hour // where locks do not tell
)

// removeAbandoned removes files that nobody writes to any more. What cannot be removed stays.
func removeAbandoned(path string) {
	entries, err := os.ReadDir(path)
	if err != nil {
		return
	}
	for _, entry := range entries {
		info, err := entry.Info()
		if err != nil || !info.Mode().IsRegular() || time.Since(info.ModTime()) < unlockedAge {
			continue
		}
		name := filepath.Join(path, entry.Name())
		if abandoned(name) || time.Since(info.ModTime()) > lockedAge {
			os.Remove(name)
		}
	}
}

// abandoned tells whether a file surely has no writer: it could be locked.
func abandoned(name string) bool {
	f, err := os.OpenFile(name, os.O_RDWR|unix.O_NOFOLLOW, 0) // for writing, as locks of files in a network ask for it
	if err != nil {
		return false
	}
	defer f.Close()
	return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil
}
