package supervisor

import (
	"strings"
	"testing"
	"time"

	"mainstay/topology"
)

// A process says READY=1 once. The next Mainstay knows that it did, and hears what it tells from then on at the same socket.
func TestSurvivorGoesOnTelling(t *testing.T) {
	survive(t, nil, func(s *simulation) {
		guarded := func(spec *topology.Service) { spec.Probes.Liveness = byNotice(2) }
		spec := with(web("v1", 1), notifying, guarded)
		s.apply(spec)
		s.tell("web/1 v1", "READY=1")
		s.pass(500 * time.Millisecond)
		s.crash(nil)
		s.apply(spec)
		s.wantState("web", ServiceReady, 1)
		s.tell("web/1 v1", "STATUS=still here\nWATCHDOG=1")
		s.pass(time.Second)
		s.wantState("web", ServiceReady, 1)
		if i := s.service("web").Instances[0]; i.Status != "still here" {
			t.Errorf("it is %+v", i)
		}
		s.pass(10 * time.Second) // without another WATCHDOG=1
		if n := len(s.happened("signal")); n == 0 || !strings.Contains(s.why().Postmortems[0].Why, "WATCHDOG=1") {
			t.Errorf("it was not given up: %+v", s.why())
		}
		s.wantHappened([]string{"adopt web/1 v1"}, "adopt")
	})
}

// One that said STOPPING=1 is not ready for the next Mainstay either.
func TestSurvivorThatStopsByItself(t *testing.T) {
	survive(t, nil, func(s *simulation) {
		spec := with(web("v1", 1), notifying)
		s.apply(spec)
		s.tell("web/1 v1", "READY=1")
		s.tell("web/1 v1", "STOPPING=1")
		s.crash(nil)
		s.apply(spec)
		s.wantState("web", ServiceDegraded, 0)
		if reason := s.service("web").Reason; !strings.Contains(reason, "STOPPING=1") {
			t.Errorf("the reason is %q", reason)
		}
		s.pass(11 * time.Second)
		s.wantHappened([]string{"signal web/1 v1 terminated"}, "signal")
	})
}

// The socket that a process was given is taken back from it, and so is its port.
func TestSurvivorKeepsItsSocket(t *testing.T) {
	survive(t, nil, func(s *simulation) {
		spec := with(web("v1", 1), given)
		s.apply(spec)
		s.pass(time.Second)
		first := s.service("web").Instances[0].Address
		s.crash(nil)
		s.apply(spec)
		s.kill("web/1 v1")
		s.pass(time.Second)
		if again := s.service("web").Instances[0].Address; again != first {
			t.Errorf("after a crash it is at %s, want %s", again, first)
		}
	})
}
