package supervisor

import (
	"os"

	"golang.org/x/sys/unix"

	"mainstay/topology"
)

// A socket is a listening socket that Mainstay has opened for an instance. It is given to its processes, one after the other, and stays open between
// them, so that connections wait in its backlog and do not fail. It may go from an instance to the next in its place.
type socket struct {
	port  int
	file  *os.File
	ports *ports
}

// fits reports whether spec's instances can listen on s, which may be nil.
func (s *socket) fits(spec topology.Service) bool {
	return s != nil && spec.Listen == topology.ListenFD && (spec.Port == topology.PortAuto || int(spec.Port) == s.port) && s.listens()
}

// listens reports whether s still takes connections: shutdown(2), which a process that was given it may have called, ends that for all.
func (s *socket) listens() bool {
	listens, err := unix.GetsockoptInt(int(s.file.Fd()), unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	return err != nil || listens != 0
}

// close gives s and its port back. It does nothing if s is nil.
func (s *socket) close() {
	if s != nil {
		s.file.Close()
		s.ports.release(s.port)
	}
}

// listenOn opens a socket on p's port if spec's instances are to be given one.
func (i *instance) listenOn(p *tenancy, spec topology.Service) error {
	if spec.Listen != topology.ListenFD || p.port == 0 || i.socket != nil {
		return nil
	}
	file, err := i.site.host.bind(p.port)
	if err != nil {
		return err
	}
	i.socket = &socket{port: p.port, file: file, ports: i.site.ports}
	return nil
}

// keepSocket keeps that of an instance that is gone if another is to follow in the place.
func (p *place) keepSocket(i *instance) {
	if p.socket == nil && !p.retired && p.current == nil && p.next == nil {
		p.socket = i.socket
	} else {
		i.socket.close()
	}
	i.socket = nil
}

// takeSocket returns the one that was kept, if there is one, for the next instance.
func (p *place) takeSocket() *socket {
	s := p.socket
	p.socket = nil
	return s
}
