package cli

import (
	"github.com/spf13/cobra"

	"mainstay/engine"
)

// upgradeCheckCommand is how a running Mainstay asks the program that it is to be upgraded to.
func (c *cli) upgradeCheckCommand() *cobra.Command {
	var stateDir string
	var generation int
	command := &cobra.Command{
		Use:    "upgrade-check",
		Short:  "Say whether this program can go on with what another one runs",
		Hidden: true,
		Args:   takes(0, 0),
		RunE: func(*cobra.Command, []string) error {
			report := upgradeReport{Build: build(), Protocol: upgradeProtocol}
			if err := engine.CheckGeneration(stateDir, generation); err != nil {
				report.Problem = err.Error()
			}
			return printJSON(c.Out, report)
		},
	}
	command.Flags().StringVar(&stateDir, "state-dir", "", "`DIR` of the state of what runs")
	command.Flags().IntVar(&generation, "generation", 0, "`NUMBER` of what runs")
	return command
}
