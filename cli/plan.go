package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"mainstay/admin"
	"mainstay/topology"
)

func (c *cli) planCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "plan",
		Short: "Show what a reload would change, and do nothing",
		Long: `Plan compares the file with what runs and prints each difference with what it does to what runs:

  hot     applied at once, nothing restarts
  scale   starts or drains exactly the difference: the instances named
  roll    replaces the instances named, one after the other, old ones drained
  rebind  the new address is bound before the old one is let go
  manual  refused: needs a restart of Mainstay`,
		Example: `  mainstay plan
  mainstay plan -o json | jq '.changes[] | select(.class == "roll")'`,
		Args: takes(0, 0),
		RunE: func(command *cobra.Command, _ []string) error {
			client, err := c.client()
			if err != nil {
				return err
			}
			plan, err := client.Plan(command.Context())
			if err != nil {
				return err
			}
			if c.json() {
				return c.printJSON(plan)
			}
			c.printPlan(plan)
			return nil
		},
	}
	c.takesFiles(command)
	c.givesOutput(command)
	return command
}

func (c *cli) printPlan(plan *admin.Plan) {
	for _, w := range plan.Warnings {
		fmt.Fprintln(c.Err, w)
	}
	if len(plan.Changes) == 0 {
		fmt.Fprintf(c.Out, "Nothing would change: generation %d runs what the file says.\n", plan.Generation)
		return
	}
	c.printChanges(plan.Changes)
	if manual := classCount(plan.Changes, topology.ClassManual); manual > 0 {
		fmt.Fprintf(c.Out, "\nA reload would be refused: %s a restart of Mainstay.\n", needs(manual))
		return
	}
	fmt.Fprintf(c.Out, "\n%s from generation %d to the next. Do it now with: mainstay reload%s\n",
		count(len(plan.Changes), "change"), plan.Generation, c.fileFlags())
}

// printChanges prints a table of changes.
func (c *cli) printChanges(changes []topology.Change) {
	list := newTable("", "PATH", "FROM", "TO", "CLASS", "INSTANCES", "REASON")
	for _, change := range changes {
		list.row(sign(change.Action), change.Path, brief(change.Old), brief(change.New), string(change.Class), span(change.Instances), change.Reason)
	}
	list.print(c.Out)
}

// sign is what an action is in a diff.
func sign(action string) string {
	switch action {
	case "add":
		return "+"
	case "remove":
		return "-"
	default:
		return "~"
	}
}

// brief shortens a value to what fits into a column.
func brief(value string) string {
	const limit = 40
	value = strings.Join(strings.Fields(value), " ")
	if runes := []rune(value); len(runes) > limit {
		value = string(runes[:limit-1]) + "…"
	}
	return dash(value)
}

func classCount(changes []topology.Change, class topology.Class) int {
	n := 0
	for _, change := range changes {
		if change.Class == class {
			n++
		}
	}
	return n
}

func needs(n int) string {
	if n == 1 {
		return "1 change needs"
	}
	return fmt.Sprintf("%d changes need", n)
}
