package supervisor

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// A LogQuery selects lines of output.
type LogQuery struct {
	Service string // required
	Replica int    // 0: all
	Tail    int    // how many of the last lines of each instance first; negative: all that are kept
	Follow  bool   // go on with new lines until ctx is done
}

// A LogLine is one line of an instance's output.
type LogLine struct {
	Time     time.Time `json:"time"`
	Instance string    `json:"instance"` // "web/2"
	Stream   string    `json:"stream"`   // stdout or stderr; mainstay for a word of its own about lines that were skipped
	Text     string    `json:"text"`     // without the line's end; invalid UTF-8 is replaced
	Partial  bool      `json:"partial,omitempty"`
}

// Logs calls emit with each line that q selects, oldest first, until there is no more
// or, following, until ctx is done or the service is removed. A follower that is slower than the service misses lines,
// and is told so. It returns emit's error, ctx's if it is done before the last line, or an error if there is no such service
// or instance.
func (s *Supervisor) Logs(ctx context.Context, q LogQuery, emit func(LogLine) error) error {
	s.mu.Lock()
	svc, ok := s.services[q.Service]
	s.mu.Unlock()
	if !ok {
		return fmt.Errorf("read logs: there is no service %q", q.Service)
	}
	return svc.journal.read(ctx, q, emit)
}

// followerLines is how many lines wait for a follower before it misses some.
const followerLines = 4096

// A follower gets the lines of a service live.
type follower struct {
	replica int // 0: all
	lines   chan followed
}

type followed struct {
	LogLine
	missed int // lines of the same instance before it that there was no room for
}

func (f *follower) wants(replica int) bool { return f.replica == 0 || f.replica == replica }

func (j *journal) read(ctx context.Context, q LogQuery, emit func(LogLine) error) error {
	f := &follower{replica: q.Replica}
	if q.Follow {
		f.lines = make(chan followed, followerLines)
	}
	outputs := j.enter(f, q.Follow)
	defer j.leave(f)
	if len(outputs) == 0 && q.Replica != 0 {
		return fmt.Errorf("read logs: there is no instance %s", instanceID(j.service, q.Replica))
	}
	if err := j.history(ctx, outputs, f, q, emit); err != nil {
		return err
	}
	for q.Follow {
		select {
		case l := <-f.lines:
			if err := l.tell(emit); err != nil {
				return err
			}
		case <-j.ended:
			for len(f.lines) > 0 { // nothing is added any more
				if err := (<-f.lines).tell(emit); err != nil {
					return err
				}
			}
			return nil
		case <-ctx.Done():
			return nil
		}
	}
	return nil
}

// tell emits the line, and before it that others were missed.
func (l followed) tell(emit func(LogLine) error) error {
	if l.missed > 0 {
		text := fmt.Sprintf("%d lines skipped: they came faster than they were read here", l.missed)
		if err := emit(LogLine{Time: l.Time, Instance: l.Instance, Stream: "mainstay", Text: text}); err != nil {
			return err
		}
	}
	return emit(l.LogLine)
}

// enter returns the outputs that there are and, if they are to be followed, makes f a follower of those that will be.
func (j *journal) enter(f *follower, follow bool) []*output {
	j.mu.Lock()
	defer j.mu.Unlock()
	var outputs []*output
	for replica, o := range j.outputs {
		if f.wants(replica) {
			outputs = append(outputs, o)
		}
	}
	if follow {
		j.followers[f] = struct{}{}
	}
	slices.SortFunc(outputs, func(a, b *output) int { return cmp.Compare(a.replica, b.replica) })
	return outputs
}

func (j *journal) leave(f *follower) {
	j.mu.Lock()
	delete(j.followers, f)
	outputs := make([]*output, 0, len(j.outputs))
	for _, o := range j.outputs {
		outputs = append(outputs, o)
	}
	j.mu.Unlock()
	for _, o := range outputs {
		o.mu.Lock()
		delete(o.followers, f)
		o.mu.Unlock()
	}
}

// history emits what each output has kept, in the order of time, and makes f follow it from there on.
func (j *journal) history(ctx context.Context, outputs []*output, f *follower, q LogQuery, emit func(LogLine) error) error {
	var pasts []*past
	defer func() {
		for _, p := range pasts {
			p.close()
		}
	}()
	for _, o := range outputs {
		p, err := o.join(ctx, j.ended, f, q)
		if err != nil {
			return err
		}
		if p.advance() {
			pasts = append(pasts, p)
		} else {
			p.close()
		}
	}
	for len(pasts) > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		oldest := slices.MinFunc(pasts, func(a, b *past) int { return a.line.Time.Compare(b.line.Time) })
		if err := emit(oldest.line); err != nil {
			return err
		}
		if !oldest.advance() {
			oldest.close()
			pasts = slices.DeleteFunc(pasts, func(p *past) bool { return p == oldest })
		}
	}
	return nil
}

// join returns what o has kept and makes f follow it. The writer does it between two writes: what is in the file and what
// waits for it are then all there was, and everything after it reaches f.
func (o *output) join(ctx context.Context, ended <-chan struct{}, f *follower, q LogQuery) (*past, error) {
	var p *past
	var err error
	done := make(chan struct{})
	join := func() {
		defer close(done)
		p, err = o.attach(f, q)
	}
	select {
	case o.joins <- join:
		<-done
		return p, err
	case <-ended:
		return nil, errors.New("read logs: the service has been removed")
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (o *output) attach(f *follower, q LogQuery) (*past, error) {
	o.mu.Lock()
	if q.Follow {
		o.followers[f] = 0
	}
	waiting, queued, recent := bytes.Clone(o.queue), o.queued, slices.Clone(o.recent.kept)
	o.mu.Unlock()

	if o.path == "" || o.lost || o.open() != nil { // memory is better than nothing
		var kept []byte
		if q.Tail >= 0 {
			recent = recent[max(0, len(recent)-q.Tail):]
		}
		for _, l := range recent {
			kept = appendLine(kept, l)
		}
		return newPast(o.instance, nil, kept), nil
	}
	older := q.Tail
	if q.Tail >= 0 {
		older = max(0, q.Tail-queued)
		for ; queued > q.Tail; queued-- {
			waiting = waiting[bytes.IndexByte(waiting, '\n')+1:]
		}
	}
	file, err := o.file.Tail(older)
	if err != nil {
		return nil, fmt.Errorf("read logs: %w", err)
	}
	return newPast(o.instance, file, waiting), nil
}

// A past is the lines that were kept before a moment, one at a time.
type past struct {
	instance string
	file     io.Closer // nil: none
	lines    *bufio.Reader
	line     LogLine // after advance
}

func newPast(instance string, file io.ReadCloser, waiting []byte) *past {
	p := &past{instance: instance}
	readers := []io.Reader{bytes.NewReader(waiting)}
	if file != nil {
		p.file = file
		readers = []io.Reader{file, readers[0]}
	}
	p.lines = bufio.NewReaderSize(io.MultiReader(readers...), 4*lineLimit)
	return p
}

// advance reads the next line, or returns false when there is none.
func (p *past) advance() bool {
	for {
		b, err := p.lines.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			continue // nothing that we wrote is that long
		}
		if err != nil && len(b) == 0 {
			return false
		}
		if l, ok := parseLine(strings.TrimSuffix(string(b), "\n")); ok {
			l.Instance = p.instance
			p.line = l
			return true
		}
	}
}

func (p *past) close() {
	if p.file != nil {
		p.file.Close()
	}
}

// appendLine appends l in the format of the Kubernetes Container Runtime Interface, which collectors of logs read:
// time, stream, P for partial or F for full, text.
func appendLine(b []byte, l LogLine) []byte {
	b = l.Time.AppendFormat(b, time.RFC3339Nano)
	b = append(b, ' ')
	b = append(b, l.Stream...)
	if l.Partial {
		b = append(b, " P "...)
	} else {
		b = append(b, " F "...)
	}
	return append(append(b, l.Text...), '\n')
}

// parseLine reads what appendLine wrote, without the end of the line. It refuses what somebody else wrote.
func parseLine(s string) (l LogLine, ok bool) {
	at, rest, _ := strings.Cut(s, " ")
	stream, rest, _ := strings.Cut(rest, " ")
	tag, text, found := strings.Cut(rest, " ")
	t, err := time.Parse(time.RFC3339Nano, at)
	if err != nil || !found || stream != "stdout" && stream != "stderr" || tag != "P" && tag != "F" {
		return LogLine{}, false
	}
	return LogLine{Time: t, Stream: stream, Text: text, Partial: tag == "P"}, true
}
