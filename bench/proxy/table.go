//go:build linux

package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

// A summary is the median of some rounds with its spread.
type summary struct{ median, low, high float64 }

// summarise returns the summary of values, all zero of none.
func summarise(values []float64) summary {
	if len(values) == 0 {
		return summary{}
	}
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	return summary{median: (sorted[(n-1)/2] + sorted[n/2]) / 2, low: sorted[0], high: sorted[n-1]}
}

// ratios returns value of each round's sample divided by that of base in the same round. A round in which one of them is missing has none.
func ratios(samples []sample, row, peer, base string, value func(sample) float64) []float64 {
	of := func(name string) map[int]float64 {
		found := make(map[int]float64)
		for _, s := range samples {
			if s.Row == row && s.Peer == name {
				found[s.Round] = value(s)
			}
		}
		return found
	}
	ours, theirs := of(peer), of(base)
	var all []float64
	for round, v := range ours {
		if theirs[round] > 0 {
			all = append(all, v/theirs[round])
		}
	}
	return all
}

// cells returns the table of a row: a line of titles, then one for each peer.
func cells(samples []sample, r row, chosen []peer) [][]string {
	value := func(s sample) float64 { return s.CPU }
	lines := [][]string{{"proxy", "CPU µs/request", "to nginx", "to haproxy", "requests/s", "core", "p50 ms", "p99 ms", "p99.9 ms", "MiB", "allocs", "errors"}}
	if r.idle > 0 {
		value = func(s sample) float64 { return s.PerIdle }
		lines = [][]string{{"proxy", "KiB/connection", "to nginx", "to haproxy", "MiB", "errors"}}
	}
	for _, p := range chosen {
		column := func(value func(sample) float64) summary {
			var values []float64
			for _, s := range samples {
				if s.Row == r.name && s.Peer == p.name {
					values = append(values, value(s))
				}
			}
			return summarise(values)
		}
		figure := func(form string, value func(sample) float64) string { return fmt.Sprintf(form, column(value).median) }
		spread := func(form string, s summary) string {
			return fmt.Sprintf(form+" ("+form+"–"+form+")", s.median, s.low, s.high)
		}
		ratio := func(base string) string {
			against := ratios(samples, r.name, p.name, base, value)
			if len(against) == 0 || base != p.base && p.base != "nginx" {
				return "–"
			}
			return spread("%.2f", summarise(against))
		}
		errors := 0
		for _, s := range samples {
			if s.Row == r.name && s.Peer == p.name {
				errors += s.Errors + s.Unanswered
			}
		}
		resident := figure("%.0f", func(s sample) float64 { return float64(s.Resident) / (1 << 20) })
		if r.idle > 0 {
			perIdle := column(func(s sample) float64 { return s.PerIdle / 1024 })
			lines = append(lines, []string{p.name, spread("%.2f", perIdle), ratio(p.base), ratio("haproxy"), resident, fmt.Sprint(errors)})
			continue
		}
		allocs := "–"
		if a := column(func(s sample) float64 { return s.Allocs }); a.low >= 0 {
			allocs = fmt.Sprintf("%.2f", a.median)
		}
		lines = append(lines, []string{
			p.name, spread("%.2f", column(value)), ratio(p.base), ratio("haproxy"),
			spread("%.0f", column(func(s sample) float64 { return s.Rate })),
			figure("%.0f %%", func(s sample) float64 { return 100 * s.Busy }),
			figure("%.2f", func(s sample) float64 { return s.P50 }),
			spread("%.2f", column(func(s sample) float64 { return s.P99 })),
			figure("%.2f", func(s sample) float64 { return s.P999 }),
			resident, allocs, fmt.Sprint(errors),
		})
	}
	return lines
}

// title says what a row is, and what must be known to read it.
func title(samples []sample, r row) string {
	text := fmt.Sprintf("%d connections, %s of content", r.connections, strings.Trim(r.path, "/"))
	switch {
	case r.idle > 0:
		return fmt.Sprintf("%s: resident memory added by %d idle keep-alive connections, after one request on each", r.name, r.idle)
	case r.echo > 0:
		text = fmt.Sprintf("%d WebSockets, messages of %d bytes and their echo", r.connections, r.echo)
	case r.streams > 0:
		text += fmt.Sprintf(", TLS 1.3, HTTP/2 with %d streams on each", r.streams)
	case r.tls:
		text += ", TLS 1.3, HTTP/1.1"
	}
	others, offered := 0.0, 0.0
	for _, s := range samples {
		if s.Row == r.name {
			others, offered = max(others, s.Others), s.Offered
		}
	}
	if r.percent > 0 {
		text += fmt.Sprintf("; %.0f/s, %d %% of nginx's maximum, Poisson arrivals, latency from when each was due", offered, r.percent)
	} else {
		text += "; closed loop"
	}
	return fmt.Sprintf("%s: %s (others on the proxies' core: at most %.0f %%)", r.name, text, 100*others)
}

// printTable prints lines as columns, the first to the left and the others to the right.
func printTable(out io.Writer, lines [][]string) {
	widths := make([]int, len(lines[0]))
	for _, line := range lines {
		for i, cell := range line {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	for _, line := range lines {
		var text strings.Builder
		for i, cell := range line {
			blanks := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
			if i == 0 {
				text.WriteString(cell + blanks)
			} else {
				text.WriteString("  " + blanks + cell)
			}
		}
		fmt.Fprintln(out, strings.TrimRight(text.String(), " "))
	}
}

// printMarkdown prints lines as Markdown has tables.
func printMarkdown(out io.Writer, lines [][]string) {
	for i, line := range lines {
		fmt.Fprintf(out, "| %s |\n", strings.Join(line, " | "))
		if i == 0 {
			fmt.Fprintf(out, "| --- |%s\n", strings.Repeat(" ---: |", len(line)-1))
		}
	}
}
