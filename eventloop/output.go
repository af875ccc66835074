//go:build linux

package eventloop

// Marks for how much waits in an Output.
const (
	HighWater = 256 << 10 // with more, whoever fills it should stop
	LowWater  = 64 << 10  // with no more, it should go on
)

// An Output is what waits to be written to a socket. Its zero value is empty. What it holds is in the loop's buffers; give it up
// with Drop.
type Output struct {
	first, last *Buffer
	size        int
}

// Size returns how many bytes wait.
func (o *Output) Size() int { return o.size }

// Full reports whether more than HighWater waits.
func (o *Output) Full() bool { return o.size > HighWater }

// Drained reports whether no more than LowWater waits.
func (o *Output) Drained() bool { return o.size <= LowWater }

// Write writes p to s at once, as far as s takes it and nothing waits before it, and keeps a copy of the rest. All of p is taken
// unless it returns an error, after which nothing more can be written.
func (o *Output) Write(s *Socket, p []byte) error {
	if o.size == 0 {
		n, err := s.Write(p)
		if err != nil {
			return err
		}
		p = p[n:]
	}
	if len(p) > 0 {
		o.Append(s.loop, p)
	}
	return nil
}

// Append keeps a copy of p, to be written by Flush.
func (o *Output) Append(l *Loop, p []byte) {
	o.size += len(p)
	for {
		if o.last != nil {
			p = p[o.last.Append(p):]
		}
		if len(p) == 0 {
			return
		}
		o.link(l.Buffer(min(len(p), LargeBuffer)))
	}
}

// WriteBuffer is Write for what is in b, without a copy; b is the output's from then on, also if it returns an error.
func (o *Output) WriteBuffer(s *Socket, b *Buffer) error {
	if o.size == 0 && b.Len() > 0 {
		n, err := s.Write(b.Bytes())
		if err != nil {
			b.Release()
			return err
		}
		b.Discard(n)
	}
	o.AppendBuffer(b)
	return nil
}

// AppendBuffer keeps b, to be written by Flush.
func (o *Output) AppendBuffer(b *Buffer) {
	if b.Len() == 0 {
		b.Release()
		return
	}
	o.size += b.Len()
	o.link(b)
}

func (o *Output) link(b *Buffer) {
	if o.last == nil {
		o.first = b
	} else {
		o.last.next = b
	}
	o.last = b
}

// Flush writes what waits, as far as s takes it. After an error nothing more can be written.
func (o *Output) Flush(s *Socket) error {
	for o.first != nil && s.Writable() {
		var slices [parts][]byte
		count := 0
		for b := o.first; b != nil && count < parts; b = b.next {
			slices[count] = b.Bytes()
			count++
		}
		var n int
		var err error
		if count == 1 {
			n, err = s.Write(slices[0])
		} else {
			n, err = s.Writev(slices[:count]...)
		}
		if err != nil {
			return err
		}
		o.discard(n)
	}
	return nil
}

// discard takes the first n bytes out.
func (o *Output) discard(n int) {
	o.size -= n
	for o.first != nil {
		b := o.first
		if part := min(n, b.Len()); part < b.Len() {
			b.Discard(part)
			return
		}
		n -= b.Len()
		o.first, b.next = b.next, nil
		if o.first == nil {
			o.last = nil
		}
		b.Release()
	}
}

// Drop gives up what waits.
func (o *Output) Drop() { o.discard(o.size) }
