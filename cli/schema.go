package cli

import (
	"github.com/spf13/cobra"

	"mainstay/topology"
)

func (c *cli) schemaCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON Schema of the file, for editors",
		Long: `Schema prints the JSON Schema (draft-07) of topology.yaml. Editors with yaml-language-server
use it for completion and checks when the file begins with a line like the last one below.`,
		Example: `  mainstay schema > topology.schema.json
  # yaml-language-server: $schema=./topology.schema.json`,
		Args: takes(0, 0),
		RunE: func(*cobra.Command, []string) error {
			_, err := c.Out.Write(topology.Schema())
			return err
		},
	}
}
