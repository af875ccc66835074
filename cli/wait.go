package cli

import (
	"context"
	"errors"
	"fmt"
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

func (w *waitFlags) register(command *cobra.Command) {
	command.Flags().BoolVar(&w.wait, "wait", false, "wait until it is ready; exit 1 if that fails, 5 if it takes too long")
	command.Flags().DurationVar(&w.timeout, "timeout", 5*time.Minute, "how long to `WAIT` with --wait")
}

// await waits, if it is asked to, until the named services (none: all) are what they are meant to be.
func (w *waitFlags) await(ctx context.Context, client *admin.Client, names ...string) error {
	if !w.wait {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, w.timeout)
	defer cancel()
	poll := time.NewTicker(100 * time.Millisecond)
	defer poll.Stop()
	var waiting []string
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
		waiting, failed = progress(status.Services, names)
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

// progress tells which of the named services (none: all) are on their way and which have failed, and why.
func progress(services []supervisor.ServiceStatus, names []string) (waiting, failed []string) {
	for _, s := range services {
		if len(names) > 0 && !slices.Contains(names, s.Name) {
			continue
		}
		says := fmt.Sprintf("%s is %s (%d of %d ready)", s.Name, s.State, s.Ready, s.Desired)
		if s.Reason != "" {
			says += ": " + s.Reason
		}
		switch {
		case s.State == supervisor.ServiceReady, s.State == supervisor.ServiceCompleted, s.State == supervisor.ServiceStopped:
		case s.State == supervisor.ServiceFailed, s.State == supervisor.ServiceDegraded && !underWay(s):
			failed = append(failed, says)
		default:
			waiting = append(waiting, says)
		}
	}
	return waiting, failed
}

// underWay reports whether an instance of s will yet be in another state by itself. If none will, a degraded service stays so:
// its update was given up.
func underWay(s supervisor.ServiceStatus) bool {
	return slices.ContainsFunc(s.Instances, func(i supervisor.InstanceStatus) bool {
		return i.State != supervisor.StateReady && i.State != supervisor.StateStopped && i.State != supervisor.StateFailed
	})
}
