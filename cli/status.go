package cli

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"mainstay/admin"
	"mainstay/backup"
	"mainstay/engine"
	"mainstay/proxy"
)

func (c *cli) statusCommand() *cobra.Command {
	var watch bool
	command := &cobra.Command{
		Use:   "status",
		Short: "Show how everything is doing",
		Example: `  mainstay status
  mainstay status --watch
  mainstay status -o json | jq '.services[] | select(.state != "ready")'`,
		Args: takes(0, 0),
		RunE: func(command *cobra.Command, _ []string) error {
			client, err := c.client()
			if err != nil {
				return err
			}
			if watch {
				return c.watchStatus(client)
			}
			status, err := client.Status(command.Context())
			if err != nil {
				return err
			}
			return c.showStatus(c.Out, status)
		},
	}
	c.takesFiles(command)
	c.givesOutput(command)
	command.Flags().BoolVarP(&watch, "watch", "w", false, "show it again each second until Ctrl-C")
	return command
}

// watchStatus shows the status each second until a signal ends it. On a terminal each takes the place of the one before.
func (c *cli) watchStatus(client *admin.Client) error {
	ctx, stop := untilInterrupted()
	defer stop()
	again := time.NewTicker(time.Second)
	defer again.Stop()
	const clearScreen = "\x1b[H\x1b[2J"
	for {
		status, err := client.Status(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		var screen bytes.Buffer
		if isTerminal(c.Out) && !c.json() {
			screen.WriteString(clearScreen)
		}
		if err := c.showStatus(&screen, status); err != nil {
			return err
		}
		if _, err := c.Out.Write(screen.Bytes()); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-again.C:
		}
	}
}

func (c *cli) showStatus(w io.Writer, s *admin.Status) error {
	if c.json() {
		return printJSON(w, s)
	}
	printBanners(w, s)
	fmt.Fprintf(w, "%s  generation %d for %s  %s\n", s.Name, s.Generation, age(s.Since), strings.Join(s.Files, " "))
	for _, t := range []*table{servicesTable(s), jobsTable(s), proxyTable(s), routesTable(s), busTable(s), backupsTable(s)} {
		if len(t.rows) == 0 {
			continue
		}
		if colours(c.Out) {
			t.mark = colourState
		}
		fmt.Fprintln(w)
		t.print(w)
	}
	return nil
}

// printBanners says first what someone must look at: that the file is not what runs.
func printBanners(w io.Writer, s *admin.Status) {
	last := s.LastReload
	if last.Result == engine.ResultInvalid || last.Result == engine.ResultRefused {
		fmt.Fprintf(w, "! The file was %s at %s (%s); generation %d still runs:\n",
			last.Result, last.Time.Local().Format(time.TimeOnly), last.Origin, s.Generation)
		for _, p := range last.Problems {
			if p.Severity == "error" {
				fmt.Fprintf(w, "!   %s\n", plain(p.String()))
			}
		}
		if last.Error != "" {
			fmt.Fprintf(w, "!   %s\n", plain(strings.ReplaceAll(last.Error, "\n", "\n!   ")))
		}
		fmt.Fprintln(w)
	}
	if s.Fallback != "" {
		fmt.Fprintf(w, "! %s\n\n", plain(s.Fallback))
	}
	if s.Pin != nil {
		fmt.Fprintf(w, "! %s\n\n", describePin(s.Pin, s.Generation))
	}
	for _, service := range slices.Sorted(maps.Keys(s.Overrides)) {
		fmt.Fprintf(w, "! %s differs from the file: %s\n", service, s.Overrides[service])
	}
	if len(s.Overrides) > 0 {
		fmt.Fprintln(w)
	}
}

func servicesTable(s *admin.Status) *table {
	t := newTable("SERVICE", "STATE", "READY", "INSTANCE", "STATE", "FOR", "PID", "ADDRESS", "REQUESTS", "RESTARTS")
	for _, service := range s.Services {
		name, state, ready := service.Name, service.State, fmt.Sprintf("%d/%d", service.Ready, service.Desired)
		if service.Job != nil && service.Desired == 0 {
			ready = "-"
		}
		if len(service.Instances) == 0 {
			t.row(name, state, ready, "-", "-", "-", "-", "-", "-", "-")
		}
		reason := service.Reason
		for _, i := range service.Instances {
			pid, requests := "-", "-"
			if i.PID != 0 {
				pid = strconv.Itoa(i.PID)
			}
			if u := upstream(s, service.Name, i.Address); u != nil {
				requests = strconv.FormatUint(u.Requests, 10)
				if u.State == "ejected" {
					t.notes = append(t.notes, fmt.Sprintf("  %s: gets no requests for now: too many have failed", i.ID))
				}
			}
			t.row(name, state, ready, i.ID, string(i.State), age(i.Since), pid, dash(i.Address), requests, strconv.Itoa(i.Restarts))
			name, state, ready = "", "", ""
			if i.Status != "" {
				t.notes = append(t.notes, fmt.Sprintf("  %s says: %s", i.ID, plain(i.Status)))
			}
			if i.Reason != "" {
				note := fmt.Sprintf("%s: %s", i.ID, i.Reason)
				t.notes = append(t.notes, "  "+indent(note))
				if note == reason {
					reason = "" // it is the instance's, and told
				}
			}
		}
		if u := service.Update; u != nil {
			note := updateText(u) + " for " + age(u.Since)
			if u.Canary != nil {
				note += ": " + canaryText(u.Canary)
			}
			t.notes = append(t.notes, fmt.Sprintf("  %s: %s", service.Name, note))
		}
		if reason != "" {
			t.notes = append(t.notes, fmt.Sprintf("  %s: %s", service.Name, indent(reason)))
		}
	}
	return t
}

// upstream returns what the proxy says of the service's instance at address, or nil if it sends nothing there.
func upstream(s *admin.Status, service, address string) *proxy.UpstreamStatus {
	for _, pool := range s.Proxy.Services {
		for i := range pool.Instances {
			if pool.Service == service && pool.Instances[i].Address == address {
				return &pool.Instances[i]
			}
		}
	}
	return nil
}

// indent lines up what follows the first line of a text under it.
func indent(text string) string { return strings.ReplaceAll(text, "\n", "\n      ") }

func proxyTable(s *admin.Status) *table {
	t := newTable("LISTENER", "ADDRESS", "CONNECTIONS")
	for _, l := range s.Proxy.Listeners {
		t.row(l.Name, url(l.Address, l.TLS), strconv.Itoa(l.Connections))
	}
	return t
}

func routesTable(s *admin.Status) *table {
	t := newTable("ROUTE", "SERVICE", "REQUESTS")
	for _, r := range s.Proxy.Routes {
		t.row(r.Host+r.PathPrefix, r.Service, strconv.FormatUint(r.Requests, 10))
	}
	return t
}

func busTable(s *admin.Status) *table {
	t := newTable("RELAY", "PUBLISHERS", "SUBSCRIBERS", "RECEIVED", "DELIVERED", "DROPPED")
	for _, r := range s.Bus {
		t.row(r.Name,
			fmt.Sprintf("%d at %s", r.Publishers.Peers, r.Publishers.Address),
			fmt.Sprintf("%d at %s", r.Subscribers.Peers, r.Subscribers.Address),
			strconv.FormatUint(r.Received, 10), strconv.FormatUint(r.Delivered, 10), strconv.FormatUint(r.Dropped, 10))
	}
	return t
}

// partialMark marks the id of a snapshot from which something is missing.
func partialMark(s *backup.Snapshot) string {
	if s.Partial {
		return " (partial)"
	}
	return ""
}

func backupsTable(s *admin.Status) *table {
	t := newTable("BACKUP", "STATE", "NEWEST", "AGE", "FILES", "SIZE", "NEXT", "RUNS", "FAILURES")
	for _, job := range s.Backups {
		newest, old, files, bytes, next := "-", "-", "-", "-", "by hand"
		if n := job.Newest; n != nil {
			newest, old, files, bytes = shortID(n.ID)+partialMark(n), age(n.Time), strconv.FormatUint(n.Files, 10), size(n.Bytes)
		}
		if !job.NextRun.IsZero() {
			next = "in " + duration(time.Until(job.NextRun))
		}
		t.row(job.Name, job.State, newest, old, files, bytes, next, strconv.FormatUint(job.Runs, 10), strconv.FormatUint(job.Failures, 10))
		if job.Reason != "" {
			t.notes = append(t.notes, fmt.Sprintf("  %s: %s", job.Name, indent(job.Reason)))
		}
	}
	return t
}
