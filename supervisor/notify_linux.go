package supervisor

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// notifyConn is a notifySocket in the abstract namespace (unix(7)): it leaves nothing in a directory, and every user may send to it, so that what
// counts is who did.
type notifyConn struct {
	conn *net.UnixConn
	log  *slog.Logger
	done chan struct{} // closed when serve has ended; nil: it was not called
	told bool          // serve's: a stranger's datagram has been logged
}

// notify implements host.
func (m *machine) notify(name string) (notifySocket, error) {
	listen := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		if outer := c.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PASSCRED, 1) // before anything can arrive
		}); outer != nil {
			return outer
		}
		return err
	}}
	conn, err := listen.ListenPacket(context.Background(), "unixgram", name)
	if err != nil {
		return nil, fmt.Errorf("bind notification socket: %w", err)
	}
	return &notifyConn{conn: conn.(*net.UnixConn), log: m.log}, nil
}

const (
	// noticesAtOnce is how many notices are taken within noticeSpan; then those who send more are made to wait.
	noticesAtOnce = 200
	noticeSpan    = 100 * time.Millisecond
	// descriptorsSent is the most that the kernel sends with one datagram (SCM_MAX_FD).
	descriptorsSent = 253
	// patienceForClose bounds the wait for descriptors that a process sent and that take long to close.
	patienceForClose = time.Second
)

// serve implements notifySocket.
func (s *notifyConn) serve(from func(pid int) bool, tell func(notice)) {
	s.done = make(chan struct{})
	go func() {
		defer close(s.done)
		datagram := make([]byte, noticeLimit+1)
		control := make([]byte, unix.CmsgSpace(unix.SizeofUcred)+unix.CmsgSpace(4*descriptorsSent))
		var taken int
		var since time.Time
		for {
			if taken++; taken > noticesAtOnce {
				if rest := noticeSpan - time.Since(since); rest > 0 {
					time.Sleep(rest) // the senders' sleep too: their datagrams wait in a short queue
				}
				taken = 0
			}
			if taken <= 1 {
				since = time.Now()
			}
			n, m, _, _, err := s.conn.ReadMsgUnix(datagram, control)
			if err != nil {
				return
			}
			pid, descriptors := parseControl(control[:m])
			switch {
			case pid == 0 || !from(pid):
				s.refuse("notification of a stranger refused", "pid", pid)
			case n > noticeLimit:
				s.refuse("notification refused", "why", "it is too long", "limit", noticeLimit)
			default:
				tell(parseNotice(datagram[:n]))
			}
			// None is kept. That its end is closed is what one who sent BARRIER=1 waits for: all before it has been taken then.
			for _, fd := range descriptors {
				unix.Close(fd)
			}
		}
	}()
}

// refuse logs the first refusal.
func (s *notifyConn) refuse(message string, args ...any) {
	if !s.told {
		s.told = true
		s.log.Warn(message, args...)
	}
}

// close implements notifySocket.
func (s *notifyConn) close() {
	s.conn.Close()
	if s.done == nil {
		return
	}
	t := time.NewTimer(patienceForClose)
	defer t.Stop()
	select {
	case <-s.done:
	case <-t.C:
		s.log.Warn("notification socket is still busy", "why", "a descriptor that was sent there takes long to close")
	}
}

// parseControl returns who sent a datagram, 0 if that is not known, and the descriptors that came with it.
func parseControl(control []byte) (pid int, descriptors []int) {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return 0, nil
	}
	for i := range messages {
		// Neither looks at the length of what it reads.
		switch m := &messages[i]; {
		case len(m.Data)%4 == 0 && m.Header.Type == unix.SCM_RIGHTS:
			if fds, err := unix.ParseUnixRights(m); err == nil {
				descriptors = append(descriptors, fds...)
			}
		case len(m.Data) >= unix.SizeofUcred && m.Header.Type == unix.SCM_CREDENTIALS:
			if sender, err := unix.ParseUnixCredentials(m); err == nil {
				pid = int(sender.Pid)
			}
		}
	}
	return pid, descriptors
}
