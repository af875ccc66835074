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
	"time"
)

// h2loadBegin is what h2load says when it begins.
const h2loadBegin = "Main benchmark duration is started"

// h2loadCommand returns what sends l over TLS in a closed loop, with so many streams on each connection; of 0, it is HTTP/1.1.
func h2loadCommand(l load, streams int, log string) []string {
	// It has no warm-up of its own, as it would count the warm-up's bytes but not its responses, and lasts a little longer than is measured:
	// what is measured are the responses that its log has of that time. Its lines are flushed as they are printed.
	whole := l.Warm + l.Time + 300*time.Millisecond
	command := []string{"stdbuf", "-oL", "h2load", "-t", strconv.Itoa(min(l.Threads, l.Connections)), "-c", strconv.Itoa(l.Connections),
		"-D", fmt.Sprintf("%dms", whole.Milliseconds()), "--log-file=" + log}
	if streams == 0 {
		command = append(command, "--h1")
	} else {
		command = append(command, "-m", strconv.Itoa(streams))
	}
	return append(command, "https://"+l.Address+l.Path)
}

// parseH2load reads what h2load printed of a run in which each response's content has so many bytes, and its log, of which the responses between
// from and to are measured. Every response must be 2xx, and the bytes of content those of the responses: more by at most what was under way at
// the end.
func parseH2load(out string, log io.Reader, l load, streams, size int, from, to time.Time) (loadResult, error) {
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
	r.Total, r.Seconds = number(requests[2]), to.Sub(from).Seconds()
	r.Errors = number(requests[3]) + number(requests[4]) + number(requests[5])
	if r.Errors > 0 {
		r.FirstError = requests[0]
	}
	if good := number(statuses[1]); good < r.Total {
		r.Errors += r.Total - good
		r.FirstError = statuses[0]
	}
	content, underWay := number(traffic[1]), l.Connections*max(1, streams)*size
	if content < r.Total*size || content > r.Total*size+underWay {
		r.Errors++
		r.FirstError = fmt.Sprintf("%d bytes of content in %d responses of %d", content, r.Total, size)
	}
	var latencies []int64
	for lines := bufio.NewScanner(log); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) < 3 {
			continue
		}
		begun, err := strconv.ParseInt(fields[0], 10, 64)
		took, err2 := strconv.ParseInt(fields[2], 10, 64)
		if err != nil || err2 != nil {
			return r, fmt.Errorf("not a line of h2load's log: %q", lines.Text())
		}
		if end := begun + took; end < from.UnixMicro() || end > to.UnixMicro() {
			continue
		}
		r.Requests++
		latencies = append(latencies, took*1000)
	}
	slices.Sort(latencies)
	r.P50, r.P99, r.P999, r.Max = percentile(latencies, 50), percentile(latencies, 99), percentile(latencies, 99.9), percentile(latencies, 100)
	return r, nil
}
