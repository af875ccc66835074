package cli

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"mainstay/admin"
)

func (c *cli) upgradeCommand() *cobra.Command {
	var drain time.Duration
	command := &cobra.Command{
		Use:   "upgrade [BINARY]",
		Short: "Let another version go on in the running Mainstay's place",
		Long: `Upgrade replaces the program of the running Mainstay: by BINARY, or by the file that it was started from as
that is now. The process, its services and the sockets that it listens on stay; no request fails. Requests, messages and
backups that are under way have until --drain; what is longer is ended (a backup is made again).

A BINARY that cannot do it (not executable, for another machine, with another protocol or without what the topology
needs) is refused (exit 6) and nothing has changed. One that does not come up is left again for the former (exit 1).
With exit 0 the new one runs.`,
		Example: `  install mainstay-1.3 /usr/local/bin/mainstay && mainstay upgrade
  mainstay upgrade ./mainstay-1.3 --drain 2m`,
		Args: takes(0, 1),
		RunE: func(command *cobra.Command, args []string) error {
			if drain < 0 {
				return fail(ExitUsage, "--drain %s: want no negative time", drain)
			}
			q := admin.UpgradeRequest{DrainSeconds: drain.Seconds()}
			if len(args) > 0 {
				path, err := filepath.Abs(args[0])
				if err != nil {
					return err
				}
				q.Binary = path
			}
			client, err := c.client()
			if err != nil {
				return err
			}
			ctx, stop := untilInterrupted()
			defer stop()
			begun, err := client.Upgrade(ctx, q)
			if err != nil {
				return err
			}
			if !c.json() {
				fmt.Fprintf(c.Err, "Upgrading from %s to %s; what is under way has %s.\n", describeBuild(begun.From), describeBuild(begun.To), drain)
			}
			ended, err := followUpgrade(ctx, client, begun.ID, drain)
			if err != nil {
				return err
			}
			return c.printUpgrade(ended)
		},
	}
	c.takesFiles(command)
	c.givesOutput(command)
	command.Flags().DurationVar(&drain, "drain", 30*time.Second, "`TIME` for what is under way to end")
	return command
}

// upgradePatience is what an upgrade may take beyond what it drains: an upgrade before it, backups, and requests.
const upgradePatience = time.Minute

// upgradeSilence is how long nobody may answer until the process is taken for dead. The one program hands its socket to the other.
const upgradeSilence = 5 * time.Second

// followUpgrade waits until the upgrade has ended, and asks whichever program runs.
func followUpgrade(ctx context.Context, client *admin.Client, id string, drain time.Duration) (*admin.Upgrade, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*drain+upgradePatience)
	defer cancel()
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	var silent time.Time // since nobody answers; zero: somebody does
	for {
		status, err := client.Status(ctx)
		if err == nil {
			silent = time.Time{}
		} else if silent.IsZero() {
			silent = time.Now()
		}
		switch {
		case err != nil && time.Since(silent) > upgradeSilence:
			return nil, fmt.Errorf("wait for the upgrade: %w", err)
		case err != nil: // between the two nobody answers
		case status.Upgrade == nil || status.Upgrade.ID != id:
			return nil, fail(ExitFailed, "the Mainstay that was upgraded has ended, another one runs")
		case status.Upgrade.State != admin.UpgradeRunning:
			return status.Upgrade, nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for the upgrade: %w", context.Cause(ctx))
		case <-again.C:
		}
	}
}

func (c *cli) printUpgrade(u *admin.Upgrade) error {
	if c.json() {
		if err := c.printJSON(u); err != nil {
			return err
		}
	}
	if u.State != admin.UpgradeDone {
		return fail(ExitFailed, "%s runs on: %s", describeBuild(u.From), u.Error)
	}
	if c.json() {
		return nil
	}
	lost, kept := "", fmt.Sprintf("%d processes", u.Kept)
	if u.Kept == 1 {
		kept = "1 process"
	}
	if u.Lost > 0 {
		lost = fmt.Sprintf(", %d ended meanwhile", u.Lost)
	}
	took := time.Duration(u.TookSeconds * float64(time.Second)).Round(time.Millisecond)
	_, err := fmt.Fprintf(c.Out, "upgraded from %s to %s: generation %d, %s kept%s, took %s\n",
		describeBuild(u.From), describeBuild(u.To), u.Generation, kept, lost, took)
	return err
}

// describeBuild returns what tells one program from another.
func describeBuild(b admin.Build) string {
	if len(b.Revision) >= 12 && b.Version == "(devel)" {
		return b.Version + " " + b.Revision[:12]
	}
	return b.Version
}
