package logfile

import (
	"bytes"
	"errors"
	"io"
	"os"
)

// Tail returns the last n lines that are kept, or all of them if n is negative, oldest first. What is read is what was
// there at the time of the call: neither later writes nor rotations show. The caller closes it.
func (f *File) Tail(n int) (io.ReadCloser, error) {
	parts, err := f.parts()
	if err != nil {
		return nil, err
	}
	t := &tail{parts: parts}
	var readers []io.Reader
	for i := len(parts) - 1; i >= 0 && n != 0; i-- { // newest first
		from, lines := int64(0), 0
		if n > 0 {
			if from, lines, err = lastLines(parts[i].file, parts[i].size, n); err != nil {
				return nil, errors.Join(err, t.Close())
			}
			n -= lines
		}
		readers = append([]io.Reader{io.NewSectionReader(parts[i].file, from, parts[i].size-from)}, readers...)
	}
	t.Reader = io.MultiReader(readers...)
	return t, nil
}

type part struct {
	file *os.File
	size int64
}

type tail struct {
	io.Reader
	parts []part
}

func (t *tail) Close() error {
	var err error
	for _, p := range t.parts {
		err = errors.Join(err, p.file.Close())
	}
	return err
}

// parts opens every file that is kept, oldest first, all at one moment: a rename changes nothing for what is open,
// and what is appended later lies beyond the size noted here.
func (f *File) parts() ([]part, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var parts []part
	for i := f.keep; i >= 0; i-- {
		file, err := os.Open(f.old(i))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, errors.Join(err, (&tail{parts: parts}).Close())
		}
		info, err := file.Stat()
		if err != nil {
			return nil, errors.Join(err, file.Close(), (&tail{parts: parts}).Close())
		}
		parts = append(parts, part{file, info.Size()})
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
