package bus

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"mainstay/bus/zmtp"
)

// Subscribe connects to endpoint as a SUB socket with the given prefixes (none: everything) and
// calls receive with each message until it returns an error, which Subscribe returns; the frames are
// receive's to keep. It connects again with back-off when the connection cannot be made or is lost, until ctx is
// done, whose error it returns then; but not to a peer that refuses it or is no ZeroMQ publisher.
func Subscribe(ctx context.Context, endpoint string, prefixes []string, receive func(frames [][]byte) error) error {
	if _, err := hostPort(endpoint); err != nil {
		return err
	}
	if len(prefixes) == 0 {
		prefixes = []string{""}
	}
	const shortest, longest = 100 * time.Millisecond, 5 * time.Second
	wait := shortest
	for {
		connected, err := subscribe(ctx, endpoint, prefixes, receive)
		var refused *zmtp.ProtocolError
		var stopped receiverError
		switch {
		case errors.As(err, &stopped):
			return stopped.error
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.As(err, &refused):
			return err
		}
		if connected {
			wait = shortest
		}
		select {
		case <-time.After(wait/2 + rand.N(wait)):
		case <-ctx.Done():
			return ctx.Err()
		}
		wait = min(2*wait, longest)
	}
}

// A receiverError is what the caller's receive returned.
type receiverError struct{ error }

// subscribe is one connection of Subscribe. It reports whether there was one.
func subscribe(ctx context.Context, endpoint string, prefixes []string, receive func(frames [][]byte) error) (connected bool, err error) {
	conn, err := dial(ctx, endpoint, zmtp.SUB)
	if err != nil {
		return false, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	for _, prefix := range prefixes {
		if err := conn.Subscribe([]byte(prefix)); err != nil {
			return true, err
		}
	}
	for {
		frames, err := conn.Receive()
		if err != nil {
			return true, err
		}
		if err := receive(frames); err != nil {
			return true, receiverError{err}
		}
	}
}
