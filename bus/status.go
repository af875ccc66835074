package bus

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"
)

// A RelayStatus is how one relay is doing.
type RelayStatus struct {
	Name        string `json:"name"`
	Publishers  Side   `json:"publishers"`
	Subscribers Side   `json:"subscribers"`
	Received    uint64 `json:"received"`  // messages from publishers
	Delivered   uint64 `json:"delivered"` // messages written to subscribers, each counted once per subscriber
	Dropped     uint64 `json:"dropped"`   // messages lost to a full queue or a connection's end, each counted once per subscriber
	Peers       []Peer `json:"peers"`
}

// A Side is one of a relay's two addresses.
type Side struct {
	Address string `json:"address"` // as bound, tcp://host:port; the host * is every interface
	Peers   int    `json:"peers"`   // connections past their handshake
}

// A Peer is one connection past its handshake.
type Peer struct {
	Address       string    `json:"address"`
	Type          string    `json:"type"` // its socket type: PUB, SUB, …
	Since         time.Time `json:"since"`
	Subscriptions int       `json:"subscriptions"`
	QueuedBytes   int64     `json:"queued_bytes"`
	Delivered     uint64    `json:"delivered"`
	Dropped       uint64    `json:"dropped"`
}

// Status returns every relay in name's order, its peers in the order they came. It does not block.
func (b *Bus) Status() []RelayStatus {
	relays := b.snapshot()
	statuses := make([]RelayStatus, 0, len(relays))
	for _, name := range slices.Sorted(maps.Keys(relays)) {
		statuses = append(statuses, relays[name].status())
	}
	return statuses
}

func (r *relay) status() RelayStatus {
	s := RelayStatus{
		Name:      r.name,
		Received:  r.stats.received.Load(),
		Delivered: r.stats.delivered.Load(),
		Dropped:   r.stats.allDropped(),
		Peers:     []Peer{},
	}
	s.Publishers, s.Peers = r.sideStatus(publishers, s.Peers)
	s.Subscribers, s.Peers = r.sideStatus(subscribers, s.Peers)
	slices.SortFunc(s.Peers, func(a, b Peer) int {
		return cmp.Or(a.Since.Compare(b.Since), strings.Compare(a.Address, b.Address))
	})
	return s
}

func (r *relay) sideStatus(ro role, peers []Peer) (Side, []Peer) {
	e := r.end(ro)
	if e.side == nil {
		return Side{}, peers
	}
	current := e.side.snapshot()
	for _, p := range current {
		a := p.out.account()
		peers = append(peers, Peer{
			Address:       p.conn.RemoteAddr().String(),
			Type:          string(p.said.Type),
			Since:         p.since,
			Subscriptions: int(p.subscriptions.Load()),
			QueuedBytes:   a.bytes,
			Delivered:     a.delivered,
			Dropped:       a.dropped,
		})
	}
	return Side{Address: endpointOf(e.listener.bound), Peers: len(current)}, peers
}
