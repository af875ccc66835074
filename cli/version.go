package cli

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"mainstay/admin"
)

// version is set by the linker; without it the module's version is told.
var version string

func (c *cli) versionCommand() *cobra.Command {
	command := &cobra.Command{
		Use:     "version",
		Short:   "Print which program this is",
		Example: "  mainstay version\n  mainstay version -o json",
		Args:    takes(0, 0),
		RunE: func(*cobra.Command, []string) error {
			b := build()
			if c.json() {
				return c.printJSON(b)
			}
			line := fmt.Sprintf("mainstay %s %s %s", b.Version, b.Go, b.Platform)
			if b.Revision != "" {
				line += " " + b.Revision
			}
			_, err := fmt.Fprintln(c.Out, line)
			return err
		},
	}
	c.givesOutput(command)
	return command
}

// build returns which program this is, as far as the tool chain has told.
func build() admin.Build {
	b := admin.Build{Version: version, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	if b.Version == "" {
		b.Version = info.Main.Version
	}
	for _, setting := range info.Settings {
		if setting.Key == "vcs.revision" {
			b.Revision = setting.Value
		}
	}
	return b
}
