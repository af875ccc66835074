package admin

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"

	"mainstay/sockets"
	"mainstay/topology"
)

// maxSocketPath is how long the path of a unix socket may be: sun_path of unix(7) with its final NUL.
const maxSocketPath = 107

// A socket is the API's listening unix socket at its place in the file system.
type socket struct {
	path     string
	listener net.Listener
	info     fs.FileInfo // of the socket file, to remove no other
}

// listen returns the socket that at describes, one that set holds as it is, else a new one.
func listen(set *sockets.Set, at topology.Admin) (*socket, error) {
	listener, err := set.Listen("unix", at.Socket, func() (net.Listener, error) { return open(at) })
	if err != nil {
		return nil, err
	}
	info, err := os.Lstat(at.Socket)
	if errors.Is(err, fs.ErrNotExist) { // it was held, and somebody has removed its file: nobody could connect
		listener.Close()
		if listener, err = open(at); err != nil {
			return nil, err
		}
		info, err = os.Lstat(at.Socket)
	}
	if err != nil {
		listener.Close()
		return nil, err
	}
	return &socket{path: at.Socket, listener: listener, info: info}, nil
}

// open binds the socket that at describes. Between bind and chmod a socket has the
// permissions that the umask leaves, and the umask belongs to the whole process; so
// it is made in a directory that only its owner can enter, and renamed into
// place when owner, group and mode are right.
func open(at topology.Admin) (net.Listener, error) {
	if err := checkVacant(at.Socket); err != nil {
		return nil, err
	}
	dir := filepath.Dir(at.Socket)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	private, err := os.MkdirTemp(dir, ".s")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(private)

	path := filepath.Join(private, "s")
	if longest := max(len(path), len(at.Socket)); longest > maxSocketPath {
		return nil, fmt.Errorf("path %s is %d bytes too long for a unix socket; set admin.socket to a shorter one", at.Socket, longest-maxSocketPath)
	}
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	listener.SetUnlinkOnClose(false) // it would unlink the name that it was bound to
	if err := settle(path, at); err != nil {
		listener.Close()
		return nil, err
	}
	return listener, nil
}

// settle gives the socket at path its group and mode and moves it to its place.
func settle(path string, at topology.Admin) error {
	if at.Group != "" {
		gid, err := groupID(at.Group)
		if err != nil {
			return err
		}
		if err := os.Lchown(path, -1, gid); err != nil {
			return err
		}
	}
	if err := os.Chmod(path, fs.FileMode(at.Mode)); err != nil {
		return err
	}
	return os.Rename(path, at.Socket)
}

// groupID returns the id of a group that is given by name or by id.
func groupID(group string) (int, error) {
	if gid, err := strconv.Atoi(group); err == nil {
		return gid, nil
	}
	g, err := user.LookupGroup(group)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(g.Gid)
}

// checkVacant returns nil if nothing is at path or a socket that nobody listens on.
func checkVacant(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("%s is there already and no socket", path)
	}
	conn, err := net.Dial("unix", path)
	if errors.Is(err, syscall.ECONNREFUSED) {
		return nil
	}
	if err != nil {
		return err
	}
	conn.Close()
	return fmt.Errorf("%s is in use: another Mainstay answers on it", path)
}

// remove removes the socket's file unless another has taken its place.
func (s *socket) remove() {
	if now, err := os.Lstat(s.path); err == nil && os.SameFile(now, s.info) {
		os.Remove(s.path)
	}
}
