package supervisor

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"
)

// A notice is one message of a process about itself, as sd_notify(3) has it.
type notice struct {
	phase    phase         // silent: it says nothing of that
	ping     bool          // WATCHDOG=1
	trigger  bool          // WATCHDOG=trigger
	watchdog time.Duration // WATCHDOG_USEC=; 0: not said
	extend   time.Duration // EXTEND_TIMEOUT_USEC=; 0: not said
	status   *string       // STATUS=; nil: not said
	mainPID  int           // MAINPID=; 0: not said
	refused  []string      // what it asks for and does not get
}

// A phase is where a process says that it is in its life.
type phase string

const (
	silent    phase = ""
	ready     phase = "READY=1"
	reloading phase = "RELOADING=1" // as ready as before
	stopping  phase = "STOPPING=1"  // for good
)

const (
	noticeLimit   = 4096 // bytes of a datagram; systemd takes no more either
	statusLimit   = 256  // bytes of a status
	shortestGuard = time.Millisecond
	longestDelay  = 24 * time.Hour // that a process may ask for at once
)

// parseNotice reads one datagram. What it does not know it skips, as the protocol has it.
func parseNotice(datagram []byte) notice {
	var n notice
	refuse := func(format string, args ...any) { n.refused = append(n.refused, fmt.Sprintf(format, args...)) }
	for line := range strings.SplitSeq(string(datagram), "\n") {
		name, value, found := strings.Cut(line, "=")
		if !found {
			continue
		}
		switch name {
		case "READY", "RELOADING", "STOPPING":
			if value == "1" {
				n.phase = phase(line)
			}
		case "STATUS":
			s := oneLine(value, statusLimit)
			n.status = &s
		case "WATCHDOG":
			n.ping = n.ping || value == "1"
			n.trigger = n.trigger || value == "trigger"
		case "WATCHDOG_USEC", "EXTEND_TIMEOUT_USEC":
			d, err := microseconds(value)
			switch {
			case err != nil:
				refuse("%s=: %v", name, err)
			case name == "WATCHDOG_USEC" && d < shortestGuard:
				refuse("WATCHDOG_USEC=: the file says whether there is a watchdog, and it is not shorter than %s", shortestGuard)
			case name == "WATCHDOG_USEC":
				n.watchdog = d
			default:
				n.extend = d
			}
		case "MAINPID":
			pid, err := strconv.Atoi(value)
			if err != nil || pid < 1 {
				refuse("MAINPID=: no process id")
			} else {
				n.mainPID = pid
			}
		case "FDSTORE":
			refuse("FDSTORE=1: Mainstay keeps no descriptors for its services")
		}
	}
	return n
}

// microseconds reads a number of them, and takes no more than longestDelay.
func microseconds(s string) (time.Duration, error) {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return 0, errors.New("no number of microseconds")
	}
	return time.Duration(min(n, uint64(longestDelay/time.Microsecond))) * time.Microsecond, nil
}

// oneLine returns what a process said as a short text that can be shown anywhere.
func oneLine(s string, limit int) string {
	if len(s) > limit {
		s = s[:wholeRunes([]byte(s[:limit]))]
	}
	clean := strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, strings.ToValidUTF8(s, "\uFFFD"))
	return strings.TrimSpace(clean)
}

// A notifySocket is where one process tells of itself.
type notifySocket interface {
	// serve calls tell with each notice of a process that from knows, in order, until close. What anyone else sends is refused.
	serve(from func(pid int) bool, tell func(notice))
	// close ends serve and waits for it.
	close()
}

// A testimony is what one process has told of itself so far. Its methods may be called by any goroutine.
type testimony struct {
	mu       sync.Mutex
	phase    phase
	status   string
	trigger  bool          // it asks to be given up
	pinged   time.Time     // when it last said WATCHDOG=1
	extended time.Time     // no time limit ends before
	watchdog time.Duration // how often it is to say WATCHDOG=1; 0: as the probe says
	refused  map[string]bool
	changed  chan struct{} // closed by the next notice
}

func newTestimony() *testimony {
	return &testimony{pinged: time.Now(), refused: map[string]bool{}, changed: make(chan struct{})}
}

// refusalsTold bounds what is logged of the refusals of one process.
const refusalsTold = 16

// take adds n, which the process pid sent, and returns what it refuses for the first time.
func (t *testimony) take(n notice, pid int) (refused []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case n.phase == silent, t.phase == stopping:
	case n.phase == reloading && t.phase != ready: // it was not ready before
	default:
		t.phase = n.phase
	}
	if n.status != nil {
		t.status = *n.status
	}
	now := time.Now()
	if n.ping {
		t.pinged = now
	}
	t.trigger = t.trigger || n.trigger
	if n.extend > 0 {
		t.extended = now.Add(n.extend)
	}
	if n.watchdog > 0 {
		t.watchdog, t.pinged = n.watchdog, now
	}
	if n.mainPID != 0 && n.mainPID != pid {
		n.refused = append(n.refused, "MAINPID=: Mainstay looks after the process that it started, and after no other")
	}
	for _, why := range n.refused {
		if !t.refused[why] && len(t.refused) < refusalsTold {
			t.refused[why] = true
			refused = append(refused, why)
		}
	}
	close(t.changed)
	t.changed = make(chan struct{})
	return refused
}

// next is closed by the next notice.
func (t *testimony) next() <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.changed
}

// notices is closed by p's next notice; nil if there will be none.
func (p *tenancy) notices() <-chan struct{} {
	if p.told == nil {
		return nil
	}
	return p.told.next()
}

// says returns the phase and the status that were last told, and whether the process asks to be given up.
func (t *testimony) says() (p phase, status string, trigger bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.phase, t.status, t.trigger
}

// excused returns until when no time limit ends.
func (t *testimony) excused() time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.extended
}

// guard returns how often the process is to say WATCHDOG=1 if the probe says period.
func (t *testimony) guard(period time.Duration) time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.watchdog > 0 {
		return t.watchdog
	}
	return period
}

// readiness returns nil if the process says that it is ready.
func (t *testimony) readiness() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch t.phase {
	case ready, reloading:
		return nil
	case stopping:
		return errors.New("it says that it stops (STOPPING=1)")
	}
	if t.status != "" {
		return fmt.Errorf("it has not said READY=1; its status: %s", t.status)
	}
	return errors.New("it has not said READY=1")
}

// pulse returns nil if the process said WATCHDOG=1 not longer than period ago. Who calls for the first time, or has not called for long, was
// not there to listen, and counts from now.
func (t *testimony) pulse(period time.Duration, asked time.Time) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	if asked.IsZero() || now.Sub(asked) > 2*period {
		t.pinged = now
	}
	if since := now.Sub(t.pinged); since > period {
		return fmt.Errorf("it has not said WATCHDOG=1 for %s", since.Round(time.Millisecond))
	}
	return nil
}
