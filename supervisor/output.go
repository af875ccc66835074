package supervisor

import (
	"bytes"
	"log/slog"
	"path/filepath"
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

	fileLimit = 10 << 20 // bytes of a log file
	filesKept = 4        // beside the one that is written to

	recentLines, recentBytes = 100, 64 << 10 // kept in memory for each place
)

// A journal is the output of one service: an output for each place that it has ever had, and those who follow it.
type journal struct {
	service string
	dir     string // empty: nothing is written to a disk
	log     *slog.Logger
	dropped prometheus.Counter
	ended   chan struct{} // closed by close
	writers sync.WaitGroup

	mu        sync.Mutex
	outputs   map[int]*output // by replica
	followers map[*follower]struct{}
}

func newJournal(service, stateDir string, log *slog.Logger, dropped prometheus.Counter) *journal {
	j := &journal{
		service: service, log: log, dropped: dropped, ended: make(chan struct{}),
		outputs: map[int]*output{}, followers: map[*follower]struct{}{},
	}
	if stateDir != "" {
		j.dir = filepath.Join(stateDir, "logs", service)
	}
	return j
}

// output returns where the lines of a place go.
func (j *journal) output(replica int) *output {
	j.mu.Lock()
	defer j.mu.Unlock()
	if o, ok := j.outputs[replica]; ok {
		return o
	}
	o := &output{
		instance: instanceID(j.service, replica),
		replica:  replica,
		log:      j.log, dropped: j.dropped,
		space: make(chan struct{}), wake: make(chan struct{}, 1), joins: make(chan func()),
		followers: map[*follower]int{},
		recent:    ring{lines: recentLines, bytes: recentBytes},
	}
	if j.dir != "" {
		o.path = filepath.Join(j.dir, strconv.Itoa(replica)+".log")
	}
	for f := range j.followers {
		if f.wants(replica) {
			o.followers[f] = 0
		}
	}
	j.outputs[replica] = o
	j.writers.Go(func() { o.write(j.ended) })
	return o
}

// close ends the journal once what it was given is written. Nothing may be added after it.
func (j *journal) close() {
	close(j.ended)
	j.writers.Wait()
}

// An output takes the lines of one place, of whichever process fills it, and never makes one wait for long.
// Its writer goroutine alone touches the file.
type output struct {
	instance string
	replica  int
	path     string // empty: no file
	log      *slog.Logger
	dropped  prometheus.Counter
	wake     chan struct{} // there is something to write
	joins    chan func()   // run by the writer between two writes

	file *logfile.File // the writer's; nil: not open
	lost bool          // the writer's: the last write failed

	mu        sync.Mutex
	queue     []byte        // encoded lines that wait for the writer
	queued    int           // how many
	space     chan struct{} // closed when the writer has taken the queue, then another
	behind    bool          // the queue was full for longer than our patience
	recent    ring
	followers map[*follower]int // lines that each has missed since the last it got
}

// add takes one line.
func (o *output) add(stream string, text []byte, partial bool) {
	line := LogLine{
		Time: time.Now(), Instance: o.instance, Stream: stream,
		Text: string(bytes.ToValidUTF8(text, []byte("\uFFFD"))), Partial: partial,
	}
	o.mu.Lock()
	if len(o.queue) >= queueLimit && !o.behind {
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
	defer o.mu.Unlock()
	o.recent.add(line)
	for f, missed := range o.followers {
		select {
		case f.lines <- followed{line, missed}:
			o.followers[f] = 0
		default:
			o.followers[f] = missed + 1
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
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// write is the writer: it takes all that waits at once, so that a slow disk sees few and large writes.
func (o *output) write(ended <-chan struct{}) {
	var spare []byte
	flush := func() {
		o.mu.Lock()
		batch, lines := o.queue, o.queued
		o.queue, o.queued, o.behind = spare[:0], 0, false
		close(o.space)
		o.space = make(chan struct{})
		o.mu.Unlock()
		if lines > 0 {
			o.writeBatch(batch, lines)
		}
		if spare = batch; cap(spare) > 64<<10 {
			spare = nil // a burst's buffer is not kept for ever
		}
	}
	for {
		select {
		case <-o.wake:
			flush()
		case join := <-o.joins:
			join()
		case <-ended:
			flush()
			if o.file != nil {
				o.file.Close()
			}
			return
		}
	}
}

func (o *output) writeBatch(batch []byte, lines int) {
	err := o.open()
	if err == nil {
		_, err = o.file.Write(batch)
	}
	if err != nil {
		o.dropped.Add(float64(lines))
		if !o.lost { // once for each time that it begins
			o.log.Warn("output lost", "instance", o.instance, "err", err)
		}
	}
	o.lost = err != nil
}

func (o *output) open() error {
	if o.file != nil {
		return nil
	}
	file, err := logfile.Open(o.path, fileLimit, filesKept)
	o.file = file
	return err
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
