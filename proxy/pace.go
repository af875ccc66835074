package proxy

import (
	"math"
	"time"
)

// A rate is how fast a client must be.
type rate struct {
	minimum int64         // bytes per second, on the average of the time that the client is waited for; 0: none
	grace   time.Duration // in which it may be slower
}

// A pace is how a client keeps up that is waited for: with sending a request's content, or with taking a response. It has no
// clock, and its zero value is that of a message that has just begun.
type pace struct {
	waited time.Duration // in which the client had its turn
	moved  int64         // bytes
}

// forever is longer than anything is waited for.
const forever = time.Duration(math.MaxInt64)

// patience returns how long the client may be waited for until it moves a byte: at most timeout, and no longer than its
// average stays at the rate's minimum or above, which is not asked of it in the first grace. Not positive means that it was too
// slow. A zero timeout or minimum is no limit.
func (p *pace) patience(timeout time.Duration, r rate) time.Duration {
	left := forever
	if timeout > 0 {
		left = timeout
	}
	if r.minimum <= 0 {
		return left
	}
	allowed := r.grace
	if seconds := float64(p.moved) / float64(r.minimum); seconds > allowed.Seconds() {
		if seconds > float64(forever/time.Second/2) {
			return left
		}
		allowed = time.Duration(seconds * float64(time.Second))
	}
	return min(left, allowed-p.waited)
}

// move takes note that the client was waited for, and how many bytes that brought.
func (p *pace) move(waited time.Duration, bytes int) {
	p.waited += waited
	p.moved += int64(bytes)
}
