package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"mainstay/handover"
	"mainstay/proxy"
	"mainstay/sockets"
	"mainstay/topology"
)

// A bridge carries the clients' requests while the program of this process is replaced by another. It is a child process with the
// new program, which serves the same listening sockets with a proxy alone:
//
//	b, err := startBridge(ctx, binary, newCrossing(t, requests.Instances()), held, logs)
//	err = b.carry(ctx, requests)     // from now on the bridge accepts, and has all connections
//	fd, pid := b.handles()           // across execve(2), with the close-on-exec flag of fd off
//	b, err := findBridge(fd, pid)    // in the program that follows, when its proxy accepts
//	err = b.release(ctx, requests)   // the connections come back, the bridge ends
//
// Where the program does not change after all, requests.Resume() and b.release do that too. A bridge whose other end of
// the socket is closed, because all of Mainstay was killed, closes its listening sockets at once, finishes what
// is under way within its bound and ends.
//
// Both write to the same access log: each write appends whole lines, and looks first whether the file is still the one
// at the path. If both rotate it at the same moment it is rotated once too often, and the oldest file goes early; no line
// of another is lost.
type bridge struct {
	conn    *net.UnixConn
	process *os.Process
	carries bool // it waits for no connections any more
}

// What is said on the bridge's socket, beside the connections that the proxies pass. These kinds are not the proxies'.
const (
	bridgeBegin = 'B' // a crossing, with its listening sockets; to the bridge
	bridgeReady = 'R' // it accepts
	bridgeFail  = 'F' // why it cannot
	bridgeGive  = 'G' // the time for that; to the bridge: it passes its connections back and ends
)

// bridgePatience is what a bridge may take to end beyond the time that requests have, and how long these have when
// nobody says.
const bridgePatience = 30 * time.Second

// A crossing is what a bridge must know.
type crossing struct {
	Protocol  int                         `json:"protocol"`
	Proxy     topology.Proxy              `json:"proxy"`
	StateDir  string                      `json:"state_dir"`
	Services  map[string]topology.Service `json:"services"` // what concerns the proxy
	Instances []topology.Instance         `json:"instances"`
	Sockets   []crossingSocket            `json:"sockets"`
}

type crossingSocket struct {
	Network string `json:"network"`
	Address string `json:"address"`
}

// bridgeProtocol changes with the meaning of what is said.
const bridgeProtocol = 1

// newCrossing returns what a bridge must know to serve the requests of t.
func newCrossing(t *topology.Topology, instances []topology.Instance) crossing {
	c := crossing{Protocol: bridgeProtocol, Proxy: t.Proxy, StateDir: t.StateDir, Services: map[string]topology.Service{}, Instances: instances}
	for name, s := range t.Services {
		c.Services[name] = topology.Service{Name: name, Replicas: s.Replicas, Stopped: s.Stopped, WhenUnavailable: s.WhenUnavailable}
	}
	return c
}

// startBridge starts the program at path as a bridge and returns when that accepts on the sockets that it has listeners for. If
// ctx is done before, or the program cannot do it, the process is ended. logs are how it logs, to this one's stderr.
func startBridge(ctx context.Context, path string, c crossing, held []sockets.Held, logs logFlags) (*bridge, error) {
	conn, end, err := handover.Pair()
	if err != nil {
		return nil, err
	}
	defer end.Close()
	command := exec.Command(path, "bridge", "--log-format", logs.format, "--log-level", logs.level)
	command.Args[0] = os.Args[0] // as it will be
	command.Stderr = os.Stderr
	command.ExtraFiles = []*os.File{end}
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for this process
	if err := command.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("start bridge: %w", err), conn.Close())
	}
	b := &bridge{conn: conn, process: command.Process}
	end.Close() // or its death would not be seen
	if err := b.begin(ctx, c, held); err != nil {
		b.kill()
		return nil, fmt.Errorf("start bridge: %w", err)
	}
	return b, nil
}

func (b *bridge) begin(ctx context.Context, c crossing, held []sockets.Held) error {
	defer interruptible(ctx, b.conn)()
	var files []int
	for _, l := range c.Proxy.Listeners {
		for _, h := range held {
			if h.Network == "tcp" && h.Address == l.Address {
				c.Sockets = append(c.Sockets, crossingSocket{h.Network, h.Address})
				files = append(files, int(h.File.Fd()))
			}
		}
	}
	if len(files) < len(c.Proxy.Listeners) {
		return fmt.Errorf("of %d listeners only %d have a socket that is held", len(c.Proxy.Listeners), len(files))
	}
	body, err := json.Marshal(c)
	if err != nil {
		return err
	}
	if err := handover.Send(b.conn, bridgeBegin, body, files...); err != nil {
		return err
	}
	m, err := handover.Receive(b.conn)
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("it was not ready in time: %w", ctx.Err())
	case errors.Is(err, io.EOF):
		return errors.New("it ended before it was ready")
	case err != nil:
		return err
	case m.Kind == bridgeFail:
		return errors.New(string(m.Body))
	case m.Kind != bridgeReady:
		return fmt.Errorf("it said %q instead of being ready", m.Kind)
	}
	return nil
}

// carry gives the clients' connections to the bridge, as Give of the proxy does. On an error those that are left are served here.
func (b *bridge) carry(ctx context.Context, p *proxy.Proxy) error {
	b.carries = true
	return p.Give(ctx, b.conn)
}

// handles returns the descriptor of the bridge's socket and its process, for findBridge in the program that follows. b must
// be kept until then, or the descriptor is closed.
func (b *bridge) handles() (fd, pid int) {
	raw, err := b.conn.SyscallConn()
	if err == nil {
		err = raw.Control(func(number uintptr) { fd = int(number) })
	}
	if err != nil {
		return -1, b.process.Pid // it was closed
	}
	return fd, b.process.Pid
}

// findBridge returns the bridge that a former program in this process has started.
func findBridge(fd, pid int) (*bridge, error) {
	syscall.CloseOnExec(fd)
	conn, err := handover.Open(os.NewFile(uintptr(fd), "bridge"))
	if err != nil {
		return nil, fmt.Errorf("find bridge: %w", err)
	}
	process, err := os.FindProcess(pid)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("find bridge: %w", err), conn.Close())
	}
	return &bridge{conn: conn, process: process, carries: true}, nil
}

// release takes the clients' connections back and returns when the bridge has ended. p must accept already. What is under
// way at the bridge has until ctx is done to finish there; if the bridge does not end soon after that it is killed.
func (b *bridge) release(ctx context.Context, p *proxy.Proxy) error {
	defer b.kill()
	limit := bridgePatience
	if end, ok := ctx.Deadline(); ok {
		limit = max(time.Until(end), 0)
	}
	body, err := json.Marshal(limit)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit+bridgePatience)
	defer cancel()
	if !b.carries {
		err = proxy.GiveNothing(b.conn)
	}
	if err := errors.Join(err, handover.Send(b.conn, bridgeGive, body)); err != nil {
		return fmt.Errorf("release bridge: %w", err)
	}
	if err := p.Take(ctx, b.conn); err != nil {
		return fmt.Errorf("release bridge: %w", err)
	}
	defer interruptible(ctx, b.conn)()
	if _, err := handover.Receive(b.conn); !errors.Is(err, io.EOF) {
		return fmt.Errorf("release bridge: it did not end: %w", err)
	}
	return nil
}

// kill ends the bridge, if it is still there, with what it carries.
func (b *bridge) kill() {
	b.conn.Close()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		// If somebody else has waited for it, it has ended as well.
		_, _ = b.process.Wait()
	}()
	timer := time.NewTimer(time.Second)
	defer timer.Stop()
	select {
	case <-ended:
	case <-timer.C:
		_ = b.process.Kill()
		<-ended
	}
}

// interruptible makes waiting for messages on c end with ctx. The function that it returns ends that.
func interruptible(ctx context.Context, c *net.UnixConn) func() bool {
	return context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
}

// bridgeCommand is what a bridge runs. It is hidden: only Mainstay itself starts it.
func (c *cli) bridgeCommand() *cobra.Command {
	var logs logFlags
	command := &cobra.Command{
		Use:    "bridge",
		Short:  "Carry requests while another Mainstay is upgraded",
		Hidden: true,
		Args:   takes(0, 0),
		RunE: func(*cobra.Command, []string) error {
			log, err := logs.logger(c.Err)
			if err != nil {
				return err
			}
			conn, err := handover.Open(os.NewFile(3, "descriptor 3"))
			if err != nil {
				return fail(ExitUsage, "bridge is for Mainstay itself, which gives it a socket: %w", err)
			}
			defer conn.Close()
			ctx, stop := untilInterrupted()
			defer stop()
			return crossOver(ctx, log.With("process", "bridge"), conn)
		},
	}
	logs.register(command)
	return command
}

// crossOver serves what comes over conn until that says to give it back, is closed, or ctx is done.
func crossOver(ctx context.Context, log *slog.Logger, conn *net.UnixConn) error {
	defer interruptible(ctx, conn)()
	requests, set, err := beginCrossing(ctx, log, conn)
	if err != nil {
		return errors.Join(err, handover.Send(conn, bridgeFail, []byte(err.Error())))
	}
	err = handover.Send(conn, bridgeReady, nil)
	if err == nil {
		err = requests.Take(ctx, conn)
	}
	limit := bridgePatience
	if err == nil {
		limit, err = awaitGive(conn)
	}
	ending, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	set.Release() // from now on the sockets are as open as their listeners
	if err == nil {
		err = requests.Give(ending, conn)
	}
	return errors.Join(err, requests.Apply(ending, topology.Empty))
}

// beginCrossing begins to accept on what the first message brings.
func beginCrossing(ctx context.Context, log *slog.Logger, conn *net.UnixConn) (*proxy.Proxy, *sockets.Set, error) {
	m, err := handover.Receive(conn)
	if err != nil {
		return nil, nil, err
	}
	var c crossing
	err = json.Unmarshal(m.Body, &c)
	switch {
	case m.Kind != bridgeBegin || err != nil || len(c.Sockets) != len(m.Files):
		err = errors.Join(errors.New("the first message is not understood"), err)
	case c.Protocol != bridgeProtocol:
		err = fmt.Errorf("the bridge is asked for in the form %d and knows %d", c.Protocol, bridgeProtocol)
	}
	if err != nil {
		m.Close()
		return nil, nil, err
	}
	var held []sockets.Held
	for i, s := range c.Sockets {
		held = append(held, sockets.Held{Network: s.Network, Address: s.Address, File: m.Files[i]})
	}
	set := sockets.New(held...)
	requests := proxy.New(log, nil, set)
	for _, i := range c.Instances {
		requests.Admit(i)
	}
	if err := requests.Apply(ctx, &topology.Topology{Proxy: c.Proxy, StateDir: c.StateDir, Services: c.Services}); err != nil {
		set.Release()
		return nil, nil, err
	}
	return requests, set, nil
}

// awaitGive waits until the connections are to be given back, and returns the time for that.
func awaitGive(conn *net.UnixConn) (time.Duration, error) {
	m, err := handover.Receive(conn)
	limit := bridgePatience
	switch {
	case errors.Is(err, io.EOF):
		return limit, errors.New("the Mainstay that it belongs to has vanished")
	case err != nil:
		return limit, err
	case m.Kind != bridgeGive:
		return limit, fmt.Errorf("message of kind %q is not understood", m.Kind)
	}
	if err := json.Unmarshal(m.Body, &limit); err != nil {
		return bridgePatience, fmt.Errorf("read the time to give connections back: %w", err)
	}
	return limit, nil
}
