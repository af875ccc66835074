//go:build linux

package eventloop

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	pipeSize  = 256 << 10 // asked for; a system that grants less to a user grants what it likes
	pipesUsed = 128       // of a loop at once: what they hold is the kernel's memory
	pipesKept = 16
	// moveShare is how much one Move takes at most, so that other connections get their turn.
	moveShare = 1 << 20
)

// ErrNoPipe says that bytes must be copied: there is no pipe to move them through, for want of descriptors or because too many are
// in use.
var ErrNoPipe = errors.New("there is no pipe left")

// A Splice moves bytes from one socket to another inside the kernel, without copying them to the process. It pays for large contents
// and for tunnels. Its zero value is ready; it holds a pipe of the loop's only while there is something in it. End it with Drop.
type Splice struct {
	loop    *Loop
	pipe    pipe
	waiting int // bytes in the pipe
	open    bool
}

// A pipe is its two ends.
type pipe struct{ read, write int32 }

// Waiting returns how many bytes were taken from one socket and not given to the other yet.
func (p *Splice) Waiting() int { return p.waiting }

// Move moves bytes as long as both sockets allow it, not more than limit, and not more than its share of a turn: if both are as ready
// afterwards as before, ask for Again. It returns how many bytes it took from the first socket, and what ended reading, io.EOF say, or
// writing; then what waits is lost or, after the end of reading, still to be moved: call it with limit 0. If reading ended with
// ErrNoPipe nothing was moved and nothing waits.
func (p *Splice) Move(from, to *Socket, limit int64) (taken int64, read, write error) {
	if p.waiting == 0 && (limit <= 0 || !from.Readable()) {
		return 0, nil, nil
	}
	if !p.open {
		if !to.Writable() {
			return 0, nil, nil
		}
		l := from.loop
		var ok bool
		if p.pipe, ok = l.pool.lendPipe(); !ok {
			return 0, ErrNoPipe, nil
		}
		p.loop, p.open = l, true
	}
	limit = min(limit, moveShare)
	for read == nil && write == nil {
		n := 0
		if taken < limit && p.waiting < pipeSize && from.Readable() { // a pipe's pages may hold far more than its size
			n, read = p.take(from, int(min(limit-taken, int64(pipeSize-p.waiting))))
			taken += int64(n)
		}
		given := 0
		if p.waiting > 0 && to.Writable() {
			given, write = p.give(to)
		}
		if n == 0 && given == 0 {
			break
		}
	}
	if p.waiting == 0 || write != nil {
		p.Drop()
	}
	return taken, read, write
}

// take moves bytes into the pipe.
func (p *Splice) take(from *Socket, limit int) (int, error) {
	n, errno := splice(from.fd, p.pipe.write, limit)
	switch {
	case errno == syscall.EAGAIN:
		if p.waiting == 0 { // else the pipe may be full
			from.state &^= socketState(Readable)
		}
		return 0, nil
	case errno != 0:
		from.state |= socketState(Failed)
		return 0, os.NewSyscallError("splice", errno)
	case n == 0:
		from.state |= socketState(PeerClosed)
		return 0, io.EOF
	}
	p.waiting += n
	return n, nil
}

// give moves bytes out of the pipe.
func (p *Splice) give(to *Socket) (int, error) {
	n, errno := splice(p.pipe.read, to.fd, p.waiting)
	switch {
	case errno == syscall.EAGAIN:
		to.state &^= socketState(Writable)
		return 0, nil
	case errno != 0:
		to.state |= socketState(Failed)
		return 0, os.NewSyscallError("splice", errno)
	}
	p.waiting -= n
	return n, nil
}

func splice(from, to int32, limit int) (int, syscall.Errno) {
	for {
		n, _, errno := syscall.RawSyscall6(unix.SYS_SPLICE, uintptr(from), 0, uintptr(to), 0, uintptr(limit), unix.SPLICE_F_MOVE|unix.SPLICE_F_NONBLOCK)
		if errno != syscall.EINTR {
			return int(n), errno
		}
	}
}

// Spill moves what waits to an output, so that the pipe is free and the bytes are written like any others.
func (p *Splice) Spill(o *Output) error {
	for p.waiting > 0 {
		b := p.loop.Buffer(min(p.waiting, LargeBuffer))
		n, err := unix.Read(int(p.pipe.read), b.Space()[:min(p.waiting, b.Size())])
		if err != nil || n == 0 {
			b.Release()
			p.Drop()
			return fmt.Errorf("empty pipe: %w", errors.Join(err, io.ErrUnexpectedEOF))
		}
		p.waiting -= n
		b.Extend(n)
		o.AppendBuffer(b)
	}
	p.Drop()
	return nil
}

// Drop gives up what waits.
func (p *Splice) Drop() {
	if p.open {
		p.loop.pool.releasePipe(p.pipe, p.waiting == 0)
		*p = Splice{}
	}
}

// lendPipe returns a pipe with nothing in it.
func (p *pool) lendPipe() (pipe, bool) {
	if p.pipesUsed >= pipesUsed {
		return pipe{}, false
	}
	if n := len(p.pipes); n > 0 {
		lent := p.pipes[n-1]
		p.pipes = p.pipes[:n-1]
		p.pipesLeast = min(p.pipesLeast, n-1)
		p.pipesUsed++
		return lent, true
	}
	var ends [2]int
	if unix.Pipe2(ends[:], unix.O_NONBLOCK|unix.O_CLOEXEC) != nil {
		return pipe{}, false
	}
	_, _ = unix.FcntlInt(uintptr(ends[1]), unix.F_SETPIPE_SZ, pipeSize)
	p.pipesUsed++
	return pipe{int32(ends[0]), int32(ends[1])}, true
}

// releasePipe takes a pipe back. One that is not empty is closed.
func (p *pool) releasePipe(lent pipe, empty bool) {
	p.pipesUsed--
	if empty && len(p.pipes) < pipesKept {
		p.pipes = append(p.pipes, lent)
		return
	}
	lent.close()
}

func (p pipe) close() {
	unix.Close(int(p.read))
	unix.Close(int(p.write))
}
