package supervisor

import (
	"context"
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
// simulated one in tests.
type host interface {
	// start starts c. An error is about c or about the machine; no process was left behind.
	start(c command) (process, error)
	// check tries c once. Its error says what was asked and what was answered.
	check(ctx context.Context, c check) error
}

// machine is the machine that Mainstay runs on.
type machine struct{}

// A command is one process to start, everything resolved.
type command struct {
	argv        []string
	env         []string // NAME=value
	directory   string   // empty: Mainstay's own
	user, group string   // names or ids; empty: Mainstay's own
	// line is called with each line of output, by one goroutine for each stream. The text is only valid
	// during the call. It must not block for long: the process waits meanwhile.
	line func(stream string, text []byte, partial bool)
}

// A process is a running program and the group that it leads. Its methods are called by one goroutine;
// the channels may be received from by any.
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
	// sweep ends what the program left behind in its group: SIGTERM now and SIGKILL when ctx is done. It is to
	// be called after exited, and the process is not to be used after it.
	sweep(ctx context.Context)
}

// An exit is how a program ended.
type exit struct {
	status int
	signal syscall.Signal // 0: it exited by itself
}

func (e exit) clean() bool { return e.signal == 0 && e.status == 0 }

func (e exit) String() string {
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
func (r remote) sweep(_ context.Context) {}

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

// environment returns Mainstay's own variables, over them what a program can be told about its place, and over those
// what the file says. Only the names that begin with MAINSTAY_ are not the file's to set.
func (s seat) environment(spec topology.Service) []string {
	env := map[string]string{}
	for _, kv := range os.Environ() {
		name, value, _ := strings.Cut(kv, "=")
		env[name] = value
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
