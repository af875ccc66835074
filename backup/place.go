package backup

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A place is where something is restored to. It is built in a staging directory beside it, which this process
// holds a lock on for as long as it lives, so that another knows what an interrupted one has left.
type place struct {
	from    string // in the snapshot
	include []string
	target  string
	staging string
	lock    *os.File // the staging directory
	kept    string   // what was at the target before
	entered bool
}

// ErrOccupied is in the error of Restore when something is in the place that it may not set aside.
var ErrOccupied = errors.New("there is something in its place")

const stagingInfix = ".restoring-"

// newPlace makes the staging directory, and removes those that interrupted restores have left.
func newPlace(from, target string, force bool) (*place, error) {
	if !force {
		if err := vacant(target); err != nil {
			return nil, err
		}
	}
	parent := filepath.Dir(target)
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return nil, fmt.Errorf("restore %s: %w", target, err)
	}
	removeAbandoned(target)
	staging, err := os.MkdirTemp(parent, filepath.Base(target)+stagingInfix)
	if err != nil {
		return nil, fmt.Errorf("restore %s: %w", target, err)
	}
	p := &place{from: from, target: target, staging: staging}
	if p.lock, err = lockDir(staging); err != nil {
		return nil, errors.Join(fmt.Errorf("restore %s: %w", target, err), os.Remove(staging))
	}
	return p, nil
}

// vacant returns an error if something is at target that is not an empty directory.
func vacant(target string) error {
	info, err := os.Lstat(target)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("restore %s: %w", target, err)
	}
	if info.IsDir() {
		if entries, err := os.ReadDir(target); err == nil && len(entries) == 0 {
			return nil
		}
	}
	return fmt.Errorf("restore %s: %w; force the restore to set that aside, or name another target", target, ErrOccupied)
}

func lockDir(path string) (*os.File, error) {
	d, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(d.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		d.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return d, nil
}

// removeAbandoned removes the staging directories for target that no process holds.
func removeAbandoned(target string) {
	entries, err := os.ReadDir(filepath.Dir(target))
	if err != nil {
		return
	}
	for _, e := range entries {
		number, ok := strings.CutPrefix(e.Name(), filepath.Base(target)+stagingInfix)
		if !ok || !e.IsDir() || strings.Trim(number, "0123456789") != "" {
			continue
		}
		path := filepath.Join(filepath.Dir(target), e.Name())
		if d, err := lockDir(path); err == nil {
			if staged(d) {
				_ = removeTree(path) // the next restore tries again
			}
			d.Close()
		}
	}
}

// staged tells whether a directory holds what a staging directory does, as others may have named theirs so.
func staged(d *os.File) bool {
	names, err := d.Readdirnames(2)
	return errors.Is(err, io.EOF) || len(names) == 1 && names[0] == contentName
}

// removeTree removes what is at path, also the directories in it that do not allow that.
func removeTree(path string) error {
	err := os.RemoveAll(path)
	if errors.Is(err, fs.ErrPermission) {
		_ = filepath.WalkDir(path, func(path string, entry fs.DirEntry, err error) error {
			if entry != nil && entry.IsDir() && err == nil {
				return os.Chmod(path, 0o700) // before it is read
			}
			return nil // what stays is told below
		})
		err = os.RemoveAll(path)
	}
	return err
}

// content is where what is to become the target is built.
func (p *place) content() string { return filepath.Join(p.staging, contentName) }

const contentName = "content"

// enter puts the content in the target's place.
func (p *place) enter(force bool) error {
	var err error
	switch vacancy := vacant(p.target); {
	case vacancy == nil:
		err = move(p.content(), p.target)
	case force:
		err = p.exchange()
	default:
		return vacancy // it was vacant before
	}
	if errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("restore %s: it is in use as a mount point; name a target inside of it and move what is there", p.target)
	}
	if err != nil {
		return err
	}
	p.entered = true
	return syncDir(filepath.Dir(p.target))
}

// move renames a directory or file, as package os does not where an empty directory is in the place. A directory that goes to
// another is written to, as its entry ".." changes: one that its owner may not write to is made writable for the time.
func move(from, to string) error {
	restore, err := loosen(from)
	if err != nil {
		return err
	}
	if err := unix.Rename(from, to); err != nil {
		return errors.Join(err, restore(from))
	}
	return restore(to)
}

// loosen makes what is at path, if it is a directory of this process's user, writable, and returns what makes it what it was, wherever it is then.
func loosen(path string) (restore func(path string) error, err error) {
	info, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	mode := info.Mode()
	if !mode.IsDir() || mode&0o200 != 0 || os.Geteuid() == 0 {
		return func(string) error { return nil }, nil
	}
	restore = func(path string) error { return os.Chmod(path, mode) }
	return restore, os.Chmod(path, mode|0o200)
}

// exchange puts the content in the place of something else, which is kept. At no time is nothing in the place.
func (p *place) exchange() error {
	kept := p.target + ".pre-restore-" + time.Now().Format("20060102T150405")
	if _, err := os.Lstat(kept); err == nil {
		return fmt.Errorf("set aside %s: %s exists", p.target, kept)
	}
	swap := func() error {
		tighten, err := loosen(p.content())
		if err != nil {
			return err
		}
		tightenTarget, err := loosen(p.target)
		if err != nil {
			return errors.Join(err, tighten(p.content()))
		}
		if err := unix.Renameat2(unix.AT_FDCWD, p.content(), unix.AT_FDCWD, p.target, unix.RENAME_EXCHANGE); err != nil {
			return errors.Join(err, tighten(p.content()), tightenTarget(p.target))
		}
		return errors.Join(tighten(p.target), tightenTarget(p.content()))
	}
	err := swap()
	if err == nil {
		p.kept = p.content()
		if err = move(p.content(), kept); err == nil {
			p.kept = kept
			return nil
		}
		if swapErr := swap(); swapErr != nil {
			return fmt.Errorf("set aside %s: %w; it is now %s", p.target, err, p.kept)
		}
		p.kept = ""
		return fmt.Errorf("set aside %s: %w", p.target, err)
	}
	if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOSYS) {
		return fmt.Errorf("exchange %s: %w", p.target, err)
	}
	if err := move(p.target, kept); err != nil { // a file system that cannot exchange
		return err
	}
	p.kept = kept
	if err := move(p.content(), p.target); err != nil {
		return errors.Join(err, move(kept, p.target))
	}
	return nil
}

// leave undoes enter.
func (p *place) leave() error {
	if !p.entered {
		return nil
	}
	p.entered = false
	if err := move(p.target, p.content()); err != nil {
		return err
	}
	if p.kept == "" {
		return nil
	}
	return move(p.kept, p.target)
}

// unstage removes the staging directories, with what has not been put in place.
func unstage(log *slog.Logger, places []*place) {
	for _, p := range places {
		if p.kept == p.content() {
			log.Error("what was in the place is left in the staging directory", "path", p.kept)
		} else if err := removeTree(p.staging); err != nil {
			log.Warn("staging directory not removed", "path", p.staging, "error", err)
		}
		p.lock.Close()
	}
}
