package supervisor

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// stubName is what a program is called while it still is Mainstay's own binary.
const stubName = "mainstay-stub"

// An errand is what a stub does between being started and becoming the program.
type errand struct {
	Path       string // of the program; its arguments are the stub's own, after the errand
	Directory  string
	Credential *syscall.Credential // nil: as it is
	OpenFiles  int                 // 0: as it is
	Mask       int
	Socket     bool // descriptor 3 is a listening socket, to be told of
	Watchdog   bool // it is told that it has one (sd_watchdog_enabled(3))
	Report     int  // the descriptor on which to tell what went wrong; closed by becoming the program
}

// A stumble is why a stub did not become the program.
type stumble struct {
	What  string
	Errno syscall.Errno // 0: What says it all
}

// Become makes this process the program that it was started for, if it was started for one: where something has to be done
// between fork and exec, Mainstay starts itself, and this is what it does then. In every other case it returns at once. It is
// to be called before anything else.
func Become() {
	if os.Args[0] != stubName || len(os.Args) < 2 {
		return
	}
	var e errand
	if err := json.Unmarshal([]byte(os.Args[1]), &e); err != nil {
		fmt.Fprintf(os.Stderr, "mainstay: read what to start: %v\n", err)
		os.Exit(127)
	}
	what, err := e.run(os.Args[2:])
	s := stumble{What: what + ": " + err.Error()}
	if errors.As(err, &s.Errno) {
		s.What = what
	}
	json.NewEncoder(os.NewFile(uintptr(e.Report), "report")).Encode(s)
	os.Exit(127)
}

// run returns only if the program cannot be started, with what was tried last.
func (e errand) run(argv []string) (what string, err error) {
	syscall.CloseOnExec(e.Report)
	syscall.Umask(e.Mask)
	if e.OpenFiles > 0 {
		limit := syscall.Rlimit{Cur: uint64(e.OpenFiles), Max: uint64(e.OpenFiles)}
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
			return fmt.Sprintf("limits.open_files: set to %d", e.OpenFiles), err
		}
	}
	if c := e.Credential; c != nil {
		if !c.NoSetGroups {
			if err := syscall.Setgroups(groupIDs(c.Groups)); err != nil {
				return "set groups", err
			}
		}
		if err := syscall.Setgid(int(c.Gid)); err != nil {
			return fmt.Sprintf("set group %d", c.Gid), err
		}
		if err := syscall.Setuid(int(c.Uid)); err != nil {
			return fmt.Sprintf("set user %d", c.Uid), err
		}
	}
	if e.Directory != "" {
		if err := syscall.Chdir(e.Directory); err != nil {
			return "change directory: " + e.Directory, err
		}
	}
	if e.Socket {
		os.Setenv("LISTEN_FDS", "1")
		os.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid()))
	}
	if e.Watchdog {
		os.Setenv("WATCHDOG_PID", strconv.Itoa(os.Getpid()))
	}
	return "exec " + e.Path, syscall.Exec(e.Path, argv, os.Environ())
}

func groupIDs(groups []uint32) []int {
	ids := make([]int, len(groups))
	for i, g := range groups {
		ids[i] = int(g)
	}
	return ids
}

// argv returns the arguments with which Mainstay's binary runs the errand for a program with the arguments args.
func (e errand) argv(args []string) ([]string, error) {
	b, err := json.Marshal(e)
	if err != nil {
		return nil, err
	}
	return append([]string{stubName, string(b)}, args...), nil
}

// hearStub waits until a stub has become its program, or returns why it has not.
func hearStub(report *os.File) error {
	b, err := io.ReadAll(report)
	if err != nil || len(b) == 0 {
		return err
	}
	var s stumble
	if err := json.Unmarshal(b, &s); err != nil {
		return fmt.Errorf("start: %s", strings.TrimSpace(string(b)))
	}
	if s.Errno != 0 {
		return fmt.Errorf("%s: %w", s.What, s.Errno)
	}
	return errors.New(s.What)
}
