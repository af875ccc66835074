package supervisor

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"mainstay/topology"
)

func given(spec *topology.Service) { spec.Listen = topology.ListenFD }

// pythonServer takes connections from the socket that it is given and says its pid to each.
const pythonServer = `
import os, socket, time
assert os.environ["LISTEN_FDS"] == "1" and os.environ["LISTEN_PID"] == str(os.getpid()) and os.environ["LISTEN_FDNAMES"] == "web"
assert os.get_blocking(3)
l = socket.socket(fileno=3)
assert l.getsockname() == ("127.0.0.1", int(os.environ["PORT"]))
while True:
    c, _ = l.accept()
    c.send(str(os.getpid()).encode())
    c.close()
`

// greeting connects to address and returns what is said, however long nobody takes the connection.
func greeting(address string) (string, error) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	said, err := io.ReadAll(conn)
	return string(said), err
}

// Whoever connects while there is no process waits for the next one.
func TestConnectionsWaitInTheSocket(t *testing.T) {
	const python = "/usr/bin/python3"
	if _, err := exec.LookPath(python); err != nil {
		missing(t, err.Error())
	}
	tests := map[string]func(s *topology.Service){
		"python3": func(s *topology.Service) {
			s.Command = []topology.Text{topology.Plain(python), topology.Plain("-c"), topology.Plain(pythonServer)}
		},
		"go": func(s *topology.Service) { s.Command = append(s.Command, topology.Plain("-listen-fd")) },
	}
	for name, runs := range tests {
		t.Run(name, func(t *testing.T) {
			f := newFleet(t)
			spec := with(program("web"), given, runs, func(s *topology.Service) {
				s.Port = topology.PortAuto
				s.Restart.Backoff.Initial = 500 * time.Millisecond
			})
			f.apply(spec)
			first := f.ready("web")
			if said, err := greeting(first.Address); said != fmt.Sprint(first.PID) || err != nil {
				t.Fatalf("%s says %q (%v), want %d", first.Address, said, err, first.PID)
			}
			syscall.Kill(first.PID, syscall.SIGKILL)
			f.eventually("it waits", func() bool { return f.only("web").State == StateWaiting })
			said, err := greeting(first.Address)
			again := f.ready("web")
			if said != fmt.Sprint(again.PID) || err != nil || again.Address != first.Address || again.PID == first.PID {
				t.Errorf("%q (%v), want of %+v", said, err, again)
			}

			f.apply() // nothing is left of it
			if _, err := net.Dial("tcp", first.Address); err == nil {
				t.Error("the socket is still open")
			}
		})
	}
}

// What a process does to the socket, which all that it is given to share, does not concern the next one.
func TestSocketThatAProcessHasSpoilt(t *testing.T) {
	const python = "/usr/bin/python3"
	if _, err := exec.LookPath(python); err != nil {
		missing(t, err.Error())
	}
	for name, spoil := range map[string]string{
		"shut down":    "shutdown(socket.SHUT_RDWR)",
		"non-blocking": "setblocking(False)",
	} {
		t.Run(name, func(t *testing.T) {
			f := newFleet(t)
			once := filepath.Join(t.TempDir(), "once")
			script := fmt.Sprintf("import os, socket, sys\nif not os.path.exists(%[1]q):\n open(%[1]q, 'w').close()\n socket.socket(fileno=3).%[2]s\n sys.exit(1)\n%[3]s", once, spoil, pythonServer)
			f.apply(with(program("web"), given, func(s *topology.Service) {
				s.Command = []topology.Text{topology.Plain(python), topology.Plain("-c"), topology.Plain(script)}
				s.Port = topology.PortAuto
				s.Restart.Backoff.Initial = 50 * time.Millisecond
			}))
			f.eventually("the next one takes connections", func() bool {
				i := f.only("web")
				if i.State != StateReady || i.Restarts == 0 {
					return false
				}
				said, err := greeting(i.Address)
				return err == nil && said == fmt.Sprint(i.PID)
			})
		})
	}
}

func TestConnectionsWaitForAReplacement(t *testing.T) {
	f := newFleet(t)
	port, err := newPorts().acquire()
	if err != nil {
		t.Fatal(err)
	}
	spec := with(program("web", "-listen-fd", "-stop-after", "300ms"), given, func(s *topology.Service) {
		s.Port = topology.Port(port)
		s.Update.Order, s.Update.MinReady = topology.StopFirst, 0
	})
	f.apply(spec)
	first := f.ready("web")
	f.apply(with(spec, func(s *topology.Service) { s.Epoch = 1 }))
	failed := make(chan error, 1)
	go func() {
		for {
			said, err := greeting(first.Address)
			if err != nil || said == "" {
				failed <- fmt.Errorf("%q: %w", said, err)
				return
			}
			if said != fmt.Sprint(first.PID) {
				failed <- nil
				return
			}
		}
	}()
	if err := <-failed; err != nil {
		t.Errorf("a connection failed in the replacement: %v", err)
	}
	f.eventually("the other is ready", func() bool { i := f.only("web"); return i.State == StateReady && i.PID != first.PID })

	// Who opens the port itself again finds it free.
	f.apply(with(spec, func(s *topology.Service) {
		s.Listen, s.Command = topology.ListenPort, append(s.Command[:1:1], topology.Plain("-listen"))
		s.Probes.Readiness = &topology.Probe{TCP: "{address}", Period: 50 * time.Millisecond, Timeout: time.Second, FailureThreshold: 1, SuccessThreshold: 1}
	}))
	f.eventually("a third is ready", func() bool {
		i := f.only("web")
		return i.State == StateReady && i.Generation == 0 && i.PID != 0 && i.Reason == ""
	})
}

// The next Mainstay takes the socket back from the process that has it.
func TestSocketIsTakenBackFromAProcess(t *testing.T) {
	m := &machine{}
	port, err := newPorts().acquire()
	if err != nil {
		t.Fatal(err)
	}
	file, err := m.bind(port)
	if err != nil {
		t.Fatal(err)
	}
	child := exec.Command("sleep", "100")
	child.ExtraFiles = []*os.File{file}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { child.Process.Kill(); child.Wait() })
	file.Close()
	back, err := m.bound(&hold{simulated: &simulated{id: child.Process.Pid}}, port)
	if err != nil {
		t.Fatal(err)
	}
	defer back.Close()
	l, err := net.FileListener(back)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if !strings.HasSuffix(l.Addr().String(), fmt.Sprintf(":%d", port)) {
		t.Errorf("it is at %s", l.Addr())
	}
	if _, err := m.bound(&hold{simulated: &simulated{id: child.Process.Pid}}, port+1); err == nil {
		t.Error("a socket that the process does not have was taken back")
	}
}

// A socket is handed on in a place for as long as it fits, and closed with the place.
func TestSocketOfAPlace(t *testing.T) {
	simulate(t, nil, func(s *simulation) {
		s.apply(with(web("v1", 1), given))
		s.pass(time.Second)
		first := s.service("web").Instances[0].Address
		s.kill("web/1 v1")
		s.pass(time.Second)
		if again := s.service("web").Instances[0].Address; again != first {
			t.Errorf("after a crash it is at %s, want %s", again, first)
		}
		s.apply(with(web("v2", 1), given, func(spec *topology.Service) { spec.Update.Order = topology.StopFirst }))
		s.pass(10 * time.Second)
		if again := s.service("web").Instances[0].Address; again != first {
			t.Errorf("after a stop-first update it is at %s, want %s", again, first)
		}
		s.apply(with(web("v3", 1), given))
		s.pass(10 * time.Second)
		if again := s.service("web").Instances[0].Address; again == first {
			t.Error("both of a start-first update are at one address")
		}
		s.site.ports.mu.Lock()
		defer s.site.ports.mu.Unlock()
		if held := len(s.site.ports.held); held != 1 {
			t.Errorf("%d ports are held by one instance", held)
		}
	})
}
