package supervisor

import (
	"os"
	"strconv"
	"sync"
	"sync/atomic"
)

// A census looks at all processes of the machine. Many who ask at once share one look.
type census struct {
	next atomic.Pointer[look] // that nobody has begun; nil: nobody has asked for one

	mu sync.Mutex // held by whoever looks
}

// A look is what a census saw.
type look struct {
	seen      bool // guarded by the census's mutex, as is the rest until it is
	processes map[int]stat
	marks     map[int]string // of processes that do not share Mainstay's own
}

// look returns what there was at some time after the call.
func (c *census) look() *look {
	mine := c.next.Load()
	for mine == nil {
		c.next.CompareAndSwap(nil, new(look))
		mine = c.next.Load()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !mine.seen {
		c.next.CompareAndSwap(mine, nil) // who asks from now on wants a newer one
		mine.see()
	}
	return mine
}

const kernelThreads = 2 // the pid of kthreadd, whose children all others are

func (l *look) see() {
	l.seen, l.processes, l.marks = true, map[int]stat{}, map[int]string{}
	for _, pid := range pids() {
		s, ok := readStat(pid)
		if !ok || pid == kernelThreads || s.parent == kernelThreads {
			continue
		}
		l.processes[pid] = s
		if !s.dead() { // what is dead has no environment any more
			if mark := readMark(pid); mark != "" {
				l.marks[pid] = mark
			}
		}
	}
}

// descendants returns the living processes of the tree of id: those with its mark, those of the group that it led, and the
// children of all these.
func (l *look) descendants(id identity) []stat {
	leader, ok := l.processes[id.PID]
	grouped := !ok || leader.start == id.Start // otherwise the number is another's group by now
	verdicts := map[int]bool{}
	var belongs func(pid int) bool
	belongs = func(pid int) bool {
		if v, ok := verdicts[pid]; ok {
			return v
		}
		verdicts[pid] = false // should parents ever run in a circle
		s, ok := l.processes[pid]
		verdicts[pid] = ok && (pid == id.PID && s.start == id.Start || grouped && s.group == id.PID || l.marks[pid] == id.Mark || belongs(s.parent))
		return verdicts[pid]
	}
	var list []stat
	for pid, s := range l.processes {
		if !s.dead() && belongs(pid) {
			list = append(list, s)
		}
	}
	return list
}

// pids returns the pids of all processes.
func pids() []int {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1)
	list := make([]int, 0, len(names))
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			list = append(list, pid)
		}
	}
	return list
}
