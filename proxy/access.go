package proxy

import (
	"bytes"
	"encoding/json"
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
	accessLogQueue = 4096     // records that wait for the disk
	accessLogBatch = 64 << 10 // bytes of one write
	accessTextSize = 1024     // of what the client chose freely
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

// An accessLog writes records to a file without making requests wait for the disk.
type accessLog struct {
	log     *slog.Logger
	dropped func(records int)
	file    io.WriteCloser
	done    chan struct{}

	mu     sync.RWMutex
	closed bool
	queue  chan record // closed with mu held
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
		queue: make(chan record, accessLogQueue), done: make(chan struct{}),
	}
	go a.run()
	return a
}

// write queues the record. When the disk does not keep up, it is dropped and counted.
func (a *accessLog) write(r record) {
	r.Path, r.UserAgent = clip(r.Path), clip(r.UserAgent)
	a.mu.RLock()
	defer a.mu.RUnlock()
	if !a.closed {
		select {
		case a.queue <- r:
			return
		default:
		}
	}
	a.dropped(1)
}

// close writes what is queued and closes the file.
func (a *accessLog) close() {
	a.mu.Lock()
	a.closed = true
	close(a.queue)
	a.mu.Unlock()
	<-a.done
}

func (a *accessLog) run() {
	defer close(a.done)
	failing := false
	var batch bytes.Buffer
	encoder := json.NewEncoder(&batch)
	encoder.SetEscapeHTML(false)
	for r := range a.queue {
		batch.Reset()
		lines := 0
		for more := true; more; {
			// A record holds nothing that cannot be encoded.
			_ = encoder.Encode(r)
			lines++
			if more = batch.Len() < accessLogBatch; more {
				select {
				case r, more = <-a.queue:
				default:
					more = false
				}
			}
		}
		_, err := a.file.Write(batch.Bytes())
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
