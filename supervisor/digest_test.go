package supervisor

import (
	"encoding/json"
	"strings"
	"testing"

	"mainstay/topology"
)

func TestDigest(t *testing.T) {
	base := with(web("v1", 2), func(s *topology.Service) {
		s.Environment = map[string]topology.Text{"A": topology.Plain("1"), "B": topology.Secret("hush")}
		s.Limits.CPUs = 0.5
	})
	d := digestOf(base)
	if !d.of(base) {
		t.Error("a digest is not of its own specification")
	}
	if digestOf(base) == d {
		t.Error("two digests have the same salt")
	}
	if b, _ := json.Marshal(d); strings.Contains(string(b), "hush") {
		t.Errorf("a secret is in %s", b)
	}
	if (digest{}).of(topology.Service{}) {
		t.Error("no digest is one of an empty specification")
	}
	same := map[string]topology.Service{
		"replicas":    with(base, func(s *topology.Service) { s.Replicas = 7 }),
		"description": with(base, func(s *topology.Service) { s.Description = "x" }),
		"probes":      with(base, func(s *topology.Service) { s.Probes.Readiness = nil }),
	}
	for name, spec := range same {
		if !d.of(spec) {
			t.Errorf("another %s makes another recipe", name)
		}
	}
	other := map[string]topology.Service{
		"argument": web("v2", 2),
		"split argument": with(base, func(s *topology.Service) {
			s.Command = []topology.Text{topology.Plain("we"), topology.Plain("bv1")}
		}),
		"secret": with(base, func(s *topology.Service) {
			s.Environment = map[string]topology.Text{"A": topology.Plain("1"), "B": topology.Secret("hush!")}
		}),
		"name of a variable": with(base, func(s *topology.Service) {
			s.Environment = map[string]topology.Text{"A": topology.Plain("1"), "C": topology.Secret("hush")}
		}),
		"value between variables": with(base, func(s *topology.Service) {
			s.Environment = map[string]topology.Text{"A": topology.Plain("hush"), "B": topology.Secret("1")}
		}),
		"directory": with(base, func(s *topology.Service) { s.Directory = "/x" }),
		"user":      with(base, func(s *topology.Service) { s.User = "x" }),
		"group":     with(base, func(s *topology.Service) { s.Group = "x" }),
		"port":      with(base, func(s *topology.Service) { s.Port = 80 }),
		"epoch":     with(base, func(s *topology.Service) { s.Epoch = 1 }),
	}
	for name, spec := range other {
		if d.of(spec) {
			t.Errorf("another %s makes the same recipe", name)
		}
	}
}
