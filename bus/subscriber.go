package bus

import (
	"errors"
	"fmt"

	"mainstay/bus/zmtp"
)

// What one subscriber may ask for.
const (
	maxTopic         = 4 << 10  // bytes of one prefix
	maxSubscriptions = 1 << 20  // prefixes
	maxTopicBytes    = 64 << 20 // bytes of all its prefixes
	// What else it may send is small: a message that starts or ends a subscription, a heartbeat.
	maxFromSubscriber = 64 << 10
)

var errTooManySubscriptions = errors.New("too many subscriptions")

// A subscriber reads the subscriptions of one peer. Its messages come from the publishers' goroutines.
type subscriber struct {
	*peer
	id       int                 // in the table
	prefixes map[string]struct{} // subscribed to, each once however often it was asked for
	bytes    int                 // of prefixes
	changes  []change            // of the read under way
	pongs    []byte
}

// A change is one SUBSCRIBE or CANCEL.
type change struct {
	prefix    string
	subscribe bool
}

// run keeps the subscriptions in t until the connection ends.
func (s *subscriber) run(t *table) error {
	const size = 4 << 10
	dec := zmtp.NewDecoder(zmtp.Limits{Message: maxFromSubscriber, Frames: 16, Command: maxFromSubscriber}, make([]byte, size))
	t.enrol(s)
	defer t.dismiss(s)
	for {
		n, err := s.conn.Read(dec.Free())
		if n > 0 {
			s.pulse.heard.Store(true)
			dec.Wrote(n)
			if err := s.obey(dec, t); err != nil {
				return err
			}
		}
		if err != nil {
			return err
		}
		dec.Rewind()
		switch pending := dec.Pending(); {
		case pending == dec.Cap():
			dec.Swap(make([]byte, 2*pending))
		case pending == 0 && dec.Cap() > size:
			dec.Swap(make([]byte, size))
		}
	}
}

// obey does what the peer has asked for, in order, whichever form of subscription it uses. Messages that
// are no subscription are ignored: there is nobody upstream for them.
func (s *subscriber) obey(dec *zmtp.Decoder, t *table) error {
	err := s.collect(dec)
	if failed := s.apply(t); err == nil {
		err = failed
	}
	if len(s.pongs) > 0 {
		s.out.sendCommand(s.pongs)
		s.pongs = s.pongs[:0]
	}
	return err
}

func (s *subscriber) collect(dec *zmtp.Decoder) error {
	for {
		kind, err := dec.Next()
		if err != nil || kind == zmtp.None {
			return err
		}
		prefix, subscribe, ok := dec.Subscription(kind)
		switch {
		case ok && len(prefix) > maxTopic:
			return &zmtp.ProtocolError{Reason: zmtp.TooLarge, Detail: fmt.Sprintf("topic of %d bytes; the limit is %d", len(prefix), maxTopic)}
		case ok:
			s.changes = append(s.changes, change{string(prefix), subscribe})
		case kind == zmtp.Command:
			if s.pongs, err = s.answer(dec, s.pongs); err != nil {
				return err
			}
		}
	}
}

// apply makes the changes collected. A second subscription to a prefix is none, and one CANCEL ends it: libzmq
// sends as many SUBSCRIBEs as the application asks for but only one CANCEL, so counting would leak.
func (s *subscriber) apply(t *table) error {
	if len(s.changes) == 0 {
		return nil
	}
	defer func() {
		clear(s.changes)
		s.changes = s.changes[:0]
		s.subscriptions.Store(int64(len(s.prefixes)))
	}()
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, c := range s.changes {
		_, has := s.prefixes[c.prefix]
		switch {
		case c.subscribe && !has:
			if len(s.prefixes) == maxSubscriptions || s.bytes+len(c.prefix) > maxTopicBytes {
				return fmt.Errorf("%w: %d with %d bytes", errTooManySubscriptions, len(s.prefixes), s.bytes)
			}
			s.prefixes[c.prefix] = struct{}{}
			s.bytes += len(c.prefix)
			t.addLocked(c.prefix, s)
		case !c.subscribe && has:
			delete(s.prefixes, c.prefix)
			s.bytes -= len(c.prefix)
			t.removeLocked(c.prefix, s)
		}
	}
	return nil
}
