package supervisor

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A listening is a TCP socket that a program of this machine listens on.
type listening struct {
	address netip.Addr
	inode   uint32
}

// instanceHost is where instances listen.
var instanceHost = netip.AddrFrom4([4]byte{127, 0, 0, 1})

// owns implements host.
func (m *machine) owns(p process, port int) error {
	sockets, err := listeners(port)
	if err != nil {
		return nil // who listens cannot be told
	}
	for _, s := range answering(sockets) {
		if ours, err := m.has(p, s.inode); ours || err != nil {
			continue
		}
		name, ok := holder(s.inode)
		if !ok {
			continue // it is of somebody whom we may not look at, or gone
		}
		return fmt.Errorf("port %d is listened on by another program: %s", port, name)
	}
	return nil
}

// answering returns those of sockets that connections to an instance's address go to: the nearest address has them.
func answering(sockets []listening) []listening {
	var exact, any []listening
	for _, s := range sockets {
		switch a := s.address.Unmap(); {
		case a == instanceHost:
			exact = append(exact, s)
		case a.IsUnspecified():
			any = append(any, s)
		}
	}
	if len(exact) > 0 {
		return exact
	}
	return any
}

// has reports whether p has the socket open. The error says that not all of p could be looked at.
func (m *machine) has(p process, inode uint32) (bool, error) {
	found, denied := holds(p.pid(), inode)
	if found {
		return true, nil
	}
	if p, ok := p.(*tree); ok {
		for _, s := range p.members() {
			if s.pid == p.pid() {
				continue
			}
			found, err := holds(s.pid, inode)
			if found {
				return true, nil
			}
			denied = errors.Join(denied, err)
		}
	}
	return false, denied
}

// holds reports whether a process has the socket open. The error says that one may not look.
func holds(pid int, inode uint32) (bool, error) {
	dir := "/proc/" + strconv.Itoa(pid) + "/fd"
	f, err := os.Open(dir)
	if err != nil {
		if errors.Is(err, fs.ErrPermission) {
			return false, err
		}
		return false, nil // it has ended
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if errors.Is(err, fs.ErrPermission) {
		return false, err
	}
	want := "socket:[" + strconv.FormatUint(uint64(inode), 10) + "]"
	for _, name := range names {
		if link, err := os.Readlink(filepath.Join(dir, name)); err == nil && link == want {
			return true, nil
		}
	}
	return false, nil
}

// holder names a program that has the socket open.
func holder(inode uint32) (string, bool) {
	for _, pid := range pids() {
		if found, _ := holds(pid, inode); found {
			name, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/comm")
			if err != nil {
				continue
			}
			return fmt.Sprintf("%s, pid %d", strings.TrimSpace(string(name)), pid), true
		}
	}
	return "", false
}

// listeners returns the TCP sockets that are listened on at port. The kernel is asked for these alone (sock_diag(7)), as
// reading the table of all connections for each instance would take long on a busy machine.
func listeners(port int) ([]listening, error) {
	var list []listening
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		found, err := diagnose(family, port)
		if err != nil {
			return tableListeners(port)
		}
		list = append(list, found...)
	}
	return list, nil
}

const (
	stateListen = 10 // TCP_LISTEN of linux/tcp_states.h

	// Offsets of linux/inet_diag.h.
	diagRequestSize  = 56 // struct inet_diag_req_v2
	diagSourcePort   = 4  // of struct inet_diag_msg
	diagSource       = 8
	diagInode        = 68
	diagMessageSize  = 72
	diagRequestState = 4
	diagRequestPort  = 8
)

// diagnose asks sock_diag(7) for the sockets of one family that are listened on at port.
func diagnose(family uint8, port int) ([]listening, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, fmt.Errorf("ask for listeners: %w", err)
	}
	defer unix.Close(fd)
	b := make([]byte, unix.SizeofNlMsghdr+diagRequestSize)
	header := (*unix.NlMsghdr)(unsafe.Pointer(&b[0]))
	header.Len = uint32(len(b))
	header.Type = unix.SOCK_DIAG_BY_FAMILY
	header.Flags = unix.NLM_F_REQUEST | unix.NLM_F_DUMP
	request := b[unix.SizeofNlMsghdr:]
	request[0], request[1] = family, unix.IPPROTO_TCP
	binary.NativeEndian.PutUint32(request[diagRequestState:], 1<<stateListen)
	binary.BigEndian.PutUint16(request[diagRequestPort:], uint16(port))
	if err := unix.Sendto(fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, fmt.Errorf("ask for listeners: %w", err)
	}
	var list []listening
	buf := make([]byte, 8<<10)
	for {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("ask for listeners: %w", err)
		}
		for rest := buf[:n]; len(rest) >= unix.SizeofNlMsghdr; {
			header := (*unix.NlMsghdr)(unsafe.Pointer(&rest[0]))
			if int(header.Len) < unix.SizeofNlMsghdr || int(header.Len) > len(rest) {
				return nil, errors.New("ask for listeners: the kernel's answer makes no sense")
			}
			message := rest[unix.SizeofNlMsghdr:header.Len]
			switch {
			case header.Type == unix.NLMSG_DONE:
				return list, nil
			case header.Type == unix.NLMSG_ERROR:
				return nil, errors.New("ask for listeners: the kernel does not tell")
			case len(message) >= diagMessageSize && int(binary.BigEndian.Uint16(message[diagSourcePort:])) == port:
				s := listening{inode: binary.NativeEndian.Uint32(message[diagInode:])}
				if message[0] == unix.AF_INET {
					s.address = netip.AddrFrom4([4]byte(message[diagSource:]))
				} else {
					s.address = netip.AddrFrom16([16]byte(message[diagSource:]))
				}
				list = append(list, s)
			}
			rest = rest[min(len(rest), (int(header.Len)+3)&^3):]
		}
	}
}

// tableListeners reads the tables of all connections instead, where the kernel has no sock_diag.
func tableListeners(port int) ([]listening, error) {
	var list []listening
	for _, file := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		f, err := os.Open(file)
		if errors.Is(err, fs.ErrNotExist) && strings.HasSuffix(file, "6") {
			continue
		}
		if err != nil {
			return nil, err
		}
		lines := bufio.NewScanner(f)
		for lines.Scan() {
			if s, ok := parseListening(lines.Text(), port); ok {
				list = append(list, s)
			}
		}
		f.Close()
		if err := lines.Err(); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// parseListening reads a line of /proc/net/tcp or tcp6 (proc_pid_net(5)): its address is in words of the machine's byte order.
func parseListening(line string, port int) (listening, bool) {
	fields := strings.Fields(line)
	if len(fields) < 10 || fields[3] != "0A" {
		return listening{}, false
	}
	address, at, _ := strings.Cut(fields[1], ":")
	if n, err := strconv.ParseUint(at, 16, 16); err != nil || int(n) != port {
		return listening{}, false
	}
	var b []byte
	for len(address) >= 8 {
		word, err := strconv.ParseUint(address[:8], 16, 32)
		if err != nil {
			return listening{}, false
		}
		b = binary.NativeEndian.AppendUint32(b, uint32(word))
		address = address[8:]
	}
	a, ok := netip.AddrFromSlice(b)
	inode, err := strconv.ParseUint(fields[9], 10, 32)
	return listening{address: a, inode: uint32(inode)}, ok && err == nil
}
