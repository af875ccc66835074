//go:build linux

package proxy

import (
	"crypto/tls"
	"errors"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// A sealing is TLS on a session. crypto/tls believes that it reads from and writes to a connection: what it reads is what the
// socket has now, and where that is not enough a time-out, after which it goes on with what it has; what it writes is collected
// in the lane and then sent with the session's output. The handshake was made before, in a goroutine.
type sealing struct {
	conn    *tls.Conn
	session *session
	version string // for the access log
}

// carry implements carrier: it serves a client of TLS with HTTP/1.1 whose handshake has been made: its connection moves from c to a loop. It returns
// false if the server takes none; then nothing has changed.
func (s *loopServer) carry(c *client, conn *tls.Conn, w *wire) bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	fd := -1
	if e := raw.Control(func(number uintptr) { fd, err = unix.FcntlInt(number, unix.F_DUPFD_CLOEXEC, 3) }); e != nil || err != nil {
		return false
	}
	t := &sealing{conn: conn, version: tls.VersionName(conn.ConnectionState().Version)}
	below := w.Conn
	w.Conn = t
	s.connections.Add(1)
	s.engine.visitors.enter(c.address, 0)
	if !s.place(parcel{fd: fd, peer: c.address}, t) {
		w.Conn = below
		unix.Close(fd)
		s.forget(c.address)
		return false
	}
	c.Close() // it is only a copy
	return true
}

// dismiss implements carrier: it closes clients of TLS that ask for nothing.
func (s *loopServer) dismiss() { s.each(func(b *branch) { b.shed(int(s.connections.Load())) }) }

// errUntaken is what is wrong with a client that has crypto/tls answer on and on, and takes nothing.
var errUntaken = errors.New("answers of TLS are not taken")

// read reads what the client has said. It returns 0, nil if there is nothing now.
func (t *sealing) read(p []byte) (int, error) {
	n, err := t.conn.Read(p)
	answered := len(t.session.lane().sealed) > 0 // by crypto/tls: with an alert, a new key
	if e := t.send(); e != nil {
		return n, e
	}
	if answered && t.session.output.Full() {
		return n, errUntaken
	}
	if errors.Is(err, errLater) {
		err = nil
	}
	if n > 0 {
		return n, nil // what is wrong is so the next time too
	}
	return 0, err
}

// write has p sent.
func (t *sealing) write(p []byte) error {
	if _, err := t.conn.Write(p); err != nil {
		return err
	}
	return t.send()
}

// end tells the client that nothing more comes (RFC 8446, section 6.1).
func (t *sealing) end() error {
	if err := t.conn.CloseWrite(); err != nil {
		return err
	}
	return t.send()
}

// send gives the output what crypto/tls has written.
func (t *sealing) send() error {
	lane, s := t.session.lane(), t.session
	if len(lane.sealed) == 0 {
		return nil
	}
	err := s.put(lane.sealed)
	lane.sealed = lane.sealed[:0]
	return err
}

// errLater is what crypto/tls reads when there is nothing now. It takes it for a time-out, which it forgets.
var errLater net.Error = later{}

type later struct{}

func (later) Error() string   { return "nothing has come yet" }
func (later) Timeout() bool   { return true }
func (later) Temporary() bool { return true }

// Read implements net.Conn for crypto/tls.
func (t *sealing) Read(p []byte) (int, error) {
	n, err := t.session.socket.Read(p)
	if n == 0 && err == nil {
		return 0, errLater
	}
	return n, err
}

// Write implements net.Conn for crypto/tls.
func (t *sealing) Write(p []byte) (int, error) {
	lane := t.session.lane()
	lane.sealed = append(lane.sealed, p...)
	return len(p), nil
}

// Close implements net.Conn. The session closes its socket.
func (t *sealing) Close() error { return nil }

// LocalAddr implements net.Conn. Nobody asks.
func (t *sealing) LocalAddr() net.Addr { return &net.TCPAddr{} }

// RemoteAddr implements net.Conn. Nobody asks.
func (t *sealing) RemoteAddr() net.Addr { return &net.TCPAddr{} }

// SetDeadline implements net.Conn. The session has its own.
func (t *sealing) SetDeadline(time.Time) error { return nil }

// SetReadDeadline implements net.Conn.
func (t *sealing) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline implements net.Conn.
func (t *sealing) SetWriteDeadline(time.Time) error { return nil }
