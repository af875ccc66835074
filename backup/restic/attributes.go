package restic

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// setAttributes gives what is at path, which was made by this process, the owner, extended attributes,
// permissions and times of n. What this process may not set, or the file system does not know, is counted and left out.
func (r *restorer) setAttributes(path string, n *Node) error {
	if err := r.tolerate(unix.Lchown(path, int(n.UID), int(n.GID))); err != nil {
		return fmt.Errorf("change owner of %s: %w", path, err)
	}
	for _, a := range n.Xattrs {
		if err := r.tolerate(unix.Lsetxattr(path, a.Name, a.Value, 0)); err != nil {
			return fmt.Errorf("set attribute %s of %s: %w", a.Name, path, err)
		}
	}
	if n.Type != Symlink { // which has none of its own
		if err := unix.Chmod(path, unixMode(n.Mode)); err != nil { // after the owner, whose change clears setuid
			return fmt.Errorf("change mode of %s: %w", path, err)
		}
	}
	times := []unix.Timespec{timespec(n.AccessTime), timespec(n.ModTime)}
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, path, times, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("set times of %s: %w", path, err)
	}
	return nil
}

// tolerate counts and forgives an error that says that something is not allowed, or not known here.
func (r *restorer) tolerate(err error) error {
	if errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.EPERM) || errors.Is(err, os.ErrPermission) {
		r.unset.Add(1)
		return nil
	}
	return err
}

func timespec(t time.Time) unix.Timespec {
	// Not NsecToTimespec: not every second that a file system knows is within the range of nanoseconds.
	return unix.Timespec{Sec: t.Unix(), Nsec: int64(t.Nanosecond())}
}
