package supervisor

import (
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"mainstay/topology"
)

// Another program answers on the port: that is not readiness, and the next process is given another port.
func TestAnotherProgramAnswers(t *testing.T) {
	simulate(t, nil, func(s *simulation) {
		s.foreign = map[int]string{}
		for port := firstPort; port <= lastPort; port++ {
			s.foreign[port] = "python3 (pid 77)"
		}
		s.apply(web("v1", 1))
		s.pass(1500 * time.Millisecond)
		s.wantState("web", ServiceStarting, 0)
		i := s.service("web").Instances[0]
		if !strings.Contains(i.Reason, "python3 (pid 77)") {
			t.Errorf("the reason does not name the program: %+v", i)
		}
		s.pass(700 * time.Millisecond) // the third failure, at 2 s
		s.wantHappened([]string{"start web/1 v1", "signal web/1 v1 terminated", "end web/1 v1"}, "")
		s.mu.Lock()
		s.foreign = nil
		s.mu.Unlock()
		s.pass(2 * time.Second)
		s.wantState("web", ServiceReady, 1)
		if again := s.service("web").Instances[0]; again.Address == i.Address {
			t.Errorf("it was given %s again", again.Address)
		}
	})
}

// A fixed port is not ours to choose: the process is left alone, and is ready once its port is its own.
func TestAnotherProgramAnswersOnAFixedPort(t *testing.T) {
	simulate(t, nil, func(s *simulation) {
		s.foreign = map[int]string{9001: "python3 (pid 77)"}
		s.apply(with(web("v1", 1), func(spec *topology.Service) { spec.Port = 9001 }))
		s.pass(time.Minute)
		s.wantState("web", ServiceStarting, 0)
		s.mu.Lock()
		s.foreign = nil
		s.mu.Unlock()
		s.pass(time.Second)
		s.wantState("web", ServiceReady, 1)
		s.mu.Lock()
		s.foreign = map[int]string{9001: "python3 (pid 78)"} // who is ready is not asked each time
		s.mu.Unlock()
		s.pass(time.Minute)
		s.wantHappened([]string{"start web/1 v1", "admit web/1.1"}, "")
	})
}

// A real program listens on the port that an instance is given, in the moment between our look and its start.
func TestForeignListener(t *testing.T) {
	const python = "/usr/bin/python3"
	if _, err := exec.LookPath(python); err != nil {
		missing(t, err.Error())
	}
	port, err := newPorts().acquire()
	if err != nil {
		t.Fatal(err)
	}
	foreign := exec.Command(python, "-m", "http.server", "--bind", "127.0.0.1", strconv.Itoa(port))
	if err := foreign.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { foreign.Process.Kill(); foreign.Wait() })

	f := newFleet(t)
	f.eventually("the foreign program listens", func() bool { return tryCheck(t, check{tcp: fmt.Sprintf("127.0.0.1:%d", port)}, time.Second) == "good" })
	first := true
	f.site.ports.free = func(at int) bool { // the other takes the port right after our look
		if first {
			first = false
			f.site.ports.next = port
			return false
		}
		return at == port || canBind(at)
	}
	s := program("web", "-listen") // its bind fails, which it does not mind
	s.Port = topology.PortAuto
	s.Probes.Readiness = &topology.Probe{TCP: "{address}", Period: 200 * time.Millisecond, Timeout: time.Second, FailureThreshold: 3, SuccessThreshold: 1}
	f.apply(s)
	f.eventually("the reason names the foreign program", func() bool {
		return strings.Contains(f.only("web").Reason, fmt.Sprintf("python3, pid %d", foreign.Process.Pid))
	})
	if i := f.only("web"); i.State == StateReady {
		t.Errorf("it is ready: %+v", i)
	}
	if i := f.ready("web"); strings.HasSuffix(i.Address, ":"+strconv.Itoa(port)) || i.Restarts != 1 {
		t.Errorf("it is %+v, want another port than %d", i, port)
	}
}
