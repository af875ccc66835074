package cli

import (
	"context"
	"runtime/debug"
	"time"

	"mainstay/topology"
)

// calm is how long after the first topology was applied most of what it started has come to rest.
const calm = 10 * time.Second

// returnMemory gives back to the system what the start has taken and nothing uses any more, and looks twice again in case it has
// taken longer. The runtime does so too, but it collects every two minutes where little is going on, and each collection halves a
// stack that has grown at most once.
func returnMemory(ctx context.Context, _ *topology.Topology) error {
	for _, d := range []time.Duration{calm, 3 * calm, 9 * calm} {
		t := time.NewTimer(d)
		select {
		case <-ctx.Done():
			t.Stop()
			return nil
		case <-t.C:
		}
		debug.FreeOSMemory()
		debug.FreeOSMemory()
	}
	return nil
}
