package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// leftoverTime is how long what an ended process left behind has between SIGTERM and SIGKILL when it is found by an adoption.
const leftoverTime = time.Second

// adopt implements host.
func (m *machine) adopt(run string, line func(stream string, text []byte, partial bool)) (process, error) {
	if m.err != nil {
		return nil, m.err
	}
	id, err := readIdentity(run)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errGone) {
		return nil, errGone // it was never started
	}
	if err != nil {
		return nil, err
	}
	if id.Boot != m.boot {
		return nil, errGone
	}
	p := newTree(m)
	p.identity, p.run = id, run
	if id.Cgroup != "" {
		mount, _ := findHierarchy()
		p.cgroup = &cgroup{mount: mount, dir: id.Cgroup}
	}
	// In this order: the process that has the pid now keeps it while the descriptor is looked through.
	if id.PID > 1 {
		if p.pidfd, err = unix.PidfdOpen(id.PID, 0); err != nil {
			p.pidfd = -1 // it is gone, a thread of another process has the number, or it has to do without
		}
	}
	s, ok := readStat(id.PID)
	if !ok && id.PID > 1 && unix.Kill(id.PID, 0) != unix.ESRCH {
		return nil, fmt.Errorf("look at process %d: it cannot be read", id.PID)
	}
	if !ok || id.PID <= 1 || s.start != id.Start {
		if p.pidfd >= 0 {
			unix.Close(p.pidfd)
		}
		for n, fd := range id.Output {
			if n < len(streamNames) && inherited(fd, fifoPath(run, streamNames[n])) {
				unix.Close(fd)
			}
		}
		p.clean()
		return nil, errGone
	}
	if p.cgroup != nil && !p.cgroup.contains(id.PID) { // somebody has moved it
		p.cgroup = nil
	}
	if p.child = s.parent == os.Getpid(); p.child {
		m.forked.add(id.PID)
	}
	for n, name := range streamNames {
		path := fifoPath(run, name)
		if n < len(id.Output) && inherited(id.Output[n], path) {
			p.addStream(id.Output[n], name, line)
			continue
		}
		fd, err := openFIFO(path)
		if err != nil {
			m.log.Warn("output of an adopted process lost", "pid", id.PID, "err", err)
			continue
		}
		p.addStream(fd, name, line)
	}
	p.begin()
	return p, nil
}

// clean ends what a program left behind that ended while nobody looked. Its group is not asked for: the number may long be
// another's.
func (p *tree) clean() {
	ctx, cancel := context.WithTimeout(context.Background(), leftoverTime)
	defer cancel()
	p.PID, p.pidfd, p.over = -1, -1, true
	close(p.quiet)
	p.sweep(ctx)
}
