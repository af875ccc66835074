package bus

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"mainstay/bus/zmtp"
)

// Publish connects to endpoint (tcp://host:port) as a PUB socket, sends each message that next
// returns, and ends when next returns nil, when all that was sent has been written and the other side has
// seen the end of it. It waits for the other side's subscription before the first message, so that a
// short-lived publisher loses nothing to a relay; it leaves the filtering to the other side. It returns next's
// error, the connection's, or ctx's. It does not return while next blocks.
func Publish(ctx context.Context, endpoint string, next func() ([][]byte, error)) error {
	conn, err := dial(ctx, endpoint, zmtp.PUB)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()

	subscribed, gone := make(chan struct{}), make(chan struct{})
	var lost error
	go func() {
		defer close(gone)
		lost = hear(conn, subscribed)
	}()
	select {
	case <-subscribed:
		err = publish(conn, next, func() error {
			select {
			case <-gone:
				return unexpected(lost)
			default:
				return nil
			}
		})
	case <-gone:
		err = fmt.Errorf("wait for a subscription: %w", lost)
	}
	if err == nil {
		const patience = 5 * time.Second // for the other side to read what is on its way
		defer time.AfterFunc(patience, func() { conn.Close() }).Stop()
		err = conn.CloseWrite()
	}
	if err != nil {
		conn.Close()
	}
	<-gone
	if err == nil && !errors.Is(lost, io.EOF) {
		err = lost
	}
	if err != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// publish sends what next returns, until that is nil. Once the other side has left, for which left returns the
// reason, what is sent may reach nobody.
func publish(conn *zmtp.Conn, next func() ([][]byte, error), left func() error) error {
	for {
		frames, err := next()
		if err != nil {
			return err
		}
		if err := left(); err != nil {
			return fmt.Errorf("publish message: connection lost: %w", err)
		}
		if frames == nil {
			return nil
		}
		if len(frames) == 0 {
			return errors.New("publish message: it has no frames")
		}
		if err := conn.Send(frames...); err != nil {
			return fmt.Errorf("publish message: %w", err)
		}
	}
}

// unexpected returns err, an io.EOF as the io.ErrUnexpectedEOF that it is where the other side should have stayed.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// hear receives until the connection ends, closing subscribed at the first subscription.
func hear(conn *zmtp.Conn, subscribed chan<- struct{}) error {
	for first := true; ; {
		frames, err := conn.Receive()
		if err != nil {
			return err
		}
		if first && len(frames[0]) > 0 && frames[0][0] == 1 {
			close(subscribed)
			first = false
		}
	}
}

// dial connects to a tcp:// endpoint.
func dial(ctx context.Context, endpoint string, local zmtp.SocketType) (*zmtp.Conn, error) {
	address, err := hostPort(endpoint)
	if err != nil {
		return nil, err
	}
	return zmtp.Dial(ctx, address, local, zmtp.DefaultLimits())
}
