package engine

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"mainstay/topology"
)

// afterCrash runs a plant of the services, lets it do something, crashes it, and gives the next one, which does not run yet, to test.
func afterCrash(t *testing.T, services string, before, test func(t *testing.T, p *plant)) {
	t.Helper()
	stateDir := filepath.Join(t.TempDir(), "state")
	synctest.Test(t, func(t *testing.T) {
		p := newPlant(t, stateDir, services)
		p.mustRun()
		before(t, p)
		file := p.desk.file
		p.crash()
		p = newPlant(t, stateDir, services)
		p.desk.file = file
		test(t, p)
		if err := p.stop(); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

func TestStartAfterCrashResumesOverrides(t *testing.T) {
	afterCrash(t, web2+"\nother: {command: sleep 60}", func(t *testing.T, p *plant) {
		p.override("web", replicas(5))
		p.override("web", Override{Restart: true})
		p.override("other", stopped(true))
	}, func(t *testing.T, p *plant) {
		p.mustRun()
		p.wantApplied("bus: 1 quiet other×1 stopped web×5 epoch 1", "proxy: 1 quiet other×1 stopped web×5 epoch 1", "supervisor: 1 quiet other×1 stopped web×5 epoch 1",
			"bus: 1 other×1 stopped web×5 epoch 1", "proxy: 1 other×1 stopped web×5 epoch 1", "supervisor: 1 other×1 stopped web×5 epoch 1")
		p.wantRunning("1 other×1 stopped web×5 epoch 1", map[string]string{"web": "replicas 5 (file: 2)", "other": "stopped"})
		p.wantResult(p.Status().LastReload, ResultUnchanged, 1)
		p.log.want(t, "resumed what the last run left")
	})
}

// What runs is taken over as what it is first; that the file has changed meanwhile is a reload like any other.
func TestStartAfterCrashReloadsToTheFile(t *testing.T) {
	afterCrash(t, web2, func(t *testing.T, p *plant) { p.override("web", Override{Restart: true}) }, func(t *testing.T, p *plant) {
		p.write(web3)
		p.mustRun()
		p.wantApplied("bus: 1 quiet web×2 epoch 1", "proxy: 1 quiet web×2 epoch 1", "supervisor: 1 quiet web×2 epoch 1",
			"bus: 1 web×2 epoch 1", "proxy: 1 web×2 epoch 1", "supervisor: 1 web×2 epoch 1",
			"bus: 2 web×3 epoch 1", "proxy: 2 web×3 epoch 1", "supervisor: 2 web×3 epoch 1")
		p.wantResult(p.Status().LastReload, ResultApplied, 2)
		if o := p.Status().LastReload; o.Origin != OriginStart || len(o.Changes) != 1 {
			t.Errorf("outcome: %+v", o)
		}
	})
}

func TestStartAfterCrashWithBrokenFile(t *testing.T) {
	afterCrash(t, web2, func(t *testing.T, p *plant) { p.override("web", replicas(4)) }, func(t *testing.T, p *plant) {
		p.writeRaw("version: one\nstate_dir: " + p.stateDir + "\n")
		p.mustRun()
		p.wantRunning("1 web×4", map[string]string{"web": "replicas 4 (file: 2)"})
		p.wantResult(p.Status().LastReload, ResultInvalid, 1)
		if got := p.Status().Fallback; !strings.HasPrefix(got, "generation 1, accepted") {
			t.Errorf("fallback: %q", got)
		}
	})
}

// A port that has been taken meanwhile, say.
func TestStartAfterCrashThatCannotResume(t *testing.T) {
	afterCrash(t, web2, func(t *testing.T, p *plant) { p.override("web", replicas(4)) }, func(t *testing.T, p *plant) {
		p.write(web3)
		p.crew.apply = func(_ context.Context, stage string, t *topology.Topology) error {
			if stage == "proxy" && t.Generation == 1 {
				return errors.New("address already in use")
			}
			return nil
		}
		p.mustRun()
		p.wantRunning("2 web×3", nil)
		p.log.want(t, "cannot be resumed")
		p.log.want(t, "address already in use")
		p.crew.apply = nil
	})
}

func TestStartWithDamagedNote(t *testing.T) {
	for name, damage := range map[string]func(note string) string{
		"truncated": func(note string) string { return note[:len(note)/2] },
		"empty":     func(string) string { return "" },
		"foreign":   func(string) string { return `{"pid": 17}` },
	} {
		t.Run(name, func(t *testing.T) {
			afterCrash(t, web2, func(t *testing.T, p *plant) { p.override("web", replicas(4)) }, func(t *testing.T, p *plant) {
				path := filepath.Join(p.stateDir, "running.json")
				note, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				damaged := damage(string(note))
				write(t, path, damaged)
				p.mustRun()
				p.wantRunning("1 web×2", nil)
				p.log.want(t, "set_aside_as="+path+".unreadable")
				if aside, err := os.ReadFile(path + ".unreadable"); err != nil || string(aside) != damaged {
					t.Errorf("set aside: %q, %v", aside, err)
				}
			})
		})
	}
}

func TestStartWithANoteThatIsNoFile(t *testing.T) {
	afterCrash(t, web2, func(t *testing.T, p *plant) { p.override("web", replicas(4)) }, func(t *testing.T, p *plant) {
		path := filepath.Join(p.stateDir, "running.json")
		if err := errors.Join(os.Remove(path), syscall.Mkfifo(path, 0o600)); err != nil {
			t.Fatal(err)
		}
		p.mustRun() // and does not wait for somebody to write there
		p.wantRunning("1 web×2", nil)
		p.log.want(t, "set_aside_as="+path+".unreadable")
	})
}

func TestStartAfterTheMachineEnded(t *testing.T) {
	afterCrash(t, web2, func(t *testing.T, p *plant) { p.override("web", replicas(4)) }, func(t *testing.T, p *plant) {
		now, err := bootID()
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(p.stateDir, "running.json")
		note, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		write(t, path, strings.Replace(string(note), now, "11111111-2222-3333-4444-555555555555", 1))
		p.mustRun()
		p.wantRunning("1 web×2", nil)
		p.log.want(t, "last run ended with the machine")
	})
}

func TestCleanStopForgets(t *testing.T) {
	stateDir := filepath.Join(t.TempDir(), "state")
	runOnce(t, stateDir, nil)
	if _, err := os.Stat(filepath.Join(stateDir, "running.json")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what ran is still written down: %v", err)
	}
}

// A survivor is a stage that can leave what it runs running.
type survivor struct{ hand }

func (s survivor) Suspend(context.Context) error {
	s.crew.mu.Lock()
	defer s.crew.mu.Unlock()
	s.crew.applied = append(s.crew.applied, s.name+": suspended")
	return nil
}

func TestStopThatKeepsSuspendsWhatSurvives(t *testing.T) {
	stateDir := filepath.Join(t.TempDir(), "state")
	synctest.Test(t, func(t *testing.T) {
		begin := func() *plant {
			p := newPlant(t, stateDir, web2)
			p.writeRaw(string(p.desk.file.Content) + "on_exit: keep\n")
			p.Engine = New(p.log.logger(), nil, &p.desk,
				append(p.crew.stages("proxy"), Stage{Name: "supervisor", Subsystem: survivor{hand{&p.crew, "supervisor"}}})...)
			return p
		}
		p := begin()
		p.mustRun()
		p.override("web", replicas(4))
		p.crew.took()
		if err := p.stop(); err != nil {
			t.Errorf("Run: %v", err)
		}
		p.wantApplied("proxy: 1 quiet web×4", "supervisor: 1 quiet web×4", "supervisor: suspended", "proxy: empty")
		p.log.want(t, "services left running")

		time.Sleep(time.Hour)
		p = begin()
		p.mustRun()
		p.wantApplied("proxy: 1 quiet web×4", "supervisor: 1 quiet web×4", "proxy: 1 web×4", "supervisor: 1 web×4")
		p.stop()
	})
}

func FuzzDecodeRunning(f *testing.F) {
	f.Add([]byte(`{"boot_id": "a", "generation": 3, "overrides": {"web": {"replicas": 4, "stopped": true, "epoch": 2}}, "pinned": {"generation": 1}}`))
	f.Add([]byte(`{"boot_id": "a", "generation": 3, "overrides": {"web": null}}`))
	f.Fuzz(func(t *testing.T, content []byte) {
		was, err := decodeRunning(content)
		if err != nil {
			return
		}
		spec := &topology.Topology{Services: map[string]topology.Service{"web": {Name: "web", Replicas: 2}}}
		laid := was.Overrides.carry(spec, spec).over(spec)
		if n := laid.Services["web"].Replicas; n < 0 || n > maxReplicas {
			t.Errorf("%d replicas", n)
		}
	})
}
