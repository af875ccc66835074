package sockets_test

import (
	"errors"
	"net"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"mainstay/sockets"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// opening returns a function that binds the address, and counts how often.
func opening(network, address string, times *int) func() (net.Listener, error) {
	return func() (net.Listener, error) { *times++; return net.Listen(network, address) }
}

func listen(t *testing.T, set *sockets.Set, network, address string, times *int) net.Listener {
	t.Helper()
	l, err := set.Listen(network, address, opening(network, address, times))
	if err != nil {
		t.Fatalf("Listen: %v", err)
	}
	return l
}

// greet accepts one connection and closes it.
func greet(t *testing.T, l net.Listener) {
	t.Helper()
	type deadline interface{ SetDeadline(time.Time) error }
	l.(deadline).SetDeadline(time.Now().Add(10 * time.Second))
	conn, err := l.Accept()
	if err != nil {
		t.Fatalf("Accept: %v", err)
	}
	conn.Close()
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func TestHeldSocketOutlivesItsListener(t *testing.T) {
	for network, address := range map[string]string{"tcp": freeAddress(t), "unix": filepath.Join(t.TempDir(), "s")} {
		t.Run(network, func(t *testing.T) {
			times := 0
			set := sockets.New()
			l := listen(t, set, network, address, &times)
			if unix, ok := l.(*net.UnixListener); ok {
				unix.SetUnlinkOnClose(false)
			}
			if err := set.Hold(); err != nil {
				t.Fatal(err)
			}
			l.Close()
			conn, err := net.Dial(network, address) // waits in the backlog
			if err != nil {
				t.Fatalf("Dial without a listener: %v", err)
			}
			defer conn.Close()

			next := sockets.New(set.Held()...) // as another program makes it
			again := listen(t, next, network, address, &times)
			greet(t, again)
			if times != 1 {
				t.Errorf("bound %d times, want once", times)
			}
			next.Release()
			second, err := net.Dial(network, address)
			if err != nil {
				t.Fatalf("Dial after Release: %v", err)
			}
			defer second.Close()
			greet(t, again)
			again.Close()
			if conn, err := net.Dial(network, address); !errors.Is(err, syscall.ECONNREFUSED) {
				if err == nil {
					conn.Close()
				}
				t.Errorf("Dial after all was closed: %v, want it refused", err)
			}
		})
	}
}

// A roll-back: the listener is closed and wanted again.
func TestHeldSocketCanBeTakenAgain(t *testing.T) {
	address, times := freeAddress(t), 0
	set := sockets.New()
	defer set.Release()
	l := listen(t, set, "tcp", address, &times)
	for range 3 {
		if err := set.Hold(); err != nil {
			t.Fatal(err)
		}
		l.Close()
		l = listen(t, set, "tcp", address, &times)
	}
	l.Close()
	if times != 1 || len(set.Held()) != 1 {
		t.Errorf("bound %d times, %d held, want one of each", times, len(set.Held()))
	}
}

func TestClosedSocketIsNotHeld(t *testing.T) {
	a, b, times := freeAddress(t), freeAddress(t), 0
	set := sockets.New()
	defer set.Release()
	listen(t, set, "tcp", a, &times).Close()
	l := listen(t, set, "tcp", b, &times)
	defer l.Close()
	if err := set.Hold(); err != nil {
		t.Fatal(err)
	}
	if held := set.Held(); len(held) != 1 || held[0].Address != b {
		t.Errorf("held: %+v, want %s alone", held, b)
	}
}

func TestNilSetOpens(t *testing.T) {
	times := 0
	var set *sockets.Set
	listen(t, set, "tcp", "127.0.0.1:0", &times).Close()
	listen(t, set, "tcp", "127.0.0.1:0", &times).Close()
	if times != 2 {
		t.Errorf("bound %d times", times)
	}
}

func TestListenTellsWhyNot(t *testing.T) {
	set := sockets.New()
	refused := errors.New("address already in use")
	if _, err := set.Listen("tcp", ":80", func() (net.Listener, error) { return nil, refused }); err != refused {
		t.Errorf("Listen: %v", err)
	}
	if err := set.Hold(); err != nil || len(set.Held()) != 0 {
		t.Errorf("Hold: %v, %v", err, set.Held())
	}
}
