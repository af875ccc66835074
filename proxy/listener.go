package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"reflect"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"mainstay/sockets"
	"mainstay/topology"
)

// A listener is one bound address. How connections are spoken to can change while it stays bound.
type listener struct {
	net.Listener
	address  string // as in the file
	settings atomic.Pointer[listenerSettings]
}

// listenerSettings are what may change without binding the address anew. They are immutable.
type listenerSettings struct {
	spec   topology.Listener
	tls    *tls.Config // nil: plain
	limits topology.ClientLimits
	rate   rate // of content
	loops  bool // carry what they can
	// redirect is the port of https to redirect every request to; empty: none.
	redirect string
}

// bind binds the listener's address. Where a listener that is about to leave is in the way (127.0.0.1:80 of :80), the two
// share the port until it has left.
func bind(ctx context.Context, set *sockets.Set, spec topology.Listener, leaving []*listener) (*listener, error) {
	l, err := set.Listen("tcp", spec.Address, func() (net.Listener, error) { return open(ctx, spec, leaving) })
	if err != nil {
		var op *net.OpError
		if errors.As(err, &op) {
			err = op.Err // its text repeats the address
		}
		return nil, fmt.Errorf("listen %s %s: %w", spec.Name, spec.Address, err)
	}
	return &listener{Listener: l, address: spec.Address}, nil
}

// share returns a listener of the socket that l has, for another server.
func (l *listener) share(set *sockets.Set) (*listener, error) {
	shared, err := set.Listen("tcp", l.address, func() (net.Listener, error) {
		f, err := l.Listener.(*net.TCPListener).File()
		if err != nil {
			return nil, err
		}
		defer f.Close()
		return net.FileListener(f)
	})
	if err != nil {
		return nil, fmt.Errorf("share the socket of %s: %w", l.address, err)
	}
	return &listener{Listener: shared, address: l.address}, nil
}

func open(ctx context.Context, spec topology.Listener, leaving []*listener) (net.Listener, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", spec.Address)
	if errors.Is(err, syscall.EADDRINUSE) {
		var others []syscall.Conn
		for _, l := range leaving {
			if samePort(l.Addr(), spec.Address) {
				others = append(others, l.Listener.(*net.TCPListener))
			}
		}
		if len(others) > 0 {
			l, err = bindShared(ctx, spec.Address, others)
		}
	}
	return l, err
}

func samePort(bound net.Addr, address string) bool {
	_, port, err := net.SplitHostPort(address)
	return err == nil && port == strconv.Itoa(bound.(*net.TCPAddr).Port)
}

// bindShared binds an address that others are in the way of. The port is open to sharing (SO_REUSEPORT) only
// meanwhile: afterwards another program that wants it is told that it is in use.
func bindShared(ctx context.Context, address string, others []syscall.Conn) (net.Listener, error) {
	for _, other := range others {
		if err := sharePort(other, 1); err != nil {
			return nil, err
		}
		defer func() { _ = sharePort(other, 0) }()
	}
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error { return setSharing(c, 1) }}
	l, err := config.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	if err := sharePort(l.(*net.TCPListener), 0); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

func sharePort(c syscall.Conn, on int) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	return setSharing(raw, on)
}

func setSharing(c syscall.RawConn, on int) (err error) {
	if e := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, on) }); e != nil {
		return e
	}
	return os.NewSyscallError("setsockopt", err)
}

// port returns the port that is bound.
func (l *listener) port() string { return strconv.Itoa(l.Addr().(*net.TCPAddr).Port) }

// newSettings returns the settings for spec. Certificates are read only if they are others than previous has.
func newSettings(spec topology.Listener, limits topology.ClientLimits, grace time.Duration, previous *listenerSettings) (*listenerSettings, error) {
	s := &listenerSettings{spec: spec, limits: limits, rate: rate{limits.MinimumRate, grace}}
	switch {
	case spec.TLS == nil:
	case previous != nil && reflect.DeepEqual(previous.spec.TLS, spec.TLS):
		s.tls = previous.tls
	default:
		pair, err := tls.LoadX509KeyPair(spec.TLS.Certificate, spec.TLS.Key)
		if err != nil {
			return nil, fmt.Errorf("load certificate of listener %s: %w", spec.Name, err)
		}
		s.tls = &tls.Config{
			Certificates: []tls.Certificate{pair},
			MinVersion:   tls.VersionTLS12,
			NextProtos:   []string{"h2", "http/1.1"},
			// Small records would let a client begin a little sooner with the first of them; each costs a call and a tag.
			DynamicRecordSizingDisabled: true,
		}
	}
	return s, nil
}
