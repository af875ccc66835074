package proxy

import (
	"io"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"mainstay/logfile"
)

// These bound what the access log costs on disk and in memory.
const (
	accessLogSize  = 10 << 20 // of one file
	accessLogKeep  = 5        // files beside the newest
	accessLogQueue = 1 << 20  // bytes that wait for the disk
	accessLogBatch = 64 << 10 // bytes that are written at once, without waiting for more
	accessLogDelay = 50 * time.Millisecond
	accessTextSize = 1024 // of what the client chose freely
)

// A record is one line of the access log. It never holds a query string or a header field other than
// User-Agent: tokens, session keys and addresses of people travel there, and logs are kept and read by others.
type record struct {
	Time      time.Time `json:"time"` // when the request's header had come
	ID        string    `json:"id"`
	Client    string    `json:"client"`
	Method    string    `json:"method"`
	Host      string    `json:"host"`
	Path      string    `json:"path"`
	Protocol  string    `json:"protocol"`
	TLS       string    `json:"tls,omitempty"` // version
	UserAgent string    `json:"user_agent,omitempty"`

	Status   int     `json:"status"`
	Reason   reason  `json:"reason"` // empty: the instance's response was sent on whole
	BytesIn  int64   `json:"bytes_in"`
	BytesOut int64   `json:"bytes_out"` // of content
	Duration float64 `json:"duration_seconds"`

	Route    string  `json:"route,omitempty"` // host and path prefix as in the file
	Service  string  `json:"service,omitempty"`
	Fallback string  `json:"fallback,omitempty"` // the service that stood in
	Instance string  `json:"instance,omitempty"` // of the last attempt
	Attempts int     `json:"attempts"`
	Held     float64 `json:"held_seconds,omitempty"` // of waiting until there was an instance
	Upstream float64 `json:"upstream_seconds"`       // of waiting for instances, up to the response's header
}

// An accessLog writes records to a file without making requests wait for the disk: lines are gathered for accessLogDelay, or until
// there is a batch, and written by a goroutine of its own.
type accessLog struct {
	log     *slog.Logger
	dropped func(lines int)
	file    io.WriteCloser
	begun   chan struct{} // receives when the first line has come
	filled  chan struct{} // receives when there is a batch
	done    chan struct{}

	mu     sync.Mutex
	lines  []byte // that wait for the writer
	count  int    // how many
	closed bool   // begun is, too
	clock  clock
}

// openAccessLog opens the log in the directory and starts its writer.
func openAccessLog(log *slog.Logger, dir string, dropped func(int)) (*accessLog, error) {
	file, err := logfile.Open(filepath.Join(dir, "access.log"), accessLogSize, accessLogKeep)
	if err != nil {
		return nil, err
	}
	return startAccessLog(log, file, dropped), nil
}

func startAccessLog(log *slog.Logger, file io.WriteCloser, dropped func(int)) *accessLog {
	a := &accessLog{
		log: log, dropped: dropped, file: file,
		begun: make(chan struct{}, 1), filled: make(chan struct{}, 1), done: make(chan struct{}),
	}
	go a.run()
	return a
}

// write queues a line. Nothing of the record is used when it has returned. When the disk does not keep up, the line is dropped and counted.
func (a *accessLog) write(r *record) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed || len(a.lines) >= accessLogQueue {
		a.dropped(1)
		return
	}
	first, before := a.count == 0, len(a.lines)
	a.lines = r.append(a.lines, &a.clock)
	a.count++
	if first {
		notify(a.begun)
	}
	if before < accessLogBatch && len(a.lines) >= accessLogBatch {
		notify(a.filled)
	}
}

// notify wakes who receives from c, now or when it looks next.
func notify(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// close writes what is queued and closes the file.
func (a *accessLog) close() {
	a.mu.Lock()
	a.closed = true
	close(a.begun)
	notify(a.filled)
	a.mu.Unlock()
	<-a.done
}

func (a *accessLog) run() {
	defer close(a.done)
	var batch []byte
	failing := false
	delay := time.NewTimer(accessLogDelay)
	defer delay.Stop()
	for more := true; more; {
		if _, more = <-a.begun; more {
			delay.Reset(accessLogDelay)
			select {
			case <-a.filled:
			case <-delay.C:
			}
		}
		a.mu.Lock()
		lines := a.count
		batch, a.lines, a.count = a.lines, batch[:0], 0
		a.mu.Unlock()
		if lines == 0 {
			continue
		}
		_, err := a.file.Write(batch)
		if err != nil {
			a.dropped(lines)
		}
		if err != nil && !failing {
			a.log.Warn("access log lost lines", "error", err)
		}
		failing = err != nil
	}
	if err := a.file.Close(); err != nil {
		a.log.Warn("access log not closed", "error", err)
	}
}

func clip(s string) string {
	if len(s) > accessTextSize {
		return s[:accessTextSize]
	}
	return s
}
