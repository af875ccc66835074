package restic

import (
	"io"
	"sync"
)

// readStep is how much is read at a time once a chunk may end.
const readStep = 256 << 10

// A chunkReader reads a file chunk by chunk.
type chunkReader struct {
	cutter  *cutter
	buffers *buffers
	file    io.Reader
	ended   bool
	rest    []byte // read, but behind the last chunk's end; never more than readStep
}

func (c *chunkReader) reset(file io.Reader) {
	c.file, c.ended, c.rest = file, false, c.rest[:0]
}

// next returns the next chunk, in a buffer that the caller gives back. size is what is thought to be left of the file.
// The error is io.EOF when there is nothing left.
func (c *chunkReader) next(size int64) ([]byte, error) {
	chunk := c.buffers.take(int(min(max(size, int64(len(c.rest))), minChunk)))
	chunk = append(chunk, c.rest...)
	c.rest = c.rest[:0]
	for want := minChunk; ; want = min(len(chunk)+readStep, maxChunk) {
		seen := len(chunk)
		var err error
		if chunk, err = c.fill(chunk, want); err != nil {
			c.buffers.give(chunk)
			return nil, err
		}
		if end := c.end(chunk, seen); end != 0 {
			c.rest = append(c.rest, chunk[end:]...)
			return chunk[:end], nil
		}
		if c.ended {
			if len(chunk) == 0 {
				c.buffers.give(chunk)
				return nil, io.EOF
			}
			return chunk, nil
		}
	}
}

// end returns where chunk, of which the first seen bytes were searched, is to be cut, or 0.
func (c *chunkReader) end(chunk []byte, seen int) int {
	if len(chunk) < minChunk {
		return 0
	}
	if end := c.cutter.find(chunk, max(seen, minChunk-1), len(chunk)); end != 0 {
		return end
	}
	if len(chunk) == maxChunk {
		return maxChunk
	}
	return 0
}

// fill reads until chunk has want bytes or the file ends.
func (c *chunkReader) fill(chunk []byte, want int) ([]byte, error) {
	for len(chunk) < want && !c.ended {
		if len(chunk) == cap(chunk) {
			larger := append(c.buffers.take(len(chunk)+1), chunk...)
			c.buffers.give(chunk)
			chunk = larger
		}
		n, err := c.file.Read(chunk[len(chunk):min(cap(chunk), want)])
		chunk = chunk[:len(chunk)+n]
		if err == io.EOF {
			c.ended = true
		} else if err != nil {
			return chunk, err
		}
	}
	return chunk, nil
}

// A buffers lends buffers for chunks, plain or sealed. Few sizes, so that few are idle.
type buffers struct {
	pools [len(bufferSizes)]sync.Pool
}

var bufferSizes = [...]int{8 << 10, 64 << 10, minChunk, 2 << 20, maxChunk}

// sealSlack is more than sealing and compression can add to a chunk.
const sealSlack = 4 << 10

// take returns an empty buffer for at least size bytes, and sealSlack.
func (b *buffers) take(size int) []byte {
	for i, most := range bufferSizes {
		if size > most {
			continue
		}
		if p, ok := b.pools[i].Get().(*[]byte); ok {
			return (*p)[:0]
		}
		return make([]byte, 0, most+sealSlack)
	}
	return make([]byte, 0, size+sealSlack)
}

// give takes a buffer back.
func (b *buffers) give(p []byte) {
	for i, most := range bufferSizes {
		if cap(p) == most+sealSlack {
			p = p[:0]
			b.pools[i].Put(&p)
		}
	}
}
