package proxy

import (
	"math"
	"time"

	"mainstay/topology"
)

// A pace is how a client keeps up that is waited for: with sending a request's content, or with taking a response. It has no
// clock, and its zero value is that of a message that has just begun.
type pace struct {
	waited time.Duration // in which the client had its turn
	moved  int64         // bytes
}

// forever is longer than anything is waited for.
const forever = time.Duration(math.MaxInt64)

// patience returns how long the client may be waited for until it moves a byte: at most timeout, and no longer than its
// average stays at minimum bytes a second or more, which is not asked of it in the first topology.RateGrace. Not positive
// means that it was too slow. A zero timeout or minimum is no limit.
func (p *pace) patience(timeout time.Duration, minimum int64) time.Duration {
	left := forever
	if timeout > 0 {
		left = timeout
	}
	if minimum <= 0 {
		return left
	}
	allowed := topology.RateGrace
	if seconds := float64(p.moved) / float64(minimum); seconds > allowed.Seconds() {
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
