package bus

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// matches returns the ids of the subscribers that want topic, each once.
func (t *table) matches(topic string) []int {
	ids := []int{}
	for _, list := range t.matchLocked([]byte(topic), nil) {
		for _, s := range list {
			ids = append(ids, s.id)
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// check returns what is wrong with the shape of the tree.
func (n *node) check(root bool) error {
	if !root && len(n.subscribers) == 0 && len(n.children) < 2 {
		return fmt.Errorf("node %q has no subscribers and %d children", n.edge, len(n.children))
	}
	for i, child := range n.children {
		if child.edge == "" || child.edge[0] != n.first[i] {
			return fmt.Errorf("child %q of %q is filed under %q", child.edge, n.edge, n.first[i])
		}
		if err := child.check(false); err != nil {
			return err
		}
	}
	return nil
}

func TestTable(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	topic := func() string {
		var b strings.Builder
		for range random.IntN(6) {
			b.WriteByte("ab\x00\xff"[random.IntN(4)])
		}
		return b.String()
	}
	var table table
	subscribers := make([]*subscriber, 5)
	for i := range subscribers {
		subscribers[i] = &subscriber{prefixes: map[string]struct{}{}}
		table.enrol(subscribers[i])
	}
	for step := range 5000 {
		s, prefix := subscribers[random.IntN(len(subscribers))], topic()
		if _, has := s.prefixes[prefix]; has {
			delete(s.prefixes, prefix)
			table.removeLocked(prefix, s)
		} else {
			s.prefixes[prefix] = struct{}{}
			table.addLocked(prefix, s)
		}
		if err := table.root.check(true); err != nil {
			t.Fatalf("step %d: %v", step, err)
		}
		wanted, of := []int{}, topic()
		for _, s := range subscribers {
			for prefix := range s.prefixes {
				if strings.HasPrefix(of, prefix) {
					wanted = append(wanted, s.id)
					break
				}
			}
		}
		if diff := cmp.Diff(wanted, table.matches(of)); diff != "" {
			t.Fatalf("step %d: subscribers of %q (-want +got):\n%s", step, of, diff)
		}
	}
	for _, s := range subscribers {
		table.dismiss(s)
	}
	if len(table.root.children) > 0 || len(table.root.subscribers) > 0 || len(table.free) != table.ids {
		t.Errorf("after all have gone: %+v", table.root)
	}
}

func BenchmarkMatch(b *testing.B) {
	for _, n := range []int{10, 1000, 100_000, 1_000_000} {
		b.Run(fmt.Sprintf("subscriptions=%d", n), func(b *testing.B) {
			var table table
			s := &subscriber{prefixes: map[string]struct{}{}}
			table.enrol(s)
			for i := range n {
				table.addLocked(fmt.Sprintf("%07d/", i*(1_000_000/n)), s)
			}
			topic := []byte("0000000/message")
			found := make([][]*subscriber, 0, 8)
			for b.Loop() {
				found = table.matchLocked(topic, found[:0])
			}
			if len(found) != 1 {
				b.Fatalf("%d matches", len(found))
			}
		})
	}
}
