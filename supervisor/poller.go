package supervisor

import (
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// A poller tells when descriptors become readable: one goroutine for all of them, where Go's own poller wants
// one for each.
type poller struct {
	file *os.File // the epoll instance, which itself waits in Go's poller
	done chan struct{}

	mu    sync.Mutex
	ready map[int]func() // by descriptor
}

// newPoller starts a poller, which is to be closed.
func newPoller() (*poller, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make epoll: %w", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("make epoll: %w", err)
	}
	p := &poller{file: os.NewFile(uintptr(fd), "epoll"), done: make(chan struct{}), ready: map[int]func(){}}
	go p.run()
	return p, nil
}

func (p *poller) close() {
	p.file.Close()
	<-p.done
}

// watch calls ready once when fd is readable or has ended, and once more after each call of again. ready must not block.
func (p *poller) watch(fd int, ready func()) error {
	p.mu.Lock()
	p.ready[fd] = ready
	p.mu.Unlock()
	if err := p.control(unix.EPOLL_CTL_ADD, fd); err != nil {
		p.mu.Lock()
		delete(p.ready, fd)
		p.mu.Unlock()
		return fmt.Errorf("watch output: %w", err)
	}
	return nil
}

func (p *poller) again(fd int) { p.control(unix.EPOLL_CTL_MOD, fd) }

// forget is to be called before fd is closed: the kernel would go on telling of it while another process has it too.
func (p *poller) forget(fd int) {
	p.mu.Lock()
	delete(p.ready, fd)
	p.mu.Unlock()
	p.control(unix.EPOLL_CTL_DEL, fd)
}

func (p *poller) control(op, fd int) error {
	conn, err := p.file.SyscallConn()
	if err != nil {
		return err
	}
	e := conn.Control(func(epoll uintptr) {
		err = unix.EpollCtl(int(epoll), op, fd, &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLONESHOT, Fd: int32(fd)})
	})
	if e != nil {
		return e
	}
	return err
}

// run is the poller's goroutine.
func (p *poller) run() {
	defer close(p.done)
	conn, err := p.file.SyscallConn()
	if err != nil {
		return
	}
	events := make([]unix.EpollEvent, 64)
	conn.Read(func(epoll uintptr) bool {
		for {
			n, err := unix.EpollWait(int(epoll), events, 0)
			if err == unix.EINTR {
				continue
			}
			if n <= 0 {
				return false // until there is something, or the file is closed
			}
			for _, e := range events[:n] {
				p.mu.Lock()
				ready := p.ready[int(e.Fd)]
				p.mu.Unlock()
				if ready != nil {
					ready()
				}
			}
		}
	})
}
