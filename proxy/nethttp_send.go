package proxy

import (
	"errors"
	"io"
	"sync/atomic"
	"time"

	"mainstay/proxy/http1"
)

// A sender sends a request's content to an instance, in a goroutine of its own.
type sender struct {
	x       *exchange
	number  uint64 // of the attempt
	conn    *instanceConn
	body    *attemptBody
	length  int64         // that was announced; negative: none was, and the content is chunked
	sent    int64         // of it
	asked   chan bool     // nil: not waited for; receives whether the instance wants the content
	done    chan struct{} // closed when it has ended
	whole   atomic.Bool   // all was sent
	spent   atomic.Bool   // not all was there any more
	waiting bool          // for asked; belongs to the exchange
}

const (
	// interimPatience is how long an instance may take to say that it wants the content of a request that asks.
	interimPatience = time.Second
	// lastPatience is how long the end of content may take to be sent that an instance has responded to.
	lastPatience = 50 * time.Millisecond
)

// Around content that is read stand the size of its chunk, and what ends it.
const (
	chunkBegin = len("ffffffff\r\n")
	chunkEnd   = len("\r\n")
)

// sendContent begins to send the content to conn.
func (x *exchange) sendContent(conn *instanceConn) {
	s := &sender{
		x: x, number: x.delivery.number, conn: conn, body: x.body.attempt(), length: x.r.ContentLength,
		done: make(chan struct{}),
	}
	if s.length == 0 {
		s.length = -1 // HTTP/2 may end it later
	}
	if x.r.ProtoAtLeast(1, 1) && hasToken(x.r.Header["Expect"], "100-continue") {
		s.asked, s.waiting = make(chan bool, 1), true
	}
	x.sender = s
	x.senders.Go(s.run)
}

// answer says whether the instance wants the content.
func (s *sender) answer(wants bool) {
	if s != nil && s.waiting {
		s.waiting = false
		s.asked <- wants
	}
}

func (s *sender) run() {
	defer close(s.done)
	if !s.mayBegin() {
		return
	}
	buffer := s.x.buffers.Get().(*[copySize]byte)
	defer s.x.buffers.Put(buffer)
	for {
		n, err := s.body.Read(buffer[chunkBegin : copySize-chunkEnd])
		if n > 0 {
			if _, err := s.conn.Write(s.frame(buffer, n)); err != nil {
				return // the instance may have responded all the same
			}
			if s.sent += int64(n); s.sent == s.length { // the end may be long in coming with HTTP/2
				err = io.EOF
			}
		}
		switch {
		case err == io.EOF:
			s.finish()
			return
		case err != nil:
			s.spent.Store(errors.Is(err, errBodySpent))
			s.x.fate.sever(s.conn)
			return
		}
	}
}

// mayBegin waits until the instance says that it wants the content, or says nothing for too long. It returns false if it does not.
func (s *sender) mayBegin() bool {
	if s.asked == nil {
		return true
	}
	timer := time.NewTimer(interimPatience)
	defer timer.Stop()
	select {
	case wants := <-s.asked:
		return wants
	case <-timer.C:
		return true
	}
}

// frame returns the n bytes of content in the buffer as they are sent.
func (s *sender) frame(buffer *[copySize]byte, n int) []byte {
	if s.length >= 0 {
		return buffer[chunkBegin : chunkBegin+n]
	}
	var size [chunkBegin]byte
	line := http1.AppendChunkSize(size[:0], n)
	begin := chunkBegin - len(line)
	copy(buffer[begin:], line)
	return append(buffer[begin:chunkBegin+n], "\r\n"...)
}

// finish sends what follows the content.
func (s *sender) finish() {
	if s.length < 0 {
		b := http1.AppendLastChunk(nil)
		for name, values := range s.x.body.trailer() {
			if keepTrailer(name) {
				for _, value := range values {
					b = http1.AppendField(b, name, value)
				}
			}
		}
		if _, err := s.conn.Write(append(b, "\r\n"...)); err != nil {
			return
		}
	}
	s.whole.Store(true)
	s.x.watch.enter(s.number, stageHeader, s.x.route.Timeouts.ResponseHeader, reasonTimeoutHeader)
}

// complete reports whether all was sent, once the instance has responded, and ends the sending otherwise.
func (s *sender) complete() bool {
	if s == nil {
		return true
	}
	s.answer(false)
	select {
	case <-s.done:
		return s.whole.Load()
	default:
	}
	if b := s.x.body; b.ended.Load() || b.read.Load() == s.length {
		_ = s.conn.SetWriteDeadline(time.Now().Add(lastPatience))
		<-s.done
		_ = s.conn.SetWriteDeadline(time.Time{})
	}
	s.body.Close()
	return s.whole.Load()
}

// isSpent reports whether the sender found that content was not there any more.
func (s *sender) isSpent() bool { return s != nil && s.spent.Load() }
