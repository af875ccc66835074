package cli

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"mainstay/admin"
	"mainstay/engine"
)

func (c *cli) rollbackCommand() *cobra.Command {
	var wait waitFlags
	command := &cobra.Command{
		Use:   "rollback [GENERATION]",
		Short: "Run an earlier generation again",
		Long: `Rollback applies a generation that ran before as reload would apply a file: nothing fails, and what cannot be
applied changes nothing (exit 6). Without GENERATION it is the newest that says something else than the one that runs,
and to which no update was given up.
The file is not changed. While it stays as it is it is not followed; once its content changes, or with
mainstay reload, what it says runs again. Which generations there are: mainstay generations.`,
		Example: `  mainstay rollback
  mainstay rollback 12 --wait --timeout 2m`,
		Args: takesGeneration,
		RunE: func(command *cobra.Command, args []string) error {
			client, err := c.client()
			if err != nil {
				return err
			}
			number := 0
			if len(args) > 0 {
				number, _ = strconv.Atoi(args[0]) // it was looked at
			}
			outcome, err := client.Rollback(command.Context(), number)
			if err != nil {
				return err
			}
			if !c.json() {
				if err := c.printRollback(command.Context(), client, outcome); err != nil {
					return err
				}
			}
			if err := wait.await(command.Context(), c.progressOut(), client); err != nil {
				return err
			}
			if c.json() {
				return c.printJSON(outcome)
			}
			return nil
		},
	}
	c.takesFiles(command)
	c.givesOutput(command)
	wait.register(command, "it is ready")
	return command
}

func (c *cli) printRollback(ctx context.Context, client *admin.Client, outcome *engine.Outcome) error {
	if outcome.Result == engine.ResultUnchanged {
		fmt.Fprintf(c.Out, "Nothing has changed: generation %d runs just that.\n", outcome.Generation)
	} else {
		c.printOutcome(outcome)
	}
	status, err := client.Status(ctx)
	if err != nil {
		return err
	}
	if status.Pin != nil {
		fmt.Fprintln(c.Out, describePin(status.Pin, status.Generation))
	}
	return nil
}

// takesGeneration refuses arguments that are no generation's number.
func takesGeneration(command *cobra.Command, args []string) error {
	if len(args) > 0 {
		if number, err := strconv.Atoi(args[0]); err != nil || number < 1 {
			return fmt.Errorf("%s: want the number of a generation, as mainstay generations shows them", args[0])
		}
	}
	return takes(0, 1)(command, args)
}

// describePin says what is pinned while generation runs.
func describePin(pin *engine.Pin, generation int) string {
	again := ""
	if pin.Generation != generation {
		again = fmt.Sprintf(" (as generation %d)", generation)
	}
	return fmt.Sprintf("Generation %d runs again%s: the file says otherwise since %s and is not followed until it changes, or: mainstay reload",
		pin.Generation, again, pin.Since.Local().Format(time.DateTime))
}

func (c *cli) generationsCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "generations",
		Short: "List what ran before and can run again",
		Long: `Generations lists the topologies that were accepted, newest first; the one that runs is marked with *. The last 50 are kept.
mainstay rollback runs one of them again.`,
		Example: "  mainstay generations\n  mainstay rollback 12",
		Args:    takes(0, 0),
		RunE: func(command *cobra.Command, _ []string) error {
			client, err := c.client()
			if err != nil {
				return err
			}
			list, err := client.Generations(command.Context())
			if err != nil {
				return err
			}
			if c.json() {
				return c.printJSON(list)
			}
			t := newTable("", "GENERATION", "ACCEPTED", "AGE", "BY", "FAILED")
			for _, k := range list {
				t.row(generationRow(k)...)
			}
			t.print(c.Out)
			return nil
		},
	}
	c.takesFiles(command)
	c.givesOutput(command)
	return command
}

func generationRow(k engine.Kept) []string {
	mark, by := "", dash(k.Origin)
	if k.Current {
		mark = "*"
	}
	if k.Again != 0 {
		by = fmt.Sprintf("%s to %d", k.Origin, k.Again)
	}
	if k.Error != "" {
		return []string{mark, strconv.Itoa(k.Generation), "-", "-", "-", "unreadable: " + k.Error}
	}
	return []string{mark, strconv.Itoa(k.Generation), k.Time.Local().Format(time.DateTime), age(k.Time), by, dash(k.Failed)}
}
