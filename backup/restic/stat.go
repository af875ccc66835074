package restic

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/user"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// owners looks up names of users and groups, each once. It is safe for concurrent use.
type owners struct{ users, groups sync.Map }

func (o *owners) user(id uint32) string {
	return lookUp(&o.users, id, func(id string) string {
		if u, err := user.LookupId(id); err == nil {
			return u.Username
		}
		return ""
	})
}

func (o *owners) group(id uint32) string {
	return lookUp(&o.groups, id, func(id string) string {
		if g, err := user.LookupGroupId(id); err == nil {
			return g.Name
		}
		return ""
	})
}

func lookUp(names *sync.Map, id uint32, find func(string) string) string {
	if name, ok := names.Load(id); ok {
		return name.(string)
	}
	name := find(strconv.FormatUint(uint64(id), 10))
	names.Store(id, name)
	return name
}

// newNode returns the node of what stat describes, without link target, content and attributes.
func (o *owners) newNode(name string, st *unix.Stat_t) *Node {
	n := &Node{
		Name: name, Mode: fileMode(st.Mode),
		ModTime:    time.Unix(st.Mtim.Unix()),
		ChangeTime: time.Unix(st.Ctim.Unix()),
		UID:        st.Uid, GID: st.Gid, User: o.user(st.Uid), Group: o.group(st.Gid),
		Inode: st.Ino, DeviceID: st.Dev,
	}
	n.AccessTime = n.ModTime // or every reader would make a new tree
	n.Links = uint64(st.Nlink)
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		n.Type, n.Size = File, uint64(st.Size)
	case unix.S_IFDIR:
		n.Type, n.Links = Dir, 0
	case unix.S_IFLNK:
		n.Type = Symlink
	case unix.S_IFBLK:
		n.Type, n.Device = Device, st.Rdev
	case unix.S_IFCHR:
		n.Type, n.Device = CharDevice, st.Rdev
	case unix.S_IFIFO:
		n.Type, n.Links = Fifo, 0
	case unix.S_IFSOCK:
		n.Type, n.Links = Socket, 0
	}
	return n
}

// fileMode translates as package os does.
func fileMode(mode uint32) os.FileMode {
	m := os.FileMode(mode & 0o777)
	switch mode & unix.S_IFMT {
	case unix.S_IFBLK:
		m |= os.ModeDevice
	case unix.S_IFCHR:
		m |= os.ModeDevice | os.ModeCharDevice
	case unix.S_IFDIR:
		m |= os.ModeDir
	case unix.S_IFIFO:
		m |= os.ModeNamedPipe
	case unix.S_IFLNK:
		m |= os.ModeSymlink
	case unix.S_IFSOCK:
		m |= os.ModeSocket
	}
	if mode&unix.S_ISUID != 0 {
		m |= os.ModeSetuid
	}
	if mode&unix.S_ISGID != 0 {
		m |= os.ModeSetgid
	}
	if mode&unix.S_ISVTX != 0 {
		m |= os.ModeSticky
	}
	return m
}

// unixMode is the way back, permissions only.
func unixMode(m os.FileMode) uint32 {
	mode := uint32(m.Perm())
	if m&os.ModeSetuid != 0 {
		mode |= unix.S_ISUID
	}
	if m&os.ModeSetgid != 0 {
		mode |= unix.S_ISGID
	}
	if m&os.ModeSticky != 0 {
		mode |= unix.S_ISVTX
	}
	return mode
}

// readXattrs returns the extended attributes of what is at path, in the order in which the file system lists them.
// A file system without any is no error.
func readXattrs(path string) ([]Xattr, error) {
	names, err := grow(func(buf []byte) (int, error) { return unix.Llistxattr(path, buf) })
	if err != nil {
		if errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.EPERM) {
			return nil, nil
		}
		return nil, fmt.Errorf("list extended attributes: %w", err)
	}
	var attributes []Xattr
	for name := range bytes.SplitSeq(bytes.TrimSuffix(names, []byte{0}), []byte{0}) {
		if len(name) == 0 {
			continue
		}
		value, err := grow(func(buf []byte) (int, error) { return unix.Lgetxattr(path, string(name), buf) })
		if errors.Is(err, unix.ENODATA) || errors.Is(err, unix.ENOTSUP) {
			continue // gone, or not for us
		}
		if err != nil {
			return nil, fmt.Errorf("read extended attribute %s: %w", name, err)
		}
		attributes = append(attributes, Xattr{Name: string(name), Value: value})
	}
	return attributes, nil
}

// grow calls read, which says how many bytes it has for a buffer of none, with buffers until one is large enough.
func grow(read func(buf []byte) (int, error)) ([]byte, error) {
	for {
		size, err := read(nil)
		if err != nil || size == 0 {
			return nil, err
		}
		buf := make([]byte, size)
		n, err := read(buf)
		if errors.Is(err, unix.ERANGE) {
			continue
		}
		if err != nil {
			return nil, err
		}
		return buf[:n], nil
	}
}
