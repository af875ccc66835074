package supervisor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"mainstay/topology"
)

// A host starts processes and tries probes. There is one, machine, and a
// simulated one in tests. It is used between open and close only.
type host interface {
	// open readies the host. It may be opened again after close.
	open()
	// close waits for what the host does on its own. Every process was swept or released before.
	close()
	// start starts c. An error is about c or about the machine; no process was left behind.
	start(c command) (process, error)
	// adopt goes on with the process that was started in run, by this Mainstay before it was replaced or by one that has
	// ended since. line is that of a command. The error is errGone if that process does not run any more, whatever has its pid
	// now; what it may have left behind has been ended then.
	adopt(run string, line func(stream string, text []byte, partial bool)) (process, error)
	// check tries c once. Its error says what was asked and what was answered.
	check(ctx context.Context, c check) error
	// notify opens a socket at name, which begins with an @, for what a process tells of itself.
	notify(name string) (notifySocket, error)
	// bind returns a socket that listens on the port of this machine, for a command.
	bind(port int) (*os.File, error)
	// bound returns the socket of the port that p, an adopted process, was given.
	bound(p process, port int) (*os.File, error)
	// owns returns nil if it is p, or something that p started, that listens on the port of this machine, or if that cannot
	// be told. The error names the program that does.
	owns(p process, port int) error
}

// errGone says that a process to adopt does not run any more.
var errGone = errors.New("the process does not run any more")

// A command is one process to start, everything resolved.
type command struct {
	argv        []string
	env         []string // NAME=value
	directory   string   // empty: Mainstay's own
	user, group string   // names or ids; empty: Mainstay's own
	limits      topology.Limits
	// run is an empty directory for what lets another Mainstay adopt the process: its output is there and who it is. Empty: it
	// ends with this Mainstay, by its next output at the latest.
	run string
	// socket becomes descriptor 3 of the process and is told as sd_listen_fds(3) has it; nil: none. It stays the caller's.
	socket *os.File
	// watchdog says that WATCHDOG_USEC in env is meant for this process and not for those that it starts.
	watchdog bool
	// line is called with each line of output, by one goroutine for each stream. The text is only valid
	// during the call. It must not block for long: the process waits meanwhile.
	line func(stream string, text []byte, partial bool)
}

// A process is a running program, the group that it leads, and all that these have started. Its methods are called by one
// goroutine, except contains, which any may call; the channels may be received from by any.
type process interface {
	pid() int // 0: it runs elsewhere
	// exited is closed when the program has ended. Others of its group may live on, and the output may go on.
	exited() <-chan struct{}
	// exit tells how the program ended. It is to be called after exited.
	exit() exit
	// silent is closed when the output has ended.
	silent() <-chan struct{}
	// signal sends sig to the whole group.
	signal(sig syscall.Signal)
	// contains reports whether pid is the program or something that it started.
	contains(pid int) bool
	// sweep ends what the program left behind, in whichever group and session: SIGTERM now and SIGKILL when ctx is done. It is
	// to be called after exited, and the process is not to be used after it.
	sweep(ctx context.Context)
	// release lets the program go on without us, for another Mainstay to adopt: what it has written so far has been given to
	// line when release returns, silent is closed, and exited never is. The process is not to be used after it.
	release()
}

// An exit is how a program ended.
type exit struct {
	status int
	signal syscall.Signal // 0: it exited by itself
	// unknown says that an adopted process ended and nobody told how.
	unknown bool
	oom     bool  // the kernel killed it, or another of its tree, for want of memory
	memory  int64 // the most bytes that it had; 0: unknown
}

func (e exit) clean() bool { return e.signal == 0 && e.status == 0 && !e.unknown }

func (e exit) String() string {
	switch {
	case e.oom:
		return "killed by the kernel: out of memory"
	case e.unknown:
		return "ended while Mainstay was not its parent, so its exit status is unknown"
	}
	if e.signal != 0 {
		name := unix.SignalName(e.signal)
		if name == "" {
			name = "signal " + strconv.Itoa(int(e.signal))
		}
		return "killed by " + name
	}
	return fmt.Sprintf("exited with status %d", e.status)
}

// remote is the process of an instance that runs elsewhere: it is never seen to end and is
// stopped by being let go.
type remote struct{ left chan struct{} }

func newRemote() remote                  { return remote{make(chan struct{})} }
func (r remote) pid() int                { return 0 }
func (r remote) exited() <-chan struct{} { return r.left }
func (r remote) exit() exit              { return exit{} }
func (r remote) silent() <-chan struct{} { return r.left }
func (r remote) contains(_ int) bool     { return false }
func (r remote) sweep(_ context.Context) {}
func (r remote) release()                { r.signal(0) }

func (r remote) signal(_ syscall.Signal) {
	select {
	case <-r.left:
	default:
		close(r.left)
	}
}

// A seat is what is particular to one process of a service: where it listens, and what its placeholders stand for.
type seat struct {
	service    string
	replica    int
	generation int
	host, port string // empty for a worker
	notify     string // where the process tells of itself; empty: nowhere
	socket     bool   // it is given a listening socket
}

func (s seat) address() string {
	if s.port == "" {
		return ""
	}
	return s.host + ":" + s.port
}

// expander replaces placeholders. A worker has no address: then those of addresses stay as they are, for whoever
// reads the error of the program to see.
func (s seat) expander() *strings.Replacer {
	pairs := []string{"{replica}", strconv.Itoa(s.replica), "{service}", s.service}
	if s.port != "" {
		pairs = append(pairs, "{address}", s.address(), "{host}", s.host, "{port}", s.port)
	}
	return strings.NewReplacer(pairs...)
}

// text returns t with its placeholders replaced. A secret is handed on as it is: a brace in it is none of Mainstay's business.
func (s seat) text(t topology.Text) string {
	if t.IsSecret() {
		return t.Reveal()
	}
	return s.expander().Replace(t.Reveal())
}

// command returns the program argv of spec's service in s.
func (s seat) command(spec topology.Service, argv []topology.Text) command {
	c := command{directory: spec.Directory, user: spec.User, group: spec.Group, env: s.environment(spec)}
	for _, arg := range argv {
		c.argv = append(c.argv, s.text(arg))
	}
	return c
}

// ownVariables are what Mainstay itself may have been told by systemd (systemd.exec(5)) or another Mainstay, about itself alone.
var ownVariables = []string{
	"NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID",
	"INVOCATION_ID", "JOURNAL_STREAM", markVariable,
}

// environment returns Mainstay's own variables, over them what a program can be told about its place, and over those
// what the file says. Only the names that begin with MAINSTAY_ are not the file's to set.
func (s seat) environment(spec topology.Service) []string {
	env := map[string]string{}
	for _, kv := range os.Environ() {
		name, value, _ := strings.Cut(kv, "=")
		env[name] = value
	}
	for _, name := range ownVariables {
		delete(env, name)
	}
	if s.port != "" {
		env["HOST"], env["PORT"] = s.host, s.port
	}
	if spec.User != "" {
		if u, err := lookupUser(spec.User); err == nil && u.HomeDir != "" {
			env["HOME"], env["USER"], env["LOGNAME"] = u.HomeDir, u.Username, u.Username
		}
	}
	for name, value := range spec.Environment {
		env[name] = s.text(value)
	}
	if s.notify != "" {
		env["NOTIFY_SOCKET"] = s.notify
		if l := spec.Probes.Liveness; l != nil && l.Notify {
			env["WATCHDOG_USEC"] = strconv.FormatInt(l.Period.Microseconds(), 10)
		}
	}
	if s.socket {
		env["LISTEN_FDNAMES"] = s.service
	}
	env["MAINSTAY_SERVICE"] = s.service
	env["MAINSTAY_REPLICA"] = strconv.Itoa(s.replica)
	env["MAINSTAY_GENERATION"] = strconv.Itoa(s.generation)

	list := make([]string, 0, len(env))
	for name, value := range env {
		list = append(list, name+"="+value)
	}
	slices.Sort(list)
	return list
}
