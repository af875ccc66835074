package proxy

import (
	"context"
	"syscall"

	"golang.org/x/sys/unix"
)

// hasLeft reports whether the client of a request has closed its connection, or its half of it, without reading from it.
func hasLeft(ctx context.Context) bool {
	c, ok := ctx.Value(clientKey{}).(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return true
	}
	left := false
	err = raw.Control(func(fd uintptr) {
		set := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
		n, err := unix.Poll(set, 0)
		left = err == nil && n > 0
	})
	return left || err != nil
}
