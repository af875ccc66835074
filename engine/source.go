package engine

import (
	"context"

	"mainstay/topology"
)

// A Source says what should run on this node.
type Source interface {
	// Load returns the files as they are now.
	Load(ctx context.Context) ([]topology.File, error)
	// Watch calls changed after each change since the first Load until ctx is done, and returns then. A change that
	// does not matter may be reported too. changed does not block. An error says that changes are no longer seen.
	Watch(ctx context.Context, changed func()) error
	// Refer says which other files, by absolute paths, the topology was read from; a change of one of them since then is a change
	// too. It replaces what the last call said, at any time, and does not block.
	Refer(paths []string)
}

// Static is the Source of a file that never changes. What it refers to is not watched.
func Static(f topology.File) Source { return static{f} }

type static struct{ file topology.File }

func (s static) Load(context.Context) ([]topology.File, error) {
	return []topology.File{s.file}, nil
}

func (s static) Watch(ctx context.Context, _ func()) error {
	<-ctx.Done()
	return nil
}

func (static) Refer([]string) {}
