package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"mainstay/topology"
)

// A check is one probe's question with everything resolved. Exactly one of url, tcp, grpc and exec is set.
type check struct {
	url, host     string // host: the Host header; empty is the URL's
	tcp           string
	grpc, service string // service: whose health is asked for; empty is the server's
	exec          *command
}

// checkOf resolves p for the process of spec's service in s.
func (s seat) checkOf(spec topology.Service, p *topology.Probe) check {
	s.notify, s.socket = "", false // a probe is not the process
	expand := s.expander()
	switch {
	case p.HTTPGet != nil:
		u := "http://" + expand.Replace(p.HTTPGet.Address) + "/" + strings.TrimPrefix(expand.Replace(p.HTTPGet.Path), "/")
		return check{url: u, host: expand.Replace(p.HTTPGet.Host)}
	case p.GRPC != nil:
		return check{grpc: expand.Replace(p.GRPC.Address), service: expand.Replace(p.GRPC.Service)}
	case len(p.Exec) > 0:
		c := s.command(spec, p.Exec)
		return check{exec: &c}
	default:
		return check{tcp: expand.Replace(p.TCP)}
	}
}

// at reports whether c asks at s's own address.
func (c check) at(s seat) bool {
	address := c.tcp + c.grpc
	if c.url != "" {
		if u, err := url.Parse(c.url); err == nil {
			address = u.Host
		}
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil || port != s.port || port == "" {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && (ip.IsLoopback() || ip.IsUnspecified())
}

// check implements host.
func (m *machine) check(ctx context.Context, c check) error {
	switch {
	case c.url != "":
		return get(ctx, c.url, c.host)
	case c.grpc != "":
		return askHealth(ctx, c.grpc, c.service)
	case c.exec != nil:
		return m.execute(ctx, *c.exec)
	default:
		if answered, err := knock(c.tcp); answered {
			return err
		}
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", c.tcp)
		if err != nil {
			return explain(ctx, err)
		}
		return conn.Close()
	}
}

// knock connects to address and lets go again, if that takes no waiting and no look-up of a name: on one machine it does not, and then
// a try costs four system calls. Otherwise nothing was answered. The kernel remembers each connection for a minute (TIME_WAIT), which takes
// neither a port from anyone else, as each instance has an address of its own, nor memory to speak of; a reset, which would avoid it,
// is an error in many a server's log, and SO_LINGER with a time does not.
func knock(address string) (answered bool, err error) {
	to, err := netip.ParseAddrPort(address)
	if err != nil || !to.Addr().IsLoopback() || !to.Addr().Is4() {
		return false, nil
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return true, fmt.Errorf("make socket: %w", err)
	}
	defer unix.Close(fd)
	// The answer comes while the first call still holds the socket, and is seen by the second.
	for range 2 {
		switch err := unix.Connect(fd, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}); err {
		case nil, unix.EISCONN:
			return true, nil
		case unix.EINPROGRESS:
		case unix.EALREADY, unix.EINTR, unix.EAGAIN: // its backlog is full
			return false, nil
		default:
			return true, fmt.Errorf("connect to %s: %w", address, err)
		}
	}
	return false, nil
}

// answerLimit is how many bytes of a program's or a server's answer a probe looks at.
const answerLimit = 512

// get asks with a connection of its own, through no proxy. A redirect is followed on the same host; one that leads to
// another is an answer like any other below 400.
func get(ctx context.Context, address, host string) error {
	transport := &http.Transport{DialContext: new(net.Dialer).DialContext, DisableKeepAlives: true}
	client := &http.Client{Transport: transport, CheckRedirect: func(next *http.Request, via []*http.Request) error {
		if next.URL.Host != via[0].URL.Host || len(via) >= 10 {
			return http.ErrUseLastResponse
		}
		next.Host = host
		return nil
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return err
	}
	req.Host = host
	req.Header.Set("User-Agent", "mainstay-probe")
	res, err := client.Do(req)
	if err != nil {
		var outer *url.Error
		if errors.As(err, &outer) {
			err = outer.Err
		}
		return fmt.Errorf("GET %s: %w", address, explain(ctx, err))
	}
	defer res.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(res.Body, answerLimit)) // the status is the answer
	if res.StatusCode < 200 || res.StatusCode >= 400 {
		return fmt.Errorf("GET %s: %s%s", address, res.Status, quoted(body))
	}
	return nil
}

// execute runs c to its end. Nothing of its group is left afterwards, in time or not.
func (m *machine) execute(ctx context.Context, c command) error {
	var mu sync.Mutex
	var said []byte
	c.line = func(_ string, text []byte, _ bool) {
		mu.Lock()
		defer mu.Unlock()
		if len(said) < answerLimit {
			said = append(append(said, text...), '\n')
		}
	}
	p, err := m.launch(c)
	if err != nil {
		return err
	}
	name := "exec " + c.argv[0]
	inTime := true
	select {
	case <-p.exited():
	case <-ctx.Done():
		inTime = false
	}
	p.signal(syscall.SIGKILL)
	<-p.exited()
	dead, cancel := context.WithCancel(context.Background())
	cancel()
	p.sweep(dead)
	<-p.silent()
	if !inTime {
		return fmt.Errorf("%s: %w", name, explain(ctx, ctx.Err()))
	}
	if !p.exit().clean() {
		return fmt.Errorf("%s: %s%s", name, p.exit(), quoted(said))
	}
	return nil
}

// explain says plainly that a try took too long.
func explain(ctx context.Context, err error) error {
	if errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
		return errors.New("no answer in time")
	}
	return err
}

// quoted returns what was said on one short line, to follow a message.
func quoted(said []byte) string {
	s := strings.Join(strings.Fields(strings.ToValidUTF8(string(said), "�")), " ")
	if s == "" {
		return ""
	}
	return ": " + s
}

// orDefault guards against a specification that was not resolved.
func orDefault(d, otherwise time.Duration) time.Duration {
	if d <= 0 {
		return otherwise
	}
	return d
}
