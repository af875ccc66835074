package zmtp

import (
	"encoding/binary"
	"time"
)

// The flags of a frame (RFC 37, "Framing"); the bits above are reserved and zero.
const (
	flagMore    = 1 << 0
	flagLong    = 1 << 1
	flagCommand = 1 << 2
	flagsKnown  = flagMore | flagLong | flagCommand
)

const (
	shortHeader = 2 // flags, one byte of size
	longHeader  = 9 // flags, eight bytes of size
	maxShort    = 255
)

// AppendMessage appends the encoded message of the given frames, at least one, to dst.
func AppendMessage(dst []byte, frames ...[]byte) []byte {
	for i, body := range frames {
		var flags byte
		if i < len(frames)-1 {
			flags = flagMore
		}
		dst = appendHeader(dst, flags, len(body))
		dst = append(dst, body...)
	}
	return dst
}

// AppendPing appends a PING that promises another sign of life within ttl (rounded to tenths of a
// second; 0 promises nothing) and carries context, at most 16 bytes, which the PONG will return.
func AppendPing(dst []byte, ttl time.Duration, context []byte) []byte {
	dst = appendCommand(dst, "PING", 2+len(context))
	dst = binary.BigEndian.AppendUint16(dst, uint16(ttl/(time.Second/10)))
	return append(dst, context...)
}

// AppendPong appends the answer to a PING with that context.
func AppendPong(dst, context []byte) []byte {
	return append(appendCommand(dst, "PONG", len(context)), context...)
}

// AppendSubscribe appends the subscription to a prefix in the form that the peer's version asks
// for: a command since 3.1, before that a message of which the first byte is 1.
func AppendSubscribe(dst []byte, peer Peer, prefix []byte) []byte {
	return appendSubscription(dst, peer, "SUBSCRIBE", 1, prefix)
}

// AppendCancel appends the end of a subscription, like AppendSubscribe with a first byte of 0.
func AppendCancel(dst []byte, peer Peer, prefix []byte) []byte {
	return appendSubscription(dst, peer, "CANCEL", 0, prefix)
}

func appendSubscription(dst []byte, peer Peer, command string, first byte, prefix []byte) []byte {
	if peer.Minor >= 1 {
		return append(appendCommand(dst, command, len(prefix)), prefix...)
	}
	dst = append(appendHeader(dst, 0, 1+len(prefix)), first)
	return append(dst, prefix...)
}

// appendError appends an ERROR command; only the first 255 bytes of reason are sent.
func appendError(dst []byte, reason string) []byte {
	reason = reason[:min(len(reason), maxShort)]
	dst = append(appendCommand(dst, "ERROR", 1+len(reason)), byte(len(reason)))
	return append(dst, reason...)
}

// appendReady appends a READY command with the socket type as its only property.
func appendReady(dst []byte, t SocketType) []byte {
	const name = "Socket-Type"
	dst = appendCommand(dst, "READY", 1+len(name)+4+len(t))
	dst = append(dst, byte(len(name)))
	dst = append(dst, name...)
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(t)))
	return append(dst, t...)
}

// appendCommand appends a command up to its data, of which size bytes are to follow.
func appendCommand(dst []byte, name string, size int) []byte {
	dst = appendHeader(dst, flagCommand, 1+len(name)+size)
	dst = append(dst, byte(len(name)))
	return append(dst, name...)
}

func appendHeader(dst []byte, flags byte, size int) []byte {
	if size <= maxShort {
		return append(dst, flags, byte(size))
	}
	return binary.BigEndian.AppendUint64(append(dst, flags|flagLong), uint64(size))
}

// header reads the frame header at the start of p, which must hold a whole one.
func header(p []byte) (flags byte, length int, size uint64) {
	if p[0]&flagLong != 0 {
		return p[0], longHeader, binary.BigEndian.Uint64(p[1:longHeader])
	}
	return p[0], shortHeader, uint64(p[1])
}

// MessageLen returns the length of the first message in encoded, which must be whole messages
// that a Decoder returned or AppendMessage made.
func MessageLen(encoded []byte) int {
	at := 0
	for {
		flags, length, size := header(encoded[at:])
		at += length + int(size)
		if flags&flagMore == 0 {
			return at
		}
	}
}

// CountMessages returns how many whole messages are in the first n bytes of encoded, which must be whole messages.
func CountMessages(encoded []byte, n int) int {
	count := 0
	for at := 0; at < n; count++ {
		if at += MessageLen(encoded[at:]); at > n {
			break
		}
	}
	return count
}

// Frames returns the bodies of the frames of one encoded message, which they share memory with.
func Frames(encoded []byte) [][]byte {
	var frames [][]byte
	for at := 0; at < len(encoded); {
		_, length, size := header(encoded[at:])
		body := at + length
		at = body + int(size)
		frames = append(frames, encoded[body:at:at])
	}
	return frames
}
