package bus

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"mainstay/bus/zmtp"
	"mainstay/topology"
)

// takenEndpoint returns an endpoint that cannot be bound until the test ends.
func takenEndpoint(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return "tcp://" + l.Addr().String()
}

// between returns the topology of relays given as name, publishers, subscribers, and so on.
func between(words ...string) *topology.Topology {
	t := &topology.Topology{Bus: map[string]topology.Relay{}}
	for ; len(words) > 0; words = words[3:] {
		t.Bus[words[0]] = topology.Relay{Name: words[0], Publishers: words[1], Subscribers: words[2], Queue: roomy}
	}
	return t
}

// exchange checks that a message gets from one to the other.
func exchange(t *testing.T, publisher, subscriber *zmtp.Conn, message string) {
	t.Helper()
	if err := publisher.Send([]byte(message)); err != nil {
		t.Fatal(err)
	}
	expect(t, subscriber, message)
}

func TestReload(t *testing.T) {
	free := freeEndpoints(t, 4)
	a, b, c, d := free[0], free[1], free[2], free[3]
	bus := New(testLog(t), nil, nil)
	startBus(t, bus, between("x", a, b))
	publisher := connect(t, a, zmtp.PUB)
	subscriber := subscribed(t, bus, "")
	exchange(t, publisher, subscriber, "first")

	apply(t, bus, between("x", a, b, "y", c, d))
	exchange(t, publisher, subscriber, "beside a new relay")

	smaller := between("x", a, b)
	smaller.Bus["x"] = topology.Relay{Name: "x", Publishers: a, Subscribers: b, Queue: topology.Queue{Limit: 100, WhenFull: topology.DropNewest}}
	apply(t, bus, smaller)
	publisher.Send(make([]byte, 1000))
	exchange(t, publisher, subscriber, "after one that the new limit forbids")
	if s := bus.Status()[0]; s.Dropped != 1 {
		t.Errorf("%d messages dropped, want 1", s.Dropped)
	}

	if err := bus.Apply(context.Background(), between("x", a, takenEndpoint(t), "y", c, d)); !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), "relay x: bind subscribers") {
		t.Errorf("bind an address that is taken: %v", err)
	}
	exchange(t, publisher, subscriber, "after a refusal")

	apply(t, bus, between("x", a, c))
	if _, err := subscriber.Receive(); err != io.EOF {
		t.Errorf("a subscriber of an address that is no longer wanted: %v", err)
	}
	other := subscribed(t, bus, "")
	exchange(t, publisher, other, "through a new address")
	if s := bus.Status()[0]; s.Publishers.Peers != 1 || s.Received != 6 {
		t.Errorf("publishers %+v, %d received", s.Publishers, s.Received)
	}
}

// Addresses can change hands, and change between one interface and all, without being let go before
// the next is bound.
func TestMovedAddresses(t *testing.T) {
	free := freeEndpoints(t, 2)
	a, b := free[0], free[1]
	everywhere := strings.Replace(a, "127.0.0.1", "*", 1)
	steps := []*topology.Topology{
		between("x", a, b),
		between("x", b, a),
		between("y", b, a),
		between("y", b, everywhere),
		between("y", b, a),
		between("x", a, b),
	}
	if l, err := net.Listen("tcp", "[::1]:0"); err == nil {
		l.Close()
		steps = append(steps, between("x", "tcp://[::1]:0", b))
	}
	bus := New(testLog(t), nil, nil)
	startBus(t, bus, topology.Empty)
	for i, step := range steps {
		apply(t, bus, step)
		s := bus.Status()
		if len(s) != 1 {
			t.Fatalf("step %d: %d relays", i, len(s))
		}
		publisher := connect(t, strings.Replace(s[0].Publishers.Address, "*", "127.0.0.1", 1), zmtp.PUB)
		subscriber := subscribed(t, bus, "")
		exchange(t, publisher, subscriber, fmt.Sprint("step ", i))
		publisher.Close()
		subscriber.Close()
	}
	// One that changes hands is never closed.
	apply(t, bus, between("x", a, b))
	before := bus.relays["x"].end(publishers).listener
	apply(t, bus, between("y", b, a))
	if after := bus.relays["y"].end(subscribers).listener; after != before {
		t.Error("the address was bound again")
	}
	// A refusal puts back what was let go early.
	taken := takenEndpoint(t)
	apply(t, bus, between("x", a, b))
	publisher, subscriber := connect(t, a, zmtp.PUB), subscribed(t, bus, "")
	if err := bus.Apply(context.Background(), between("x", everywhere, taken)); err == nil {
		t.Fatal("bound an address that is taken")
	}
	exchange(t, publisher, subscriber, "still there")
	exchange(t, connect(t, a, zmtp.PUB), subscriber, "and open to others")
}

// One address can take the place of several.
func TestEveryInterfaceInPlaceOfTwo(t *testing.T) {
	first := freeEndpoints(t, 1)[0]
	second := strings.Replace(first, "127.0.0.1", "127.0.0.2", 1)
	bus := New(testLog(t), nil, nil)
	startBus(t, bus, between("x", first, second))
	apply(t, bus, between("x", strings.Replace(first, "127.0.0.1", "*", 1), "tcp://127.0.0.1:0"))
}

// An address that could not be bound again after a refusal is bound by the next topology that wants it.
func TestApplyAfterFailedReopen(t *testing.T) {
	free := freeEndpoints(t, 2)
	bus := New(testLog(t), nil, nil)
	startBus(t, bus, between("x", free[0], free[1]))
	l := bus.relays["x"].end(publishers).listener
	l.close()
	other, err := net.Listen("tcp", l.bound.String())
	if err != nil {
		t.Fatal(err)
	}
	if err := l.reopen(t.Context()); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("reopen an address that is taken: %v", err)
	}
	if err := bus.Apply(t.Context(), between("x", free[1], free[0])); err == nil {
		t.Error("bound an address that is taken")
	}
	other.Close()
	apply(t, bus, between("x", free[0], free[1]))
	exchange(t, connect(t, free[0], zmtp.PUB), subscribed(t, bus, ""), "open again")
}

func TestBadRelay(t *testing.T) {
	good := topology.Relay{Publishers: "tcp://127.0.0.1:0", Subscribers: "tcp://127.0.0.1:0", Queue: roomy}
	tests := []struct {
		name string
		edit func(r *topology.Relay)
		want string
	}{
		{"no limit", func(r *topology.Relay) { r.Queue.Limit = 0 }, `relay x: queue limit of 0 bytes: want a positive number`},
		{"policy", func(r *topology.Relay) { r.Queue.WhenFull = "block" }, `relay x: queue policy "block": want drop_newest, drop_oldest or disconnect`},
		{"scheme", func(r *topology.Relay) { r.Publishers = "ipc:///x" }, `relay x: bind publishers: endpoint "ipc:///x": want tcp://host:port`},
		{"no port", func(r *topology.Relay) { r.Subscribers = "tcp://x" }, `relay x: bind subscribers: endpoint "tcp://x": want tcp://host:port; the host * is every interface`},
	}
	for _, tt := range tests {
		r := good
		tt.edit(&r)
		bus := New(testLog(t), nil, nil)
		err := bus.Apply(context.Background(), &topology.Topology{Bus: map[string]topology.Relay{"x": r}})
		if err == nil || err.Error() != tt.want {
			t.Errorf("%s: %v, want %s", tt.name, err, tt.want)
		}
		if s := bus.Status(); len(s) > 0 {
			t.Errorf("%s: %v runs", tt.name, s)
		}
	}
}

// What waits for a subscriber is sent before the relay stops.
func TestStopDrains(t *testing.T) {
	b := New(testLog(t), nil, nil)
	b.limits.stop = time.Minute
	startBus(t, b, relays(roomy))
	in, _ := endpoints(b)
	publisher, subscriber := connect(t, in, zmtp.PUB), subscribed(t, b, "")
	const messages, size = 100, 256 << 10 // more than the sockets hold
	for n := range messages {
		if err := publisher.Send([]byte(fmt.Sprint(n)), make([]byte, size)); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "messages received", func() bool { return b.Status()[0].Received == messages })
	stopped := make(chan error)
	go func() { stopped <- b.Apply(context.Background(), topology.Empty) }()
	for n := range messages {
		frames, err := subscriber.Receive()
		if err != nil || string(frames[0]) != fmt.Sprint(n) {
			t.Fatalf("message %d: %.20q, error %v", n, frames, err)
		}
	}
	if _, err := subscriber.Receive(); err != io.EOF {
		t.Errorf("after the last message: %v", err)
	}
	subscriber.Close()
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

// A subscriber that takes nothing keeps a relay from stopping only as long as Apply may wait.
func TestStopGivesUp(t *testing.T) {
	b := start(t, roomy)
	in, _ := endpoints(b)
	publisher := connect(t, in, zmtp.PUB)
	subscribed(t, b, "")
	for range 100 {
		publisher.Send(make([]byte, 256<<10))
	}
	eventually(t, "messages received", func() bool { return b.Status()[0].Received == 100 })
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := b.Apply(ctx, topology.Empty); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff([]RelayStatus{}, b.Status()); diff != "" {
		t.Error(diff)
	}
}

// With the policy to disconnect a subscriber that is too slow goes, and only that.
func TestDisconnectPolicy(t *testing.T) {
	b := start(t, topology.Queue{Limit: 1 << 20, WhenFull: topology.Disconnect})
	in, _ := endpoints(b)
	publisher, slow := connect(t, in, zmtp.PUB), subscribed(t, b, "big")
	healthy := subscribed(t, b, "small")
	stats := &b.relays["events"].stats
	sent := 0
	for ; b.Status()[0].Subscribers.Peers == 2; sent++ {
		publisher.Send([]byte("big"), make([]byte, 256<<10))
	}
	eventually(t, "reason counted", func() bool { return stats.disconnects.snapshot()[causeQueueFull] == 1 })
	exchange(t, publisher, healthy, "small")
	received := 0
	for ; ; received++ {
		if _, err := slow.Receive(); err != nil {
			break
		}
	}
	s := b.Status()[0]
	if s.Delivered+s.Dropped > s.Received || s.Dropped == 0 || received > int(s.Delivered) {
		t.Errorf("%d received, %d delivered, %d dropped; the slow one got %d", s.Received, s.Delivered, s.Dropped, received)
	}
}
