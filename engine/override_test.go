package engine

import (
	"context"
	"errors"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"mainstay/topology"
)

func replicas(n int) Override   { return Override{Replicas: &n} }
func stopped(yes bool) Override { return Override{Stopped: &yes} }

func (p *plant) override(service string, o Override) {
	p.t.Helper()
	if err := p.Override(p.t.Context(), service, o); err != nil {
		p.t.Fatalf("Override: %v", err)
	}
}

// wantRunning checks what runs and what the status says of overrides.
func (p *plant) wantRunning(running string, described map[string]string) {
	p.t.Helper()
	if got := sketch(p.Topology()); got != running {
		p.t.Errorf("running: %s, want %s", got, running)
	}
	if diff := gocmp.Diff(described, p.Status().Overrides); diff != "" {
		p.t.Errorf("overrides (-want +got):\n%s", diff)
	}
}

func TestOverride(t *testing.T) {
	working(t, web2, func(t *testing.T, p *plant) {
		file := p.Topology()
		p.override("web", replicas(5))
		p.wantApplied("bus: 1 web×5", "proxy: 1 web×5", "supervisor: 1 web×5")
		p.wantRunning("1 web×5", map[string]string{"web": "replicas 5 (file: 2)"})
		p.override("web", stopped(true))
		p.wantRunning("1 web×5 stopped", map[string]string{"web": "stopped, replicas 5 (file: 2)"})
		p.override("web", stopped(false))
		p.override("web", Override{Restart: true})
		p.override("web", Override{Restart: true})
		p.wantRunning("1 web×5 epoch 2", map[string]string{"web": "replicas 5 (file: 2)"})
		p.crew.took()
		p.override("web", replicas(5))
		p.wantApplied() // it is so already
		p.override("web", replicas(2))
		p.wantRunning("1 web×2 epoch 2", nil)
		p.override("web", replicas(0))
		p.wantRunning("1 web×0 epoch 2", map[string]string{"web": "replicas 0 (file: 2)"})
		if got := sketch(file); got != "1 web×2" {
			t.Errorf("the file's topology was modified: %s", got)
		}
	})
}

func TestOverrideOutlivesReloads(t *testing.T) {
	working(t, web2, func(t *testing.T, p *plant) {
		p.override("web", replicas(5))
		p.override("web", Override{Restart: true})
		p.save("web: {command: sleep 70, replicas: 2}")
		p.wantRunning("2 web×5 epoch 1", map[string]string{"web": "replicas 5 (file: 2)"})
		p.crew.took()
		p.save("web: {command: sleep 70, replicas: 2} # a comment")
		p.wantApplied()

		p.save("web: {command: sleep 70, replicas: 3}") // the file's own replicas changed; but a restart is not taken back
		p.wantRunning("3 web×3 epoch 1", nil)
		p.log.want(t, "override dropped")
	})
}

func TestOverrideGoesWithItsService(t *testing.T) {
	const other = "\nother: {command: sleep 60}"
	working(t, web2+other, func(t *testing.T, p *plant) {
		p.override("other", replicas(5))
		p.override("other", Override{Restart: true})
		p.save(web2)
		p.wantRunning("2 web×2", nil)
		p.save(web2 + other)
		p.wantRunning("3 other×1 web×2", nil)
	})
}

func TestOverrideThatFileForbidsIsDropped(t *testing.T) {
	working(t, web2+"\nother: {command: sleep 60}", func(t *testing.T, p *plant) {
		p.override("other", replicas(5))
		p.save(web2 + "\nother: {command: sleep 60, port: 8090}")
		p.wantRunning("2 other×1 web×2", nil)
	})
}

func TestOverrideKeptWhenReloadIsRefused(t *testing.T) {
	working(t, web2, func(t *testing.T, p *plant) {
		p.override("web", replicas(5))
		p.crew.apply = func(_ context.Context, _ string, t *topology.Topology) error {
			if t.Generation == 2 {
				return errors.New("no")
			}
			return nil
		}
		p.save(web3)
		p.wantRunning("1 web×5", map[string]string{"web": "replicas 5 (file: 2)"})
	})
}

func TestOverrideRefused(t *testing.T) {
	const services = web2 + `
fixed: {command: sleep 60, port: 8090}
away: {external: ["10.0.0.5:8080"]}
report: {command: sleep 60, schedule: "0 3 * * *"}`
	working(t, services, func(t *testing.T, p *plant) {
		if err := p.Override(t.Context(), "wbe", replicas(1)); !errors.Is(err, ErrNoService) || err.Error() != "no such service: wbe" {
			t.Errorf("an unknown service: %v", err)
		}
		p.override("web", stopped(true))
		for _, c := range []struct {
			service  string
			override Override
			want     string
		}{
			{"fixed", replicas(2), "fixed port 8090"},
			{"web", replicas(-1), "fewer than none"},
			{"web", replicas(1001), "the most is 1000"},
			{"web", Override{Restart: true}, "stopped"},
			{"report", Override{Restart: true}, "trigger runs it now"},
			{"report", replicas(2), "one run at a time"},
			{"away", replicas(2), "external"},
			{"away", stopped(true), "external"},
			{"away", Override{Restart: true}, "external"},
		} {
			err := p.Override(t.Context(), c.service, c.override)
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), c.service) {
				t.Errorf("%s: %v, want an error about %s", c.service, err, c.want)
			}
		}
		p.crew.apply = func(_ context.Context, stage string, t *topology.Topology) error {
			if stage == "proxy" && t.Services["web"].Replicas == 7 {
				return errors.New("too many")
			}
			return nil
		}
		if err := p.Override(t.Context(), "web", replicas(7)); err == nil || err.Error() != "proxy: too many" {
			t.Errorf("a stage's refusal: %v", err)
		}
		p.wantRunning("1 away×1 fixed×1 report×1 web×2 stopped", map[string]string{"web": "stopped"})
	})
}

func TestPlanKnowsOverrides(t *testing.T) {
	working(t, web2, func(t *testing.T, p *plant) {
		p.override("web", replicas(5))
		if changes, _, err := p.Plan(t.Context()); err != nil || len(changes) != 0 {
			t.Errorf("Plan of the same file: %v, %v", changes, err)
		}
		p.write(web3)
		if changes, _, err := p.Plan(t.Context()); err != nil || len(changes) != 1 {
			t.Errorf("Plan of other replicas: %v, %v", changes, err)
		}
		p.write(web2)
	})
}
