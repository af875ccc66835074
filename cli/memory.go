package cli

import (
	"context"
	"runtime/debug"
	"time"

	"mainstay/topology"
)

// calm is how long after the first topology was applied most of what it started has come to rest.
const calm = 10 * time.Second

// returnMemory gives back to the system, once, what the start has taken and nothing uses any more. The runtime does so too, but
// it collects every two minutes where little is going on, and each collection halves a stack that has grown at most once.
func returnMemory(ctx context.Context, _ *topology.Topology) error {
	t := time.NewTimer(calm)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
		for range 3 {
			debug.FreeOSMemory()
		}
	}
	return nil
}
