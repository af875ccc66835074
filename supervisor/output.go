package supervisor

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"mainstay/logfile"
)

const (
	queueLimit = 1 << 20 // bytes that wait for the disk
	// patience is how long a process may be made to wait for the disk before its lines are dropped: long
	// enough for a burst to pass into a healthy one.
	patience = 10 * time.Millisecond

	// Unless the service says otherwise.
	fileLimit = 10 << 20 // bytes of a log file
	filesKept = 4        // beside the one that is written to

	recentLines, recentBytes = 100, 64 << 10 // kept in memory for each place
)

// An output takes the lines of one place, of whichever process fills it, and never makes one wait for long.
// There is a goroutine that writes them while there are any. Whoever has the turn, it or one who reads, may touch the file.
type output struct {
	journal  *journal
	instance string
	replica  int
	path     string // empty: no file
	log      *slog.Logger
	dropped  prometheus.Counter
	turn     chan struct{} // has room for the one whose turn it is

	// Of whose turn it is.
	file   *logfile.File // nil: not open
	lost   bool          // the last write failed
	closed bool

	mu        sync.Mutex
	writing   bool          // the writer is there
	queue     []byte        // encoded lines that wait for it
	queued    int           // how many
	space     chan struct{} // closed when the writer has taken the queue; nil: nobody waits
	behind    bool          // the queue was full for longer than our patience
	last      time.Time     // of the last line
	recent    ring
	followers map[*follower]int // lines that each has missed since the last it got
}

func newOutput(j *journal, replica int) *output {
	o := &output{
		journal: j, instance: instanceID(j.service, replica), replica: replica,
		log: j.log, dropped: j.dropped,
		turn:      make(chan struct{}, 1),
		followers: map[*follower]int{},
		recent:    ring{lines: recentLines, bytes: recentBytes},
	}
	if j.dir != "" {
		o.path = filepath.Join(j.dir, strconv.Itoa(replica)+".log")
	}
	return o
}

// add takes one line.
func (o *output) add(stream string, text []byte, partial bool) {
	line := LogLine{
		Instance: o.instance, Stream: stream,
		Text: string(bytes.ToValidUTF8(text, []byte("\uFFFD"))), Partial: partial,
	}
	o.mu.Lock()
	if len(o.queue) >= queueLimit && !o.behind {
		o.awaitSpaceLocked()
	}
	defer o.mu.Unlock()
	// No two lines in a row have the same time, by which a follower finds where it was.
	if line.Time = time.Now(); line.Time.Equal(o.last) {
		line.Time = line.Time.Add(1)
	}
	o.last = line.Time
	o.recent.add(line)
	for f, missed := range o.followers {
		select {
		case f.lines <- followed{line, missed, o.path != ""}:
			o.followers[f] = 0
		default:
			o.followers[f] = missed + 1
			if o.path != "" {
				f.fallBehind()
			}
		}
	}
	if o.path == "" {
		return
	}
	if len(o.queue) >= queueLimit {
		o.dropped.Inc()
		return
	}
	o.queue = appendLine(o.queue, line)
	o.queued++
	if !o.writing {
		o.writing = true
		o.journal.writers.Go(o.write)
	}
}

// awaitSpaceLocked waits until there is space in the queue, but not for long. It lets go of the mutex meanwhile.
func (o *output) awaitSpaceLocked() {
	if o.space == nil {
		o.space = make(chan struct{})
	}
	space := o.space
	o.mu.Unlock()
	t := time.NewTimer(patience)
	select {
	case <-space:
	case <-t.C:
	}
	t.Stop()
	o.mu.Lock()
	o.behind = len(o.queue) >= queueLimit
}

// write is the writer. It takes all that waits at once, so that a slow disk sees few and large writes, and ends when nothing does.
func (o *output) write() {
	var spare []byte
	for {
		o.turn <- struct{}{}
		batch, lines := o.take(spare)
		rotated := lines > 0 && o.writeBatch(batch)
		<-o.turn
		if lines == 0 {
			return
		}
		if rotated {
			o.journal.archive.trim()
		}
		if spare = batch; cap(spare) > 64<<10 {
			spare = nil // a burst's buffer is not kept
		}
	}
}

// take returns what waits, and leaves spare in its place. Without a line there is no writer any more.
func (o *output) take(spare []byte) (batch []byte, lines int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	batch, lines = o.queue, o.queued
	o.queue, o.queued, o.behind = spare[:0], 0, false
	if o.space != nil {
		close(o.space)
		o.space = nil
	}
	if lines == 0 {
		o.queue, o.writing = nil, false
	}
	return batch, lines
}

// writeBatch reports whether a full file was put aside for it. A file takes no more of a batch than its bound.
func (o *output) writeBatch(batch []byte) (rotated bool) {
	err := o.open()
	if err == nil {
		before := o.file.Rotations()
		size, _ := o.journal.limits()
		for len(batch) > 0 && err == nil {
			part := wholeLines(batch, size)
			if _, err = o.file.Write(part); err == nil {
				batch = batch[len(part):]
			}
		}
		rotated = o.file.Rotations() != before
	}
	if err != nil {
		o.dropped.Add(float64(bytes.Count(batch, []byte{'\n'})))
		if !o.lost { // once for each time that it begins
			o.log.Warn("output lost", "instance", o.instance, "err", err)
		}
	}
	o.lost = err != nil
	return rotated
}

// wholeLines returns as many of the lines that lines begins with as have room in size bytes, but one at least.
func wholeLines(lines []byte, size int64) []byte {
	if int64(len(lines)) <= size {
		return lines
	}
	end := bytes.LastIndexByte(lines[:size], '\n')
	if end < 0 {
		end = bytes.IndexByte(lines, '\n')
	}
	return lines[:end+1]
}

// open makes file one that can be written to, within the bounds that hold now.
func (o *output) open() error {
	size, keep := o.journal.limits()
	if o.file != nil {
		o.file.Bound(size, keep)
		return nil
	}
	file, err := logfile.Open(o.path, size, keep)
	o.file = file
	return err
}

// close closes the file. Nobody writes any more.
func (o *output) close() {
	o.turn <- struct{}{}
	defer func() { <-o.turn }()
	o.closed = true
	if o.file != nil {
		o.file.Close()
	}
}

// join returns what o has kept and makes f follow it. It does so between two writes: what is in the file and what
// waits for the writer are then all there was, and everything after it reaches f.
func (o *output) join(ctx context.Context, f *follower, q LogQuery) (*past, error) {
	select {
	case o.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-o.turn }()

	o.mu.Lock()
	if q.Follow {
		o.followers[f] = 0
	}
	if !o.last.IsZero() {
		f.seen[o.instance] = o.last
	}
	waiting, queued, recent, last := bytes.Clone(o.queue), o.queued, slices.Clone(o.recent.kept), o.last
	o.mu.Unlock()

	n, since := q.Tail, q.Since
	if after, ok := q.after(o.instance); ok {
		n, since = -1, after
		if _, one := q.After[o.instance]; one && last.Before(after) {
			since = time.Time{} // the clock may have been set back, and the times that files have tell nothing
		}
	}
	if q.filters() && n > 0 {
		n = -1 // of those that are selected, which are not known yet
	}
	switch {
	case o.closed && o.file == nil:
		return newPast(o.instance, nil, nil), nil
	case o.path == "" || o.lost || !o.closed && o.open() != nil: // memory is better than nothing
		if n >= 0 {
			recent = recent[max(0, len(recent)-n):]
		}
		waiting = nil
		for _, l := range recent {
			waiting = appendLine(waiting, l)
		}
		return newPast(o.instance, nil, waiting), nil
	}
	older := n
	if n >= 0 {
		older = max(0, n-queued)
		for ; queued > n; queued-- {
			waiting = waiting[bytes.IndexByte(waiting, '\n')+1:]
		}
	}
	file, err := o.file.Tail(older, since)
	if err != nil {
		return nil, fmt.Errorf("read logs: %w", err)
	}
	return newPast(o.instance, file, waiting), nil
}

// A ring keeps the last lines, as many as both limits allow.
type ring struct {
	lines, bytes int
	kept         []LogLine
	size         int
}

func (r *ring) add(l LogLine) {
	r.kept = append(r.kept, l)
	r.size += len(l.Text)
	for len(r.kept) > r.lines || r.size > r.bytes && len(r.kept) > 1 {
		r.size -= len(r.kept[0].Text)
		r.kept[0] = LogLine{}
		r.kept = r.kept[1:]
	}
}
