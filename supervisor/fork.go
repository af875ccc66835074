package supervisor

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"mainstay/topology"
)

// needsStub reports whether something has to be done for c between fork and exec that the Go library does not do.
func (m *machine) needsStub(c command) bool {
	return c.limits.OpenFiles > 0 || c.socket != nil || c.watchdog || !m.spawner.masked
}

// early returns those limits of c that its control group has from the beginning. Those of processes would hinder a stub, which
// is more than one thread.
func (m *machine) early(c command) topology.Limits {
	limits := c.limits
	if m.needsStub(c) {
		limits.Processes = 0
	}
	return limits
}

// fork starts c, whose program is at path, in group and with files as its first descriptors. It returns a pidfd too; -1: this
// kernel has none.
func (m *machine) fork(c command, path string, cred *syscall.Credential, group *cgroup, files []uintptr) (pid, pidfd int, err error) {
	pidfd = -1
	sys := &syscall.SysProcAttr{Setpgid: true, PidFD: &pidfd}
	if c.run == "" {
		sys.Pdeathsig = syscall.SIGKILL // it is to end with the spawner's thread, and so with Mainstay
	}
	if group != nil {
		fd, err := group.open()
		if err != nil {
			return 0, -1, err
		}
		defer unix.Close(fd)
		sys.UseCgroupFD, sys.CgroupFD = true, fd
	}
	if c.socket != nil {
		// It blocks, as programs expect of a socket that they are given; one that had it before may have changed that for all.
		if err := unix.SetNonblock(int(c.socket.Fd()), false); err != nil {
			return 0, -1, fmt.Errorf("make the socket block: %w", err)
		}
		files = append(files, c.socket.Fd())
	}
	attr := &syscall.ProcAttr{Dir: c.directory, Env: c.env, Files: files, Sys: sys}
	if !m.needsStub(c) {
		sys.Credential = cred
		pid, err = m.forkExec(path, c.argv, attr)
		if err != nil {
			return 0, -1, fmt.Errorf("exec %s: %w", path, err)
		}
		return pid, pidfd, nil
	}
	attr.Dir = ""
	report, reportW, err := os.Pipe()
	if err != nil {
		return 0, -1, err
	}
	defer report.Close()
	e := errand{
		Path: path, Directory: c.directory, Credential: cred, OpenFiles: c.limits.OpenFiles, Mask: serviceMask,
		Socket: c.socket != nil, Watchdog: c.watchdog, Report: len(files),
	}
	argv, err := e.argv(c.argv)
	if err != nil {
		return 0, -1, errors.Join(err, reportW.Close())
	}
	attr.Files = append(files, reportW.Fd())
	// Not by its path, which may be another program's by now.
	pid, err = m.forkExec("/proc/self/exe", argv, attr)
	reportW.Close()
	if err != nil {
		return 0, -1, fmt.Errorf("exec %s: %w", path, err)
	}
	err = hearStub(report)
	if err == nil && group != nil && c.limits.Processes > 0 {
		err = group.limit(topology.Limits{Processes: c.limits.Processes})
	}
	if err != nil {
		m.undo(pid, pidfd)
		return 0, -1, err
	}
	return pid, pidfd, nil
}

// forkExec is that of syscall, on the spawner's thread.
func (m *machine) forkExec(path string, argv []string, attr *syscall.ProcAttr) (pid int, err error) {
	m.spawner.do(func() {
		pid, err = m.forked.start(func() (int, error) { return syscall.ForkExec(path, argv, attr) })
	})
	return pid, err
}

// undo ends a child that has not become what it was started for.
func (m *machine) undo(pid, pidfd int) {
	syscall.Kill(pid, syscall.SIGKILL)
	m.forked.reap(pid)
	if pidfd >= 0 {
		unix.Close(pidfd)
	}
}
