package engine

import (
	"context"

	"mainstay/topology"
)

// A Subsystem keeps one part of a topology running.
//
// Apply makes t what the subsystem runs. It is given the whole desired state,
// never a change, and compares it with what is running now. Five rules hold for
// every subsystem and are checked by enginetest:
//
//   - Whole: applying the previous topology undoes the last one, applying
//     [topology.Empty] stops everything.
//   - Idempotent: applying the same topology again does nothing.
//   - All or nothing: Apply first acquires what may fail (ports, files, clients),
//     then swaps it in, then releases what is no longer wanted. If it returns
//     an error, the subsystem runs what it ran before.
//   - Adding may fail, taking away may not. What does not stop in time is killed and logged.
//   - It waits for what it stops, until ctx is done, and never for what it starts:
//     progress of that is told by the subsystem's Status.
//
// The engine never calls Apply concurrently.
type Subsystem interface {
	Apply(ctx context.Context, t *topology.Topology) error
}
