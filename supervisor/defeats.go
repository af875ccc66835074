package supervisor

import (
	"maps"
	"slices"
	"sync"
)

// defeats are the generations to which a service could not be updated, and why. The zero value has none.
type defeats struct {
	mu  sync.Mutex
	why map[int]string
}

// keptDefeats is how many are remembered, the newest.
const keptDefeats = 100

func (d *defeats) note(generation int, why string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.why == nil {
		d.why = map[int]string{}
	}
	if _, ok := d.why[generation]; ok {
		return // the first service that failed is reason enough
	}
	d.why[generation] = why
	if len(d.why) > keptDefeats {
		delete(d.why, slices.Min(slices.Collect(maps.Keys(d.why))))
	}
}

// Failures implements the engine's Judge: why, by generation, an update of a service to it was given up. It is remembered for as long
// as Mainstay runs.
func (s *Supervisor) Failures() map[int]string {
	s.site.defeats.mu.Lock()
	defer s.site.defeats.mu.Unlock()
	return maps.Clone(s.site.defeats.why)
}
