package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"github.com/rogpeppe/go-internal/testscript"
)

// TestMain lets scripts run this binary itself, and the small programs that they need beside it.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"mainstay":      mainstayMain,
		"mainstay-stub": mainstayMain, // what Mainstay starts itself as, where something is to be done before a service
		"get":           getMain,
		"load":          loadMain,
		"service":       serviceMain,
		"notify":        notifyMain,
	})
}

// TestScripts runs testdata/script. Every script ends its background processes with an interrupt, so each
// is a test of stopping too; afterwards no process of any may be left.
func TestScripts(t *testing.T) {
	root := scriptRoot(t)
	params := scripts(root)
	params.Dir = "testdata/script"
	testscript.Run(t, params)
}

// scriptRoot returns a directory for scripts to run in. Its name is short, as a unix socket's path must be.
func scriptRoot(t *testing.T) string {
	root, err := os.MkdirTemp("", "m")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		noneLeft(t, root)
		if err := os.RemoveAll(root); err != nil {
			t.Error(err)
		}
	})
	return root
}

// scripts returns how scripts are run, in directories under root.
func scripts(root string) testscript.Params {
	return testscript.Params{
		WorkdirRoot:         root,
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("NO_COLOR", "1")
			env.Setenv("TZ", "UTC")
			env.Setenv("GORACE", "atexit_sleep_ms=0") // else each program takes a second more to exit
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"freeport": freeport,
			"edit":     edit,
			"until":    until,
			"exits":    exits,
			"pid":      pid,
			"signal":   sendSignal,
			"child":    child,
			"gone":     gone,
			"dead":     dead,
			"running":  running,
			"lasts":    lasts,
			"replace":  replace,
			"program":  program,
			"promlint": lintMetrics,
		},
	}
}

// patience bounds every wait of a script.
const patience = 60 * time.Second

// poll calls done until it is true. It is false when that took too long.
func poll(done func() bool) bool {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	for !done() {
		select {
		case <-ctx.Done():
			return false
		case <-again.C:
		}
	}
	return true
}

// freeport NAME... sets each variable to a port of 127.0.0.1 that nothing listens on, and that neither the kernel
// nor a supervisor gives to anyone.
func freeport(ts *testscript.TestScript, _ bool, names []string) {
	for _, name := range names {
		for {
			port := strconv.Itoa(10000 + rand.IntN(10000))
			listener, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", port))
			if err != nil {
				continue
			}
			defer listener.Close() // at the end, so that they differ
			ts.Setenv(name, port)
			break
		}
	}
}

// edit FILE OLD NEW replaces a text as editors save: a new file is written beside and renamed.
func edit(ts *testscript.TestScript, _ bool, args []string) {
	path := ts.MkAbs(args[0])
	before, err := os.ReadFile(path)
	ts.Check(err)
	after := bytes.ReplaceAll(before, []byte(args[1]), []byte(args[2]))
	if bytes.Equal(before, after) {
		ts.Fatalf("%s does not contain %q", args[0], args[1])
	}
	ts.Check(os.WriteFile(path+"~", after, 0o600))
	ts.Check(os.Rename(path+"~", path))
}

// until REGEXP COMMAND... runs a command again and again until what it prints matches.
func until(ts *testscript.TestScript, neg bool, args []string) {
	want := regexp.MustCompile("(?m)" + args[0])
	var output string
	if !poll(func() bool {
		output = run(ts, args[1:])
		return want.MatchString(output) != neg
	}) {
		ts.Fatalf("%s still prints:\n%s", strings.Join(args[1:], " "), output)
	}
}

// exits CODE COMMAND... runs a command that must exit with the code.
func exits(ts *testscript.TestScript, _ bool, args []string) {
	got := 0
	err := ts.Exec(args[1], args[2:]...)
	if failed := new(exec.ExitError); errors.As(err, &failed) {
		got = failed.ExitCode()
	} else {
		ts.Check(err)
	}
	if strconv.Itoa(got) != args[0] {
		ts.Fatalf("%s exits with %d, want %s", strings.Join(args[1:], " "), got, args[0])
	}
}

// run returns what a command prints on both outputs, however it ends.
func run(ts *testscript.TestScript, args []string) string {
	_ = ts.Exec(args[0], args[1:]...)
	return ts.ReadFile("stdout") + ts.ReadFile("stderr")
}

// pid NAME INSTANCE sets the variable to the process id of an instance as status tells it.
func pid(ts *testscript.TestScript, _ bool, args []string) {
	var status struct {
		Services []struct {
			Instances []struct {
				ID  string
				PID int
			}
		}
	}
	output := run(ts, []string{"mainstay", "status", "-o", "json"})
	if err := json.Unmarshal([]byte(output), &status); err != nil {
		ts.Fatalf("status: %v:\n%s", err, output)
	}
	for _, service := range status.Services {
		for _, instance := range service.Instances {
			if instance.ID == args[1] && instance.PID != 0 {
				ts.Setenv(args[0], strconv.Itoa(instance.PID))
				return
			}
		}
	}
	ts.Fatalf("no process of %s:\n%s", args[1], output)
}

// child NAME SERVICE sets the variable to the process id of the child that the service says it has left behind.
func child(ts *testscript.TestScript, _ bool, args []string) {
	said := regexp.MustCompile(`(?m)^child (\d+)$`)
	var output string
	if !poll(func() bool { output = run(ts, []string{"mainstay", "logs", args[1]}); return said.MatchString(output) }) {
		ts.Fatalf("no child of %s: %s", args[1], output)
	}
	ts.Setenv(args[0], said.FindStringSubmatch(output)[1])
}

// signal NAME PID... sends a signal to processes.
func sendSignal(ts *testscript.TestScript, _ bool, args []string) {
	signals := map[string]syscall.Signal{"HUP": syscall.SIGHUP, "INT": syscall.SIGINT, "KILL": syscall.SIGKILL, "TERM": syscall.SIGTERM, "STOP": syscall.SIGSTOP, "CONT": syscall.SIGCONT}
	for _, arg := range args[1:] {
		pid, err := strconv.Atoi(arg)
		ts.Check(err)
		ts.Check(syscall.Kill(pid, signals[args[0]]))
	}
}

// gone PID... waits until no such process is left. ! gone fails if one is not there.
func gone(ts *testscript.TestScript, neg bool, args []string) {
	for _, arg := range args {
		pid, err := strconv.Atoi(arg)
		ts.Check(err)
		isGone := func() bool { return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) }
		if neg && isGone() {
			ts.Fatalf("process %d is gone", pid)
		}
		if !neg && !poll(isGone) {
			ts.Fatalf("process %d is still there", pid)
		}
	}
}

// dead PID... fails if one of the processes runs now.
func dead(ts *testscript.TestScript, _ bool, args []string) {
	for _, pid := range args {
		if _, err := strconv.Atoi(pid); err != nil {
			ts.Fatalf("%q is no process id", pid)
		}
		stat, err := os.ReadFile("/proc/" + pid + "/stat")
		if _, rest, ok := bytes.Cut(stat, []byte(") ")); err == nil && ok && rest[0] != 'Z' && rest[0] != 'X' {
			ts.Fatalf("still there: %s", stat)
		}
	}
}

// running N SERVICE waits until exactly so many processes belong to the script's service, descendants included.
func running(ts *testscript.TestScript, _ bool, args []string) {
	var found []string
	count := func() bool {
		found = nil
		environments, err := filepath.Glob("/proc/[0-9]*/environ")
		ts.Check(err)
		for _, path := range environments {
			environment, err := os.ReadFile(path)
			if err == nil && bytes.Contains(environment, []byte("WORK="+ts.Getenv("WORK")+"\x00")) && bytes.Contains(environment, []byte("MAINSTAY_SERVICE="+args[1]+"\x00")) {
				found = append(found, path)
			}
		}
		return strconv.Itoa(len(found)) == args[0]
	}
	if !poll(count) {
		ts.Fatalf("%d processes of %s: %v", len(found), args[1], found)
	}
}

// lasts MIN MAX COMMAND... runs a command that must succeed, and neither sooner nor later.
func lasts(ts *testscript.TestScript, _ bool, args []string) {
	least, err := time.ParseDuration(args[0])
	ts.Check(err)
	most, err := time.ParseDuration(args[1])
	ts.Check(err)
	begun := time.Now()
	ts.Check(ts.Exec(args[2], args[3:]...))
	if took := time.Since(begun); took < least || took > most {
		ts.Fatalf("%s took %s", strings.Join(args[2:], " "), took)
	}
}

// replace FILE OLD NEW replaces a text in place, as a shell's redirection does: the file is emptied and then written.
func replace(ts *testscript.TestScript, _ bool, args []string) {
	path := ts.MkAbs(args[0])
	before, err := os.ReadFile(path)
	ts.Check(err)
	ts.Check(os.WriteFile(path, bytes.ReplaceAll(before, []byte(args[1]), []byte(args[2])), 0o600))
}

// promlint URL checks the names of all metrics there.
func lintMetrics(ts *testscript.TestScript, _ bool, args []string) {
	response, err := http.Get(args[0])
	ts.Check(err)
	defer response.Body.Close()
	problems, err := promlint.New(response.Body).Lint()
	ts.Check(err)
	for _, p := range problems {
		ts.Logf("%s: %s", p.Metric, p.Text)
	}
	if len(problems) > 0 {
		ts.Fatalf("%d metrics are named badly", len(problems))
	}
}

// noneLeft fails the test if a process is left that was started from a directory under root.
func noneLeft(t *testing.T, root string) {
	environments, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range environments {
		environment, err := os.ReadFile(path)
		_, script, ok := bytes.Cut(environment, []byte("WORK="+root))
		if err != nil || !ok {
			continue
		}
		script, _, _ = bytes.Cut(script, []byte{0})
		command, _ := os.ReadFile(filepath.Join(filepath.Dir(path), "cmdline"))
		t.Errorf("left running by %s: %s", script, bytes.ReplaceAll(command, []byte{0}, []byte{' '}))
	}
}

// getMain is the program get: it prints what a GET, or with -d a POST of a form, is answered. It fails unless the status is 2xx.
func getMain() {
	data := flag.String("d", "", "form to post")
	flag.Parse()
	var response *http.Response
	var err error
	if *data == "" {
		response, err = http.Get(flag.Arg(0))
	} else {
		response, err = http.Post(flag.Arg(0), "application/x-www-form-urlencoded", strings.NewReader(*data))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	defer response.Body.Close()
	io.Copy(os.Stdout, response.Body)
	if response.StatusCode/100 != 2 {
		fmt.Fprintln(os.Stderr, response.Status)
		os.Exit(1)
	}
}
