//go:build linux

package proxy

import (
	"context"
	"errors"
	"net"
	"syscall"

	"golang.org/x/sys/unix"

	"mainstay/eventloop"
)

// A dialling connects a link to an instance that has a name. The name is looked up for every connection, and all of its addresses
// are tried, by package net and on a goroutine of its own, because a lookup blocks.
type dialling struct {
	note   eventloop.Note
	link   *link
	cancel context.CancelFunc
	fd     int   // -1: it was not connected
	err    error // why not
}

// dialName begins to connect l to the shelf's instance.
func (s *shelf) dialName(l *link) {
	ctx, cancel := context.WithCancel(context.Background())
	d := &dialling{link: l, cancel: cancel, fd: -1}
	d.note.Address(d)
	l.dialling = d
	loop := l.lane.loop
	s.origin.engine.diallings.Go(func() {
		var conn net.Conn
		if conn, d.err = new(net.Dialer).DialContext(ctx, "tcp", s.origin.name); d.err == nil {
			d.fd, d.err = descriptorOf(conn)
			conn.Close()
		}
		if !loop.Post(&d.note) {
			d.drop()
		}
	})
}

// descriptorOf returns a descriptor of its own for the connection, -1 if there is none left.
func descriptorOf(conn net.Conn) (int, error) {
	raw, err := conn.(syscall.Conn).SyscallConn()
	if err != nil {
		return -1, err
	}
	copied := -1
	e := raw.Control(func(fd uintptr) { copied, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) })
	return copied, errors.Join(e, err)
}

// Receive implements eventloop.Receiver: there is a connection, or none could be made.
func (d *dialling) Receive(*eventloop.Note) {
	d.cancel()
	l := d.link
	if l.dialling != d { // it was given up
		d.drop()
		return
	}
	l.dialling = nil
	if d.err == nil {
		d.err = l.lane.loop.Adopt(&l.socket, d.fd, l)
	}
	if d.err != nil {
		d.drop()
		l.x.failedBy(failure{reason: reasonConnectFailure, blameless: outOfDescriptors(d.err)})
		return
	}
	l.state = linkBusy
	l.x.connected()
}

// drop closes a connection that nobody wants any more.
func (d *dialling) drop() {
	if d.fd >= 0 {
		unix.Close(d.fd)
		d.fd = -1
	}
}
