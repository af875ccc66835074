package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"reflect"
	"strconv"
	"sync/atomic"

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
	spec topology.Listener
	tls  *tls.Config // nil: plain
	// redirect is the port of https to redirect every request to; empty: none.
	redirect string
}

// bind binds the listener's address.
func bind(ctx context.Context, spec topology.Listener) (*listener, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", spec.Address)
	if err != nil {
		var op *net.OpError
		if errors.As(err, &op) {
			err = op.Err // its text repeats the address
		}
		return nil, fmt.Errorf("listen %s %s: %w", spec.Name, spec.Address, err)
	}
	return &listener{Listener: l, address: spec.Address}, nil
}

// Accept implements net.Listener: connections are TLS while the settings say so.
func (l *listener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	if config := l.settings.Load().tls; config != nil {
		return tls.Server(conn, config), nil
	}
	return conn, nil
}

// port returns the port that is bound.
func (l *listener) port() string { return strconv.Itoa(l.Addr().(*net.TCPAddr).Port) }

// newSettings returns the settings for spec. Certificates are read only if they are others than previous has.
func newSettings(spec topology.Listener, previous *listenerSettings) (*listenerSettings, error) {
	s := &listenerSettings{spec: spec}
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
		}
	}
	return s, nil
}
