package bus

import (
	"context"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"mainstay/topology"
)

// A Bus relays messages from publishers to subscribers by topic.
type Bus struct{}

// New returns a Bus that relays nothing yet.
func New(log *slog.Logger, reg prometheus.Registerer) *Bus { return &Bus{} }

// Apply implements the engine's Subsystem.
func (b *Bus) Apply(ctx context.Context, t *topology.Topology) error { return nil }

// A RelayStatus is how one relay is doing.
type RelayStatus struct {
	Name        string `json:"name"`
	Publishers  Side   `json:"publishers"`
	Subscribers Side   `json:"subscribers"`
	Received    uint64 `json:"received"`  // messages from publishers
	Delivered   uint64 `json:"delivered"` // messages written to subscribers, each counted once per subscriber
	Dropped     uint64 `json:"dropped"`   // messages lost to a full queue, each counted once per subscriber
	Peers       []Peer `json:"peers"`
}

// A Side is one of a relay's two addresses.
type Side struct {
	Address string `json:"address"` // as bound, tcp://host:port
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

// Status returns every relay in name's order. It does not block.
func (b *Bus) Status() []RelayStatus { return nil }

// Publish connects to endpoint (tcp://host:port) as a PUB socket, sends each message that next
// returns, and ends when next returns nil, when all that was sent has been written.
// It waits for the other side's subscription before the first message, so that a short-lived publisher
// loses nothing to a relay. It returns next's error, the connection's, or ctx's.
func Publish(ctx context.Context, endpoint string, next func() ([][]byte, error)) error { return nil }

// Subscribe connects to endpoint as a SUB socket with the given prefixes (none: everything) and
// calls receive with each message until it returns an error, which Subscribe returns; the frames are
// receive's to keep. It connects again with back-off when the connection is lost, until ctx is done.
func Subscribe(ctx context.Context, endpoint string, prefixes []string, receive func(frames [][]byte) error) error {
	return nil
}
