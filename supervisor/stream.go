package supervisor

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
)

// pipeSize is how much a process can write while nobody reads, where the kernel allows it.
const pipeSize = 1 << 20

// A stream is what a process writes to one descriptor. While nothing comes it costs no goroutine and no buffer.
type stream struct {
	machine *machine
	fd      int
	emit    func(text []byte, partial bool)
	closed  func() // called once, when the end has been read

	mu      sync.Mutex
	reading bool  // a goroutine is at it
	last    bool  // what is there now is the last that is to be read
	kept    bool  // the descriptor is not to be closed after that
	lines   lines // the reading goroutine's
}

// begin has the stream read from now on.
func (s *stream) begin() error {
	return s.machine.poller.watch(s.fd, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.readLocked()
	})
}

func (s *stream) readLocked() {
	if !s.reading {
		s.reading = true
		s.machine.readers.Go(s.read)
	}
}

// keep is like finish, but leaves the descriptor open for a program that takes this one's place.
func (s *stream) keep() {
	s.mu.Lock()
	s.kept = true
	s.mu.Unlock()
	s.finish()
}

// finish ends the stream after what is there now. It does nothing if it has ended.
func (s *stream) finish() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = true
	s.readLocked()
}

// read reads what is there, and to the end if that has come.
func (s *stream) read() {
	buf := s.machine.buffers.Get().(*[]byte)
	defer s.machine.buffers.Put(buf)
	rest := 2 * pipeSize // of a stream that is to end: no more than can have been there
	for {
		n, err := unix.Read(s.fd, *buf)
		if err == unix.EINTR {
			continue
		}
		if n > 0 {
			s.lines.add((*buf)[:n], s.emit)
		}
		s.mu.Lock()
		if s.last {
			rest -= max(n, 0)
		}
		idle := errors.Is(err, unix.EAGAIN)
		if n <= 0 && !idle || s.last && (idle || rest <= 0) {
			ended := n <= 0 && !idle
			s.kept = s.kept && !ended
			kept := s.kept
			s.mu.Unlock() // reading stays true: nobody reads again
			s.machine.poller.forget(s.fd)
			if !kept {
				unix.Close(s.fd)
			}
			s.lines.end(!ended, s.emit)
			s.closed()
			return
		}
		if idle {
			s.reading = false
			s.machine.poller.again(s.fd)
			s.mu.Unlock()
			return
		}
		s.mu.Unlock()
	}
}

// makePipe returns both ends of a pipe that nobody else can open. The write end blocks, as programs expect of their output.
func makePipe() (read, write int, err error) {
	var fd [2]int
	if err := unix.Pipe2(fd[:], unix.O_CLOEXEC); err != nil {
		return -1, -1, fmt.Errorf("make pipe: %w", err)
	}
	if err := unix.SetNonblock(fd[0], true); err != nil {
		return -1, -1, errors.Join(err, unix.Close(fd[0]), unix.Close(fd[1]))
	}
	return fd[0], fd[1], nil
}

// makeFIFO makes a pipe with a name, owned by uid and gid, and returns both ends. The write end can be read from too, so a
// process that has it never writes to a pipe without readers: when Mainstay is gone, it waits once the pipe is
// full, and goes on when another Mainstay reads.
func makeFIFO(path string, uid, gid int) (read, write int, err error) {
	if err := unix.Mkfifo(path, 0o600); err != nil {
		return -1, -1, &os.PathError{Op: "make FIFO", Path: path, Err: err}
	}
	if uid >= 0 {
		if err := os.Chown(path, uid, gid); err != nil {
			return -1, -1, err
		}
	}
	if read, err = openFIFO(path); err != nil {
		return -1, -1, err
	}
	if write, err = unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0); err != nil {
		unix.Close(read)
		return -1, -1, &os.PathError{Op: "open", Path: path, Err: err}
	}
	unix.FcntlInt(uintptr(write), unix.F_SETPIPE_SZ, pipeSize) // otherwise it is smaller
	return read, write, nil
}

// openFIFO opens the read end of what makeFIFO has made.
func openFIFO(path string) (int, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: path, Err: err}
	}
	var info unix.Stat_t
	if err := unix.Fstat(fd, &info); err != nil || info.Mode&unix.S_IFMT != unix.S_IFIFO {
		return -1, errors.Join(fmt.Errorf("open %s: it is no FIFO", path), err, unix.Close(fd))
	}
	return fd, nil
}

// streamNames are the streams of a process, in the order of their descriptors from 1 on.
var streamNames = [2]string{"stdout", "stderr"}

// inherited returns whether fd is the read end of the FIFO at path, which the program that this one has replaced left open, so
// that nothing is lost of a process that ended meanwhile.
func inherited(fd int, path string) bool {
	var of, at unix.Stat_t
	if fd <= 2 || unix.Fstat(fd, &of) != nil || unix.Stat(path, &at) != nil || of.Dev != at.Dev || of.Ino != at.Ino {
		return false
	}
	unix.CloseOnExec(fd)
	return true
}

func fifoPath(run, stream string) string { return filepath.Join(run, stream) }
