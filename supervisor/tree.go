package supervisor

import (
	"context"
	"errors"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A tree is a process that Mainstay started, now or in an earlier life, as the leader of a process group of its own, and all that
// this has started.
type tree struct {
	identity
	machine *machine
	run     string        // empty: nobody else is to find it
	cgroup  *cgroup       // nil: none
	child   bool          // ours to wait for; otherwise we were not there when it was started
	gone    chan struct{} // closed when the leader has ended
	ended   exit          // before gone is closed
	quiet   chan struct{} // closed when the output has ended
	streams []*stream
	open    atomic.Int32 // streams

	mu       sync.Mutex
	pidfd    int  // -1: none, or closed
	over     bool // gone is closed, and the pid may be another's
	released bool
}

func newTree(m *machine) *tree {
	return &tree{machine: m, pidfd: -1, gone: make(chan struct{}), quiet: make(chan struct{})}
}

// addStream has p's output come from the descriptor fd.
func (p *tree) addStream(fd int, name string, line func(stream string, text []byte, partial bool)) {
	p.open.Add(1)
	p.streams = append(p.streams, &stream{
		machine: p.machine, fd: fd,
		emit: func(text []byte, partial bool) { line(name, text, partial) },
		closed: func() {
			if p.open.Add(-1) == 0 {
				close(p.quiet)
			}
		},
	})
}

// closeStreams closes streams that were not begun.
func (p *tree) closeStreams() {
	for _, s := range p.streams {
		unix.Close(s.fd)
	}
}

// begin has the program looked after from now on.
func (p *tree) begin() {
	if len(p.streams) == 0 {
		close(p.quiet)
	}
	for _, s := range p.streams {
		if err := s.begin(); err != nil {
			s.finish()
		}
	}
	// A pidfd becomes readable when its process ends (pidfd_open(2)).
	if p.pidfd < 0 || p.machine.poller.watch(p.pidfd, p.look) != nil {
		p.machine.readers.Go(p.await)
	}
}

// await looks after a child where the kernel has no pidfd to tell of its end.
func (p *tree) await() {
	for pause := time.Millisecond; !isClosed(p.gone); pause = min(2*pause, 50*time.Millisecond) {
		p.mu.Lock()
		released := p.released
		p.mu.Unlock()
		if released {
			return
		}
		time.Sleep(pause)
		p.look()
	}
}

// look sees whether the leader has ended.
func (p *tree) look() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.over || p.released {
		return
	}
	if !p.child && p.pidfd < 0 {
		if s, ok := readStat(p.PID); !ok || s.start != p.Start || s.dead() {
			p.endLocked(p.learn(), 0)
		}
		return
	}
	if p.child {
		status, usage, ended := p.machine.forked.wait(p.PID)
		if !ended {
			if p.pidfd >= 0 {
				p.machine.poller.again(p.pidfd)
			}
			return
		}
		p.endLocked(exitOf(status), usage.Maxrss<<10)
		return
	}
	p.endLocked(p.learn(), 0)
}

func exitOf(status syscall.WaitStatus) exit {
	if status.Signaled() {
		return exit{signal: status.Signal()}
	}
	return exit{status: status.ExitStatus()}
}

// learn returns how a process ended that is not our child. While its parent has not asked, it is still there to look at; after
// that the kernel tells whoever has a pidfd (PIDFD_INFO_EXIT of linux/pidfd.h, since Linux 6.15).
func (p *tree) learn() exit {
	if s, ok := readStat(p.PID); ok && s.start == p.Start && s.dead() && s.told {
		return exitOf(s.exit)
	}
	info := unix.PidfdInfo{Mask: unix.PIDFD_INFO_EXIT}
	if unix.IoctlPidfdInfo(p.pidfd, &info) == nil && info.Mask&unix.PIDFD_INFO_EXIT != 0 {
		return exitOf(syscall.WaitStatus(info.Exit_code))
	}
	return exit{unknown: true}
}

// endLocked makes known how the leader ended, having used so many bytes of memory.
func (p *tree) endLocked(e exit, memory int64) {
	e.memory = memory
	if p.cgroup != nil {
		if peak, ok := p.cgroup.value("memory.peak", ""); ok {
			e.memory = peak
		}
		kills, _ := p.cgroup.value("memory.events", "oom_kill")
		e.oom = kills > 0 && !e.clean()
	}
	p.ended, p.over = e, true
	p.closePidfdLocked()
	close(p.gone)
}

func (p *tree) closePidfdLocked() {
	if p.pidfd >= 0 {
		p.machine.poller.forget(p.pidfd)
		unix.Close(p.pidfd)
		p.pidfd = -1
	}
}

func (p *tree) pid() int                { return p.PID }
func (p *tree) exited() <-chan struct{} { return p.gone }
func (p *tree) exit() exit              { return p.ended }
func (p *tree) silent() <-chan struct{} { return p.quiet }

// signal implements process. The number of a group is nobody else's while its leader has not been waited for: a child's until
// we do so, another's as long as the pidfd finds it.
func (p *tree) signal(sig syscall.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.over || p.PID <= 1 { // 0 and 1 would mean our own group and everyone
		return
	}
	if !p.child && p.pidfd < 0 {
		if s, ok := readStat(p.PID); !ok || s.start != p.Start {
			return
		}
	} else if !p.child {
		err := unix.PidfdSendSignal(p.pidfd, sig, nil, unix.PIDFD_SIGNAL_PROCESS_GROUP)
		if !errors.Is(err, unix.EINVAL) { // before Linux 6.9
			return
		}
		if unix.PidfdSendSignal(p.pidfd, 0, nil, 0) != nil {
			return
		}
	}
	syscall.Kill(-p.PID, sig)
}

// contains implements process.
func (p *tree) contains(pid int) bool {
	if pid == p.PID {
		return true
	}
	if p.cgroup != nil {
		return p.cgroup.contains(pid)
	}
	for range 100 { // generations at most
		s, ok := readStat(pid)
		if !ok {
			return false
		}
		if pid == p.PID || s.group == p.PID || readMark(pid) == p.Mark {
			return true
		}
		if pid = s.parent; pid <= 1 {
			return false
		}
	}
	return false
}

// members returns the living processes of the program and of what it has started.
func (p *tree) members() []stat {
	if p.cgroup != nil {
		return p.cgroup.members()
	}
	return p.machine.census.look().descendants(p.identity)
}

func (p *tree) populated() bool {
	if p.cgroup != nil {
		return p.cgroup.populated()
	}
	return len(p.members()) > 0
}

func (p *tree) signalMembers(sig syscall.Signal) {
	for _, s := range p.members() {
		signalProcess(s, sig)
	}
}

// kill kills all members.
func (p *tree) kill() {
	if p.cgroup != nil {
		p.cgroup.kill()
	} else {
		p.signalMembers(syscall.SIGKILL)
	}
}

// lastWords is how long the output of a process may go on after nothing of it is left: somebody else may hold it open for ever.
const lastWords = time.Second

// sweep implements process.
func (p *tree) sweep(ctx context.Context) {
	defer p.removeCgroup()
	if !isClosed(p.quiet) {
		defer time.AfterFunc(lastWords, p.finishStreams)
	}
	if !p.populated() {
		return
	}
	p.signalMembers(syscall.SIGTERM)
	if p.empties(ctx) {
		return
	}
	killed, cancel := context.WithTimeout(context.Background(), afterKill)
	defer cancel()
	for pause := time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
		p.kill() // again, as without a control group somebody may have been overlooked
		brief, cancel := context.WithTimeout(killed, pause)
		gone := p.empties(brief)
		cancel()
		if gone || killed.Err() != nil {
			return
		}
	}
}

// empties waits until nothing is left or ctx is done. Nothing tells of the end of processes that are not our
// children, so it looks, ever less often.
func (p *tree) empties(ctx context.Context) bool {
	for pause := time.Millisecond; p.populated(); pause = min(2*pause, 100*time.Millisecond) {
		if !wait(ctx, pause) {
			return !p.populated()
		}
	}
	return true
}

func (p *tree) finishStreams() {
	for _, s := range p.streams {
		s.finish()
	}
}

func (p *tree) removeCgroup() {
	if p.cgroup != nil {
		p.cgroup.remove()
		if groups, _ := p.machine.cgroups(); groups == nil || filepath.Dir(p.cgroup.dir) != groups.base {
			removeBase(filepath.Dir(p.cgroup.dir)) // of a Mainstay that has ended
		}
	}
}

// release implements process.
func (p *tree) release() {
	p.mu.Lock()
	p.released = true
	p.closePidfdLocked()
	p.mu.Unlock()
	if p.run == "" {
		p.finishStreams()
		<-p.quiet
		return
	}
	for _, s := range p.streams {
		s.keep()
	}
	<-p.quiet
	p.Output = nil
	for _, s := range p.streams {
		fd := -1
		if s.kept {
			unix.FcntlInt(uintptr(s.fd), unix.F_SETFD, 0)
			fd = s.fd
		}
		p.Output = append(p.Output, fd)
	}
	if n, err := newNote(p.run); err == nil {
		n.write(p.identity) // otherwise the output is opened by its path
		n.file.Close()
	}
}
