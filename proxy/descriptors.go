package proxy

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

// keptDescriptors is how many descriptors clients' connections leave to others, or a quarter of all if that is less: to connections
// to instances, without which no client can be served, and to all that the rest of the process opens, its probes above all.
const keptDescriptors = 1024

// scarce reports whether fd, a client's connection that was just accepted, has one of the descriptors that clients are to leave. The
// kernel gives out the lowest number that is free, so all before it are in use. Such a connection may stay only in place of one on
// which nothing happens; if there is none it is to be closed.
func scarce(fd int) bool {
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) != nil {
		return false
	}
	return uint64(fd) >= limit.Cur-min(limit.Cur/4, keptDescriptors)
}

// outOfDescriptors reports whether err is that nothing more can be opened, which is no fault of whom a connection was for.
func outOfDescriptors(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)
}
