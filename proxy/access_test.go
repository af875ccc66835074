package proxy

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// A disk is a file whose writes wait for, or fail with, what the test says.
type disk struct {
	bytes.Buffer
	gate   chan struct{}
	err    error
	closed bool
}

func (d *disk) Write(p []byte) (int, error) {
	<-d.gate
	if d.err != nil {
		return 0, d.err
	}
	return d.Buffer.Write(p)
}

func (d *disk) Close() error {
	d.closed = true
	return nil
}

// TestAccessLogNeverWaits has a disk that does not answer: requests go on, and what was lost is counted.
func TestAccessLogNeverWaits(t *testing.T) {
	d := &disk{gate: make(chan struct{})}
	var dropped atomic.Int64
	a := startAccessLog(slog.New(slog.DiscardHandler), d, func(n int) { dropped.Add(int64(n)) })
	line := record{Path: "/x"}
	size := len(line.append(nil, &clock{}))
	total := 4 * accessLogQueue / size
	for range total {
		a.write(&line)
	}
	close(d.gate)
	a.close()
	a.write(&record{Path: "/late"})
	lines := bytes.Count(d.Bytes(), []byte("\n"))
	if lines < accessLogQueue/size || lines > 2*accessLogQueue/size+2 || lines+int(dropped.Load()) != total+1 || !d.closed {
		t.Errorf("%d lines, %d dropped of %d, closed %t", lines, dropped.Load(), total, d.closed)
	}
}

func TestAccessLogFailingDisk(t *testing.T) {
	d := &disk{gate: make(chan struct{}), err: errors.New("no space left on device")}
	close(d.gate)
	var dropped atomic.Int64
	var log bytes.Buffer
	a := startAccessLog(slog.New(slog.NewTextHandler(&log, nil)), d, func(n int) { dropped.Add(int64(n)) })
	for range 100 {
		a.write(&record{})
	}
	a.close()
	if dropped.Load() != 100 || strings.Count(log.String(), "access log lost lines") != 1 {
		t.Errorf("%d dropped, logged %s", dropped.Load(), log.String())
	}
}

func TestAccessLogLine(t *testing.T) {
	r := newRig(t)
	r.instance("web", "web/1", echo)
	r.do("POST", "/a%20b?token=secret", strings.NewReader("12345"), "Authorization", "Bearer secret", "User-Agent", "test <1>")
	rec := r.log(1)[0]
	if rec.Duration <= 0 || rec.Upstream <= 0 || rec.Upstream > rec.Duration || time.Since(rec.Time) > time.Minute || !isRequestID(rec.ID) {
		t.Errorf("logged %+v", rec)
	}
	rec.Time, rec.Duration, rec.Upstream, rec.ID = time.Time{}, 0, 0, ""
	want := record{
		Client: "127.0.0.1", Method: "POST", Host: r.address(), Path: "/a%20b", Protocol: "HTTP/1.1", UserAgent: "test <1>",
		Status: 200, BytesIn: 5, BytesOut: 5, Route: "/", Service: "web", Instance: "web/1", Attempts: 1,
	}
	if d := cmp.Diff(want, rec); d != "" {
		t.Error(d)
	}
	if b, _ := json.Marshal(rec); bytes.Contains(b, []byte("secret")) {
		t.Errorf("a secret was logged: %s", b)
	}
}
