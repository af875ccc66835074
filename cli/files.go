package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"mainstay/admin"
	"mainstay/topology"
)

// defaultFile is what runs when no --file says otherwise.
const defaultFile = "topology.yaml"

// takesFiles gives a command the flag --file, with -f unless that is already something else there.
func (c *cli) takesFiles(command *cobra.Command) {
	short := "f"
	if command.Flags().ShorthandLookup(short) != nil {
		short = ""
	}
	command.Flags().StringArrayVarP(&c.files, "file", short, nil, "topology `FILE`; a later one goes over an earlier one (default ./"+defaultFile+")")
	command.MarkFlagFilename("file", "yaml", "yml")
}

// paths returns the files that the command is about, and whether there are none but the example.
func (c *cli) paths() (paths []string, isExample bool) {
	if len(c.files) > 0 {
		return c.files, false
	}
	if _, err := os.Stat(defaultFile); errors.Is(err, fs.ErrNotExist) {
		return nil, true
	}
	return []string{defaultFile}, false
}

// exampleFile is the example as if it lay in the working directory, under a name that tells it from the user's.
func (c *cli) exampleFile() topology.File {
	return topology.File{Path: "built-in-example.yaml", Content: c.example}
}

// read returns the files that the command is about.
func (c *cli) read() ([]topology.File, error) {
	paths, isExample := c.paths()
	if isExample {
		return []topology.File{c.exampleFile()}, nil
	}
	return topology.Read(paths)
}

// client returns a client of the Mainstay that runs the files that the command is about. The files
// need not be valid, nor even be there any more.
func (c *cli) client() (*admin.Client, error) {
	files, err := c.read()
	if err != nil {
		files = nil
		for _, path := range c.files {
			files = append(files, topology.File{Path: path})
		}
	}
	_, socket := topology.Locate(files)
	if socket == "" {
		return nil, fmt.Errorf("find admin socket: %w", err)
	}
	return admin.NewClient(socket), nil
}
