package supervisor

import (
	"fmt"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// An allowance keeps some of Mainstay's descriptors for what must go on when they run out: without one the file that asks for fewer
// instances could not even be read.
type allowance struct{ starting atomic.Int64 }

const (
	keptDescriptors  = 16 // for the file, the API, requests
	startDescriptors = 12 // that one start may have open at once
)

// claim reports whether there are enough left to start one more process; if so, the function that it returns must be called when that
// has been done. probe is any descriptor.
func (a *allowance) claim(probe uintptr) (done func(), err error) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return nil, fmt.Errorf("count descriptors: %w", err)
	}
	starting := a.starting.Add(1)
	done = func() { a.starting.Add(-1) }
	lowest, err := unix.FcntlInt(probe, unix.F_DUPFD_CLOEXEC, 0) // all below it are open
	if err == nil {
		unix.Close(lowest)
		if uint64(lowest)+keptDescriptors+uint64(starting)*startDescriptors <= limit.Cur {
			return done, nil
		}
		err = syscall.EMFILE
	}
	done()
	return nil, fmt.Errorf("count descriptors: of %d (ulimit -n) too few are left to start a process: %w", limit.Cur, err)
}
