package main

import (
	"os"
	"path/filepath"
	"syscall"

	"github.com/rogpeppe/go-internal/testscript"

	"mainstay/cli"
)

// mainstayMain is the program mainstay. A copy of it with the name broken says that it can run anything, and cannot. To one
// with the name hup SIGHUP comes before it listens.
func mainstayMain() {
	path, err := os.Executable()
	if err == nil && len(os.Args) > 1 && os.Args[1] == "run" {
		switch filepath.Base(path) {
		case "broken":
			args := append(os.Args[1:], "--broken-on-purpose")
			os.Exit(cli.Main(args, cli.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}, example))
		case "hup":
			syscall.Kill(os.Getpid(), syscall.SIGHUP)
		}
	}
	main()
}

// program sets a variable to the path of the program that scripts run as mainstay.
func program(ts *testscript.TestScript, _ bool, args []string) {
	path, err := os.Executable()
	ts.Check(err)
	ts.Setenv(args[0], path)
}
