package supervisor

import (
	"bufio"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// serviceMask is the umask of services, whatever Mainstay's own is.
const serviceMask = 0o022

// A spawner has one thread on which all processes are started, so that what they inherit from a thread does not depend on
// who started Mainstay: no signal is blocked, and the umask is serviceMask.
type spawner struct {
	work   chan func()
	done   chan struct{}
	masked bool // the umask is serviceMask
}

// newSpawner starts a spawner, which is to be closed.
func newSpawner() *spawner {
	s := &spawner{work: make(chan func()), done: make(chan struct{})}
	ready := make(chan struct{})
	go s.run(ready)
	<-ready
	return s
}

// do runs work on the thread and waits for it.
func (s *spawner) do(work func()) {
	finished := make(chan struct{})
	s.work <- func() { defer close(finished); work() }
	<-finished
}

func (s *spawner) close() {
	close(s.work)
	<-s.done
}

// run is the spawner's goroutine. Its thread ends with it, as it is not like the others.
func (s *spawner) run(ready chan<- struct{}) {
	defer close(s.done)
	runtime.LockOSThread()
	unix.PthreadSigmask(unix.SIG_SETMASK, &unix.Sigset_t{}, nil)
	// The umask is the whole process's until a thread has its own (unshare(2)), which a container may refuse.
	if err := unix.Unshare(unix.CLONE_FS); err == nil {
		unix.Umask(serviceMask)
		s.masked = true
	} else {
		s.masked = ownStatus("Umask:", 8) == serviceMask
	}
	close(ready)
	for work := range s.work {
		work()
	}
}

// ownStatus returns a number of /proc/self/status (proc_pid_status(5)); 0 if it is not there.
func ownStatus(name string, base int) uint64 {
	f, err := os.Open("/proc/self/status")
	if err != nil {
		return 0
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if text, ok := strings.CutPrefix(lines.Text(), name); ok {
			n, _ := strconv.ParseUint(strings.TrimSpace(text), base, 64)
			return n
		}
	}
	return 0
}

// unignore makes Mainstay receive, and do nothing about, those signals that it was started to ignore (by nohup, or by a shell that
// started it in the background): an ignored signal stays ignored in every program started from here, a received one does not.
func unignore() {
	ignored := ownStatus("SigIgn:", 16)
	for sig := syscall.Signal(1); sig <= 64; sig++ {
		switch {
		case ignored&(1<<(sig-1)) == 0:
		case sig == 32, sig == 33: // the C library's own (nptl(7)), which Go's leaves alone
			var standard [4]uint64 // struct sigaction of the kernel, with SIG_DFL
			syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, uintptr(sig), uintptr(unsafe.Pointer(&standard)), 0, 8, 0, 0)
		default:
			signal.Notify(make(chan os.Signal, 1), sig)
		}
	}
}
