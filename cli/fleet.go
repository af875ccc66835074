package cli

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"

	"mainstay/admin"
	"mainstay/backup"
	"mainstay/bus"
	"mainstay/engine"
	"mainstay/proxy"
	"mainstay/supervisor"
	"mainstay/topology"
)

// A fleet is all the rooms, joined to each other.
type fleet struct {
	engine     *engine.Engine
	supervisor *supervisor.Supervisor
	proxy      *proxy.Proxy
	backup     *backup.Backup
	window     *admin.Admin
	succession *succession
	manager    systemd
	logs       logFlags
}

// newFleet joins the rooms. Nothing runs yet. logs are how log logs, and h is what a former program in this process has left, nil if there was none.
func newFleet(log *slog.Logger, logs logFlags, source engine.Source, h *handoff) *fleet {
	manager := takeSystemd(log)
	h.restore(manager.given)
	set := h.sockets()
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	reg := prometheus.WrapRegistererWithPrefix("mainstay_", registry)

	relays := bus.New(log, reg, set)
	snapshots := backup.New(log, reg)
	requests := proxy.New(log, reg, set)
	processes := supervisor.New(log, reg, requests) // requests is told which instances may receive them
	f := &fleet{supervisor: processes, proxy: requests, backup: snapshots, logs: logs, succession: newSuccession(log, set, h), manager: manager}
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
// everything has stopped, so that the window shows how far a stop has come; a task's error stops the fleet, but not what
// a former Mainstay has left running. lock is the state directory's, if a former program has handed it over.
func (f *fleet) hold(lock *os.File, tasks ...func(ctx context.Context, t *topology.Topology) error) error {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(signals)

	running, stop := context.WithCancelCause(context.Background())
	up, down := context.WithCancel(context.Background())
	var g errgroup.Group
	g.Go(func() error {
		defer down()
		defer stop(nil)
		return f.engine.Run(running, lock)
	})
	for _, task := range append(tasks, f.tellManager) {
		g.Go(func() error {
			err := f.attend(up, task)
			if err != nil {
				stop(engine.ErrUnfit)
			}
			return err
		})
	}
	hangUps := make(chan struct{}, 1)
	g.Go(func() error { f.obey(running, hangUps); return nil })
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
					g.Go(func() error { f.manager.stopping(up.Done()); return nil })
					stop(nil)
				default:
					f.kill()
					os.Exit(ExitFailed)
				}
			}
		}
	})
	return g.Wait()
}

// attend calls task with the first topology once that has been applied.
func (f *fleet) attend(up context.Context, task func(ctx context.Context, t *topology.Topology) error) error {
	select {
	case <-f.engine.Started():
	case <-up.Done():
		return nil
	}
	t := f.engine.Topology()
	if t == topology.Empty {
		return nil // it has stopped already
	}
	return task(up, t)
}

// obey reloads after each hang-up and carries out upgrades, until ctx is done.
func (f *fleet) obey(ctx context.Context, hangUps <-chan struct{}) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-hangUps:
			f.manager.reloading()
			f.engine.Reload(ctx, engine.OriginSIGHUP) // which logs how it went
			f.manager.ready()
		case next := <-f.succession.begun:
			f.succession.carryOut(ctx, f, next)
		}
	}
}

// tellManager tells the service manager that Mainstay is up, and that it lives, until ctx is done.
func (f *fleet) tellManager(ctx context.Context, _ *topology.Topology) error {
	f.manager.ready()
	f.manager.keepAlive(ctx)
	return nil
}

// killTime bounds the wait for processes that are killed: one in an uninterruptible system call does not die of it.
const killTime = 5 * time.Second

// kill ends all instances and what they have started, as a last resort: nothing is drained. Those that are to outlive Mainstay do.
func (f *fleet) kill() {
	if f.engine.Topology().OnExit == topology.OnExitKeep {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), killTime)
	defer cancel()
	f.supervisor.Kill(ctx)
}

// Begin implements admin.Upgrader.
func (f *fleet) Begin(ctx context.Context, q admin.UpgradeRequest) (admin.Upgrade, error) {
	return f.succession.begin(ctx, f.engine, q)
}

// Last implements admin.Upgrader.
func (f *fleet) Last() *admin.Upgrade { return f.succession.Last() }

// arrive ends the upgrade that has led to this program: what was given up for it is begun again.
func (f *fleet) arrive(ctx context.Context, h *handoff) {
	f.succession.arrive(ctx, f, h)
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

// awaitBackups waits until no backup is under way or ctx is done.
func (f *fleet) awaitBackups(ctx context.Context) {
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	for len(f.runningBackups()) > 0 {
		select {
		case <-ctx.Done():
			return
		case <-again.C:
		}
	}
}

// runningBackups returns the names of those that are under way.
func (f *fleet) runningBackups() []string {
	var running []string
	for _, job := range f.backup.Status() {
		if job.State == "running" {
			running = append(running, job.Name)
		}
	}
	return running
}
