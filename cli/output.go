package cli

import (
	"encoding/json"
	"io"

	"github.com/spf13/cobra"
)

// givesOutput gives a command the flag --output. asJSON says what JSON it prints.
func (c *cli) givesOutput(command *cobra.Command) {
	command.Flags().StringVarP(&c.output, "output", "o", "table", "`FORMAT`: table for people or json for programs")
	command.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"table", "json"}, cobra.ShellCompDirectiveNoFileComp))
	run := command.RunE
	command.RunE = func(command *cobra.Command, args []string) error {
		if c.output != "table" && c.output != "json" {
			return fail(ExitUsage, "--output %s: want table or json", c.output)
		}
		out := &output{Writer: c.Out}
		c.Out = out
		if err := run(command, args); err != nil {
			return err
		}
		return out.err
	}
}

// An output remembers that something could not be written, on a full disk say.
type output struct {
	io.Writer
	err error // the first
}

func (o *output) Write(p []byte) (int, error) {
	n, err := o.Writer.Write(p)
	if o.err == nil {
		o.err = err
	}
	return n, err
}

// json reports whether the command is to print JSON.
func (c *cli) json() bool { return c.output == "json" }

// printJSON prints v on stdout as indented JSON.
func (c *cli) printJSON(v any) error { return printJSON(c.Out, v) }

func printJSON(w io.Writer, v any) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	return encoder.Encode(v)
}

// printJSONLine prints v on stdout as one line of JSON.
func (c *cli) printJSONLine(v any) error {
	encoder := json.NewEncoder(c.Out)
	encoder.SetEscapeHTML(false)
	return encoder.Encode(v)
}
