package cli

import (
	"context"
	"fmt"
	"net"
	"strings"
	"time"

	"mainstay/admin"
	"mainstay/supervisor"
	"mainstay/topology"
)

// settleTime is how long the announcement waits for services that are still starting.
const settleTime = 5 * time.Second

// announce prints what listens where, once everything is ready or settleTime has passed.
func (c *cli) announce(ctx context.Context, t *topology.Topology, window *admin.Admin) error {
	limit, cancel := context.WithTimeout(ctx, settleTime)
	defer cancel()
	poll := time.NewTicker(50 * time.Millisecond)
	defer poll.Stop()
	status := window.Status()
	for !settled(status) && limit.Err() == nil {
		select {
		case <-limit.Done():
		case <-poll.C:
		}
		status = window.Status()
	}
	if ctx.Err() != nil {
		return nil
	}
	fmt.Fprintf(c.Out, "%s runs (generation %d).\n\n", t.Name, t.Generation)
	whatListens(t, status).print(c.Out)
	fmt.Fprintf(c.Out, "\nHow it is doing:  mainstay status%s\n", c.fileFlags())
	return nil
}

// settled reports whether no service is on its way to another state.
func settled(s admin.Status) bool {
	for _, service := range s.Services {
		if service.State == supervisor.ServiceStarting || service.State == supervisor.ServiceUpdating {
			return false
		}
	}
	return true
}

// whatListens returns a table of every address that t has something listen on.
func whatListens(t *topology.Topology, s admin.Status) *table {
	list := newTable("WHAT", "NAME", "STATE", "WHERE")
	for _, l := range s.Proxy.Listeners {
		list.row("proxy", l.Name, "ready", url(l.Address, l.TLS))
	}
	for _, service := range s.Services {
		var addresses []string
		for _, i := range service.Instances {
			if i.Address != "" {
				addresses = append(addresses, i.Address)
			}
		}
		state := fmt.Sprintf("%s %d/%d", service.State, service.Ready, service.Desired)
		list.row("service", service.Name, state, dash(strings.Join(addresses, " ")))
	}
	for _, relay := range s.Bus {
		list.row("bus", relay.Name, "ready", fmt.Sprintf("publish to %s, subscribe to %s", relay.Publishers.Address, relay.Subscribers.Address))
	}
	for _, job := range s.Backups {
		when := "by hand: mainstay backup now " + job.Name
		if !job.NextRun.IsZero() {
			when = "next at " + job.NextRun.Format("15:04")
		}
		list.row("backup", job.Name, job.State, fmt.Sprintf("%s, %s", job.Repository, when))
	}
	if s.MetricsAddress != "" {
		list.row("metrics", "-", "ready", url(s.MetricsAddress, false)+"/metrics")
	}
	list.row("admin", "-", "ready", t.Admin.Socket)
	return list
}

// url returns what to type to reach an address that was bound.
func url(address string, tls bool) string {
	host, port, err := net.SplitHostPort(address)
	if ip := net.ParseIP(host); err == nil && (host == "" || ip != nil && ip.IsUnspecified()) {
		address = net.JoinHostPort("localhost", port)
	}
	if tls {
		return "https://" + address
	}
	return "http://" + address
}

// fileFlags returns the flags that make another command find the same files.
func (c *cli) fileFlags() string {
	var flags strings.Builder
	for _, file := range c.files {
		fmt.Fprintf(&flags, " --file %s", file)
	}
	return flags.String()
}
