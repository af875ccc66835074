package supervisor

import (
	"bufio"
	"bytes"
	"container/heap"
	"context"
	"errors"
	"io"
	"strings"
	"time"

	"mainstay/logfile"
)

// A past is the lines of one place that were kept before a moment, one at a time.
type past struct {
	instance string
	file     *logfile.Tail // nil: none
	waiting  []byte        // what follows it
	lines    *bufio.Reader
	line     LogLine // after advance
	gap      bool    // lines before it were asked for and are not kept any more
}

func newPast(instance string, file *logfile.Tail, waiting []byte) *past {
	p := &past{instance: instance, file: file, waiting: waiting}
	p.rewind()
	return p
}

// rewind makes the next advance begin anew.
func (p *past) rewind() {
	var r io.Reader = bytes.NewReader(p.waiting)
	if p.file != nil {
		p.file.Rewind()
		r = io.MultiReader(p.file, r)
	}
	p.lines = bufio.NewReaderSize(r, 4*lineLimit)
}

// read reads the next line, or returns false when there is none.
func (p *past) read() bool {
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

// advance reads the next line that q selects, or returns false when there is none.
func (p *past) advance(q LogQuery) bool {
	for p.read() {
		if q.selects(p.line) {
			return true
		}
	}
	return false
}

// begin reads the first line that q asks for, or returns false when there is none.
func (p *past) begin(ctx context.Context, q LogQuery) (bool, error) {
	if after, ok := q.after(p.instance); ok {
		return p.resume(ctx, q, after)
	}
	if q.Tail < 0 || !q.filters() {
		return p.advance(q), ctx.Err()
	}
	// Which are the last lines that q selects is only known after all have been seen; they may be too many to hold.
	n := 0
	for ; p.advance(q); n++ {
		if ctx.Err() != nil {
			return false, ctx.Err()
		}
	}
	p.rewind()
	for ; n > q.Tail; n-- {
		p.advance(q)
	}
	return p.advance(q), ctx.Err()
}

// resume reads the line after the one at that time, which somebody has already. If that one is not kept any more, it reads the first that
// is later.
func (p *past) resume(ctx context.Context, q LogQuery, after time.Time) (bool, error) {
	known, n := 0, 0 // lines up to that one, and all
	for p.read() {
		if n++; n == 1 {
			_, one := q.After[p.instance]
			p.gap = one && p.line.Time.After(after)
		}
		if p.line.Time.Equal(after) {
			known = n
		}
		if ctx.Err() != nil {
			return false, ctx.Err()
		}
	}
	p.rewind()
	for range known {
		p.read()
	}
	q.Since = time.Time{} // was for where there is no line to go on after
	for p.advance(q) {
		if known > 0 || p.line.Time.After(after) {
			return true, nil
		}
	}
	return false, ctx.Err()
}

func (p *past) close() {
	if p.file != nil {
		p.file.Close()
	}
}

// pasts are those of several places, the one with the oldest line first.
type pasts []*past

func (p pasts) Len() int           { return len(p) }
func (p pasts) Less(i, j int) bool { return p[i].line.Time.Before(p[j].line.Time) }
func (p pasts) Swap(i, j int)      { p[i], p[j] = p[j], p[i] }
func (p *pasts) Push(x any)        { *p = append(*p, x.(*past)) }

func (p *pasts) Pop() any {
	last := (*p)[len(*p)-1]
	*p = (*p)[:len(*p)-1]
	return last
}

// history emits what each output has kept, in the order of time, and makes f follow it from there on.
func history(ctx context.Context, outputs []*output, f *follower, q LogQuery, emit func(LogLine) error) error {
	var all pasts
	defer func() {
		for _, p := range all {
			p.close()
		}
	}()
	for _, o := range outputs {
		p, err := o.join(ctx, f, q)
		if err != nil {
			return err
		}
		some, err := p.begin(ctx, q)
		if err != nil || !some {
			p.close()
		}
		if err != nil {
			return err
		}
		if some {
			all = append(all, p)
		}
	}
	heap.Init(&all)
	for len(all) > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		p := all[0]
		if p.gap {
			p.gap = false
			if err := emit(LogLine{Time: p.line.Time, Instance: p.instance, Stream: "mainstay", Text: "lines skipped: they were removed before they were read here"}); err != nil {
				return err
			}
		}
		if err := emit(p.line); err != nil {
			return err
		}
		one := q
		if _, ok := q.after(p.instance); ok {
			one.Since = time.Time{}
		}
		if p.advance(one) {
			heap.Fix(&all, 0)
		} else {
			heap.Pop(&all).(*past).close()
		}
	}
	return nil
}
