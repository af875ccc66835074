// Package handover carries messages with open files between two processes, over a unix stream socket (SCM_RIGHTS, unix(7)).
//
// A message is a kind, a body and files. The receiver gets descriptors of its own for the same open files; the sender's
// stay open until it closes them. Nothing is read ahead, so that several parties of one process can use the
// socket one after the other. The package has no goroutines and keeps nothing.
package handover

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// A Message is what one Send has sent.
type Message struct {
	Kind  byte
	Body  []byte
	Files []*os.File // the receiver's, who closes them
}

const (
	headerSize = 6 // kind, number of files, length of the body
	// MaxFiles is how many files one message may carry (SCM_MAX_FD is 253).
	MaxFiles = 250
	// MaxBody is how long a body may be.
	MaxBody = 64 << 20
	// crowded is how long it waits when the kernel has too many files under way.
	crowded = 5 * time.Millisecond
)

// Send sends a message with copies of the descriptors, which must stay open until it returns. It must not be called by two
// goroutines at once. After an error the socket is of no more use: part of the message may have been sent.
func Send(c *net.UnixConn, kind byte, body []byte, files ...int) error {
	if len(files) > MaxFiles || len(body) > MaxBody {
		return fmt.Errorf("send message: %d files and %d bytes are too much", len(files), len(body))
	}
	message := make([]byte, headerSize, headerSize+len(body))
	message[0], message[1] = kind, byte(len(files))
	binary.BigEndian.PutUint32(message[2:], uint32(len(body)))
	message = append(message, body...)
	var rights []byte
	if len(files) > 0 {
		rights = unix.UnixRights(files...)
	}
	for len(message) > 0 {
		n, _, err := c.WriteMsgUnix(message, rights, nil)
		if errors.Is(err, unix.ETOOMANYREFS) { // too many files that have been sent wait to be received
			time.Sleep(crowded)
			continue
		}
		if err != nil {
			return fmt.Errorf("send message: %w", err)
		}
		message, rights = message[n:], nil
	}
	return nil
}

// Receive receives the next message. It returns io.EOF if the other side has closed the socket between two messages.
func Receive(c *net.UnixConn) (m Message, err error) {
	defer func() {
		if err != nil {
			m.Close()
			m = Message{}
		}
	}()
	header := make([]byte, headerSize)
	if err := m.fill(c, header); err != nil {
		return m, err
	}
	length := binary.BigEndian.Uint32(header[2:])
	if length > MaxBody {
		return m, fmt.Errorf("receive message: %d bytes are too much", length)
	}
	m.Kind, m.Body = header[0], make([]byte, length)
	if err := m.fill(c, m.Body); err != nil {
		return m, noEOF(err)
	}
	if len(m.Files) != int(header[1]) {
		return m, fmt.Errorf("receive message: %d of %d files came", len(m.Files), header[1])
	}
	return m, nil
}

// Close closes the files.
func (m Message) Close() {
	for _, f := range m.Files {
		f.Close()
	}
}

// fill reads b whole, and whatever files come along.
func (m *Message) fill(c *net.UnixConn, b []byte) error {
	rights := make([]byte, unix.CmsgSpace(MaxFiles*4))
	for begun := false; len(b) > 0; begun = true {
		n, rn, flags, _, err := c.ReadMsgUnix(b, rights)
		if files := parse(rights[:rn]); len(files) > 0 {
			m.Files = append(m.Files, files...)
		}
		switch {
		case errors.Is(err, io.EOF) || err == nil && n == 0:
			if begun {
				return io.ErrUnexpectedEOF
			}
			return io.EOF
		case err != nil:
			return fmt.Errorf("receive message: %w", err)
		case flags&unix.MSG_CTRUNC != 0:
			return errors.New("receive message: not all files could be opened")
		}
		b = b[n:]
	}
	return nil
}

// parse returns the files in control messages.
func parse(control []byte) []*os.File {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return nil
	}
	var files []*os.File
	for i := range messages {
		descriptors, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			continue // no rights
		}
		for _, d := range descriptors {
			files = append(files, os.NewFile(uintptr(d), "passed"))
		}
	}
	return files
}

func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// Pair returns the two ends of a new socket. The second is a file, to be given to a process.
func Pair() (*net.UnixConn, *os.File, error) {
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make socket pair: %w", err)
	}
	other := os.NewFile(uintptr(ends[1]), "handover")
	own, err := Open(os.NewFile(uintptr(ends[0]), "handover"))
	if err != nil {
		return nil, nil, errors.Join(err, other.Close())
	}
	return own, other, nil
}

// Open returns the connection of a unix socket that came as a file, which it closes.
func Open(f *os.File) (*net.UnixConn, error) {
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", f.Name(), err)
	}
	if u, ok := c.(*net.UnixConn); ok {
		return u, nil
	}
	return nil, errors.Join(fmt.Errorf("open %s: it is no unix socket", f.Name()), c.Close())
}
