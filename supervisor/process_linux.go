package supervisor

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// group is a program that Mainstay started, as the leader of a process group of its own.
//
// The kernel does not give a process id away while a process or a group bears it, so the group can be
// signalled by its number until it is seen to be empty.
type group struct {
	id    int
	gone  chan struct{} // closed when the leader has been reaped
	ended exit          // before gone is closed
	quiet chan struct{} // closed when the output has ended
	pipes []*os.File
}

// machine is the machine that Mainstay runs on.
type machine struct{ log *slog.Logger }

func (machine) open()  {}
func (machine) close() {}

// adopt implements host.
func (machine) adopt(string, func(string, []byte, bool)) (process, error) { return nil, errGone }

// owns implements host.
func (machine) owns(process, int) error { return nil }

// start implements host.
func (machine) start(c command) (process, error) {
	g, err := startGroup(c)
	if err != nil {
		return nil, err // not a process with a nil group in it
	}
	return g, nil
}

func startGroup(c command) (*group, error) {
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
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	out, outW, err := pipe()
	if err != nil {
		return nil, err
	}
	defer syscall.Close(outW)
	errs, errsW, err := pipe()
	if err != nil {
		out.Close()
		return nil, err
	}
	defer syscall.Close(errsW)

	unignore()
	// Descriptors that Mainstay itself was started with are not the services' either. An old kernel without close_range(2)
	// leaves them as they are.
	unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC)
	pidfd := -1
	pid, err := syscall.ForkExec(path, c.argv, &syscall.ProcAttr{
		Dir:   c.directory,
		Env:   c.env,
		Files: []uintptr{null.Fd(), uintptr(outW), uintptr(errsW)},
		Sys:   &syscall.SysProcAttr{Setpgid: true, Credential: cred, PidFD: &pidfd},
	})
	if err != nil {
		out.Close()
		errs.Close()
		return nil, fmt.Errorf("exec %s: %w", path, err)
	}
	g := &group{id: pid, gone: make(chan struct{}), quiet: make(chan struct{}), pipes: []*os.File{out, errs}}
	go g.wait(pidfd)
	go g.listen(c.line)
	return g, nil
}

// pipe returns a pipe whose read end waits in Go's poller and whose write end blocks, as programs expect of their output.
func pipe() (r *os.File, w int, err error) {
	var fd [2]int
	if err := unix.Pipe2(fd[:], unix.O_CLOEXEC); err != nil {
		return nil, 0, fmt.Errorf("make pipe: %w", err)
	}
	if err := unix.SetNonblock(fd[0], true); err != nil {
		return nil, 0, errors.Join(err, syscall.Close(fd[0]), syscall.Close(fd[1]))
	}
	return os.NewFile(uintptr(fd[0]), "output"), fd[1], nil
}

// wait reaps the leader. A pidfd becomes readable when its process ends (pidfd_open(2)), so waiting costs no thread.
func (g *group) wait(pidfd int) {
	defer close(g.gone)
	var status syscall.WaitStatus
	reaped := false
	if pidfd >= 0 {
		unix.SetNonblock(pidfd, true)
		file := os.NewFile(uintptr(pidfd), "pidfd")
		defer file.Close()
		if conn, err := file.SyscallConn(); err == nil {
			conn.Read(func(uintptr) bool {
				pid, err := syscall.Wait4(g.id, &status, syscall.WNOHANG, nil)
				reaped = pid == g.id
				return reaped || err != nil && err != syscall.EINTR
			})
		}
	}
	for !reaped { // a kernel without pidfd
		pid, err := syscall.Wait4(g.id, &status, 0, nil)
		if reaped = pid == g.id; !reaped && err != syscall.EINTR {
			return
		}
	}
	if status.Signaled() {
		g.ended.signal = status.Signal()
	} else {
		g.ended.status = status.ExitStatus()
	}
}

// listen reads both streams to their end.
func (g *group) listen(line func(stream string, text []byte, partial bool)) {
	defer close(g.quiet)
	read := func(pipe *os.File, stream string) {
		defer pipe.Close()
		readLines(pipe, func(text []byte, partial bool) { line(stream, text, partial) })
	}
	var other sync.WaitGroup
	defer other.Wait()
	other.Go(func() { read(g.pipes[0], "stdout") })
	read(g.pipes[1], "stderr")
}

func (g *group) pid() int                { return g.id }
func (g *group) exited() <-chan struct{} { return g.gone }
func (g *group) exit() exit              { return g.ended }
func (g *group) silent() <-chan struct{} { return g.quiet }
func (g *group) contains(pid int) bool   { return pid == g.id }
func (g *group) release()                {}

func (g *group) signal(sig syscall.Signal) {
	if g.id > 1 { // 0 and 1 would mean our own group and everyone
		syscall.Kill(-g.id, sig)
	}
}

// lastWords is how long the output of a process may go on after its group is gone: a descendant that left the
// group may hold it open for ever.
const lastWords = time.Second

// sweep implements process.
func (g *group) sweep(ctx context.Context) {
	defer func() {
		for _, p := range g.pipes {
			p.SetReadDeadline(time.Now().Add(lastWords)) // an error means that it is closed
		}
	}()
	if !g.populated() {
		return
	}
	g.signal(syscall.SIGTERM)
	if g.empties(ctx) {
		return
	}
	g.signal(syscall.SIGKILL)
	killed, cancel := context.WithTimeout(context.Background(), afterKill)
	defer cancel()
	g.empties(killed)
}

// empties waits until the group is empty or ctx is done. Nothing tells of the end of processes that are
// not our children, so it looks, ever less often.
func (g *group) empties(ctx context.Context) bool {
	for pause := time.Millisecond; g.populated(); pause = min(2*pause, 100*time.Millisecond) {
		select {
		case <-ctx.Done():
			return !g.populated()
		case <-time.After(pause):
		}
	}
	return true
}

// populated reports whether a process of the group lives. It is to be called after the leader was reaped. Processes that have
// ended and wait for init to reap them do not count.
func (g *group) populated() bool {
	if g.id <= 1 || errors.Is(syscall.Kill(-g.id, 0), syscall.ESRCH) {
		return false
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return true
	}
	for _, e := range entries {
		if _, err := strconv.Atoi(e.Name()); err != nil {
			continue
		}
		if pgrp, state, ok := procStat(e.Name()); ok && pgrp == g.id && state != 'Z' && state != 'X' {
			return true
		}
	}
	return false
}

// procStat reads the process group and the state of a process (proc_pid_stat(5)). The name before them may hold anything,
// so they are looked for after its last parenthesis.
func procStat(pid string) (pgrp int, state byte, ok bool) {
	b, err := os.ReadFile(filepath.Join("/proc", pid, "stat"))
	if err != nil {
		return 0, 0, false
	}
	s := string(b)
	fields := strings.Fields(s[strings.LastIndexByte(s, ')')+1:])
	if len(fields) < 3 {
		return 0, 0, false
	}
	pgrp, err = strconv.Atoi(fields[2])
	return pgrp, fields[0][0], err == nil
}

// executable finds what c runs as a shell would: a name without a slash in the PATH that the process is given,
// a relative path in its directory. The name mainstay is the running binary.
func executable(c command) (string, error) {
	if len(c.argv) == 0 || c.argv[0] == "" {
		return "", errors.New("exec: the command is empty")
	}
	name := c.argv[0]
	if strings.Contains(name, "/") {
		return inDirectory(c.directory, name), nil
	}
	if name == "mainstay" {
		return os.Executable()
	}
	for _, kv := range c.env {
		list, ok := strings.CutPrefix(kv, "PATH=")
		if !ok {
			continue
		}
		for _, dir := range filepath.SplitList(list) {
			path := inDirectory(c.directory, filepath.Join(dir, name))
			if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
				return path, nil
			}
		}
	}
	return "", fmt.Errorf("exec %s: not found in PATH", name)
}

func inDirectory(directory, path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(directory, path)
}

// unignore makes Mainstay receive, and do nothing about, those signals that it was started to ignore (by nohup, or by a shell that
// started it in the background): an ignored signal stays ignored in every program started from here, a received one does not.
func unignore() {
	f, err := os.Open("/proc/self/status")
	if err != nil {
		return
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		mask, ok := strings.CutPrefix(lines.Text(), "SigIgn:")
		if !ok {
			continue
		}
		bits, err := strconv.ParseUint(strings.TrimSpace(mask), 16, 64)
		if err != nil {
			return
		}
		for sig := syscall.Signal(1); sig < 32; sig++ {
			if bits&(1<<(sig-1)) != 0 {
				signal.Notify(make(chan os.Signal, 1), sig)
			}
		}
		return
	}
}
