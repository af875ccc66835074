package supervisor

import (
	"testing"

	"mainstay/topology"
)

// Who has scaled a service and asks at once how it is doing is not told that it is ready as it was.
func TestStatusOfWhatTheServiceHasNotSeenYet(t *testing.T) {
	s := &service{name: "web", given: 1, wake: make(chan struct{}, 1), view: view{seen: 1, desired: 1, holding: []*instance{{version: &version{}, life: life{state: StateReady}}}}}
	if got := s.status(); got.State != ServiceReady {
		t.Fatalf("before: %s", got.State)
	}
	s.apply(version{spec: topology.Service{Name: "web", Replicas: 3}})
	if got := s.status(); got.State != ServiceUpdating || got.Desired != 3 {
		t.Errorf("scaled: %s, %d desired", got.State, got.Desired)
	}
}
