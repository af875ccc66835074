package supervisor

import (
	"fmt"
	"maps"
	"slices"
	"sync"

	"mainstay/topology"
)

// A fact is what others can wait for of a service.
type fact struct {
	started   bool   // a process has been started
	ready     bool   // an instance is ready
	completed bool   // it ended with exit status 0
	of        int    // the Apply whose specification this is about
	problem   string // why it may never be any of these; empty: it may just take its time
}

// A board is where services say what has become of them, for those that depend on them.
type board struct {
	mu      sync.Mutex
	facts   map[string]fact
	asked   map[string]int // the last Apply that changed the service
	changed chan struct{}  // closed at a change, then another
}

func newBoard() *board {
	return &board{facts: map[string]fact{}, asked: map[string]int{}, changed: make(chan struct{})}
}

// ask makes completed untrue of the service until it is said of what the given Apply made of it. Otherwise its dependents, changed by the
// same Apply, could believe that what it is about to do has been done.
func (b *board) ask(service string, apply int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.asked[service] = apply
}

// post says f of the service; remove takes back what was said.
func (b *board) post(service string, f fact) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if old, ok := b.facts[service]; ok && old == f {
		return
	}
	b.facts[service] = f
	b.wakeLocked()
}

func (b *board) remove(service string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.facts, service)
	delete(b.asked, service)
	b.wakeLocked()
}

func (b *board) wakeLocked() {
	close(b.changed)
	b.changed = make(chan struct{})
}

// unmet says which condition of needs does not hold, or nothing if all do. The channel is closed when that may have changed.
func (b *board) unmet(needs map[string]topology.Condition) (why string, changed <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(needs)) {
		f, want := b.facts[name], needs[name]
		holds, to := f.ready, "be ready"
		switch want {
		case topology.ConditionStarted:
			holds, to = f.started, "start"
		case topology.ConditionCompleted:
			holds, to = f.completed && f.of >= b.asked[name], "complete"
		}
		if holds {
			continue
		}
		why = fmt.Sprintf("waits for %s to %s", name, to)
		if f.problem != "" {
			why += " (" + f.problem + ")"
		}
		return why, b.changed
	}
	return "", b.changed
}
