package supervisor

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// bind implements host. The socket blocks, as programs expect of one that they are given (systemd.socket(5), NonBlocking=).
func (m *machine) bind(port int) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open socket: %w", err)
	}
	err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrInet4{Port: port, Addr: instanceHost.As4()})
	}
	if err == nil {
		err = unix.Listen(fd, unix.SOMAXCONN)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listen on port %d: %w", port, err), unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), "listener"), nil
}

// bound implements host. It looks for the socket among those that the process has (pidfd_getfd(2)), as the descriptor that it was given may be
// another by now.
func (m *machine) bound(p process, port int) (*os.File, error) {
	fail := func(err error) (*os.File, error) {
		return nil, fmt.Errorf("take back the socket on port %d: %w", port, err)
	}
	sockets, err := listeners(port)
	if err != nil {
		return fail(err)
	}
	pidfd, err := unix.PidfdOpen(p.pid(), 0)
	if err != nil {
		return fail(err)
	}
	defer unix.Close(pidfd)
	dir := "/proc/" + strconv.Itoa(p.pid()) + "/fd"
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fail(err)
	}
	for _, e := range entries {
		link, _ := os.Readlink(filepath.Join(dir, e.Name()))
		for _, s := range answering(sockets) {
			if link != "socket:["+strconv.FormatUint(uint64(s.inode), 10)+"]" {
				continue
			}
			n, err := strconv.Atoi(e.Name())
			if err != nil {
				continue
			}
			fd, err := unix.PidfdGetfd(pidfd, n, 0)
			if err != nil {
				return fail(err)
			}
			return os.NewFile(uintptr(fd), "listener"), nil // the kernel has set close-on-exec
		}
	}
	return fail(errors.New("the process does not listen on it"))
}
