// Package logfile is a file for lines that stays within a bound. It knows nothing of what is written.
//
// A File appends to path until the next write would take it past its limit, then
// renames: path becomes path.1, path.1 becomes path.2, and the oldest is removed. What
// is written in one call is never split over two files and never left half written, so
// whoever writes whole lines finds whole lines. A full disk, a missing directory
// and a file that somebody deleted, moved away or emptied cost what is written meanwhile and
// nothing else: each write looks and tries again.
//
// A File has no goroutine. Its lock is held while it writes, and never while
// somebody reads.
package logfile

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A File is appended to and rotated by rename: path, then path.1, path.2 and so on. It is safe for concurrent use.
type File struct {
	path string

	mu        sync.Mutex
	limit     int64
	keep      int
	file      *os.File // nil when it could not be opened again after a rotation
	opened    os.FileInfo
	size      int64
	rotations int
	closed    bool
}

// Open opens path for appending, creating it and its directory. A Write that would take the file past
// limit bytes goes to a new one; keep old ones are kept beside it.
func Open(path string, limit int64, keep int) (*File, error) {
	f := &File{path: path, limit: limit, keep: keep}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.openLocked(); err != nil {
		return nil, err
	}
	f.forgetLocked()
	return f, nil
}

// Bound changes the bounds that Open was given.
func (f *File) Bound(limit int64, keep int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fewer := keep < f.keep
	f.limit, f.keep = limit, keep
	if fewer {
		f.forgetLocked()
	}
}

// Rotations returns how often a full file was renamed since Open.
func (f *File) Rotations() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.rotations
}

// forgetLocked removes what was kept by other bounds. What cannot be removed stays until the next time.
func (f *File) forgetLocked() {
	entries, err := os.ReadDir(filepath.Dir(f.path))
	if err != nil {
		return
	}
	for _, e := range entries {
		number, ours := strings.CutPrefix(e.Name(), filepath.Base(f.path)+".")
		if n, err := strconv.Atoi(number); ours && err == nil && n > f.keep {
			_ = os.Remove(filepath.Join(filepath.Dir(f.path), e.Name()))
		}
	}
}

// Write appends p whole to one file. On an error (a full disk) p is lost and the next Write tries again.
func (f *File) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return 0, fmt.Errorf("write %s: %w", f.path, os.ErrClosed)
	}
	if err := f.readyLocked(int64(len(p))); err != nil {
		return 0, err
	}
	n, err := f.file.Write(p)
	if err != nil {
		// Half a line is worse than none.
		if n > 0 && f.file.Truncate(f.size) != nil {
			f.size += int64(n)
		}
		return 0, err
	}
	f.size += int64(n)
	return n, nil
}

// Close closes the file.
func (f *File) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	return f.dropLocked()
}

// readyLocked makes f.file one that n more bytes may be written to.
func (f *File) readyLocked(n int64) error {
	if f.file != nil && !f.presentLocked() {
		f.dropLocked()
	}
	if f.file == nil {
		if err := f.openLocked(); err != nil {
			return err
		}
	}
	if f.size == 0 || f.size+n <= f.limit {
		return nil
	}
	if err := f.rotateLocked(); err != nil {
		return err
	}
	return f.openLocked()
}

func (f *File) openLocked() error {
	if err := os.MkdirAll(filepath.Dir(f.path), 0o750); err != nil {
		return err
	}
	file, err := os.OpenFile(f.path, os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o640)
	if err != nil {
		return err
	}
	info, err := file.Stat()
	if err != nil {
		return errors.Join(err, file.Close())
	}
	f.file, f.opened, f.size = file, info, info.Size()
	return f.endLineLocked()
}

// settleTime is how long a file must not have grown for its last line to be one that nobody is writing.
const settleTime = 20 * time.Millisecond

// endLineLocked ends the last line if whoever wrote it was killed in the middle, so that what is written next begins one. Another program
// that has the file open too, in an upgrade, may be in the middle of a write: then the file grows.
func (f *File) endLineLocked() error {
	for {
		last := []byte{'\n'}
		if f.size > 0 && f.opened.Mode().IsRegular() {
			if _, err := f.file.ReadAt(last, f.size-1); err != nil {
				return errors.Join(err, f.dropLocked())
			}
		}
		if last[0] == '\n' {
			return nil
		}
		before := f.size
		settled := time.NewTimer(settleTime)
		<-settled.C
		info, err := f.file.Stat()
		if err != nil {
			return errors.Join(err, f.dropLocked())
		}
		if f.size = info.Size(); f.size == before {
			break
		}
	}
	if _, err := f.file.Write([]byte{'\n'}); err != nil {
		return errors.Join(err, f.dropLocked())
	}
	f.size++
	return nil
}

func (f *File) dropLocked() error {
	if f.file == nil {
		return nil
	}
	err := f.file.Close()
	f.file, f.size = nil, 0
	return err
}

// presentLocked reports whether path is still the file that is open, and not removed or moved away by somebody, and sees how large
// it is, for it may have been emptied.
func (f *File) presentLocked() bool {
	info, err := os.Stat(f.path)
	if err != nil {
		return errors.Is(err, os.ErrPermission) // what is open can still be written to
	}
	f.size = info.Size()
	return os.SameFile(info, f.opened)
}

// rotateLocked renames what is kept one place up. The rename of path itself comes last: if one fails, path
// is still what it was and the next Write tries again.
func (f *File) rotateLocked() error {
	for i := f.keep; i > 0; i-- {
		err := os.Rename(f.old(i-1), f.old(i))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	if f.keep <= 0 {
		if err := os.Remove(f.path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	f.rotations++
	return f.dropLocked()
}

// old returns the path of the file that was rotated i times.
func (f *File) old(i int) string {
	if i == 0 {
		return f.path
	}
	return f.path + "." + strconv.Itoa(i)
}
