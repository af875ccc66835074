package bus

import (
	"bytes"
	"slices"
	"strings"
	"sync"
)

// A table says which subscribers want a topic. It is a radix tree of the prefixes subscribed
// to: finding all that match costs a walk along the topic, however many subscriptions there are.
//
// Publishers hold the read lock over all messages of one read; a change of subscriptions waits that long.
type table struct {
	mu   sync.RWMutex
	root node
	// Subscribers are numbered densely, so that a publisher can note in a slice what is for whom.
	ids  int
	free []int
}

// A node stands for the prefix that the edges from the root to it spell.
type node struct {
	edge        string // below the parent; never empty except at the root
	subscribers []*subscriber
	first       []byte // first byte of each child's edge, in the order of children
	children    []*node
}

// enrol gives s its number.
func (t *table) enrol(s *subscriber) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n := len(t.free); n > 0 {
		s.id, t.free = t.free[n-1], t.free[:n-1]
		return
	}
	s.id = t.ids
	t.ids++
}

// dismiss forgets s with all its subscriptions. It lets publishers through now and then, as there may be a million.
func (t *table) dismiss(s *subscriber) {
	t.mu.Lock()
	defer t.mu.Unlock()
	const stretch = 512
	removed := 0
	for prefix := range s.prefixes {
		t.removeLocked(prefix, s)
		if removed++; removed%stretch == 0 {
			t.mu.Unlock()
			t.mu.Lock()
		}
	}
	t.free = append(t.free, s.id)
}

// matchLocked appends to found the subscribers of each prefix of topic, list by list. A subscriber with
// overlapping prefixes is in several lists.
func (t *table) matchLocked(topic []byte, found [][]*subscriber) [][]*subscriber {
	for n := &t.root; ; {
		if len(n.subscribers) > 0 {
			found = append(found, n.subscribers)
		}
		if len(topic) == 0 || len(n.first) == 0 {
			return found
		}
		i := bytes.IndexByte(n.first, topic[0])
		if i < 0 {
			return found
		}
		n = n.children[i]
		if len(topic) < len(n.edge) || string(topic[:len(n.edge)]) != n.edge {
			return found
		}
		topic = topic[len(n.edge):]
	}
}

// addLocked subscribes s to prefix, which it is not subscribed to yet.
func (t *table) addLocked(prefix string, s *subscriber) {
	n := &t.root
	for prefix != "" {
		i := n.child(prefix)
		if i < 0 {
			leaf := &node{edge: prefix}
			n.first = append(n.first, prefix[0])
			n.children = append(n.children, leaf)
			n, prefix = leaf, ""
			break
		}
		child := n.children[i]
		common := commonPrefix(prefix, child.edge)
		if common < len(child.edge) {
			// Strings of their own, lest a short edge keep a long topic in memory.
			upper := &node{edge: strings.Clone(child.edge[:common]), first: []byte{child.edge[common]}, children: []*node{child}}
			child.edge = strings.Clone(child.edge[common:])
			n.children[i] = upper
			child = upper
		}
		n, prefix = child, prefix[common:]
	}
	n.subscribers = append(n.subscribers, s)
}

// removeLocked ends the subscription of s to prefix, which there must be.
func (t *table) removeLocked(prefix string, s *subscriber) {
	n, parent, at := &t.root, (*node)(nil), 0
	for prefix != "" {
		i := n.child(prefix)
		n, parent, at = n.children[i], n, i
		prefix = prefix[len(n.edge):]
	}
	i := slices.Index(n.subscribers, s)
	last := len(n.subscribers) - 1
	n.subscribers[i] = n.subscribers[last]
	n.subscribers[last] = nil
	n.subscribers = n.subscribers[:last]
	if parent == nil || last > 0 {
		return
	}
	n.subscribers = nil
	if len(n.children) == 0 {
		parent.first = slices.Delete(parent.first, at, at+1)
		parent.children = slices.Delete(parent.children, at, at+1)
		n = parent
	}
	if n != &t.root && len(n.subscribers) == 0 && len(n.children) == 1 {
		n.absorb()
	}
}

// absorb makes n and its only child one node.
func (n *node) absorb() {
	child := n.children[0]
	n.edge += child.edge
	n.subscribers, n.first, n.children = child.subscribers, child.first, child.children
}

// child returns the index of the child whose edge starts as prefix does, or -1.
func (n *node) child(prefix string) int { return bytes.IndexByte(n.first, prefix[0]) }

func commonPrefix(a, b string) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}
