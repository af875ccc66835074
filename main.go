// Mainstay holds a small fleet of services up: one file, one process.
package main

import (
	_ "embed"
	"os"

	"mainstay/cli"
)

//go:embed topology.yaml
var example []byte

func main() {
	os.Exit(cli.Main(os.Args[1:], cli.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}, example))
}
