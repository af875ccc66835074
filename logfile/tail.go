package logfile

import (
	"bytes"
	"errors"
	"io"
	"os"
	"time"
)

// A Tail is what was in a File at one moment: neither later writes nor rotations show.
type Tail struct {
	io.Reader
	parts []part // oldest first
}

// Tail returns the last n lines that are kept, or all of them if n is negative, oldest first. Files that were last
// written to before since are left out. The caller closes it.
func (f *File) Tail(n int, since time.Time) (*Tail, error) {
	parts, err := f.parts(since)
	if err != nil {
		return nil, err
	}
	t := &Tail{}
	for i := len(parts) - 1; i >= 0; i-- { // newest first
		p := parts[i]
		if n == 0 {
			err = errors.Join(err, p.file.Close())
			continue
		}
		if n > 0 {
			var lines int
			var wrong error
			if p.from, lines, wrong = lastLines(p.file, p.size, n); wrong != nil {
				err = errors.Join(err, wrong)
			}
			n -= lines
		}
		t.parts = append([]part{p}, t.parts...)
	}
	if err != nil {
		return nil, errors.Join(err, t.Close())
	}
	t.Rewind()
	return t, nil
}

// Rewind makes the next Read begin anew.
func (t *Tail) Rewind() {
	readers := make([]io.Reader, 0, len(t.parts))
	for _, p := range t.parts {
		readers = append(readers, io.NewSectionReader(p.file, p.from, p.size-p.from))
	}
	t.Reader = io.MultiReader(readers...)
}

// Close closes the files.
func (t *Tail) Close() error {
	var err error
	for _, p := range t.parts {
		err = errors.Join(err, p.file.Close())
	}
	return err
}

// A part is what is read of one file.
type part struct {
	file *os.File
	from int64
	size int64 // until there
}

// parts opens every file that is kept and was written to after since, oldest first, all at one moment: a rename changes
// nothing for what is open, and what is appended later lies beyond the size noted here.
func (f *File) parts(since time.Time) ([]part, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var parts []part
	for i := f.keep; i >= 0; i-- {
		if info, err := os.Stat(f.old(i)); err == nil && info.ModTime().Before(since) {
			continue
		}
		file, err := os.Open(f.old(i))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, errors.Join(err, (&Tail{parts: parts}).Close())
		}
		info, err := file.Stat()
		if err != nil {
			return nil, errors.Join(err, file.Close(), (&Tail{parts: parts}).Close())
		}
		parts = append(parts, part{file: file, size: info.Size()})
	}
	return parts, nil
}

// lastLines returns where the last n lines within size begin and how many of them there are. A line without
// its end is a line.
func lastLines(r io.ReaderAt, size int64, n int) (from int64, lines int, err error) {
	const step = 64 << 10
	block := make([]byte, step)
	for end := size; end > 0; {
		start := max(0, end-step)
		b := block[:end-start]
		if _, err := r.ReadAt(b, start); err != nil {
			return 0, 0, err
		}
		for i := len(b); i > 0; {
			i = bytes.LastIndexByte(b[:i], '\n')
			if i < 0 {
				break
			}
			at := start + int64(i) + 1 // where a line begins
			if at == size {
				continue // the end of the last line
			}
			if lines++; lines == n {
				return at, lines, nil
			}
		}
		end = start
	}
	if size > 0 {
		lines++ // the first one follows no newline
	}
	return 0, lines, nil
}
