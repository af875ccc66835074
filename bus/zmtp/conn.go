package zmtp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"
)

const (
	handshakeTimeout = 10 * time.Second
	idleTimeout      = 10 * time.Second // without a byte from the peer: ask with a PING
	silentIntervals  = 3                // idle times without a byte: the peer is gone
	usualBuffer      = 16 << 10
)

// A Conn is a socket of one connection: a publisher or subscriber as a client. One goroutine may receive
// while others send. Receive has to be called all the time, as it is also what
// answers the peer's heartbeats and finds a dead peer out.
type Conn struct {
	conn net.Conn
	peer Peer
	dec  *Decoder

	mu  sync.Mutex // over writes, so that a PONG never comes within a message
	out []byte
}

// Dial connects to a TCP address, host:port, as a socket of type local. It blocks until the handshake is done,
// ten seconds at most, or ctx is done. The error is a *ProtocolError if the peer is not one to talk to.
func Dial(ctx context.Context, address string, local SocketType, limits Limits) (*Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	h := Connecting(local)
	err = h.Run(conn)
	if !stop() {
		err = ctx.Err()
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("connect to %s: %w", address, err)
	}
	return &Conn{conn: conn, peer: h.Peer(), dec: NewDecoder(limits, make([]byte, usualBuffer))}, nil
}

// Peer returns what the peer said in the handshake.
func (c *Conn) Peer() Peer { return c.peer }

// Send writes one message. It blocks while the peer takes nothing.
func (c *Conn) Send(frames ...[]byte) error {
	return c.send(func(dst []byte) []byte { return AppendMessage(dst, frames...) })
}

// Subscribe asks for messages whose first frame starts with prefix.
func (c *Conn) Subscribe(prefix []byte) error {
	return c.send(func(dst []byte) []byte { return AppendSubscribe(dst, c.peer, prefix) })
}

func (c *Conn) send(encode func(dst []byte) []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.out = encode(c.out[:0])
	_, err := c.conn.Write(c.out)
	if cap(c.out) > 1<<20 {
		c.out = nil
	}
	return err
}

// Receive returns the frames of the next message, which are the caller's to keep. A publisher is given
// subscriptions as messages of one frame, 1 or 0 and then the prefix, as libzmq's XPUB does.
// The error is a *ProtocolError or the connection's: io.EOF when the peer has closed it.
func (c *Conn) Receive() ([][]byte, error) {
	for {
		kind, err := c.dec.Next()
		if err != nil {
			return nil, err
		}
		switch kind {
		case None:
			if err := c.fill(); err != nil {
				return nil, err
			}
		case Message:
			return Frames(append([]byte(nil), c.dec.Encoded()...)), nil
		case Command:
			if prefix, subscribe, ok := c.dec.Subscription(kind); ok {
				first := byte(0)
				if subscribe {
					first = 1
				}
				return [][]byte{append([]byte{first}, prefix...)}, nil
			}
			if err := c.answer(); err != nil {
				return nil, err
			}
		}
	}
}

// answer returns a PING's context in a PONG. Any other command needs no answer, and an unknown one is to be ignored.
func (c *Conn) answer() error {
	echo, _, ok, err := c.dec.Ping()
	if err != nil || !ok {
		return err
	}
	return c.send(func(dst []byte) []byte { return AppendPong(dst, echo) })
}

// fill reads what there is, asking with a PING when nothing comes for a while. Peers older than 3.1
// know no heartbeat; for them TCP's own keep-alive has to do.
func (c *Conn) fill() error {
	c.makeRoom()
	for silent := 1; ; silent++ {
		if c.peer.Minor >= 1 {
			c.conn.SetReadDeadline(time.Now().Add(idleTimeout))
		}
		n, err := c.conn.Read(c.dec.Free())
		if n > 0 {
			c.dec.Wrote(n)
			return nil
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
		if silent == silentIntervals {
			return fmt.Errorf("no sign of life for %v: %w", silentIntervals*idleTimeout, err)
		}
		if err := c.send(func(dst []byte) []byte { return AppendPing(dst, 0, nil) }); err != nil {
			return err
		}
	}
}

// makeRoom grows the memory as the bytes come, never by what a header alone says, and shrinks it afterwards.
func (c *Conn) makeRoom() {
	c.dec.Rewind()
	switch pending, size := c.dec.Pending(), c.dec.Cap(); {
	case pending == size:
		c.dec.Swap(make([]byte, 2*size))
	case pending == 0 && size > usualBuffer:
		c.dec.Swap(make([]byte, usualBuffer))
	}
}

// CloseWrite tells the peer that nothing more will be sent; it still gets what was sent.
func (c *Conn) CloseWrite() error { return c.conn.(*net.TCPConn).CloseWrite() }

// Close ends the connection, and a Receive or Send that waits.
func (c *Conn) Close() error { return c.conn.Close() }
