package supervisor

import (
	"testing"

	"mainstay/topology"
)

// What was completed before is not what the newest topology asks for.
func TestBoardForgetsWhatIsAskedForAgain(t *testing.T) {
	b := newBoard()
	needs := map[string]topology.Condition{"migrate": topology.ConditionCompleted}
	steps := []struct {
		name string
		do   func()
		want string
	}{
		{"nothing is known", func() {}, "waits for migrate to complete"},
		{"it failed", func() { b.post("migrate", fact{problem: "exited with status 1", of: 1}) }, "waits for migrate to complete (exited with status 1)"},
		{"it completed", func() { b.post("migrate", fact{completed: true, of: 1}) }, ""},
		{"it was changed", func() { b.ask("migrate", 2) }, "waits for migrate to complete"},
		{"the old one is told of again", func() { b.post("migrate", fact{completed: true, ready: true, of: 1}) }, "waits for migrate to complete"},
		{"the new one completed", func() { b.post("migrate", fact{completed: true, of: 2}) }, ""},
		{"it was removed", func() { b.remove("migrate") }, "waits for migrate to complete"},
	}
	for _, s := range steps {
		s.do()
		if why, _ := b.unmet(needs); why != s.want {
			t.Errorf("%s: %q, want %q", s.name, why, s.want)
		}
	}
}
