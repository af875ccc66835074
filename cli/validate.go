package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"mainstay/topology"
)

func (c *cli) validateCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "validate",
		Short: "List every mistake in the file, with line and column",
		Long: `Validate reads the files as run does, and starts nothing. It prints one problem a line in the form that
editors jump to, or with -o json an array of {file, line, column, path, severity, message, suggestion}.
It exits with 3 if one of them is an error.`,
		Example: `  mainstay validate
  mainstay validate --file base.yaml --file production.yaml
  mainstay validate -o json | jq -r '.[].message'`,
		Args: takes(0, 0),
		RunE: func(*cobra.Command, []string) error { return c.validate() },
	}
	c.takesFiles(command)
	c.givesOutput(command)
	return command
}

func (c *cli) validate() error {
	files, err := c.read()
	if err != nil {
		return err
	}
	t, problems := topology.Parse(files)
	if c.json() {
		if err := c.printJSON(append(topology.Problems{}, problems...)); err != nil {
			return err
		}
	} else {
		for _, p := range problems {
			fmt.Fprintln(c.Out, p)
		}
	}
	if problems.Failed() {
		failed := 0
		for _, p := range problems {
			if p.Severity == "error" {
				failed++
			}
		}
		fmt.Fprintln(c.Err, count(failed, "error"))
		return &failure{code: ExitInvalid}
	}
	if !c.json() {
		fmt.Fprintf(c.Out, "%s: valid: %s\n", c.names(files), contents(t))
	}
	return nil
}

// names names the files for people.
func (c *cli) names(files []topology.File) string {
	if _, isExample := c.paths(); isExample {
		return "the built-in example"
	}
	var names []string
	for _, file := range files {
		names = append(names, file.Path)
	}
	return strings.Join(names, ", ")
}

// contents sums up what a topology holds.
func contents(t *topology.Topology) string {
	return strings.Join([]string{
		count(len(t.Services), "service"),
		count(len(t.Proxy.Routes), "route"),
		count(len(t.Bus), "relay"),
		count(len(t.Backups), "backup"),
	}, ", ")
}
