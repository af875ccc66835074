package bus

import (
	"fmt"
	"log/slog"
	"net"
	"testing"

	"mainstay/engine/enginetest"
	"mainstay/topology"
)

func TestConformance(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	addresses := enginetest.FreeAddresses(t, 8)
	free := endpointsAt(addresses)
	relay := func(name, publishers, subscribers string) topology.Relay {
		return topology.Relay{
			Name: name, Publishers: publishers, Subscribers: subscribers,
			Queue: topology.Queue{Limit: megabyte, WhenFull: topology.DropNewest},
		}
	}
	of := func(relays ...topology.Relay) *topology.Topology {
		t := &topology.Topology{Bus: map[string]topology.Relay{}}
		for _, r := range relays {
			t.Bus[r.Name] = r
		}
		return t
	}
	events, orders := relay("events", free[0], free[1]), relay("orders", free[2], free[3])
	enginetest.Run(t, enginetest.Case[*Bus]{
		New: func(log *slog.Logger) *Bus { return New(log, nil, nil) },
		A:   of(events, orders),
		B:   of(relay("events", free[0], free[4]), relay("mail", free[5], free[6])),
		Refused: of(
			relay("events", free[4], free[1]),                      // its publishers move
			relay("mail", free[5], free[6]),                        // new
			relay("late", free[7], "tcp://"+taken.Addr().String()), // and then one that cannot be had
		),
		Observe: func(b *Bus) any {
			picture := map[string]string{}
			for _, r := range b.Status() {
				picture[r.Name] = r.Publishers.Address + " to " + r.Subscribers.Address
			}
			return picture
		},
		Identify: func(b *Bus) any {
			things := map[string]string{}
			for name, r := range b.snapshot() {
				things[name] = fmt.Sprintf("%p", r)
				for _, ro := range roles {
					things[name+" "+string(ro)] = fmt.Sprintf("%p %p", r.end(ro).listener, r.end(ro).side)
				}
			}
			return things
		},
		Released: enginetest.Bindable(addresses...),
	})
}

// freeEndpoints returns n endpoints that nothing listens on.
func freeEndpoints(t *testing.T, n int) []string {
	t.Helper()
	return endpointsAt(enginetest.FreeAddresses(t, n))
}

func endpointsAt(addresses []string) []string {
	var endpoints []string
	for _, address := range addresses {
		endpoints = append(endpoints, "tcp://"+address)
	}
	return endpoints
}
