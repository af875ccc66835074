package admin

import (
	"fmt"
	"log/slog"
	"net"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"mainstay/engine/enginetest"
	"mainstay/topology"
)

func TestConformance(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	free := enginetest.FreeAddresses(t, 2)
	at := func(address string) *topology.Topology {
		return &topology.Topology{Metrics: topology.Metrics{Address: address}}
	}
	enginetest.Run(t, enginetest.Case[*Admin]{
		New: func(log *slog.Logger) *Admin {
			registry := prometheus.NewRegistry()
			return New(log, registry, registry, nil, Build{}, Rooms{})
		},
		A:        at(free[0]),
		B:        at(free[1]),
		Refused:  at(taken.Addr().String()),
		Observe:  func(a *Admin) any { return a.metrics.bound() },
		Identify: func(a *Admin) any { return map[string]string{"metrics": fmt.Sprintf("%p", a.metrics)} },
		Released: enginetest.Bindable(free...),
	})
}
