package supervisor

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A machine is the machine that Mainstay runs on.
//
// Each process that it starts is in a control group of its own where there are any (cgroup.go), which has all that it starts
// whatever that does. Elsewhere Mainstay becomes the parent of those who lose theirs, and finds them by their group, their
// parents and a mark in their environment (census.go).
type machine struct {
	log *slog.Logger
	// reapDelay is that of newReaper.
	reapDelay time.Duration
	// ungrouped lets it do without control groups.
	ungrouped bool

	boot    string
	err     error    // why nothing can be started
	null    *os.File // for programs to read
	poller  *poller
	spawner *spawner
	reaper  *reaper // nil: the dead are not ours
	forked  forked
	census  census
	readers sync.WaitGroup
	buffers sync.Pool
	spare   allowance

	mu      sync.Mutex
	groups  *cgroups // nil: none
	whyNone error    // then
}

// adoptionTime is how long the dead of a program that Mainstay was before are left alone after a start, to be adopted.
const adoptionTime = 5 * time.Second

func newMachine(log *slog.Logger) *machine { return &machine{log: log, reapDelay: adoptionTime} }

// open implements host.
func (m *machine) open() {
	unignore()
	// Descriptors that Mainstay itself was started with are not the services'. An old kernel without close_range(2) leaves
	// them as they are.
	unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC)
	m.boot = bootID()
	m.forked.pids = map[int]bool{}
	m.buffers.New = func() any { b := make([]byte, 32<<10); return &b }
	m.groups, m.whyNone = nil, errors.New("control groups are not used")
	if !m.ungrouped {
		m.groups, m.whyNone = findCgroups()
	}
	if m.groups == nil {
		m.log.Debug("control groups not used", "why", m.whyNone)
		m.becomeSubreaper()
	} else if os.Getpid() == 1 {
		m.reaper = newReaper(&m.forked, m.reapDelay)
	}
	m.spawner = newSpawner()
	if m.poller, m.err = newPoller(); m.err == nil {
		m.null, m.err = os.Open(os.DevNull)
	}
}

// becomeSubreaper makes Mainstay the parent of what its services leave without one, so that their parents lead here and not to init.
func (m *machine) becomeSubreaper() {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		m.log.Warn("subreaper refused", "err", err)
	}
	if m.reaper == nil {
		m.reaper = newReaper(&m.forked, m.reapDelay)
	}
}

// close implements host.
func (m *machine) close() {
	if m.poller != nil {
		m.poller.close()
	}
	m.null.Close()
	m.readers.Wait()
	m.spawner.close()
	if m.reaper != nil {
		m.reaper.close()
		m.reaper = nil
	}
	if g, _ := m.cgroups(); g != nil {
		g.close()
	}
}

// cgroups returns the control groups to use. The error says why there are none.
func (m *machine) cgroups() (*cgroups, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.groups, m.whyNone
}

// start implements host.
func (m *machine) start(c command) (process, error) {
	p, err := m.launch(c)
	if err != nil {
		return nil, err // not a process with a nil tree in it
	}
	return p, nil
}

// launch starts c.
func (m *machine) launch(c command) (*tree, error) {
	if m.err != nil {
		return nil, m.err
	}
	started, err := m.spare.claim(m.null.Fd())
	if err != nil {
		return nil, err
	}
	defer started()
	path, err := executable(c)
	if err != nil {
		return nil, err
	}
	if c.directory != "" {
		// The error of a missing directory would be told as one of the executable.
		if info, err := os.Stat(c.directory); err != nil {
			return nil, fmt.Errorf("change directory: %w", err)
		} else if !info.IsDir() {
			return nil, fmt.Errorf("change directory: %s is not a directory", c.directory)
		}
	}
	cred, err := credential(c.user, c.group)
	if err != nil {
		return nil, fmt.Errorf("find user: %w", err)
	}
	p := newTree(m)
	p.run, p.Boot, p.Mark, p.child = c.run, m.boot, newMark(), true
	if p.cgroup, err = m.newCgroup(c, p.Mark); err != nil {
		return nil, err
	}
	if p.cgroup != nil {
		p.Cgroup = p.cgroup.dir
	}
	if err = m.spawn(p, c, path, cred); err != nil {
		p.removeCgroup()
		return nil, explainMissing(err, path)
	}
	return p, nil
}

// newCgroup makes a control group for c; nil if there are none and c can do without.
func (m *machine) newCgroup(c command, mark string) (*cgroup, error) {
	groups, why := m.cgroups()
	if groups == nil {
		if l := limitFiles(c.limits); len(l) > 0 {
			return nil, fmt.Errorf("limits.%s: control groups cannot be used here: %w", l[0].key, why)
		}
		return nil, nil
	}
	group, err := groups.create(groupName(c.run, mark), m.early(c), c.limits)
	if err != nil && len(limitFiles(c.limits)) == 0 {
		m.abandonCgroups(err)
		return nil, nil
	}
	return group, err
}

// abandonCgroups goes on without control groups, because of err.
func (m *machine) abandonCgroups(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.groups == nil {
		return
	}
	m.log.Warn("control groups not used any more", "err", err)
	m.groups, m.whyNone = nil, err
	m.becomeSubreaper()
}

// spawn starts c as p.
func (m *machine) spawn(p *tree, c command, path string, cred *syscall.Credential) error {
	written := m.keep(p, c.run)
	if written.file == nil { // it ends with Mainstay, as nobody would find it
		c.run, p.run = "", ""
	}
	defer written.file.Close()
	ends, err := m.outputs(p, c, cred)
	if err != nil {
		return err
	}
	defer func() {
		for _, fd := range ends {
			unix.Close(fd)
		}
	}()
	c.env = append(slices.DeleteFunc(slices.Clone(c.env), func(kv string) bool { return strings.HasPrefix(kv, markVariable+"=") }), markVariable+"="+p.Mark)
	p.PID, p.pidfd, err = m.fork(c, path, cred, p.cgroup, []uintptr{m.null.Fd(), uintptr(ends[0]), uintptr(ends[1])})
	if p.cgroup != nil && len(limitFiles(c.limits)) == 0 && slices.ContainsFunc(groupErrors, func(e error) bool { return errors.Is(err, e) }) {
		because := err
		p.removeCgroup()
		p.cgroup, p.Cgroup = nil, ""
		p.PID, p.pidfd, err = m.fork(c, path, cred, nil, []uintptr{m.null.Fd(), uintptr(ends[0]), uintptr(ends[1])})
		if err == nil {
			m.abandonCgroups(because)
		}
	}
	if err != nil {
		p.closeStreams()
		return err
	}
	if s, ok := readStat(p.PID); ok {
		p.Start = s.start
	}
	if written.file != nil {
		if err := written.write(p.identity); err != nil {
			m.log.Warn("process not on record", "pid", p.PID, "err", err)
		}
	}
	p.begin()
	return nil
}

// groupErrors may be about starting something in a control group, which a container (clone3(2) is filtered) or somebody else's use of
// cgroups can forbid.
var groupErrors = []error{unix.ENOSYS, unix.EPERM, unix.EOPNOTSUPP, unix.EBUSY}

// keep notes in run what is known of p before it is started, so that a Mainstay that ends in between leaves nothing that cannot be
// found. The note has no file if there can be none.
func (m *machine) keep(p *tree, run string) note {
	if run == "" {
		return note{}
	}
	n, err := newNote(run)
	if err == nil {
		err = n.write(p.identity)
	}
	if err != nil {
		m.log.Warn("process not on record, it will not outlive Mainstay", "run", run, "err", err)
		n.file.Close()
		return note{}
	}
	return n
}

// outputs makes the pipes that p writes to and returns their ends for it.
func (m *machine) outputs(p *tree, c command, cred *syscall.Credential) ([2]int, error) {
	uid, gid := -1, -1
	if cred != nil {
		uid, gid = int(cred.Uid), int(cred.Gid)
	}
	var ends [2]int
	for n, name := range streamNames {
		var read int
		err := errors.ErrUnsupported
		if c.run != "" {
			if read, ends[n], err = makeFIFO(fifoPath(c.run, name), uid, gid); err != nil {
				m.log.Warn("output in a pipe that ends with Mainstay", "run", c.run, "err", err)
			}
		}
		if err != nil {
			read, ends[n], err = makePipe()
		}
		if err != nil {
			p.closeStreams()
			for _, fd := range ends[:n] {
				unix.Close(fd)
			}
			return ends, err
		}
		p.addStream(read, name, c.line)
	}
	return ends, nil
}
