package zmtp

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"
)

func greetingOf(major, minor byte, mechanism string) string {
	g := append([]byte{0xff, 0, 0, 0, 0, 0, 0, 0, 1, 0x7f, major, minor}, mechanism...)
	return string(append(g, make([]byte, greetingLen-len(g))...))
}

func readyOf(properties ...string) string {
	var data []byte
	for i := 0; i < len(properties); i += 2 {
		data = append(append(data, byte(len(properties[i]))), properties[i]...)
		data = append(binary.BigEndian.AppendUint32(data, uint32(len(properties[i+1]))), properties[i+1]...)
	}
	return string(append(appendCommand(nil, "READY", len(data)), data...))
}

func TestHandshake(t *testing.T) {
	null := greetingOf(3, 1, "NULL")
	tests := []struct {
		name   string
		stream string
		reason Reason // empty: it succeeds
		peer   Peer
		answer string // what is sent besides the greeting
	}{
		{name: "SUB", stream: null + readyOf("Socket-Type", "SUB"), peer: Peer{SUB, 1}, answer: readyOf("Socket-Type", "XPUB")},
		{name: "XSUB of ZMTP 3.0", stream: greetingOf(3, 0, "NULL") + readyOf("Socket-Type", "XSUB"), peer: Peer{XSUB, 0}, answer: readyOf("Socket-Type", "XPUB")},
		{name: "later version", stream: greetingOf(4, 0, "NULL") + readyOf("Socket-Type", "SUB"), peer: Peer{SUB, 1}, answer: readyOf("Socket-Type", "XPUB")},
		{name: "other properties", stream: null + readyOf("Identity", "", "socket-type", "SUB", "X-more", "x"), peer: Peer{SUB, 1}, answer: readyOf("Socket-Type", "XPUB")},
		{name: "long READY", stream: null + readyOf("Socket-Type", "SUB", "X-more", strings.Repeat("x", 1000)), peer: Peer{SUB, 1}, answer: readyOf("Socket-Type", "XPUB")},

		{name: "HTTP", stream: "GET / HTTP/1.1\r\n", reason: NotZMTP},
		{name: "TLS", stream: "\x16\x03\x01\x02\x00\x01", reason: NotZMTP},
		{name: "ZMTP 1.0 without identity", stream: "\x01\x00", reason: NotZMTP},
		{name: "ZMTP 1.0 with a long length", stream: "\xff\x00\x00\x00\x00\x00\x00\x00\x05\x00ident", reason: OldVersion},
		{name: "ZMTP 2.0", stream: "\xff\x00\x00\x00\x00\x00\x00\x00\x01\x7f\x01\x02\x00\x00", reason: OldVersion},
		{name: "CURVE", stream: greetingOf(3, 1, "CURVE"), reason: BadMechanism},
		{name: "NULLX", stream: greetingOf(3, 1, "NULLX"), reason: BadMechanism},
		{name: "no mechanism", stream: greetingOf(3, 1, ""), reason: BadMechanism},

		{name: "PUB", stream: null + readyOf("Socket-Type", "PUB"), reason: BadSocketType,
			answer: string(appendError(nil, `socket type "PUB" cannot talk to XPUB; SUB or XSUB can`))},
		{name: "FOO", stream: null + readyOf("Socket-Type", "FOO"), reason: BadSocketType,
			answer: string(appendError(nil, `socket type "FOO" cannot talk to XPUB; SUB or XSUB can`))},
		{name: "ERROR", stream: null + string(appendError(nil, "no")), reason: Refused},
		{name: "ERROR cut", stream: null + "\x04\x08\x05ERROR\x05n", reason: Malformed},
		{name: "no Socket-Type", stream: null + readyOf("Identity", "x"), reason: Malformed},
		{name: "two Socket-Types", stream: null + readyOf("Socket-Type", "SUB", "SOCKET-TYPE", "SUB"), reason: Malformed},
		{name: "empty Socket-Type", stream: null + readyOf("Socket-Type", ""), reason: Malformed},
		{name: "cut property", stream: null + "\x04\x0b\x05READY\x0bSock", reason: Malformed},
		{name: "cut value", stream: null + "\x04\x18\x05READY\x0bSocket-Type\x00\x00\x00\x09SU", reason: Malformed},
		{name: "value of 4 GiB", stream: null + "\x04\x18\x05READY\x0bSocket-Type\xff\xff\xff\xffSU", reason: Malformed},
		{name: "empty property name", stream: null + "\x04\x0b\x05READY\x00\x00\x00\x00\x00", reason: Malformed},
		{name: "huge metadata", stream: null + readyOf("Socket-Type", "SUB", "X", strings.Repeat("x", maxMetadata)), reason: TooLarge},
		{name: "huge command", stream: null + "\x06\x00\x00\x00\x00\x00\x01\x00\x01", reason: TooLarge},
		{name: "command of 2^63", stream: null + "\x06\x80\x00\x00\x00\x00\x00\x00\x00", reason: TooLarge},
		{name: "message", stream: null + "\x00\x01x", reason: Malformed},
		{name: "other command", stream: null + "\x04\x07\x04PING\x00\x00", reason: Malformed},
		{name: "command with MORE", stream: null + "\x05\x07", reason: Malformed},
		{name: "reserved flags", stream: null + "\x0c\x07", reason: Malformed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := Accepting(XPUB)
			greeting := h.Output()
			if want := greetingOf(3, 1, "NULL"); string(greeting[9:]) != want[9:] {
				t.Errorf("sent greeting %q before anything came", greeting)
			}
			const rest = "what follows"
			n, err := h.Feed([]byte(tt.stream + rest))
			if got := reason(err); got != tt.reason {
				t.Fatalf("reason %q (%v), want %q", got, err, tt.reason)
			}
			if answer := string(h.Output()); answer != tt.answer {
				t.Errorf("answered %q, want %q", answer, tt.answer)
			}
			if tt.reason != "" {
				return
			}
			if !h.Done() || n != len(tt.stream) || h.Peer() != tt.peer {
				t.Errorf("done: %v, took %d of %d bytes, peer is %+v", h.Done(), n, len(tt.stream), h.Peer())
			}
		})
	}
}

func TestHandshakeOfBothSides(t *testing.T) {
	for _, local := range []SocketType{PUB, SUB, XPUB, XSUB} {
		for _, remote := range []SocketType{PUB, SUB, XPUB, XSUB} {
			a, b := Connecting(local), Accepting(remote)
			var errA, errB error
			for range 3 {
				_, errB = b.Feed(a.Output())
				_, errA = a.Feed(b.Output())
			}
			fit := local.publishes() != remote.publishes()
			if a.Done() != fit || b.Done() != fit {
				t.Errorf("%s to %s: done %v (%v) and %v (%v)", local, remote, a.Done(), errA, b.Done(), errB)
			}
			if !fit && (reason(errA) != Refused || reason(errB) != BadSocketType) {
				t.Errorf("%s to %s: errors %v and %v", local, remote, errA, errB)
			}
		}
	}
}

func FuzzHandshake(f *testing.F) {
	for _, s := range recordings(f) {
		f.Add(s, 1, true)
		f.Add(s, 11, false)
	}
	f.Add([]byte(greetingOf(3, 1, "NULL")+readyOf("Socket-Type", "SUB", "Identity", "x")), 5, true)
	f.Add([]byte(greetingOf(3, 0, "NULL")+string(appendError(nil, "no"))), 64, false)
	f.Fuzz(func(t *testing.T, stream []byte, piece int, accepting bool) {
		if piece < 1 {
			return
		}
		local := XPUB
		if accepting {
			local = XSUB
		}
		whole, parts := newHandshake(local, accepting), newHandshake(local, accepting)
		n, err := whole.Feed(stream)
		fed := 0
		for fed < len(stream) && parts.Want() > 0 {
			step, failed := parts.Feed(stream[fed:min(len(stream), fed+piece)])
			fed += step
			if failed != nil {
				break
			}
		}
		// In parts an error may be seen earlier.
		if err == nil && fed != n || reason(parts.err) != reason(err) || parts.Done() != whole.Done() || parts.Peer() != whole.Peer() {
			t.Errorf("whole: %d bytes, %v, %v; in parts: %d bytes, %v, %v", n, err, whole.Done(), fed, parts.err, parts.Done())
		}
		if !bytes.Equal(whole.Output(), parts.Output()) {
			t.Error("answers differ")
		}
		if cap(whole.in) > 2*(n+longHeader)+4<<10 {
			t.Errorf("holds %d bytes after %d", cap(whole.in), n)
		}
	})
}
