package supervisor

import (
	"context"
	"slices"
	"testing"
	"time"

	"mainstay/topology"
)

// A removed service that does not want to end keeps its own end waiting, and no other topology.
func TestRemovalGoesOnAside(t *testing.T) {
	simulate(t, map[string]behaviour{"deaf": {ignoreTerm: true}}, func(s *simulation) {
		deaf := with(web("deaf", 1), named("deaf"), grace(time.Minute))
		s.apply(web("v1", 1), deaf)
		s.pass(10 * time.Second)
		s.forget()
		begin := time.Now()
		s.apply(web("v1", 1))
		if took := time.Since(begin); took != removalPatience {
			t.Errorf("Apply took %s", took)
		}
		s.apply(web("v1", 2))
		s.apply(web("v2", 2))
		if took := time.Since(begin); took != removalPatience {
			t.Errorf("the next Apply waited: %s", took-removalPatience)
		}
		s.wantState("deaf", ServiceRemoved, 0)
		s.pass(30 * time.Second)
		s.wantState("web", ServiceReady, 2)
		s.wantRunning("deaf/1 deaf", "web/1 v2", "web/2 v2")
		s.pass(30 * time.Second)
		s.wantRunning("web/1 v2", "web/2 v2")
		s.wantHappened([]string{"signal deaf/1 deaf terminated", "signal deaf/1 deaf killed"}, "signal deaf")
		if st := s.Status(); len(st) != 1 {
			t.Errorf("%d services", len(st))
		}
	})
}

// The end of everything waits for what ends aside, too.
func TestStopWaitsForRemovals(t *testing.T) {
	simulate(t, map[string]behaviour{"deaf": {ignoreTerm: true}}, func(s *simulation) {
		s.apply(web("v1", 1), with(web("deaf", 1), named("deaf"), grace(time.Minute)))
		s.pass(10 * time.Second)
		begin := time.Now()
		s.apply(web("v1", 1))
		s.applyAs(topology.Empty)
		if took := time.Since(begin); took != time.Minute {
			t.Errorf("it took %s", took)
		}
		s.wantRunning()
	})
}

// What was let go on aside is killed when its time is up.
func TestRemovalHasADeadline(t *testing.T) {
	simulate(t, map[string]behaviour{"deaf": {ignoreTerm: true}}, func(s *simulation) {
		s.apply(with(web("deaf", 1), named("deaf"), grace(time.Hour)))
		s.pass(10 * time.Second)
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		if err := s.Apply(ctx, &topology.Topology{}); err != nil {
			t.Fatal(err)
		}
		cancel() // as the engine does then
		s.pass(14 * time.Second)
		s.wantRunning("deaf/1 deaf")
		s.pass(2 * time.Second)
		s.wantRunning()
		s.apply(with(web("v1", 1), named("deaf")))
		s.pass(10 * time.Second)
		s.wantState("deaf", ServiceReady, 1)
	})
}

// A service that is wanted again while it ends is started when its place is free.
func TestRemovalIsRevoked(t *testing.T) {
	simulate(t, map[string]behaviour{"slow": {stopTime: 30 * time.Second}}, func(s *simulation) {
		spec := with(web("slow", 2), grace(time.Minute), func(s *topology.Service) { s.Port = 9000; s.Replicas = 1 })
		user := with(web("v1", 1), named("user"), needs("web", topology.ConditionReady))
		for _, again := range []topology.Service{spec, with(spec, func(s *topology.Service) { s.Command = web("v2", 1).Command })} {
			s.apply(spec, user)
			s.pass(2 * time.Minute)
			s.forget()
			s.applyAs(&topology.Topology{})
			s.pass(10 * time.Second)
			s.apply(again)
			s.pass(time.Second)
			s.wantRunning("web/1 slow")
			s.pass(time.Minute)
			s.wantState("web", ServiceReady, 1)
			if got := s.happened("start"); len(got) != 1 || s.most > 2 {
				t.Errorf("started %q, %d lived at once", got, s.most)
			}
			if st := s.Status(); len(st) != 1 {
				t.Errorf("%d services", len(st))
			}
		}
	})
	// It is not stopped in its turn when it was wanted again before that came.
	simulate(t, map[string]behaviour{"slow": {stopTime: 30 * time.Second}}, func(s *simulation) {
		base := with(web("v1", 1), named("base"))
		user := with(web("slow", 1), named("user"), grace(time.Minute), needs("base", topology.ConditionReady))
		s.apply(base, user)
		s.pass(10 * time.Second)
		s.forget()
		s.applyAs(&topology.Topology{})
		s.apply(base)
		s.pass(2 * time.Minute)
		s.wantRunning("base/1 v1")
		if got := s.happened("signal base", "drain base"); !slices.Equal(got, nil) {
			t.Errorf("%q", got)
		}
	})
}
