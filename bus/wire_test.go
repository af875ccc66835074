package bus

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"mainstay/bus/zmtp"
	"mainstay/topology"
)

func dialRaw(t *testing.T, endpoint string) *net.TCPConn {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(endpoint, "tcp://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn.(*net.TCPConn)
}

func connect(t *testing.T, endpoint string, local zmtp.SocketType) *zmtp.Conn {
	t.Helper()
	conn, err := dial(context.Background(), endpoint, local)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// subscribed returns a subscriber to prefix whose subscription the relay has.
func subscribed(t *testing.T, b *Bus, prefix string) *zmtp.Conn {
	t.Helper()
	_, out := endpoints(b)
	before := map[string]bool{}
	for _, p := range b.Status()[0].Peers {
		before[p.Address] = true
	}
	conn := connect(t, strings.Replace(out, "*", "127.0.0.1", 1), zmtp.SUB)
	if err := conn.Subscribe([]byte(prefix)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "subscription", func() bool {
		return slices.ContainsFunc(b.Status()[0].Peers, func(p Peer) bool { return !before[p.Address] && p.Subscriptions == 1 })
	})
	return conn
}

func subscriptions(b *Bus) int {
	n := 0
	for _, p := range b.Status()[0].Peers {
		n += p.Subscriptions
	}
	return n
}

// expect receives one message of one frame.
func expect(t *testing.T, conn *zmtp.Conn, want string) {
	t.Helper()
	frames, err := conn.Receive()
	if err != nil || len(frames) != 1 || string(frames[0]) != want {
		t.Fatalf("received %q, error %v, want %q", frames, err, want)
	}
}

const (
	greetingNull = "\xff\x00\x00\x00\x00\x00\x00\x00\x01\x7f\x03\x01NULL\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" +
		"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	readyPub = "\x04\x19\x05READY\x0bSocket-Type\x00\x00\x00\x03PUB"
	readySub = "\x04\x19\x05READY\x0bSocket-Type\x00\x00\x00\x03SUB"
)

func long(flags byte, size uint64) string {
	return string(binary.BigEndian.AppendUint64([]byte{flags}, size))
}

// What peers should not send ends their connection and nothing else.
func TestMalformed(t *testing.T) {
	hugeTopic := "\x09SUBSCRIBE" + strings.Repeat("x", 1<<20)
	tests := []struct {
		name   string
		side   role
		stream string
		reason string // in the counter; empty: nothing wrong
	}{
		{"HTTP", publishers, "GET / HTTP/1.1\r\nHost: x\r\n\r\n", "not_zmtp"},
		{"TLS", subscribers, "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "not_zmtp"},
		{"ZMTP 1.0", publishers, "\x01\x00", "not_zmtp"},
		{"ZMTP 2.0", publishers, "\xff\x00\x00\x00\x00\x00\x00\x00\x01\x7f\x01\x02\x00\x00", "old_version"},
		{"CURVE", publishers, strings.Replace(greetingNull, "NULL\x00", "CURVE", 1), "mechanism"},
		{"nothing", publishers, "", "closed"},
		{"half a greeting", publishers, greetingNull[:32], "closed"},
		{"READY cut", publishers, greetingNull + "\x04\x0b\x05READY\x0bSock", "malformed"},
		{"READY with a huge property", publishers, greetingNull + "\x04\x18\x05READY\x0bSocket-Type\xff\xff\xff\xffPU", "malformed"},
		{"READY of 2^62", publishers, greetingNull + long(6, 1<<62), "too_large"},
		{"unknown socket type", publishers, greetingNull + "\x04\x19\x05READY\x0bSocket-Type\x00\x00\x00\x03FOO", "socket_type"},
		{"SUB among publishers", publishers, greetingNull + readySub, "socket_type"},
		{"PUB among subscribers", subscribers, greetingNull + readyPub, "socket_type"},
		{"message before READY", publishers, greetingNull + "\x00\x01x", "malformed"},

		{"frame of 2^62", publishers, greetingNull + readyPub + long(2, 1<<62), "too_large"},
		{"frame of 2^63", publishers, greetingNull + readyPub + long(2, 1<<63), "too_large"},
		{"frame of 64 GiB", publishers, greetingNull + readyPub + long(2, 64<<30), "too_large"},
		{"one byte over 64 MiB", publishers, greetingNull + readyPub + long(2, 64<<20+1), "too_large"},
		{"half a message", publishers, greetingNull + readyPub + "\x01\x01a\x00\x05b", "closed"},
		{"endless message", publishers, greetingNull + readyPub + strings.Repeat("\x01\x00", 1<<20), "too_large"},
		{"command with MORE", publishers, greetingNull + readyPub + "\x05\x07\x04PING\x00\x00", "malformed"},
		{"empty command", publishers, greetingNull + readyPub + "\x04\x00", "malformed"},
		{"command's name too long", publishers, greetingNull + readyPub + "\x04\x03\x20AB", "malformed"},
		{"PING of 5 bytes", subscribers, greetingNull + readySub + "\x04\x05\x04PING", "malformed"},
		{"PING with 200 bytes", subscribers, greetingNull + readySub + "\x04\xc8\x04PING" + strings.Repeat("x", 195), "malformed"},
		{"reserved flags", publishers, greetingNull + readyPub + "\x80\x01x", "malformed"},
		{"topic of 1 MiB", subscribers, greetingNull + readySub + long(6, uint64(len(hugeTopic))) + hugeTopic, "too_large"},
		{"topic of 4 KiB and one", subscribers, greetingNull + readySub + long(6, 10+4097) + "\x09SUBSCRIBE" + strings.Repeat("x", 4097), "too_large"},

		{"unknown command", publishers, greetingNull + readyPub + "\x04\x05\x04WHAT", "closed"},
		{"empty message from a SUB", subscribers, greetingNull + readySub + "\x00\x00", "closed"},
		{"message from a SUB", subscribers, greetingNull + readySub + "\x01\x01x\x00\x01y", "closed"},
		{"CANCEL of nothing", subscribers, greetingNull + readySub + "\x04\x0b\x06CANCELabcd", "closed"},
	}
	b := start(t, roomy)
	in, out := endpoints(b)
	publisher := connect(t, in, zmtp.PUB)
	subscriber := subscribed(t, b, "")
	var before runtime.MemStats
	runtime.ReadMemStats(&before)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ended := func() uint64 {
				s := &b.relays["events"].stats
				return s.failures.snapshot()[tt.reason] + s.disconnects.snapshot()[tt.reason]
			}
			count := ended()
			conn := dialRaw(t, map[role]string{publishers: in, subscribers: out}[tt.side])
			go func() {
				io.WriteString(conn, tt.stream)
				conn.CloseWrite()
			}()
			conn.SetReadDeadline(time.Now().Add(10 * time.Second))
			if _, err := io.Copy(io.Discard, conn); err != nil && !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the relay did not hang up: %v", err)
			}
			eventually(t, "reason "+tt.reason+" counted", func() bool { return ended() == count+1 })
			if err := publisher.Send([]byte(tt.name)); err != nil {
				t.Fatal(err)
			}
			expect(t, subscriber, tt.name)
		})
	}
	var after runtime.MemStats
	runtime.ReadMemStats(&after)
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 64*megabyte {
		t.Errorf("%d bytes allocated for malformed input", grown)
	}
}

// A wrong socket type is told why, in an ERROR command, and the log says what to do; once.
func TestWrongSocketType(t *testing.T) {
	var log bytes.Buffer
	b := New(slog.New(slog.NewTextHandler(&log, nil)), nil, nil)
	startBus(t, b, relays(roomy))
	in, _ := endpoints(b)
	for range 3 {
		_, err := dial(context.Background(), in, zmtp.SUB)
		var refused *zmtp.ProtocolError
		if !errors.As(err, &refused) || refused.Reason != zmtp.Refused || !strings.Contains(err.Error(), "PUB or XPUB can") {
			t.Errorf("refused with %v", err)
		}
	}
	apply(t, b, topology.Empty)
	if n := strings.Count(log.String(), "peer refused"); n != 1 || !strings.Contains(log.String(), "side=publishers") {
		t.Errorf("logged %d times:\n%s", n, log.String())
	}
}

// A subscription is one however often it is asked for, in either form.
func TestSubscribeTwice(t *testing.T) {
	b := start(t, roomy)
	in, _ := endpoints(b)
	publisher := connect(t, in, zmtp.PUB)
	subscriber := subscribed(t, b, "a")
	for _, message := range []string{"\x01a", "\x01a"} { // the form of ZMTP 3.0
		if err := subscriber.Send([]byte(message)); err != nil {
			t.Fatal(err)
		}
	}
	if err := subscriber.Subscribe([]byte("b")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "subscriptions", func() bool { return subscriptions(b) == 2 })
	publisher.Send([]byte("a1"))
	expect(t, subscriber, "a1")
	if err := subscriber.Send([]byte("\x00a")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "subscription's end", func() bool { return subscriptions(b) == 1 })
	publisher.Send([]byte("a2"))
	publisher.Send([]byte("b2"))
	expect(t, subscriber, "b2")
}

// Connections that say nothing, or one byte at a time, hold up nobody.
func TestIdleConnections(t *testing.T) {
	b := New(testLog(t), nil, nil)
	b.limits.handshakes = 100
	startBus(t, b, relays(roomy))
	in, out := endpoints(b)
	stop := make(chan struct{})
	defer close(stop)
	for i := range 500 {
		conn := dialRaw(t, []string{in, out}[i%2])
		if i%10 == 0 {
			go func() {
				tick := time.NewTicker(100 * time.Millisecond)
				defer tick.Stop()
				for i := range len(greetingNull) - 1 {
					select {
					case <-tick.C:
						conn.Write([]byte{greetingNull[i]})
					case <-stop:
						return
					}
				}
			}()
		}
	}
	publisher := connect(t, in, zmtp.PUB)
	subscriber := subscribed(t, b, "")
	if err := publisher.Send([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	expect(t, subscriber, "hello")
	r := b.relays["events"]
	eventually(t, "oldest handshakes given up", func() bool {
		return r.stats.failures.snapshot()[failCrowded] >= 250
	})
	for _, ro := range roles {
		s := r.end(ro).side
		s.mu.Lock()
		waiting := len(s.waiting)
		s.mu.Unlock()
		if waiting > b.limits.handshakes {
			t.Errorf("%d connections of the %s are in their handshake", waiting, ro)
		}
	}
}

func TestHandshakeTimeout(t *testing.T) {
	b := New(testLog(t), nil, nil)
	b.limits.handshake = 50 * time.Millisecond
	startBus(t, b, relays(roomy))
	in, _ := endpoints(b)
	conn := dialRaw(t, in)
	io.WriteString(conn, greetingNull+readyPub[:10])
	if _, err := io.Copy(io.Discard, conn); err != nil && !errors.Is(err, syscall.ECONNRESET) {
		t.Error(err)
	}
	eventually(t, "timeout counted", func() bool {
		return b.relays["events"].stats.failures.snapshot()[failTimeout] == 1
	})
}

func TestTooManyPeers(t *testing.T) {
	b := New(testLog(t), nil, nil)
	b.limits.peers = 2
	startBus(t, b, relays(roomy))
	in, _ := endpoints(b)
	connect(t, in, zmtp.PUB)
	connect(t, in, zmtp.PUB)
	eventually(t, "peers joined", func() bool { return b.Status()[0].Publishers.Peers == 2 })
	if conn, err := dial(context.Background(), in, zmtp.PUB); err == nil {
		conn.Close()
		t.Error("a third publisher got in")
	}
}

// When the process is out of descriptors the relay waits and recovers.
func TestOutOfDescriptors(t *testing.T) {
	b := start(t, roomy)
	in, _ := endpoints(b)
	subscriber := subscribed(t, b, "")
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	low := limit
	low.Cur = 100
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &low); err != nil {
		t.Fatal(err)
	}
	defer syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit)
	client := dialRaw(t, in)
	var taken []*os.File
	for {
		f, err := os.Open(os.DevNull)
		if err != nil {
			break
		}
		taken = append(taken, f)
	}
	// One descriptor for a client, none to accept it with.
	taken[0].Close()
	waiting := dialRaw(t, in)
	eventually(t, "failure to accept", func() bool {
		c := &b.relays["events"].complaints
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.last["publishersaccept"].at != time.Time{}
	})
	for _, f := range taken[1:] {
		f.Close()
	}
	client.Close()
	io.WriteString(waiting, greetingNull+readyPub+"\x00\x05hello")
	expect(t, subscriber, "hello")
}
