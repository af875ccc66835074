// Package zmtp speaks ZMTP 3.1 and 3.0, the wire protocol of ZeroMQ, for the
// publish-subscribe socket types (ZeroMQ RFC 37, 23 and 29) with the NULL mechanism.
//
// The protocol itself does no I/O, so that it can be driven by a goroutine, an
// event loop or a fuzzer alike. A [Handshake] is fed what the peer sent and says
// what to send, until both greetings and READY commands are exchanged. After that
// a [Decoder] finds messages and commands in the memory it is given, at whatever
// places the stream was cut; the Append functions encode. A message stays in its
// encoded form, all frames with their headers: the bytes that a publisher
// sent are the bytes that a subscriber gets.
//
// Whatever a peer announces is checked against [Limits] before anything is
// allocated for it. What a peer does wrong is a [ProtocolError] with a reason from
// a short list, fit for a metric's label.
//
// [Conn] is the blocking client on top, for programs that publish or subscribe.
package zmtp

// A SocketType is the role a peer announces in its READY command.
type SocketType string

// The socket types of publish-subscribe. A publisher is PUB or XPUB, a subscriber is SUB or XSUB; the
// X types expose subscriptions to the application, on the wire they are the same.
const (
	PUB  SocketType = "PUB"
	SUB  SocketType = "SUB"
	XPUB SocketType = "XPUB"
	XSUB SocketType = "XSUB"
)

// accepts reports whether a socket of type t may be connected to one of type peer.
func (t SocketType) accepts(peer SocketType) bool {
	if t.publishes() {
		return peer == SUB || peer == XSUB
	}
	return peer == PUB || peer == XPUB
}

func (t SocketType) publishes() bool { return t == PUB || t == XPUB }

// counterparts names the types that t accepts, for an error message.
func (t SocketType) counterparts() string {
	if t.publishes() {
		return "SUB or XSUB"
	}
	return "PUB or XPUB"
}

// Limits bound what a peer can make the decoder hold.
type Limits struct {
	Message int // bytes of a message, all its frames' bodies together
	Frames  int // frames of a message
	Command int // bytes of a command, its name included
}

// DefaultLimits are 64 MiB and 65,536 frames for a message, 64 KiB for a command.
func DefaultLimits() Limits {
	return Limits{Message: 64 << 20, Frames: 64 << 10, Command: maxCommand}
}

const (
	maxCommand  = 64 << 10 // also of a command within the handshake
	maxMetadata = 16 << 10 // of a READY command
)

// A Reason classifies a ProtocolError.
type Reason string

const (
	NotZMTP       Reason = "not_zmtp"    // another protocol altogether
	OldVersion    Reason = "old_version" // ZMTP 1.0 or 2.0
	BadMechanism  Reason = "mechanism"   // a security mechanism that is not offered here
	BadSocketType Reason = "socket_type" // a socket type that cannot talk to ours
	Malformed     Reason = "malformed"   // bytes that the protocol does not allow
	TooLarge      Reason = "too_large"   // something over its limit
	Refused       Reason = "refused"     // the peer sent ERROR
)

// A ProtocolError says what a peer did that ends its connection.
type ProtocolError struct {
	Reason Reason
	Detail string
}

// Error returns the detail.
func (e *ProtocolError) Error() string { return e.Detail }
