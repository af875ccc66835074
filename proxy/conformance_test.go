package proxy

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
	free := enginetest.FreeAddresses(t, 4)
	stateDir := t.TempDir()
	of := func(listeners map[string]string, routes ...topology.Route) *topology.Topology {
		t := &topology.Topology{StateDir: stateDir}
		t.Proxy.Routes = routes
		t.Proxy.Listeners = map[string]topology.Listener{}
		for name, address := range listeners {
			t.Proxy.Listeners[name] = topology.Listener{Name: name, Address: address}
		}
		return t
	}
	enginetest.Run(t, enginetest.Case[*Proxy]{
		New: func(log *slog.Logger) *Proxy { return New(log, nil, nil) },
		A:   of(map[string]string{"http": free[0], "old": free[1]}, route0("web")),
		B:   of(map[string]string{"http": free[0], "new": free[2]}, route0("orders"), route0("web")),
		Refused: of(map[string]string{
			"fresh": free[3],
			"http":  taken.Addr().String(), // is bound after fresh, which is to be let go
		}, route0("other")),
		Observe: func(p *Proxy) any {
			status := p.Status()
			for i := range status.Listeners {
				status.Listeners[i].Connections = 0
			}
			return status
		},
		Identify: func(p *Proxy) any {
			things := map[string]string{"table": fmt.Sprintf("%p", p.table.Load())}
			for address, s := range p.serving {
				things[fmt.Sprint(address)] = fmt.Sprintf("%p", s.server)
			}
			for service, pool := range p.pools {
				things[service] = fmt.Sprintf("%p", pool)
			}
			return things
		},
		Released: enginetest.Bindable(free...),
	})
}
