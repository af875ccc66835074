package cli

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// systemdVariables are where a service manager says how it wants to be told what Mainstay does (sd_notify(3),
// sd_watchdog_enabled(3)). They are meant for Mainstay alone.
var systemdVariables = []string{"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"}

// A systemd is the service manager that Mainstay itself is run by. One without a socket is told nothing.
type systemd struct {
	log      *slog.Logger
	socket   string        // path, or with an @ before it an abstract name; empty: it does not want to know
	watchdog time.Duration // it takes Mainstay for hung when it hears nothing for so long; 0: never
	given    []string      // the variables, for the program that follows in an upgrade
}

// takeSystemd returns what the environment says of the service manager, and takes it out of there: services must not answer for
// Mainstay.
func takeSystemd(log *slog.Logger) systemd {
	s := systemd{log: log}
	values := map[string]string{}
	for _, name := range systemdVariables {
		if value, ok := os.LookupEnv(name); ok {
			values[name] = value
			s.given = append(s.given, name+"="+value)
			os.Unsetenv(name)
		}
	}
	s.socket = values["NOTIFY_SOCKET"]
	if pid := values["WATCHDOG_PID"]; pid == "" || pid == strconv.Itoa(os.Getpid()) {
		if usec, err := strconv.ParseInt(values["WATCHDOG_USEC"], 10, 64); err == nil && usec > 0 {
			s.watchdog = time.Duration(usec) * time.Microsecond
		}
	}
	return s
}

// tell sends the assignments, such as READY=1. What cannot be sent is logged: the manager will act as if Mainstay hung.
func (s systemd) tell(assignments ...string) {
	if s.socket == "" {
		return
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: s.socket, Net: "unixgram"})
	if err == nil {
		_, err = conn.Write([]byte(strings.Join(assignments, "\n")))
		conn.Close()
	}
	if err != nil {
		s.log.Warn("service manager not told", "what", assignments[0], "err", err)
	}
}

func (s systemd) ready() { s.tell("READY=1", "STATUS=") }

// reloading tells when the reload that is under way began, as Type=notify-reload asks for (systemd.service(5)).
func (s systemd) reloading() {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		s.log.Warn("clock not read", "err", err)
		return
	}
	s.tell("RELOADING=1", fmt.Sprintf("MONOTONIC_USEC=%d", now.Nano()/1000), "STATUS=reading the file again")
}

const (
	stopHeartbeat = 5 * time.Second
	stopExtension = 20 * time.Second
)

// stopping tells that a stop has begun, and until done is closed again and again that it needs more time.
func (s systemd) stopping(done <-chan struct{}) {
	if s.socket == "" {
		return
	}
	s.tell("STOPPING=1", "STATUS=letting requests finish, then stopping the services")
	again := time.NewTicker(stopHeartbeat)
	defer again.Stop()
	for {
		s.tell(fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", stopExtension.Microseconds()))
		select {
		case <-done:
			return
		case <-again.C:
		}
	}
}

// keepAlive tells in time that Mainstay lives, until ctx is done.
func (s systemd) keepAlive(ctx context.Context) {
	if s.socket == "" || s.watchdog == 0 {
		return
	}
	again := time.NewTicker(s.watchdog / 3)
	defer again.Stop()
	for {
		s.tell("WATCHDOG=1")
		select {
		case <-ctx.Done():
			return
		case <-again.C:
		}
	}
}
