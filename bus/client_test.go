package bus

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"mainstay/bus/zmtp"
	"mainstay/topology"
)

// numbered returns a source of n messages.
func numbered(n int) func() ([][]byte, error) {
	next := 0
	return func() ([][]byte, error) {
		if next == n {
			return nil, nil
		}
		next++
		return [][]byte{fmt.Appendf(nil, "topic%d", next-1), nil, []byte("body")}, nil
	}
}

func TestPublishSubscribe(t *testing.T) {
	b := start(t, roomy)
	in, out := endpoints(b)
	const messages = 10_000
	enough := errors.New("enough")
	received := 0
	done := make(chan error)
	go func() {
		done <- Subscribe(context.Background(), out, []string{"topic", "top"}, func(frames [][]byte) error {
			want := [][]byte{fmt.Appendf(nil, "topic%d", received), {}, []byte("body")}
			if diff := cmp.Diff(want, frames); diff != "" {
				return errors.New(diff)
			}
			if received++; received == messages {
				return enough
			}
			return nil
		})
	}()
	eventually(t, "subscriptions", func() bool { return subscriptions(b) == 2 })
	// Ends only when the relay has read everything.
	if err := Publish(context.Background(), in, numbered(messages)); err != nil {
		t.Error(err)
	}
	if got := b.Status()[0].Received; got != messages {
		t.Errorf("when Publish returned the relay had %d of %d messages", got, messages)
	}
	if err := <-done; err != enough {
		t.Error(err)
	}
}

func TestPublishErrors(t *testing.T) {
	b := start(t, roomy)
	in, out := endpoints(b)
	broken := errors.New("broken")
	if err := Publish(context.Background(), in, func() ([][]byte, error) { return nil, broken }); err != broken {
		t.Errorf("next's error came back as %v", err)
	}
	if err := Publish(context.Background(), in, func() ([][]byte, error) { return [][]byte{}, nil }); err == nil {
		t.Error("published a message without frames")
	}
	var refused *zmtp.ProtocolError
	if err := Publish(context.Background(), out, numbered(1)); !errors.As(err, &refused) || refused.Reason != zmtp.Refused {
		t.Errorf("published to subscribers: %v", err)
	}
	if err := Publish(context.Background(), "udp://x", numbered(1)); err == nil || !strings.Contains(err.Error(), "want tcp://") {
		t.Errorf("published to udp: %v", err)
	}

	// One that accepts but never subscribes.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- Publish(ctx, "tcp://"+l.Addr().String(), numbered(1)) }()
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	h := zmtp.Accepting(zmtp.SUB)
	if err := h.Run(conn); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled while waiting for a subscription: %v", err)
	}
	if n, err := io.Copy(io.Discard, conn); n != 0 {
		t.Errorf("%d bytes were published to no subscription; error %v", n, err)
	}
}

// Messages sent after the other side has closed its end may have reached nobody.
func TestPublishToOneThatLeft(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	done := make(chan error)
	go func() {
		done <- Publish(ctx, "tcp://"+l.Addr().String(), func() ([][]byte, error) { return [][]byte{{1}}, nil })
	}()
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	h := zmtp.Accepting(zmtp.SUB)
	if err := h.Run(conn); err != nil {
		t.Fatal(err)
	}
	conn.Write(zmtp.AppendSubscribe(nil, h.Peer(), nil))
	if _, err := conn.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	conn.(*net.TCPConn).CloseWrite()
	go io.Copy(io.Discard, conn)
	if err := <-done; !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("ended with %v", err)
	}
}

func TestSubscribeAgain(t *testing.T) {
	free := freeEndpoints(t, 2)
	in, out := free[0], free[1]
	b := New(testLog(t), nil, nil)
	startBus(t, b, topology.Empty)
	ctx, cancel := context.WithCancel(context.Background())
	received := make(chan string)
	done := make(chan error)
	go func() {
		done <- Subscribe(ctx, out, nil, func(frames [][]byte) error {
			received <- string(frames[0])
			return nil
		})
	}()
	for i := range 2 {
		apply(t, b, between("x", in, out)) // it was not there when Subscribe began, nor between the rounds
		eventually(t, "subscription", func() bool { return subscriptions(b) == 1 })
		if err := Publish(ctx, in, numbered(1)); err != nil {
			t.Fatal(err)
		}
		if got := <-received; got != "topic0" {
			t.Errorf("round %d: received %q", i, got)
		}
		apply(t, b, topology.Empty)
	}
	cancel()
	if err := <-done; err != context.Canceled {
		t.Errorf("ended with %v", err)
	}
}

func TestSubscribeRefused(t *testing.T) {
	b := start(t, roomy)
	in, _ := endpoints(b)
	var refused *zmtp.ProtocolError
	err := Subscribe(context.Background(), in, nil, func([][]byte) error { return nil })
	if !errors.As(err, &refused) {
		t.Errorf("subscribed to publishers: %v", err)
	}
}
