package zmtp

import (
	"fmt"
	"time"
)

// A Kind says what a Decoder has found.
type Kind uint8

const (
	None    Kind = iota // nothing whole: more bytes are needed
	Message             // a whole message
	Command             // a whole command
)

// A Decoder finds the messages and commands in a peer's bytes after the
// handshake. It works in memory that the caller lends it: read into Free, tell
// Wrote how much, then call Next until it returns None. When Free is empty or that memory is to be
// kept, lend it other memory with Swap; what has not been returned yet moves there.
//
// Commands may come between the frames of a message, which libzmq does although
// the grammar of RFC 37 has no place for it; they are taken out, so that a message is always
// contiguous. All work is linear in the bytes received, whatever their order.
//
// A Decoder is for one goroutine.
type Decoder struct {
	limits Limits
	buf    []byte
	end    int // of the bytes received
	start  int // of the message under way, or where the next one starts
	joined int // end of its frames found so far, side by side from start
	scan   int // where the next frame starts; above joined where commands were taken out

	frames   int // of the message under way
	size     int // of their bodies
	need     int // length from start to the end of the frame under way, if it is known
	topicAt  int // from start
	topicLen int

	message, messageEnd int    // the message that Next returned
	name, data          []byte // the command that Next returned
}

// NewDecoder returns a Decoder that works in buf until the first Swap.
func NewDecoder(limits Limits, buf []byte) *Decoder {
	return &Decoder{limits: limits, buf: buf}
}

// Free returns the memory that the next bytes are to be read into.
func (d *Decoder) Free() []byte { return d.buf[d.end:] }

// Wrote says that n more bytes have been read into Free.
func (d *Decoder) Wrote(n int) { d.end += n }

// Pending returns the number of bytes that no message or command has been found in yet.
func (d *Decoder) Pending() int { return d.end - d.start }

// Cap returns the size of the lent memory.
func (d *Decoder) Cap() int { return len(d.buf) }

// Need returns how many bytes, of which Pending are there, the frame under way needs before
// Next can go on, as far as its header tells; 0 if that is unknown.
func (d *Decoder) Need() int { return d.need }

// Rewind moves the pending bytes to the start of the memory, so that Free is as large as it
// can be. What Next returned before is overwritten.
func (d *Decoder) Rewind() {
	if d.start > 0 {
		d.move(d.buf)
	}
}

// Swap moves the pending bytes into buf, which must have more room than that, and works there from now on.
func (d *Decoder) Swap(buf []byte) { d.move(buf) }

func (d *Decoder) move(buf []byte) {
	copy(buf, d.buf[d.start:d.end])
	d.buf = buf
	d.end, d.joined, d.scan = d.end-d.start, d.joined-d.start, d.scan-d.start
	d.start = 0
}

// Next finds the next message or command. After an error, which is a
// *ProtocolError, the stream is of no further use.
func (d *Decoder) Next() (Kind, error) {
	for {
		p := d.buf[d.scan:d.end]
		if len(p) == 0 {
			return d.starve(0), nil
		}
		if err := checkFlags(p[0]); err != nil {
			return None, err
		}
		if len(p) < shortHeader || p[0]&flagLong != 0 && len(p) < longHeader {
			return d.starve(0), nil
		}
		flags, length, size := header(p)
		if err := d.check(flags, size); err != nil {
			return None, err
		}
		total := length + int(size)
		if len(p) < total {
			return d.starve(total), nil
		}
		if flags&flagCommand != 0 {
			return d.command(p[length:total], total)
		}
		if d.frames == 0 {
			d.topicAt, d.topicLen = length, int(size)
		}
		if d.joined < d.scan {
			copy(d.buf[d.joined:], p[:total])
		}
		d.joined += total
		d.scan += total
		d.frames++
		d.size += int(size)
		if flags&flagMore == 0 {
			d.message, d.messageEnd = d.start, d.joined
			d.start, d.joined = d.scan, d.scan
			d.frames, d.size, d.need = 0, 0, 0
			return Message, nil
		}
	}
}

// starve closes the gap that commands left in the message under way, so that what is pending
// is nothing but that message, and notes what the frame under way needs, if that is not 0.
func (d *Decoder) starve(frame int) Kind {
	if d.joined < d.scan {
		d.end = d.joined + copy(d.buf[d.joined:], d.buf[d.scan:d.end])
		d.scan = d.joined
	}
	d.need = 0
	if frame > 0 {
		d.need = d.scan - d.start + frame
	}
	return None
}

func checkFlags(flags byte) error {
	if flags&^flagsKnown != 0 {
		return &ProtocolError{Malformed, fmt.Sprintf("frame with reserved flags %#02x", flags)}
	}
	if flags&(flagCommand|flagMore) == flagCommand|flagMore {
		return &ProtocolError{Malformed, "command with the MORE flag"}
	}
	return nil
}

// check holds a frame's announced size against the limits.
func (d *Decoder) check(flags byte, size uint64) error {
	if flags&flagCommand != 0 {
		if size > uint64(d.limits.Command) {
			return &ProtocolError{TooLarge, fmt.Sprintf("command of %d bytes; the limit is %d", size, d.limits.Command)}
		}
		return nil
	}
	if d.frames == d.limits.Frames {
		return &ProtocolError{TooLarge, fmt.Sprintf("message of more than %d frames", d.limits.Frames)}
	}
	if size > uint64(d.limits.Message-d.size) {
		return &ProtocolError{TooLarge, fmt.Sprintf("message of more than %d bytes", d.limits.Message)}
	}
	return nil
}

// command takes the command at the scan position apart and steps over its total bytes.
func (d *Decoder) command(body []byte, total int) (Kind, error) {
	var err error
	if d.name, d.data, err = splitCommand(body); err != nil {
		return None, err
	}
	d.scan += total
	if d.frames == 0 {
		d.start, d.joined = d.scan, d.scan
	}
	return Command, nil
}

// Span returns where in the lent memory the message lies that Next returned.
func (d *Decoder) Span() (start, end int) { return d.message, d.messageEnd }

// Encoded returns the message that Next returned, valid until the memory is read into, rewound or swapped.
func (d *Decoder) Encoded() []byte { return d.buf[d.message:d.messageEnd] }

// Topic returns the body of the first frame of the message that Next returned, valid as long as Encoded.
func (d *Decoder) Topic() []byte {
	at := d.message + d.topicAt
	return d.buf[at : at+d.topicLen]
}

// Name returns the name of the command that Next returned, valid until Next is called again.
func (d *Decoder) Name() []byte { return d.name }

// Data returns the data of the command that Next returned, valid until Next is called again.
func (d *Decoder) Data() []byte { return d.data }

// Subscription reports whether what Next returned, of that kind, is the start (subscribe) or the
// end of a subscription, and to which prefix. Both forms are understood whatever
// the version, as libzmq does: the commands of 3.1, and the message of one frame that starts with 1 or 0.
func (d *Decoder) Subscription(kind Kind) (prefix []byte, subscribe, ok bool) {
	if kind == Command {
		switch string(d.name) {
		case "SUBSCRIBE":
			return d.data, true, true
		case "CANCEL":
			return d.data, false, true
		}
		return nil, false, false
	}
	topic := d.Topic()
	single := d.messageEnd-d.message == d.topicAt+d.topicLen
	if !single || len(topic) == 0 || topic[0] > 1 {
		return nil, false, false
	}
	return topic[1:], topic[0] == 1, true
}

// Ping reports whether the command that Next returned is a PING: with its context, to be returned in
// a PONG, and the time within which the peer promises to be heard again, 0 for no promise.
func (d *Decoder) Ping() (context []byte, ttl time.Duration, ok bool, err error) {
	if string(d.name) != "PING" {
		return nil, 0, false, nil
	}
	// RFC 37: two octets of TTL in tenths of a second, up to 16 of context.
	if len(d.data) < 2 || len(d.data) > 2+16 {
		return nil, 0, false, &ProtocolError{Malformed, fmt.Sprintf("PING with %d bytes of data", len(d.data))}
	}
	ttl = time.Duration(d.data[0])<<8 | time.Duration(d.data[1])
	return d.data[2:], ttl * (time.Second / 10), true, nil
}

// splitCommand takes the body of a command frame apart.
func splitCommand(body []byte) (name, data []byte, err error) {
	if len(body) == 0 || body[0] == 0 || int(body[0]) >= len(body) {
		return nil, nil, &ProtocolError{Malformed, "command without a whole name"}
	}
	end := 1 + int(body[0])
	return body[1:end], body[end:], nil
}
