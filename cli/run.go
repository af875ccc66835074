package cli

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"mainstay/admin"
	"mainstay/backup"
	"mainstay/bus"
	"mainstay/engine"
	"mainstay/proxy"
	"mainstay/supervisor"
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
letting requests finish, and exit with 0; a second one kills every service's process
group at once and exits with 1. With on_exit: keep the services run on, and the
next start takes them over; as it does after a kill -9.`,
		Example: `  mainstay run
  mainstay run --file base.yaml --file production.yaml
  mainstay run --log-format json 2>> mainstay.log`,
		Args: takes(0, 0),
		RunE: func(*cobra.Command, []string) error {
			log, err := logs.logger(c.Err)
			if err != nil {
				return err
			}
			fleet := newFleet(log, c.source(log), c.handoff)
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

// A fleet is all the rooms, joined to each other.
type fleet struct {
	engine     *engine.Engine
	supervisor *supervisor.Supervisor
	backup     *backup.Backup
	window     *admin.Admin
	succession *succession
}

// newFleet joins the rooms. Nothing runs yet. h is what a former program in this process has left, nil if there was none.
func newFleet(log *slog.Logger, source engine.Source, h *handoff) *fleet {
	set := h.sockets()
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	reg := prometheus.WrapRegistererWithPrefix("mainstay_", registry)

	relays := bus.New(log, reg, set)
	snapshots := backup.New(log, reg)
	requests := proxy.New(log, reg, set)
	processes := supervisor.New(log, reg, requests) // requests is told which instances may receive them
	f := &fleet{supervisor: processes, backup: snapshots, succession: newSuccession(log, set, h)}
	f.window = admin.New(log, reg, registry, set, build(), admin.Rooms{
		Supervisor: processes,
		Proxy:      requests,
		Bus:        relays,
		Backup:     snapshots,
		Upgrader:   f,
	})
	f.engine = engine.New(log, reg, source,
		engine.Stage{Name: "bus", Subsystem: relays},
		engine.Stage{Name: "backup", Subsystem: snapshots},
		engine.Stage{Name: "proxy", Subsystem: requests},
		engine.Stage{Name: "metrics", Subsystem: f.window},
		engine.Stage{Name: "supervisor", Subsystem: processes}, // last: what refuses comes before what touches processes
	)
	return f
}

// hold keeps the fleet up until a signal ends it, and returns when nothing runs any more. The tasks
// begin when the first topology has been applied, and are given it. Their context is done only after
// everything has stopped, so that the window shows how far a stop has come; a task's error stops the fleet. lock is the state
// directory's, if a former program has handed it over.
func (f *fleet) hold(lock *os.File, tasks ...func(ctx context.Context, t *topology.Topology) error) error {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(signals)

	running, stop := context.WithCancel(context.Background())
	up, down := context.WithCancel(context.Background())
	var g errgroup.Group
	g.Go(func() error {
		defer down()
		defer stop()
		return f.engine.Run(running, lock)
	})
	for _, task := range tasks {
		g.Go(func() error {
			select {
			case <-f.engine.Started():
			case <-up.Done():
				return nil
			}
			t := f.engine.Topology()
			if t == topology.Empty {
				return nil // it has stopped already
			}
			err := task(up, t)
			if err != nil {
				stop()
			}
			return err
		})
	}
	hangUps := make(chan struct{}, 1)
	g.Go(func() error {
		for {
			select {
			case <-running.Done():
				return nil
			case <-hangUps:
				f.engine.Reload(running, engine.OriginSIGHUP) // which logs how it went
			}
		}
	})
	g.Go(func() error {
		for {
			select {
			case <-running.Done():
				return nil
			case next := <-f.succession.begun:
				f.succession.carryOut(running, f, next)
			}
		}
	})
	g.Go(func() error {
		for {
			select {
			case <-up.Done():
				return nil
			case s := <-signals:
				switch {
				case s == syscall.SIGHUP:
					select {
					case hangUps <- struct{}{}:
					default: // one reload is waiting already, and will read what this one would
					}
				case running.Err() == nil:
					stop()
				default:
					f.kill()
					os.Exit(ExitFailed)
				}
			}
		}
	})
	return g.Wait()
}

// kill ends the process groups of all instances, as a last resort: nothing is drained and nothing waited for. Those that are to
// outlive Mainstay do.
func (f *fleet) kill() {
	if f.engine.Topology().OnExit == topology.OnExitKeep {
		return
	}
	for _, pid := range f.pids() {
		syscall.Kill(-pid, syscall.SIGKILL)
	}
}

// Begin implements admin.Upgrader.
func (f *fleet) Begin(ctx context.Context, q admin.UpgradeRequest) (admin.Upgrade, error) {
	return f.succession.begin(ctx, f.engine, q)
}

// Last implements admin.Upgrader.
func (f *fleet) Last() *admin.Upgrade { return f.succession.Last() }

// arrive ends the upgrade that has led to this program: what was given up for it is begun again.
func (f *fleet) arrive(ctx context.Context, h *handoff) {
	f.succession.arrive(f, h)
	for _, name := range h.Backups {
		if _, err := f.backup.Now(ctx, name); err != nil {
			f.succession.log.Warn("backup that the upgrade had cut short failed", "backup", name, "err", err)
		}
	}
}

// pids returns the processes of all instances.
func (f *fleet) pids() []int {
	var pids []int
	for _, service := range f.supervisor.Status() {
		for _, instance := range service.Instances {
			if instance.PID > 0 {
				pids = append(pids, instance.PID)
			}
		}
	}
	return pids
}

// awaitBackups waits until no backup is under way, and returns those that are when ctx is done.
func (f *fleet) awaitBackups(ctx context.Context) []string {
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	for {
		var running []string
		for _, job := range f.backup.Status() {
			if job.State == "running" {
				running = append(running, job.Name)
			}
		}
		if len(running) == 0 || ctx.Err() != nil {
			return running
		}
		select {
		case <-ctx.Done():
		case <-again.C:
		}
	}
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
