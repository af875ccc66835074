package supervisor

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// Instances are given ports from here, outside of the range from which the kernel gives ports to outgoing
// connections: one of those could take a port between our test and the program's bind.
const (
	firstPort  = 20000
	lastPort   = 29999
	quarantine = 30 * time.Second // before a port that was given back is given out again, unless no other is left
)

// ports gives each process a port of its own. It goes round the range, so that a port that was given back, perhaps because
// something else listens on it, is the last to be tried again.
type ports struct {
	mu      sync.Mutex
	next    int                 // the port to try next
	held    map[int]int         // how many processes hold it: one, unless several were found at it
	resting map[int]time.Time   // given back, until
	freed   chan struct{}       // closed when a port is given back, then another
	free    func(port int) bool // whether nothing listens on it
}

func newPorts() *ports {
	return &ports{held: map[int]int{}, resting: map[int]time.Time{}, freed: make(chan struct{}), free: canBind}
}

// acquire reserves a port that nothing listens on.
func (p *ports) acquire() (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	avoidFrom, avoidTo := ephemeralRange()
	if avoidFrom <= firstPort && avoidTo >= lastPort {
		avoidFrom, avoidTo = 0, 0 // nothing would be left
	}
	if p.next == 0 { // two Mainstays on one machine should not try the same ports
		p.next = firstPort + rand.IntN(lastPort-firstPort+1)
	}
	for _, rested := range []bool{true, false} {
		for range lastPort - firstPort + 1 {
			port := p.next
			if p.next++; p.next > lastPort {
				p.next = firstPort
			}
			switch {
			case p.held[port] > 0, port >= avoidFrom && port <= avoidTo:
			case rested && time.Now().Before(p.resting[port]):
			case !p.free(port):
			default:
				p.held[port] = 1
				delete(p.resting, port)
				return port, nil
			}
		}
	}
	return 0, errors.New("find port: none is free from " + strconv.Itoa(firstPort) + " to " + strconv.Itoa(lastPort))
}

// claim reserves one certain port. If another process of ours holds it, claim calls waits and waits; the error is ctx's.
func (p *ports) claim(ctx context.Context, port int, waits func()) error {
	for {
		p.mu.Lock()
		if p.held[port] == 0 {
			p.held[port] = 1
			p.mu.Unlock()
			return nil
		}
		freed := p.freed
		p.mu.Unlock()
		waits()
		select {
		case <-freed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// find notes that a process which was there before us holds port.
func (p *ports) find(port int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.held[port]++
	delete(p.resting, port)
}

// release gives a port back.
func (p *ports) release(port int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.held[port]--; p.held[port] > 0 {
		return
	}
	delete(p.held, port)
	p.resting[port] = time.Now().Add(quarantine)
	close(p.freed)
	p.freed = make(chan struct{})
}

// canBind reports whether nothing listens on port. That Mainstay may not listen there itself does not matter.
func canBind(port int) bool {
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return !errors.Is(err, syscall.EADDRINUSE)
	}
	return l.Close() == nil
}

// ephemeralRange returns the ports that the kernel gives to outgoing connections (ip(7), ip_local_port_range).
func ephemeralRange() (from, to int) {
	b, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		return 32768, 60999
	}
	if n, _ := fmt.Sscan(string(b), &from, &to); n != 2 {
		return 32768, 60999
	}
	return from, to
}
