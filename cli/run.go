package cli

import (
	"context"
	"fmt"
	"io"
	"log/slog"

	"github.com/spf13/cobra"

	"mainstay/engine"
	"mainstay/topology"
)

func (c *cli) runCommand() *cobra.Command {
	var logs logFlags
	command := &cobra.Command{
		Use:   "run",
		Short: "Run the topology in the foreground",
		Long: `Run starts what the topology says, keeps it running and follows the file as it changes.
Where there is no topology.yaml and no --file, the built-in example runs: a small web shop.

Signals: SIGHUP reads the file again; SIGINT (Ctrl-C) and SIGTERM stop everything in order,
letting requests finish, and exit with 0; a second one kills every service at once,
with whatever it has started, and exits with 1. With on_exit: keep the services run on, and
the next start takes them over; as it does after a kill -9.`,
		Example: `  mainstay run
  mainstay run --file base.yaml --file production.yaml
  mainstay run --log-format json 2>> mainstay.log`,
		Args: takes(0, 0),
		RunE: func(*cobra.Command, []string) error {
			log, err := logs.logger(c.Err)
			if err != nil {
				return err
			}
			fleet := newFleet(log, logs, c.source(log), c.handoff)
			defer c.handoff.goBackUnlessArrived(log)()
			return fleet.hold(c.handoff.lock(),
				func(ctx context.Context, t *topology.Topology) error {
					return fleet.window.Serve(ctx, fleet.engine, t.Admin)
				},
				func(ctx context.Context, t *topology.Topology) error {
					if c.handoff == nil {
						return c.announce(ctx, t, fleet.window)
					}
					c.handoff.arrived.Store(true)
					fleet.arrive(ctx, c.handoff)
					return nil
				},
				returnMemory,
			)
		},
	}
	c.takesFiles(command)
	logs.register(command)
	return command
}

// source returns where the topology comes from.
func (c *cli) source(log *slog.Logger) engine.Source {
	paths, isExample := c.paths()
	if !isExample {
		return engine.Files(log, paths...)
	}
	fmt.Fprintf(c.Err, "There is no ./%s here: running the built-in example, a small web shop. Its state is in ./.mainstay.\n", defaultFile)
	return engine.Static(c.exampleFile())
}

// logFlags are how a command logs.
type logFlags struct{ format, level string }

func (l *logFlags) register(command *cobra.Command) {
	command.Flags().StringVar(&l.format, "log-format", "text", "`FORMAT` of the log on stderr: text or json")
	command.Flags().StringVar(&l.level, "log-level", "info", "lowest `LEVEL` that is logged: debug, info, warn or error")
	command.RegisterFlagCompletionFunc("log-format", cobra.FixedCompletions([]string{"text", "json"}, cobra.ShellCompDirectiveNoFileComp))
	command.RegisterFlagCompletionFunc("log-level", cobra.FixedCompletions([]string{"debug", "info", "warn", "error"}, cobra.ShellCompDirectiveNoFileComp))
}

func (l *logFlags) logger(w io.Writer) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(l.level)); err != nil {
		return nil, fail(ExitUsage, "--log-level %s: want debug, info, warn or error", l.level)
	}
	options := &slog.HandlerOptions{Level: level}
	switch l.format {
	case "text":
		return slog.New(slog.NewTextHandler(w, options)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, options)), nil
	default:
		return nil, fail(ExitUsage, "--log-format %s: want text or json", l.format)
	}
}
