package supervisor

import (
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A reaper takes leave of the dead that came to Mainstay as the init of a container, or as the subreaper of what its services
// have started: nobody else would, and they would fill the table of processes.
//
// It never takes the exit status of a child that somebody in this program waits for: such a one either is in forked, or
// a pidfd of it is open here (os/exec has one).
type reaper struct {
	forked *forked
	stop   chan struct{}
	done   chan struct{}
}

// reapPause is how long the dead may wait for each other, to be looked for once.
const (
	reapPause    = 100 * time.Millisecond
	maxReapPause = 5 * time.Second
)

// newReaper starts a reaper, which is to be closed. It begins after delay: until then a child of the program
// that Mainstay was before, which ended meanwhile, may be adopted.
func newReaper(f *forked, delay time.Duration) *reaper {
	r := &reaper{forked: f, stop: make(chan struct{}), done: make(chan struct{})}
	go r.run(delay)
	return r
}

func (r *reaper) close() {
	close(r.stop)
	<-r.done
}

// run is the reaper's goroutine.
func (r *reaper) run(pause time.Duration) {
	defer close(r.done)
	died := make(chan os.Signal, 1)
	signal.Notify(died, syscall.SIGCHLD)
	defer signal.Stop(died)
	for {
		select {
		case <-time.After(pause):
		case <-r.stop:
			r.reap()
			return
		}
		if r.reap() { // of those that were left to somebody here, who may take long: others may have come meanwhile
			pause = min(2*max(pause, reapPause), maxReapPause)
			continue
		}
		pause = reapPause
		select {
		case <-died:
		case <-r.stop:
			r.reap()
			return
		}
	}
}

// reap takes leave of the dead that nobody waits for. It reports whether there are any that somebody does wait for.
func (r *reaper) reap() (left bool) {
	var info unix.Siginfo
	err := unix.Waitid(unix.P_ALL, 0, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
	if err != nil || info.Signo == 0 {
		return false // nobody is dead
	}
	var dead []stat
	for _, pid := range pids() {
		if s, ok := readStat(pid); ok && s.dead() && s.parent == os.Getpid() {
			dead = append(dead, s)
		}
	}
	r.forked.mu.Lock()
	defer r.forked.mu.Unlock()
	all := len(dead)
	dead = slices.DeleteFunc(dead, func(s stat) bool { return r.forked.pids[s.pid] })
	left = len(dead) < all
	if len(dead) == 0 {
		return left
	}
	awaited, known := pidfds()
	for _, s := range dead {
		if awaited[s.pid] || !known && s.group == syscall.Getpgrp() { // without pidfds: what others start here is in our group
			left = true
			continue
		}
		syscall.Wait4(s.pid, nil, syscall.WNOHANG, nil)
	}
	return left
}

// pidfds returns the processes that this program has a pidfd of. known is false where the kernel has none.
func pidfds() (pids map[int]bool, known bool) {
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return nil, false
	}
	defer unix.Close(fd)
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return nil, false
	}
	pids = map[int]bool{}
	for _, e := range entries {
		link, err := os.Readlink(filepath.Join("/proc/self/fd", e.Name()))
		if err != nil || !strings.Contains(link, "pidfd") {
			continue
		}
		b, err := os.ReadFile(filepath.Join("/proc/self/fdinfo", e.Name()))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(b)) {
			if text, ok := strings.CutPrefix(line, "Pid:"); ok {
				pid, _ := strconv.Atoi(strings.TrimSpace(text))
				pids[pid] = true
			}
		}
	}
	return pids, true
}

// forked are the children that a machine waits for itself. mu is held while one is started.
type forked struct {
	mu   sync.Mutex
	pids map[int]bool
}

// start runs fork, which returns the pid of a new child.
func (f *forked) start(fork func() (int, error)) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	pid, err := fork()
	if err == nil {
		f.pids[pid] = true
	}
	return pid, err
}

// reap waits for a child that is about to end.
func (f *forked) reap(pid int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for {
		if _, err := syscall.Wait4(pid, nil, 0, nil); err != syscall.EINTR {
			break
		}
	}
	delete(f.pids, pid)
}

func (f *forked) add(pid int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.pids[pid] = true
}

// wait returns how a child ended, if it has.
func (f *forked) wait(pid int) (status syscall.WaitStatus, usage syscall.Rusage, ended bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	got, err := syscall.Wait4(pid, &status, syscall.WNOHANG, &usage)
	if ended = got == pid || err == syscall.ECHILD; ended {
		delete(f.pids, pid)
	}
	return status, usage, ended
}
