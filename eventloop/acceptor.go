//go:build linux

package eventloop

import (
	"errors"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	acceptShare = 16 // connections that a loop accepts in one turn
	acceptPause = 50 * time.Millisecond
)

// A Welcomer is who gets the connections of an Acceptor.
type Welcomer interface {
	// Welcome is called on the loop that is to have the connection, which is non-blocking, with small writes sent at once, and the
	// welcomer's from then on: to Adopt, or to close. peer is zero if it has no IP address. It must not block.
	Welcome(l *Loop, fd int, peer netip.AddrPort)
	// Exhausted is called when a connection cannot be accepted for want of descriptors or memory, on each loop on which that
	// happens, and returns how many connections it has closed on that loop to make room. If none, the loop tries again after
	// a while; meanwhile connections wait in the socket's backlog.
	Exhausted(l *Loop, err error) int
}

// An Acceptor accepts the connections of a listening socket on all loops of a group.
type Acceptor struct {
	group    *Group
	fd       int
	id       uint32
	welcomer Welcomer
	waits    []acceptWait // of the loops

	mu    sync.Mutex
	state acceptorState
}

type acceptorState uint8

const (
	accepting acceptorState = iota
	acceptorPaused
	acceptorClosed
)

// An acceptWait is how one loop waits for descriptors. It belongs to that loop.
type acceptWait struct {
	Timer
	acceptor *Acceptor
	loop     *Loop
	wanted   bool // by the acceptor
	starved  bool // of descriptors
	watched  bool // by the loop's epoll: wanted and not starved
}

// acceptKey is the lower half of the keys of listening sockets; the upper one is the acceptor's id. No socket has it.
const acceptKey = 1<<32 - 2

// Accept begins to accept connections of a listening socket, which is the Acceptor's from then on. The group must have been started.
// On an error fd is still the caller's. It must not be called on a loop.
func (g *Group) Accept(fd int, welcomer Welcomer) (*Acceptor, error) {
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	// What is accepted inherits these. A socket that has none of them (unix) needs none.
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1)
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 15)
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 15)
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 9)
	a := &Acceptor{group: g, fd: fd, id: g.acceptors.Add(1), welcomer: welcomer, waits: make([]acceptWait, len(g.loops))}
	for i, l := range g.loops {
		a.waits[i].acceptor, a.waits[i].loop = a, l
	}
	if err := a.each((*acceptWait).begin); err != nil {
		_ = a.each((*acceptWait).leave)
		return nil, err
	}
	return a, nil
}

// each calls f on all loops and waits for them.
func (a *Acceptor) each(f func(*acceptWait) error) error {
	var failed error
	for i, l := range a.group.loops {
		var err error
		if !l.Do(func() { err = f(&a.waits[i]) }) {
			err = errors.New("accept connections: the event loops are stopped")
		}
		failed = errors.Join(failed, err)
	}
	return failed
}

// Pause accepts nothing until Resume. When it returns, Welcome is not called any more, and connections wait in the backlog. It must not
// be called on a loop.
func (a *Acceptor) Pause() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.state == accepting {
		a.state = acceptorPaused
		_ = a.each((*acceptWait).pause)
		a.settle()
	}
}

// Resume accepts again after Pause. It must not be called on a loop.
func (a *Acceptor) Resume() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.state != acceptorPaused {
		return nil
	}
	a.state = accepting
	return a.each((*acceptWait).resume)
}

// Close accepts nothing any more and closes the socket. When it returns, Welcome is not called any more. It must not be called on a loop.
func (a *Acceptor) Close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.state == acceptorClosed {
		return
	}
	a.state = acceptorClosed
	_ = a.each((*acceptWait).leave)
	a.settle()
	unix.Close(a.fd)
}

// settle waits until connections on their way from loop to loop have arrived: what was posted before is received before.
func (a *Acceptor) settle() { _ = a.each(func(*acceptWait) error { return nil }) }

func (w *acceptWait) begin() error {
	if w.loop.acceptors == nil {
		w.loop.acceptors = make(map[uint32]*acceptWait)
	}
	w.loop.acceptors[w.acceptor.id] = w
	return w.resume()
}

func (w *acceptWait) resume() error {
	w.wanted = true
	return w.update()
}

func (w *acceptWait) pause() error {
	w.wanted = false
	return w.update()
}

// leave ends the loop's part.
func (w *acceptWait) leave() error {
	err := w.pause()
	w.loop.StopTimer(&w.Timer)
	delete(w.loop.acceptors, w.acceptor.id)
	return err
}

// update has the loop told of connections if it is to accept them.
func (w *acceptWait) update() error {
	watch := w.wanted && !w.starved
	if watch == w.watched {
		return nil
	}
	op := unix.EPOLL_CTL_DEL
	if watch {
		op = unix.EPOLL_CTL_ADD
	}
	if err := w.loop.watch(op, w.acceptor.fd, unix.EPOLLIN|unix.EPOLLEXCLUSIVE, acceptKey|uint64(w.acceptor.id)<<32); err != nil {
		return err
	}
	w.watched = watch
	return nil
}

// special handles an event of what is no socket.
func (l *Loop) special(key uint64) {
	if uint32(key) == acceptKey {
		if w := l.acceptors[uint32(key>>32)]; w != nil && w.watched {
			l.calling = w.acceptor.welcomer
			w.accept()
			l.calling = nil
		}
	}
}

// accept accepts its share of what waits.
func (w *acceptWait) accept() {
	for range acceptShare {
		fd, peer, errno := accept(w.acceptor.fd)
		switch errno {
		case 0:
			w.hand(fd, peer)
		case syscall.EINTR, syscall.ECONNABORTED:
		case syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM:
			if w.acceptor.welcomer.Exhausted(w.loop, os.NewSyscallError("accept", errno)) == 0 {
				w.backOff()
				return
			}
		default: // EAGAIN: another loop was faster
			return
		}
		if !w.watched {
			return
		}
	}
}

// backOff accepts nothing for a while.
func (w *acceptWait) backOff() {
	w.starved = true
	_ = w.update()
	w.loop.SetTimer(&w.Timer, acceptPause, w)
}

// Expire implements Expirer.
func (w *acceptWait) Expire(*Timer) {
	w.starved = false
	if w.update() != nil {
		w.backOff()
	}
}

// hand gives a connection to the loop that has the fewest.
func (w *acceptWait) hand(fd int, peer netip.AddrPort) {
	to, least := w.loop, w.loop.load()
	for _, l := range w.acceptor.group.loops {
		if load := l.load(); load < least {
			to, least = l, load
		}
	}
	if to == w.loop {
		w.acceptor.welcomer.Welcome(to, fd, peer)
		return
	}
	to.coming.Add(1)
	arrival := &arrival{loop: to, welcomer: w.acceptor.welcomer, fd: fd, peer: peer}
	arrival.Address(arrival)
	if !to.Post(&arrival.Note) {
		to.coming.Add(-1)
		unix.Close(fd)
	}
}

func (l *Loop) load() int32 { return l.connections.Load() + l.coming.Load() }

// An arrival is a connection on its way from the loop that accepted it.
type arrival struct {
	Note
	loop     *Loop
	welcomer Welcomer
	fd       int
	peer     netip.AddrPort
}

// Receive implements Receiver.
func (a *arrival) Receive(*Note) {
	a.loop.coming.Add(-1)
	a.welcomer.Welcome(a.loop, a.fd, a.peer)
}

// accept accepts a connection.
func accept(listening int) (fd int, peer netip.AddrPort, errno syscall.Errno) {
	var address unix.RawSockaddrAny
	size := uint32(unsafe.Sizeof(address))
	n, _, errno := syscall.RawSyscall6(unix.SYS_ACCEPT4, uintptr(listening), uintptr(unsafe.Pointer(&address)), uintptr(unsafe.Pointer(&size)),
		unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0, 0)
	if errno != 0 {
		return -1, netip.AddrPort{}, errno
	}
	switch address.Addr.Family {
	case unix.AF_INET:
		in := (*unix.RawSockaddrInet4)(unsafe.Pointer(&address))
		return int(n), netip.AddrPortFrom(netip.AddrFrom4(in.Addr), port(&in.Port)), 0
	case unix.AF_INET6:
		in := (*unix.RawSockaddrInet6)(unsafe.Pointer(&address))
		return int(n), netip.AddrPortFrom(netip.AddrFrom16(in.Addr).Unmap(), port(&in.Port)), 0
	}
	return int(n), netip.AddrPort{}, 0
}

// port reads a port, which lies in memory in the network's order.
func port(p *uint16) uint16 {
	b := (*[2]byte)(unsafe.Pointer(p))
	return uint16(b[0])<<8 | uint16(b[1])
}
