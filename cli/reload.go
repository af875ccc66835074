package cli

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"mainstay/engine"
)

func (c *cli) reloadCommand() *cobra.Command {
	var wait waitFlags
	command := &cobra.Command{
		Use:   "reload",
		Short: "Read the file again now and apply it",
		Long: `Reload makes what the file says so, as saving the file does. A file with problems (exit 3) or one that
cannot be applied (exit 6) changes nothing.`,
		Example: `  mainstay reload
  mainstay reload --wait --timeout 2m   # until every service is ready again`,
		Args: takes(0, 0),
		RunE: func(command *cobra.Command, _ []string) error {
			client, err := c.client()
			if err != nil {
				return err
			}
			outcome, err := client.Reload(command.Context())
			if err != nil {
				return err
			}
			if !c.json() {
				c.printOutcome(outcome)
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

func (c *cli) printOutcome(o *engine.Outcome) {
	for _, warning := range o.Problems {
		fmt.Fprintln(c.Err, warning)
	}
	if o.Result == engine.ResultUnchanged {
		fmt.Fprintf(c.Out, "Nothing has changed: generation %d runs what the file says.\n", o.Generation)
		return
	}
	c.printChanges(o.Changes)
	took := time.Duration(o.TookSeconds * float64(time.Second)).Round(time.Millisecond)
	fmt.Fprintf(c.Out, "\n%s applied in %s: generation %d.\n", count(len(o.Changes), "change"), took, o.Generation)
}
