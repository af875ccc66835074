//go:build linux

package main

import (
	"bufio"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// h2load says when it begins to count and when it stops.
const (
	h2loadBegin = "Main benchmark duration is started"
	h2loadEnd   = "Main benchmark duration is over"
)

// h2loadCommand returns what sends l over TLS in a closed loop, with so many streams on each connection; of 0, it is HTTP/1.1.
func h2loadCommand(l load, streams int, log string) []string {
	// Lines are flushed as they are printed, so that CPU time is read at the right moments.
	command := []string{"stdbuf", "-oL", "h2load", "-t", strconv.Itoa(min(l.Threads, l.Connections)), "-c", strconv.Itoa(l.Connections),
		"--warm-up-time=" + l.Warm.String(), "-D", l.Time.String(), "--log-file=" + log}
	if streams == 0 {
		command = append(command, "--h1")
	} else {
		command = append(command, "-m", strconv.Itoa(streams))
	}
	return append(command, "https://"+l.Address+l.Path)
}

// parseH2load reads what h2load printed of a run in which each response's content has so many bytes, and its log. Every response must be 2xx,
// and the bytes of content those of the responses: more by at most what was under way at the end.
func parseH2load(out string, log io.Reader, l load, streams, size int) (loadResult, error) {
	var r loadResult
	requests := regexp.MustCompile(`requests: .* (\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout`).FindStringSubmatch(out)
	statuses := regexp.MustCompile(`status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx`).FindStringSubmatch(out)
	traffic := regexp.MustCompile(`traffic: .* \((\d+)\) data`).FindStringSubmatch(out)
	if requests == nil || statuses == nil || traffic == nil {
		return r, fmt.Errorf("not h2load's summary: %.2000q", out)
	}
	if !strings.Contains(out, "TLS Protocol: TLSv1.3") {
		return r, fmt.Errorf("h2load did not speak TLS 1.3: %.2000q", out)
	}
	number := func(text string) int { n, _ := strconv.Atoi(text); return n }
	want := "http/1.1"
	if streams > 0 {
		want = "h2"
	}
	if !strings.Contains(out, "Application protocol: "+want) {
		return r, fmt.Errorf("h2load did not speak %s: %.2000q", want, out)
	}
	r.Requests = number(requests[2])
	r.Total, r.Seconds = r.Requests, l.Time.Seconds()
	r.Errors = number(requests[3]) + number(requests[4]) + number(requests[5])
	if r.Errors > 0 {
		r.FirstError = requests[0]
	}
	if good := number(statuses[1]); good < r.Requests {
		r.Errors += r.Requests - good
		r.FirstError = statuses[0]
	}
	content, underWay := number(traffic[1]), l.Connections*max(1, streams)*size
	if content < r.Requests*size-underWay || content > r.Requests*size+underWay {
		r.Errors++
		r.FirstError = fmt.Sprintf("%d bytes of content in %d responses of %d", content, r.Requests, size)
	}
	var latencies []int64
	for lines := bufio.NewScanner(log); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) < 3 {
			continue
		}
		if n, err := strconv.ParseInt(fields[2], 10, 64); err == nil {
			latencies = append(latencies, n*1000)
		}
	}
	slices.Sort(latencies)
	r.P50, r.P99, r.P999, r.Max = percentile(latencies, 50), percentile(latencies, 99), percentile(latencies, 99.9), percentile(latencies, 100)
	return r, nil
}
