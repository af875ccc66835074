package engine

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"mainstay/topology"
)

const web4, web5 = "web: {command: sleep 60, replicas: 4}", "web: {command: sleep 60, replicas: 5}"

func (p *plant) mustRollback(number int) Outcome {
	p.t.Helper()
	o, err := p.Rollback(p.t.Context(), number)
	if err != nil {
		p.t.Fatalf("Rollback: %v", err)
	}
	return o
}

// wantPin checks that generation number is pinned; 0: that the file is followed.
func (p *plant) wantPin(number int) {
	p.t.Helper()
	pin := p.Status().Pin
	switch {
	case pin == nil && number != 0:
		p.t.Errorf("nothing is pinned, want generation %d", number)
	case pin != nil && pin.Generation != number:
		p.t.Errorf("pinned: %+v, want generation %d", pin, number)
	}
}

func TestRollback(t *testing.T) {
	working(t, web2, func(t *testing.T, p *plant) {
		p.save(web3)
		p.save(web4)
		p.crew.took()
		o := p.mustRollback(0)
		p.wantResult(o, ResultApplied, 4)
		p.wantApplied("bus: 4 web×3", "proxy: 4 web×3", "supervisor: 4 web×3")
		p.wantPin(2)

		// The file is as it was: it is not followed, whoever touches it.
		p.desk.changed()
		p.wantRunningStill("4 web×3")
		p.save(web4)
		p.wantRunningStill("4 web×3")
		p.wantPin(2)

		p.mustRollback(0) // further back, and not forth again
		p.wantRunning("5 web×2", nil)
		p.wantPin(1)
		if _, err := p.Rollback(t.Context(), 0); !errors.Is(err, ErrNoGeneration) {
			t.Errorf("Rollback before the first: %v", err)
		}
		p.wantPin(1)

		p.save(web5)
		p.wantRunning("6 web×5", nil)
		p.wantPin(0)
		p.log.want(t, "file followed again")
	})
}

func (p *plant) wantRunningStill(running string) {
	p.t.Helper()
	if got := sketch(p.Topology()); got != running {
		p.t.Errorf("running: %s, want %s", got, running)
	}
}

func TestRollbackToANumber(t *testing.T) {
	working(t, web2, func(t *testing.T, p *plant) {
		p.save(web3)
		p.save(web4)
		p.mustRollback(1)
		p.wantRunning("4 web×2", nil)
		p.wantPin(1)
		p.mustRollback(3) // what the file says
		p.wantRunning("5 web×4", nil)
		p.wantPin(0)
		if _, err := p.Rollback(t.Context(), 77); !errors.Is(err, ErrNoGeneration) {
			t.Errorf("Rollback to one that never was: %v", err)
		}
		list, err := p.Generations()
		if err != nil || len(list) != 5 {
			t.Fatalf("Generations: %+v, %v", list, err)
		}
		if k := list[0]; k.Generation != 5 || !k.Current || k.Origin != OriginRollback || k.Again != 0 {
			t.Errorf("newest: %+v", k)
		}
		if k := list[1]; k.Generation != 4 || k.Current || k.Again != 1 {
			t.Errorf("the one that was rolled back to 1: %+v", k)
		}
		if k := list[4]; k.Generation != 1 || k.Origin != OriginStart {
			t.Errorf("the first: %+v", k)
		}
	})
}

func TestReloadByHandTakesTheFileAgain(t *testing.T) {
	for _, origin := range []string{OriginAPI, OriginSIGHUP} {
		working(t, web2, func(t *testing.T, p *plant) {
			p.save(web3)
			p.mustRollback(0)
			o, err := p.Reload(t.Context(), origin)
			if err != nil {
				t.Fatal(err)
			}
			p.wantResult(o, ResultApplied, 4)
			p.wantRunning("4 web×3", nil)
			p.wantPin(0)
		})
	}
}

func TestBrokenFileDoesNotUnpin(t *testing.T) {
	working(t, web2, func(t *testing.T, p *plant) {
		p.save(web3)
		p.mustRollback(0)
		p.writeRaw("version: [\n")
		p.desk.changed()
		p.pass(0)
		p.wantResult(p.Status().LastReload, ResultInvalid, 3)
		p.wantPin(1)
		p.save(web2 + " # as it was rolled back to")
		p.wantResult(p.Status().LastReload, ResultUnchanged, 3)
		p.wantPin(0)
	})
}

func TestRollbackSurvivesCrash(t *testing.T) {
	afterCrash(t, web2, func(t *testing.T, p *plant) {
		p.save(web3)
		p.mustRollback(0)
	}, func(t *testing.T, p *plant) {
		p.mustRun()
		p.wantRunning("3 web×2", nil)
		p.wantPin(1)
		p.save(web4)
		p.wantRunning("4 web×4", nil)
		p.wantPin(0)
	})
}

func TestCrashAndAnotherFileUnpin(t *testing.T) {
	afterCrash(t, web2, func(t *testing.T, p *plant) {
		p.save(web3)
		p.mustRollback(0)
	}, func(t *testing.T, p *plant) {
		p.write(web4)
		p.mustRun()
		p.wantRunning("4 web×4", nil)
		p.wantPin(0)
	})
}

func TestRollbackKeepsOverrides(t *testing.T) {
	const named = "web: {command: sleep 60, replicas: 2, stop_grace_period: 7s}"
	working(t, web2, func(t *testing.T, p *plant) {
		p.save(named)
		p.override("web", replicas(5))
		p.mustRollback(0)
		p.wantRunning("3 web×5", map[string]string{"web": "replicas 5 (file: 2)"})
	})
}

// A generation is read again with the secrets of today, and fails without them.
func TestRollbackReadsSecretsAgain(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	withSecret := "web: {command: sleep 60, replicas: 2, environment: {KEY: \"${file:" + secret + "}\"}}"
	write(t, secret, "one")
	working(t, withSecret, func(t *testing.T, p *plant) {
		p.save(web3)
		p.mustRollback(0)
		p.crew.took()

		write(t, secret, "two")
		p.desk.changed() // a file that it refers to
		p.pass(0)
		p.wantRunningStill("4 web×2")
		if got := p.Topology().Services["web"].Environment["KEY"].Reveal(); got != "two" {
			t.Errorf("the secret is %q", got)
		}
		p.wantPin(1)

		if err := os.Remove(secret); err != nil {
			t.Fatal(err)
		}
		_, err := p.Rollback(t.Context(), 1)
		if problems := (topology.Problems{}); !errors.As(err, &problems) || !strings.Contains(err.Error(), "secret") {
			t.Errorf("Rollback without the secret: %v", err)
		}
		p.wantRunningStill("4 web×2")
	})
}

// A critic is a stage that knows of generations that did not work.
type critic struct {
	hand
	failures map[int]string
}

func (c critic) Failures() map[int]string { return c.failures }

func TestRollbackPassesOverWhatFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlant(t, filepath.Join(t.TempDir(), "state"), web2)
		judge := critic{hand{&p.crew, "supervisor"}, map[int]string{}}
		p.Engine = New(p.log.logger(), nil, &p.desk, Stage{Name: "supervisor", Subsystem: judge})
		p.mustRun()
		p.save(web3)
		p.save(web4)
		judge.failures[2] = "web: never ready"
		p.mustRollback(0)
		p.wantRunning("4 web×2", nil)
		list, err := p.Generations()
		if err != nil || list[2].Failed != "web: never ready" || list[3].Failed != "" {
			t.Errorf("generations: %+v, %v", list, err)
		}
		p.mustRollback(2) // who names it may have it
		p.wantRunning("5 web×3", nil)
		p.stop()
	})
}
