//go:build linux

package eventloop

import (
	"fmt"
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// batch is how many events are taken from the kernel at once.
const batch = 256

// A Loop calls the handlers of its sockets, timers and notes, one after the other, on one goroutine. All its methods, and those
// of what belongs to it, are to be called there, except Post and Do; nothing that it calls may block.
type Loop struct {
	group *Group

	inbox    atomic.Pointer[Note] // newest first; &closed unless the loop runs
	sleeping atomic.Bool          // waits in the kernel, so that who posts must wake it

	connections atomic.Int32 // sockets that were adopted
	coming      atomic.Int32 // connections that other loops accepted for this one

	epoll int // descriptor; -1 when closed

	waking sync.Mutex // guards the field below
	wake   int        // descriptor; -1 when closed

	turns    uint64
	stopping bool
	closed   Note // stands in the inbox while nothing is taken: before the start and after the end
	ending   ending

	// A turn's state lies here and not on the stack, so that the turn goes on after a panic.
	events  [batch]unix.EpollEvent
	count   int // of events
	cursor  int // the next of them
	resumed []uint64
	resume  int   // the next of resumed
	noted   *Note // taken from the inbox, oldest first
	calling any   // who is being called

	again []uint64 // keys of sockets to be called in the next turn

	slots      []*Socket // by slot; nil: free
	free       []uint32  // slots
	generation uint32

	acceptors map[uint32]*acceptWait // by the id of the acceptor

	start   time.Time
	now     time.Time
	elapsed int64 // nanoseconds from start to now
	held    int64 // until then, as elapsed, waiting keeps the P
	wheel   wheel
	pool    pool
}

func newLoop(g *Group) *Loop {
	l := &Loop{group: g, epoll: -1, wake: -1}
	l.inbox.Store(&l.closed)
	return l
}

// open opens what the loop needs of the kernel.
func (l *Loop) open() error {
	var err error
	if l.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return os.NewSyscallError("epoll_create", err)
	}
	if l.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		l.shut()
		return os.NewSyscallError("eventfd", err)
	}
	// Edge-triggered, every write to it is an event of its own and nobody has to read it.
	if err := l.watch(unix.EPOLL_CTL_ADD, l.wake, unix.EPOLLIN|unix.EPOLLET, wakeKey); err != nil {
		l.shut()
		return err
	}
	l.start = time.Now()
	l.now = l.start
	l.inbox.Store(nil)
	return nil
}

// shut closes what open opened.
func (l *Loop) shut() {
	l.waking.Lock()
	defer l.waking.Unlock()
	for _, fd := range []*int{&l.epoll, &l.wake} {
		if *fd >= 0 {
			unix.Close(*fd)
			*fd = -1
		}
	}
}

// Group returns the group that the loop is one of.
func (l *Loop) Group() *Group { return l.group }

// Now returns the time at which the loop was woken last, with a monotonic reading. It costs nothing.
func (l *Loop) Now() time.Time { return l.now }

// Elapsed returns the nanoseconds from the loop's start to Now, by the monotonic clock.
func (l *Loop) Elapsed() int64 { return l.elapsed }

// Connections returns how many sockets the loop has adopted that are still its own. Anyone may call it.
func (l *Loop) Connections() int { return int(l.connections.Load()) }

// Again has s called in the loop's next turn, with Resumed among its events, after all others that have something to do now. It is for
// a handler that stops before it has read all there is, so that others get their turn.
func (l *Loop) Again(s *Socket) {
	if s.state&stateOpen == 0 || s.state&stateAgain != 0 {
		return
	}
	s.state |= stateAgain
	l.again = append(l.again, s.key())
}

// run is the loop's goroutine.
func (l *Loop) run() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for !l.stopping {
		l.await()
		l.turns++
		l.turn()
	}
	l.end()
}

// turn calls everyone who has something to do, whatever becomes of it.
func (l *Loop) turn() {
	for !l.step() {
	}
}

// step goes on with the turn and returns true at its end, false after a panic.
func (l *Loop) step() (finished bool) {
	defer func() {
		if finished {
			return
		}
		if v := recover(); v != nil {
			l.failed(v, debug.Stack())
		}
	}()
	for l.cursor < l.count {
		e := &l.events[l.cursor]
		l.cursor++
		l.dispatch(e)
	}
	for l.resume < len(l.resumed) {
		key := l.resumed[l.resume]
		l.resume++
		if s := l.find(key); s != nil && s.state&stateAgain != 0 {
			l.call(s, 0)
		}
	}
	l.receive()
	l.expire()
	l.pool.trim(l.elapsed)
	return true
}

// failed ends what panicked.
func (l *Loop) failed(value any, stack []byte) {
	in := l.calling
	l.calling = nil
	if s, ok := in.(*Socket); ok {
		in = s.handler
		defer s.Close()
	}
	defer func() { _ = recover() }() // the process outlives a bug in what is told of bugs, too
	l.group.panicked(l, in, value, stack)
}

// stop has the loop end after its turn. Anyone may call it, once.
func (l *Loop) stop() {
	l.ending.loop = l
	l.ending.Address(&l.ending)
	l.Post(&l.ending.Note)
}

// An ending is the note that ends a loop.
type ending struct {
	Note
	loop *Loop
}

// Receive implements Receiver.
func (e *ending) Receive(*Note) { e.loop.stopping = true }

// end takes no more notes, receives those there are and closes everything.
func (l *Loop) end() {
	for {
		head := l.inbox.Load()
		if head == nil {
			if l.inbox.CompareAndSwap(nil, &l.closed) {
				break
			}
			continue
		}
		l.count, l.cursor, l.resumed, l.resume = 0, 0, nil, 0
		l.turn()
	}
	for _, s := range l.slots {
		if s != nil {
			s.Close()
		}
	}
	l.pool.drop()
	l.shut()
}

// tell takes the time.
func (l *Loop) tell() {
	l.now = time.Now()
	l.elapsed = int64(l.now.Sub(l.start))
}

// wakeKey is the key of the descriptor that wakes a loop; no socket has it.
const wakeKey = math.MaxUint64

// watch registers a descriptor with the loop's epoll, or what it is to tell of it.
func (l *Loop) watch(op, fd int, events uint32, key uint64) error {
	e := unix.EpollEvent{Events: events, Fd: int32(uint32(key)), Pad: int32(uint32(key >> 32))}
	if err := unix.EpollCtl(l.epoll, op, fd, &e); err != nil {
		return fmt.Errorf("watch descriptor: %w", os.NewSyscallError("epoll_ctl", err))
	}
	return nil
}

func keyOf(e *unix.EpollEvent) uint64 { return uint64(uint32(e.Fd)) | uint64(uint32(e.Pad))<<32 }
