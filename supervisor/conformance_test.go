package supervisor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"mainstay/engine/enginetest"
	"mainstay/topology"
)

func TestConformance(t *testing.T) {
	stateDir := t.TempDir()
	sleeping := func(name string, replicas int, seconds string) topology.Service {
		return topology.Service{
			Name: name, Replicas: replicas, Port: topology.PortNone, Directory: stateDir,
			Command:         []topology.Text{topology.Plain("sleep"), topology.Plain(seconds)},
			Restart:         topology.Restart{Policy: topology.RestartAlways, Backoff: topology.Backoff{Initial: time.Second, Max: time.Second}},
			Update:          topology.Update{Order: topology.StartFirst, Parallelism: 1, Deadline: time.Minute},
			StopSignal:      syscall.SIGTERM,
			StopGracePeriod: 10 * time.Second,
		}
	}
	of := func(services ...topology.Service) *topology.Topology {
		t := &topology.Topology{StateDir: stateDir, Services: map[string]topology.Service{}}
		for _, s := range services {
			t.Services[s.Name] = s
		}
		return t
	}
	doomed := sleeping("doomed", 1, "1000")
	doomed.Command[0] = topology.Plain("/nowhere/to/be/found")

	var pids []int // of all processes that were seen
	enginetest.Run(t, enginetest.Case[*tracked]{
		New: func(log *slog.Logger) *tracked {
			return &tracked{Supervisor: New(log, nil, open{}), wanted: topology.Empty}
		},
		A:      of(sleeping("same", 1, "1000"), sleeping("changed", 1, "1001"), sleeping("scaled", 2, "1002"), sleeping("old", 1, "1003")),
		B:      of(sleeping("same", 1, "1000"), sleeping("changed", 1, "2001"), sleeping("scaled", 1, "1002"), sleeping("new", 1, "1004")),
		Doomed: of(sleeping("same", 1, "1000"), doomed),
		Observe: func(s *tracked) any {
			picture := map[string]string{}
			for _, service := range s.Status() {
				var commands []string
				for _, i := range service.Instances {
					pids = append(pids, i.PID)
					commands = append(commands, i.ID+" "+string(i.State)+" "+commandOf(i.PID))
				}
				slices.Sort(commands)
				picture[service.Name] = fmt.Sprint(service.State, service.Desired, service.Ready, commands)
			}
			return picture
		},
		Identify: func(s *tracked) any {
			things := map[string]int{}
			for _, service := range s.Status() {
				for _, i := range service.Instances {
					things[i.ID] = i.PID
				}
			}
			return things
		},
		Settled: (*tracked).settled,
		Released: func() error {
			for _, pid := range pids {
				if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
					return fmt.Errorf("process %d is still there (%v)", pid, err)
				}
			}
			return nil
		},
	})
}

// A tracked supervisor remembers what was applied last.
type tracked struct {
	*Supervisor
	mu     sync.Mutex // guards the field below
	wanted *topology.Topology
}

func (s *tracked) Apply(ctx context.Context, t *topology.Topology) error {
	s.mu.Lock()
	s.wanted = t
	s.mu.Unlock()
	return s.Supervisor.Apply(ctx, t)
}

// settled reports whether exactly the wanted commands run.
func (s *tracked) settled() bool {
	s.mu.Lock()
	wanted := s.wanted
	s.mu.Unlock()
	want, got := map[string]int{}, map[string]int{}
	for _, service := range wanted.Services {
		words := make([]string, len(service.Command))
		for i, w := range service.Command {
			words[i] = w.String()
		}
		want[strings.Join(words, " ")] = service.Replicas
	}
	for _, service := range s.Status() {
		if service.State != ServiceReady {
			return false
		}
		for _, i := range service.Instances {
			got[commandOf(i.PID)]++
		}
	}
	return maps.Equal(want, got)
}

// commandOf returns the command line of a process.
func commandOf(pid int) string {
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		return err.Error()
	}
	return strings.ReplaceAll(strings.TrimRight(string(line), "\x00"), "\x00", " ")
}

// open is a Router without requests.
type open struct{}

func (open) Admit(topology.Instance)                        {}
func (open) Drain(context.Context, topology.Instance) error { return nil }

func (open) Traffic(topology.Instance) topology.Traffic { return topology.Traffic{} }
