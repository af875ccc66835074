package cli

import (
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
	"time"
)

// A fakeManager is a service manager that hears what is told to it.
type fakeManager struct{ *net.UnixConn }

// newFakeManager sets the environment as a service manager does that wants to be told within a watchdog of so many microseconds.
func newFakeManager(t *testing.T, socket, usec, pid string) fakeManager {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	t.Setenv("NOTIFY_SOCKET", socket)
	t.Setenv("WATCHDOG_USEC", usec)
	t.Setenv("WATCHDOG_PID", pid)
	return fakeManager{conn}
}

func (m fakeManager) wantHeard(t *testing.T, want string) {
	t.Helper()
	m.SetReadDeadline(time.Now().Add(10 * time.Second))
	heard := make([]byte, 4096)
	n, err := m.Read(heard)
	if err != nil {
		t.Fatalf("want %s: %v", want, err)
	}
	if !regexp.MustCompile(want).Match(heard[:n]) {
		t.Errorf("heard %q, want %s", heard[:n], want)
	}
}

func TestSystemdIsTold(t *testing.T) {
	for name, socket := range map[string]string{
		"path":     filepath.Join(t.TempDir(), "notify"),
		"abstract": "@mainstay-test-" + strconv.Itoa(os.Getpid()),
	} {
		t.Run(name, func(t *testing.T) {
			m := newFakeManager(t, socket, "300000", strconv.Itoa(os.Getpid()))
			s := takeSystemd(slog.New(slog.DiscardHandler))
			for _, name := range systemdVariables {
				if value, ok := os.LookupEnv(name); ok {
					t.Errorf("services would find %s=%s", name, value)
				}
			}
			if len(s.given) != 3 {
				t.Errorf("the next program would be given %v", s.given)
			}
			s.ready()
			m.wantHeard(t, `^READY=1\n`)
			s.reloading()
			m.wantHeard(t, `^RELOADING=1\nMONOTONIC_USEC=\d{4,}\n`)

			ctx, cancel := context.WithCancel(t.Context())
			kept := make(chan struct{})
			go func() { defer close(kept); s.keepAlive(ctx) }()
			m.wantHeard(t, `^WATCHDOG=1$`)
			m.wantHeard(t, `^WATCHDOG=1$`)
			cancel()
			<-kept

			done := make(chan struct{})
			kept = make(chan struct{})
			go func() { defer close(kept); s.stopping(done) }()
			m.wantHeard(t, `^STOPPING=1\n`)
			m.wantHeard(t, `^EXTEND_TIMEOUT_USEC=20000000$`)
			close(done)
			<-kept
		})
	}
}

func TestSystemdWatchdogOfAnotherProcess(t *testing.T) {
	newFakeManager(t, filepath.Join(t.TempDir(), "notify"), "300000", "1")
	if s := takeSystemd(slog.New(slog.DiscardHandler)); s.watchdog != 0 {
		t.Errorf("a watchdog of %s that is meant for process 1", s.watchdog)
	}
}

func TestWithoutSystemdNothingIsTold(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	s := takeSystemd(slog.New(slog.DiscardHandler))
	s.ready()
	s.keepAlive(t.Context()) // returns at once
	s.stopping(nil)
}
