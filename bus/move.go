package bus

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"

	"mainstay/sockets"
	"mainstay/topology"
)

// A place is one address of one relay.
type place struct {
	relay string
	role  role
}

// A move is the addresses on their way from what runs to what is wanted.
type move struct {
	wanted map[place]string
	spare  []*listener // that run and are not wanted where they are
	shut   []*listener // of the spare, released early because a wanted address overlaps
	fresh  []*listener // bound for this move
	bound  map[place]*listener

	sockets *sockets.Set
}

func newMove(set *sockets.Set, have map[string]*relay, t *topology.Topology) *move {
	m := &move{wanted: map[place]string{}, bound: map[place]*listener{}, sockets: set}
	for name, spec := range t.Bus {
		m.wanted[place{name, publishers}] = spec.Publishers
		m.wanted[place{name, subscribers}] = spec.Subscribers
	}
	for name, r := range have {
		for _, ro := range roles {
			l, p := r.end(ro).listener, place{name, ro}
			switch {
			case l.isClosed(): // a move before this one could not undo what it had done
			case m.wanted[p] == l.endpoint:
				delete(m.wanted, p)
			default:
				m.spare = append(m.spare, l)
			}
		}
	}
	return m
}

// bind finds a listener for every place that wants another than it has: the one that another place no longer
// wants, or a new one.
func (m *move) bind(ctx context.Context) error {
	for p, endpoint := range m.wanted {
		if i := slices.IndexFunc(m.spare, func(l *listener) bool { return l.endpoint == endpoint }); i >= 0 {
			m.bound[p] = m.spare[i]
			m.spare = slices.Delete(m.spare, i, i+1)
		}
	}
	for p, endpoint := range m.wanted {
		if m.bound[p] != nil {
			continue
		}
		l, err := m.listen(ctx, endpoint)
		if err != nil {
			return fmt.Errorf("relay %s: bind %s: %w", p.relay, p.role, err)
		}
		m.fresh = append(m.fresh, l)
		m.bound[p] = l
	}
	return nil
}

// listen binds endpoint. If what is in its way are addresses of ours that are about to be released, such as
// tcp://127.0.0.1:5556 when tcp://*:5556 is wanted, those are released now.
func (m *move) listen(ctx context.Context, endpoint string) (*listener, error) {
	for {
		l, err := listen(ctx, m.sockets, endpoint)
		if !errors.Is(err, syscall.EADDRINUSE) {
			return l, err
		}
		address, _ := hostPort(endpoint)
		i := slices.IndexFunc(m.spare, func(l *listener) bool { return l.overlaps(address) })
		if i < 0 {
			return nil, err
		}
		m.spare[i].close()
		m.shut = append(m.shut, m.spare[i])
		m.spare = slices.Delete(m.spare, i, i+1)
	}
}

// undo releases what was bound for the move and opens again what was released for it.
func (m *move) undo(ctx context.Context) error {
	for _, l := range m.fresh {
		l.close()
	}
	var failed error
	for _, l := range m.shut {
		failed = errors.Join(failed, l.reopen(ctx))
	}
	return failed
}

// release lets go what nobody wants any more.
func (m *move) release() {
	for _, l := range m.spare {
		l.close()
	}
}
