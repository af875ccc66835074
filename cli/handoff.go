package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"mainstay/admin"
	"mainstay/sockets"
)

// handoffVariable is where a program finds the handoff of the one whose place it has taken.
const handoffVariable = "MAINSTAY_HANDOFF"

// upgradeProtocol is the form of a handoff. A program with another one is not upgraded to.
const upgradeProtocol = 1

// A handoff is what one program gives to the next that goes on in the same process, by execve(2). Descriptors are
// given by number.
type handoff struct {
	Protocol int           `json:"protocol"`
	Upgrade  admin.Upgrade `json:"upgrade"` // as far as it has come
	Sockets  []handedOn    `json:"sockets,omitempty"`
	Lock     int           `json:"lock"` // of the state directory
	LockPath string        `json:"lock_path"`
	Former   int           `json:"former"` // the executable of the program before, to go back to
	PIDs     []int         `json:"pids,omitempty"`
	Backups  []string      `json:"backups,omitempty"` // that were given up, to be made again
	// BridgeFD and BridgePID are the bridge that carries the requests meanwhile; 0: there is none. What is under way there has Drain
	// to end.
	BridgeFD  int           `json:"bridge_fd,omitempty"`
	BridgePID int           `json:"bridge_pid,omitempty"`
	Drain     time.Duration `json:"drain"`
	Stop      bool          `json:"stop,omitempty"` // a signal has come that asks for it
	// Back says why the program that was upgraded to did not come up; then this is the former one again.
	Back string `json:"back,omitempty"`

	arrived     atomic.Bool // what ran runs on
	environment []string    // that the next program has to find again
}

// A handedOn is a listening socket.
type handedOn struct {
	Network string `json:"network"`
	Address string `json:"address"`
	FD      int    `json:"fd"`
}

// takeHandoff returns the handoff that this program was given, or nil. Programs that it starts do not see it.
func takeHandoff() (*handoff, error) {
	text, ok := os.LookupEnv(handoffVariable)
	if !ok {
		return nil, nil
	}
	if err := os.Unsetenv(handoffVariable); err != nil {
		return nil, err
	}
	h := new(handoff)
	if err := json.Unmarshal([]byte(text), h); err != nil {
		return nil, fmt.Errorf("read %s: %w", handoffVariable, err)
	}
	if h.Protocol != upgradeProtocol {
		return nil, fmt.Errorf("read %s: it has the form %d, this program knows %d", handoffVariable, h.Protocol, upgradeProtocol)
	}
	for _, fd := range h.descriptors() {
		unix.CloseOnExec(fd)
	}
	// After going back the process would have the descriptor's number for a name (proc_pid_comm(5)); without one it works as well.
	_ = os.WriteFile("/proc/self/comm", []byte(filepath.Base(os.Args[0])), 0)
	return h, nil
}

func (h *handoff) descriptors() []int {
	fds := []int{h.Lock, h.Former}
	if h.BridgePID != 0 {
		fds = append(fds, h.BridgeFD)
	}
	for _, s := range h.Sockets {
		fds = append(fds, s.FD)
	}
	return fds
}

// lock returns the state directory's lock; nil without a handoff.
func (h *handoff) lock() *os.File {
	if h == nil {
		return nil
	}
	return os.NewFile(uintptr(h.Lock), h.LockPath)
}

// sockets returns what is listened on, as a set that holds it.
func (h *handoff) sockets() *sockets.Set {
	if h == nil {
		return sockets.New()
	}
	var held []sockets.Held
	for _, s := range h.Sockets {
		held = append(held, sockets.Held{Network: s.Network, Address: s.Address, File: os.NewFile(uintptr(s.FD), s.Address)})
	}
	return sockets.New(held...)
}

// restore has variables, which this program has taken out of its environment, be in that of the next one.
func (h *handoff) restore(environment []string) {
	if h != nil {
		h.environment = environment
	}
}

// become makes the executable at path the program that runs in this process, with the same arguments and the handoff. It
// returns only if that cannot be.
func (h *handoff) become(path string) error {
	text, err := json.Marshal(h)
	if err != nil {
		return err
	}
	environment := append(append(os.Environ(), h.environment...), handoffVariable+"="+string(text))
	// One that came before the next program listens would end it. Nothing is missed: it reads the files again anyway.
	signal.Ignore(syscall.SIGHUP)
	// Whoever starts a program at this moment must not give it the descriptors.
	syscall.ForkLock.Lock()
	defer syscall.ForkLock.Unlock()
	for _, fd := range h.descriptors() {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0); err != nil {
			return fmt.Errorf("hand on descriptor %d: %w", fd, err)
		}
	}
	err = syscall.Exec(path, os.Args, environment)
	for _, fd := range h.descriptors() {
		unix.CloseOnExec(fd)
	}
	return fmt.Errorf("exec %s: %w", path, err)
}

// mayGoBack reports whether this program has not come up yet and there is another to go back to.
func (h *handoff) mayGoBack() bool { return h != nil && h.Back == "" && !h.arrived.Load() }

// goBack makes the former program run in this process again, and why known to it.
func (h *handoff) goBack(why error) error {
	h.Back = strings.TrimSpace(why.Error())
	return h.become(descriptorPath(h.Former))
}

// comeUpTime is how long a program may take from its start until what runs runs on.
const comeUpTime = time.Minute

// goBackUnlessArrived makes the former program run again if this one does not come up in time. The function that it returns ends that.
func (h *handoff) goBackUnlessArrived(log *slog.Logger) (stop func() bool) {
	if !h.mayGoBack() {
		return func() bool { return false }
	}
	return time.AfterFunc(comeUpTime, func() {
		if h.mayGoBack() {
			err := h.goBack(fmt.Errorf("it did not come up within %s", comeUpTime))
			log.Error("no way back", "err", err)
		}
	}).Stop
}

// descriptorPath returns a path of the file that this process has open (proc_pid_fd(5)).
func descriptorPath(fd int) string { return fmt.Sprintf("/proc/self/fd/%d", fd) }

// checkPatience is how long a program may take to say that it can go on with what runs.
const checkPatience = 10 * time.Second

// upgradeReport is what upgrade-check says of the program that it belongs to.
type upgradeReport struct {
	Build    admin.Build `json:"build"`
	Protocol int         `json:"protocol"`
	Problem  string      `json:"problem,omitempty"` // with the topology that runs
}

// explain adds to err what a program has complained of before it failed.
func explain(err error, complained excerpt) error {
	if text := bytes.TrimSpace(complained.text); len(text) > 0 {
		return fmt.Errorf("%w: %s", err, text)
	}
	return err
}
