package supervisor

import (
	"os"
	"strings"
	"testing"

	"mainstay/topology"
)

// limitedMachine skips the test where a machine has no such controllers; testdata/vm has a machine that has all.
func limitedMachine(t *testing.T, limits topology.Limits) *machine {
	t.Helper()
	m := newTestMachine(t)
	if m.groups == nil {
		t.Skip(m.whyNone)
	}
	for _, l := range limitFiles(limits) {
		if err := m.groups.enable(l.controller); err != nil {
			t.Skip(err)
		}
	}
	return m
}

func limited(l topology.Limits) func(*command) { return func(c *command) { c.limits = l } }

func TestMemoryLimit(t *testing.T) {
	limits := topology.Limits{Memory: 32 << 20}
	m := limitedMachine(t, limits)
	ends := func(script string) exit {
		p, _ := started(t, m, script, limited(limits))
		<-p.exited()
		p.sweep(t.Context())
		<-p.silent()
		return p.exit()
	}
	if e := ends(`x=$(head -c 100000000 /dev/zero | tr "\0" x); exit 0`); !e.oom || e.clean() || e.String() != "killed by the kernel: out of memory" {
		t.Errorf("too much memory: %+v", e)
	} else if e.memory > 0 && (e.memory < 16<<20 || e.memory > 33<<20) {
		t.Errorf("its peak is %d bytes", e.memory)
	}
	for _, script := range []string{"kill -KILL $$", "exit 137"} {
		if e := ends(script); e.oom || e.clean() {
			t.Errorf("%s: %+v", script, e)
		}
	}
}

func TestLimitsOfProcessesAndCPUs(t *testing.T) {
	for _, files := range []int{0, 50} { // without and with a stub
		limits := topology.Limits{CPUs: 0.25, Processes: 3, OpenFiles: files}
		m := limitedMachine(t, limits)
		p, said := started(t, m, `trap "" TERM; sleep 300 & sleep 300 & sleep 300 & sleep 300 & wait`, limited(limits))
		soon(t, "it cannot fork", func() bool { return strings.Contains(said.String(), "fork") })
		for file, want := range map[string]string{"pids.max": "3\n", "cpu.max": "25000 100000\n"} {
			if b, err := os.ReadFile(p.cgroup.dir + "/" + file); err != nil || string(b) != want {
				t.Errorf("%s: %q, %v", file, b, err)
			}
		}
		if n := len(p.members()); n > 3 {
			t.Errorf("%d processes, want at most 3", n)
		}
		swept(p, 0)
	}
}
