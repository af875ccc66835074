package bus

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/go-zeromq/zmq4"
)

// go-zeromq speaks ZMTP 3.0, with subscriptions as messages.
func TestGoZeroMQ(t *testing.T) {
	b := start(t, roomy)
	in, out := endpoints(b)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	sub := zmq4.NewSub(ctx)
	defer sub.Close()
	if err := sub.Dial(out); err != nil {
		t.Fatal(err)
	}
	if err := sub.SetOption(zmq4.OptionSubscribe, "a"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "subscription", func() bool { return subscriptions(b) == 1 })
	pub := zmq4.NewPub(ctx)
	if err := pub.Dial(in); err != nil {
		t.Fatal(err)
	}
	eventually(t, "publisher", func() bool { return b.Status()[0].Publishers.Peers == 1 })

	const messages = 1000
	body := make([]byte, 300)
	received := uint64(0)
	// What is published before the relay's subscription has been read is lost.
	eventually(t, "first message", func() bool {
		pub.Send(zmq4.NewMsgString("z"))
		received = b.Status()[0].Received
		return received > 0
	})
	go func() {
		for n := range messages {
			pub.SendMulti(zmq4.NewMsgFrom(fmt.Appendf(nil, "a%d", n), nil, body))
			pub.Send(zmq4.NewMsgString("b"))
		}
	}()
	for n := range messages {
		m, err := sub.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if want := fmt.Sprintf("a%d", n); len(m.Frames) != 3 || string(m.Frames[0]) != want || len(m.Frames[1]) != 0 || len(m.Frames[2]) != 300 {
			t.Fatalf("message %d: %v", n, m)
		}
	}
	eventually(t, "all messages", func() bool { return b.Status()[0].Received >= 2*messages })
	pub.Close()
	eventually(t, "publisher gone", func() bool { return b.Status()[0].Publishers.Peers == 0 })
}
