package zmtp

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"strings"
)

// A Peer is what the other side said of itself in the handshake.
type Peer struct {
	Type  SocketType
	Minor int // of its ZMTP version 3.x
}

const (
	greetingLen  = 64
	mechanismAt  = 12
	mechanismLen = 20
)

// A Handshake exchanges greetings and READY commands with a peer (RFC 37, "Connection" and
// RFC 23, "The NULL Security Mechanism"). It does no I/O: send what Output
// returns, feed what the peer sends. Run does that on a stream.
//
// The side that accepted the connection answers READY only after it has seen the peer's, so
// that it can refuse a wrong socket type with ERROR; the other side sends its own at once. Neither may
// send anything more before the handshake is done: libzmq takes it for a part of the handshake and hangs up.
type Handshake struct {
	local    SocketType
	accepted bool
	greeted  bool
	done     bool
	in       []byte // of the greeting or command under way
	out      []byte
	peer     Peer
	err      error
}

// Accepting returns the handshake of a socket of type local with a peer that connected to it.
func Accepting(local SocketType) *Handshake { return newHandshake(local, true) }

// Connecting returns the handshake of a socket of type local with the peer it connected to.
func Connecting(local SocketType) *Handshake { return newHandshake(local, false) }

func newHandshake(local SocketType, accepted bool) *Handshake {
	return &Handshake{local: local, accepted: accepted, out: appendGreeting(nil)}
}

// Output returns what is to be sent now and forgets it. There may be some even after an error: an ERROR command.
func (h *Handshake) Output() []byte {
	out := h.out
	h.out = nil
	return out
}

// Done reports whether both sides are ready.
func (h *Handshake) Done() bool { return h.done }

// Peer returns what the peer said, once the handshake is done.
func (h *Handshake) Peer() Peer { return h.peer }

// Want returns how many bytes to read and feed next. More would belong to what follows the handshake.
func (h *Handshake) Want() int {
	want := shortHeader
	switch {
	case h.done || h.err != nil:
		return 0
	case !h.greeted:
		want = greetingLen
	case len(h.in) >= shortHeader && h.in[0]&flagLong != 0 && len(h.in) < longHeader:
		want = longHeader
	case len(h.in) >= shortHeader:
		_, length, size := header(h.in)
		want = length + int(size)
	}
	return min(want-len(h.in), 4<<10)
}

// Feed takes what the peer sent and returns how much of it belongs to the handshake: all, until it
// is done. The error is a *ProtocolError.
func (h *Handshake) Feed(p []byte) (n int, err error) {
	for want := h.Want(); want > 0 && n < len(p); want = h.Want() {
		step := min(want, len(p)-n)
		h.in = append(h.in, p[n:n+step]...)
		n += step
		if h.greeted {
			h.err = h.command()
		} else {
			h.err = h.greeting()
		}
	}
	return n, h.err
}

// Run drives the handshake on conn and returns when it is done. It reads nothing of what follows. The error is a
// *ProtocolError or conn's; any deadline is conn's own.
func (h *Handshake) Run(conn io.ReadWriter) error {
	var p [4 << 10]byte
	for {
		if out := h.Output(); len(out) > 0 {
			if _, err := conn.Write(out); err != nil && h.err == nil {
				return fmt.Errorf("send handshake: %w", err)
			}
		}
		if h.done || h.err != nil {
			return h.err
		}
		n, err := conn.Read(p[:h.Want()])
		h.Feed(p[:n])
		if err != nil && h.err == nil && !h.done {
			return fmt.Errorf("receive handshake: %w", err)
		}
	}
}

func appendGreeting(dst []byte) []byte {
	var g [greetingLen]byte
	g[0], g[9], g[10], g[11] = 0xff, 0x7f, 3, 1
	copy(g[mechanismAt:], "NULL")
	return append(dst, g[:]...)
}

// greeting judges the greeting as early as its bytes allow: who speaks another protocol may never send 64. The
// padding means nothing and libzmq fills it, so it is not looked at; nor is
// as-server, which libzmq leaves at 0 on both sides.
func (h *Handshake) greeting() error {
	g := h.in
	if g[0] != 0xff {
		return &ProtocolError{NotZMTP, "not a ZMTP greeting: " + guess(g)}
	}
	if len(g) > 9 && g[9]&1 == 0 {
		return &ProtocolError{OldVersion, "ZMTP 1.0 is not supported; 3.0 and later are"}
	}
	if len(g) > 10 && g[10] < 3 {
		return &ProtocolError{OldVersion, "ZMTP 1.0 and 2.0 are not supported; 3.0 and later are"}
	}
	if len(g) < greetingLen {
		return nil
	}
	name := g[mechanismAt : mechanismAt+mechanismLen]
	if string(bytes.TrimRight(name, "\x00")) != "NULL" {
		return &ProtocolError{BadMechanism, fmt.Sprintf("security mechanism %q is not supported; NULL is", bytes.TrimRight(name, "\x00"))}
	}
	h.peer.Minor = int(g[11])
	if g[10] > 3 {
		h.peer.Minor = 1 // a later version has to speak ours
	}
	h.greeted = true
	h.in = h.in[:0]
	if !h.accepted {
		h.out = appendReady(h.out, h.local)
	}
	return nil
}

// guess names the protocol that starts with p, for the log of an operator who pointed something else at the port.
func guess(p []byte) string {
	switch {
	case p[0] == 0x16:
		return "this looks like TLS"
	case p[0] >= 'A' && p[0] <= 'Z':
		return "this looks like HTTP"
	case p[0] == 0x01:
		return "this may be ZMTP 1.0"
	}
	return fmt.Sprintf("it starts with %#02x", p[0])
}

// command judges the frame that is to hold READY or ERROR as soon as its header is there.
func (h *Handshake) command() error {
	flags := h.in[0]
	if err := checkFlags(flags); err != nil {
		return err
	}
	if flags&flagCommand == 0 {
		return &ProtocolError{Malformed, "message before READY"}
	}
	if len(h.in) < shortHeader || flags&flagLong != 0 && len(h.in) < longHeader {
		return nil
	}
	_, length, size := header(h.in)
	if size > maxCommand {
		return &ProtocolError{TooLarge, fmt.Sprintf("command of %d bytes in the handshake; the limit is %d", size, maxCommand)}
	}
	if len(h.in) < length+int(size) {
		return nil
	}
	name, data, err := splitCommand(h.in[length:])
	if err != nil {
		return err
	}
	switch string(name) {
	case "READY":
		return h.ready(data)
	case "ERROR":
		return refusal(data)
	}
	return &ProtocolError{Malformed, fmt.Sprintf("command %.20q before READY", name)}
}

func (h *Handshake) ready(metadata []byte) error {
	t, err := socketType(metadata)
	if err != nil {
		return err
	}
	if !h.local.accepts(t) {
		err := &ProtocolError{BadSocketType, fmt.Sprintf("socket type %.20q cannot talk to %s; %s can", string(t), h.local, h.local.counterparts())}
		h.out = appendError(h.out, err.Detail)
		return err
	}
	h.peer.Type = t
	if h.accepted {
		h.out = appendReady(h.out, h.local)
	}
	h.done = true
	h.in = nil
	return nil
}

// refusal makes an error of the data of an ERROR command.
func refusal(data []byte) error {
	if len(data) == 0 || int(data[0]) != len(data)-1 {
		return &ProtocolError{Malformed, "ERROR without a whole reason"}
	}
	return &ProtocolError{Refused, fmt.Sprintf("refused by the peer: %q", data[1:])}
}

// socketType returns the property Socket-Type, which there must be exactly one of; a property's name is
// case-insensitive.
func socketType(metadata []byte) (SocketType, error) {
	if len(metadata) > maxMetadata {
		return "", &ProtocolError{TooLarge, fmt.Sprintf("metadata of %d bytes; the limit is %d", len(metadata), maxMetadata)}
	}
	var found SocketType
	for len(metadata) > 0 {
		name, value, rest, ok := property(metadata)
		if !ok {
			return "", &ProtocolError{Malformed, "READY with a property that is cut short"}
		}
		metadata = rest
		if !strings.EqualFold(string(name), "Socket-Type") {
			continue
		}
		if found != "" || len(value) == 0 {
			return "", &ProtocolError{Malformed, "READY with an empty or second Socket-Type"}
		}
		found = SocketType(value)
	}
	if found == "" {
		return "", &ProtocolError{Malformed, "READY without a Socket-Type"}
	}
	return found, nil
}

// property takes the first property off the metadata: one byte of length, name, four bytes of length, value.
func property(p []byte) (name, value, rest []byte, ok bool) {
	nameEnd := 1 + int(p[0])
	if nameEnd == 1 || len(p) < nameEnd+4 {
		return nil, nil, nil, false
	}
	size := uint64(binary.BigEndian.Uint32(p[nameEnd:]))
	if size > uint64(len(p)-nameEnd-4) {
		return nil, nil, nil, false
	}
	end := nameEnd + 4 + int(size)
	return p[1:nameEnd], p[nameEnd+4 : end], p[end:], true
}
