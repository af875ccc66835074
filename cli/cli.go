// Package cli is the door: the commands that a person or a script types.
//
// [Main] is all that is called from outside. Each command has a file of its own;
// run.go joins the rooms to a running Mainstay, and most of the others ask that one through
// its admin socket, which they find with the same --file. What works on a file, a repository or an
// endpoint alone (validate, backup list and restore, bus, proxy) needs no
// Mainstay to run.
//
// What a command found out goes to stdout, as a table for people or with -o json for programs; what it has to
// say about its work goes to stderr. The exit code is one of the Exit constants.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"mainstay/admin"
	"mainstay/backup"
	"mainstay/engine"
	"mainstay/supervisor"
	"mainstay/topology"
)

// What Main returns, for the process to exit with.
const (
	ExitDone        = 0
	ExitFailed      = 1
	ExitUsage       = 2 // the command was used wrongly
	ExitInvalid     = 3 // the topology has problems
	ExitPartial     = 3 // of a snapshot that was taken: something is missing from it, as restic says it
	ExitUnreachable = 4 // no Mainstay answers on the admin socket
	ExitTimeout     = 5
	ExitRefused     = 6 // understood, valid, and not done; nothing has changed
)

// Streams are what a command reads and writes.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
}

// Main runs the command that args ask for and returns the exit code. example is the topology that
// runs where there is no other. Main takes over the process's signals.
func Main(args []string, streams Streams, example []byte) int {
	supervisor.Become()
	c := &cli{Streams: streams, example: example}
	var err error
	if c.handoff, err = takeHandoff(); err != nil {
		c.report(err)
		return ExitFailed
	}
	root := c.root()
	root.SetArgs(args)
	root.SetIn(streams.In)
	root.SetOut(streams.Out)
	root.SetErr(streams.Err)

	command, err := root.ExecuteC()
	if err == nil {
		return ExitDone
	}
	if c.handoff.mayGoBack() {
		err = errors.Join(err, c.handoff.goBack(err))
	}
	code := ExitUsage // what cobra itself finds wrong, before a command is entered
	if c.entered {
		code = exitCode(err)
	}
	c.report(err)
	if code == ExitUsage {
		fmt.Fprintf(streams.Err, "See '%s --help'.\n", command.CommandPath())
	}
	return code
}

// A cli is one call of the program.
type cli struct {
	Streams
	example []byte

	files   []string // --file
	output  string   // --output
	entered bool     // the arguments were understood and the command began

	handoff *handoff // from the program that ran in this process before; nil: none did
}

func (c *cli) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "mainstay",
		Short: "Mainstay holds a small fleet of services up: one file, one process",
		Long: `Mainstay reads topology.yaml and holds up what it says: it starts the services and
keeps them alive, sends requests to the least busy instance, relays messages
between them, snapshots their data, and follows the file as it changes.`,
		Example: `  mainstay run                # what ./topology.yaml says, in the foreground
  mainstay status             # in another terminal: how everything is doing
  mainstay validate           # every mistake in the file, with line and column`,
		SilenceErrors:    true,
		SilenceUsage:     true,
		PersistentPreRun: func(*cobra.Command, []string) { c.entered = true },
	}
	root.AddGroup(
		&cobra.Group{ID: "fleet", Title: "The fleet:"},
		&cobra.Group{ID: "parts", Title: "The parts, also without a topology:"},
	)
	for _, command := range []*cobra.Command{
		c.runCommand(), c.validateCommand(), c.planCommand(), c.reloadCommand(), c.rollbackCommand(), c.generationsCommand(),
		c.upgradeCommand(), c.statusCommand(), c.whyCommand(), c.logsCommand(),
		c.startCommand(), c.stopCommand(), c.restartCommand(), c.scaleCommand(), c.triggerCommand(),
	} {
		command.GroupID = "fleet"
		root.AddCommand(command)
	}
	for _, command := range []*cobra.Command{c.backupCommand(), c.busCommand(), c.proxyCommand()} {
		command.GroupID = "parts"
		root.AddCommand(command)
	}
	root.AddCommand(c.schemaCommand(), c.versionCommand(), c.exampleServiceCommand(), c.bridgeCommand(), c.upgradeCheckCommand())
	return root
}

// A failure is an error that knows its exit code.
type failure struct {
	code int
	err  error // nil: everything has been said
}

func (f *failure) Error() string {
	if f.err == nil {
		return "failed"
	}
	return f.err.Error()
}

func (f *failure) Unwrap() error { return f.err }

// fail returns an error with the exit code that goes with it.
func fail(code int, format string, args ...any) error {
	return &failure{code, fmt.Errorf(format, args...)}
}

// exitCode returns the exit code that goes with a command's error.
func exitCode(err error) int {
	var known *failure
	var answer *admin.Error
	var problems topology.Problems
	switch {
	case errors.As(err, &known):
		return known.code
	case errors.Is(err, admin.ErrUnreachable):
		return ExitUnreachable
	case errors.As(err, &problems):
		return ExitInvalid
	case errors.As(err, &answer):
		switch answer.Code {
		case admin.CodeInvalid:
			return ExitInvalid
		case admin.CodeRefused:
			return ExitRefused
		}
	case errors.Is(err, engine.ErrHeld), errors.Is(err, backup.ErrOccupied):
		return ExitRefused
	case errors.Is(err, context.DeadlineExceeded):
		return ExitTimeout
	}
	return ExitFailed
}

// report says on stderr what went wrong.
func (c *cli) report(err error) {
	var known *failure
	if errors.As(err, &known) && known.err == nil {
		return
	}
	var problems topology.Problems
	var answer *admin.Error
	if errors.As(err, &answer) {
		problems = answer.Problems
	}
	if len(problems) > 0 || errors.As(err, &problems) {
		for _, p := range problems {
			fmt.Fprintln(c.Err, plain(p.String()))
		}
		return
	}
	fmt.Fprintf(c.Err, "mainstay: %s\n", plain(strings.TrimSpace(err.Error())))
	if errors.Is(err, admin.ErrUnreachable) {
		fmt.Fprintf(c.Err, "Start it with: mainstay run%s\n", c.fileFlags())
	}
}

// untilInterrupted returns a context that ends with SIGINT or SIGTERM.
func untilInterrupted() (context.Context, context.CancelFunc) {
	return signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
}

// takes refuses a command with fewer than least arguments or, unless it is negative, more than most.
func takes(least, most int) cobra.PositionalArgs {
	return func(command *cobra.Command, args []string) error {
		switch {
		case len(args) < least:
			return fmt.Errorf("something is missing; the usage is: %s", command.UseLine())
		case most >= 0 && len(args) > most:
			return fmt.Errorf("%q is too much; the usage is: %s", args[most], command.UseLine())
		}
		return nil
	}
}

// group returns a command that only holds others.
func group(use, short, long, example string, commands ...*cobra.Command) *cobra.Command {
	g := &cobra.Command{
		Use: use, Short: short, Long: long, Example: example,
		RunE: func(g *cobra.Command, args []string) error {
			var names []string
			for _, command := range g.Commands() {
				names = append(names, command.Name())
			}
			if len(args) == 0 {
				return fail(ExitUsage, "%s: which of %s?", g.CommandPath(), strings.Join(names, ", "))
			}
			hint := ""
			if near := g.SuggestionsFor(args[0]); len(near) > 0 {
				hint = fmt.Sprintf("; did you mean %q?", near[0])
			}
			return fail(ExitUsage, "unknown command %q for %q%s", args[0], g.CommandPath(), hint)
		},
	}
	// So that SuggestionsFor, which cobra uses for the root alone, is as lenient here.
	g.SuggestionsMinimumDistance = 2
	g.AddCommand(commands...)
	return g
}
