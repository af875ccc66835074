package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"mainstay/admin"
	"mainstay/supervisor"
)

// waitFlags are how long a command waits for what it has begun.
type waitFlags struct {
	wait    bool
	timeout time.Duration
}

// register gives command the flags. until says what is waited for.
func (w *waitFlags) register(command *cobra.Command, until string) {
	command.Flags().BoolVar(&w.wait, "wait", false, "wait until "+until+"; exit 1 if that fails, 5 if it takes too long")
	command.Flags().DurationVar(&w.timeout, "timeout", 5*time.Minute, "how long to `WAIT` with --wait")
}

// progressOut is where commands tell how far what they wait for is: nowhere if programs read what they print.
func (c *cli) progressOut() io.Writer {
	if c.json() {
		return io.Discard
	}
	return c.Out
}

// await waits, if it is asked to, until the named services (none: all) are what they are meant to be, and tells out of each step.
func (w *waitFlags) await(ctx context.Context, out io.Writer, client *admin.Client, names ...string) error {
	if !w.wait {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, w.timeout)
	defer cancel()
	poll := time.NewTicker(100 * time.Millisecond)
	defer poll.Stop()
	var waiting []string
	steps := newJourney(out)
	for {
		status, err := client.Status(ctx)
		if ctx.Err() != nil && len(waiting) > 0 {
			return fail(ExitTimeout, "not ready after %s: %s", w.timeout, strings.Join(waiting, "; "))
		}
		if ctx.Err() != nil {
			return fail(ExitTimeout, "not ready after %s", w.timeout)
		}
		if err != nil {
			return err
		}
		var failed []string
		services := named(status.Services, names)
		waiting, failed = progress(services)
		steps.tell(time.Now(), services, func(s supervisor.ServiceStatus) bool {
			waiting, failed := progress([]supervisor.ServiceStatus{s})
			return len(waiting)+len(failed) > 0
		})
		if len(failed) > 0 {
			return errors.New(strings.Join(failed, "; "))
		}
		if len(waiting) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
		case <-poll.C:
		}
	}
}

// named returns those of services that names has; all if it has none.
func named(services []supervisor.ServiceStatus, names []string) []supervisor.ServiceStatus {
	return slices.DeleteFunc(slices.Clone(services), func(s supervisor.ServiceStatus) bool {
		return len(names) > 0 && !slices.Contains(names, s.Name)
	})
}

// progress tells which of services are on their way and which have failed, and why.
func progress(services []supervisor.ServiceStatus) (waiting, failed []string) {
	for _, s := range services {
		says := fmt.Sprintf("%s is %s (%d of %d ready)", s.Name, s.State, s.Ready, s.Desired)
		if s.Reason != "" {
			says += ": " + s.Reason
		}
		switch {
		case s.State == supervisor.ServiceRemoved: // what is wanted does not wait for its end
		case s.State == supervisor.ServiceStopped && slices.ContainsFunc(s.Instances, func(i supervisor.InstanceStatus) bool { return i.PID != 0 }):
			waiting = append(waiting, s.Name+" is stopping")
		case s.State == supervisor.ServiceReady, s.State == supervisor.ServiceCompleted, s.State == supervisor.ServiceStopped,
			s.State == supervisor.ServiceScheduled, s.State == supervisor.ServiceRunning:
		case s.State == supervisor.ServiceFailed, s.State == supervisor.ServiceDegraded && !underWay(s):
			failed = append(failed, says)
		default:
			waiting = append(waiting, says)
		}
	}
	return waiting, failed
}

// underWay reports whether s will yet be in another state by itself: an update of it goes on, or an instance changes its state. If
// not, a degraded service stays so: its update was given up.
func underWay(s supervisor.ServiceStatus) bool {
	if s.Update != nil {
		return s.Update.Phase != supervisor.PhasePaused && s.Update.Phase != supervisor.PhaseWaiting
	}
	return slices.ContainsFunc(s.Instances, func(i supervisor.InstanceStatus) bool {
		return i.State != supervisor.StateReady && i.State != supervisor.StateStopped && i.State != supervisor.StateFailed
	})
}
