package proxy

import (
	"context"
	"maps"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// A departure is a server whose listener another engine serves now. It accepts no more and passes its clients' connections on,
// each between two requests; what cannot be passed it serves to its end.
type departure struct {
	serving
	cancel context.CancelFunc // cuts what is left
	done   chan struct{}
}

// depart lets the server go in a goroutine that a later Apply waits for when the listener is not wanted any more.
func (p *Proxy) depart(s serving) {
	ctx, cancel := context.WithCancel(context.Background())
	d := &departure{serving: s, cancel: cancel, done: make(chan struct{})}
	p.mu.Lock()
	p.leaving[d] = struct{}{}
	p.mu.Unlock()
	go func() {
		defer close(d.done)
		defer cancel()
		s.give(ctx, &giver{pass: p.passOn, stop: cancel})
		s.stop(ctx)
		p.engines[s.kind].closed()
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.leaving, d)
	}()
}

// give waits until nothing is left: what can be passed on goes to g by way of the server that has taken this one's place.
// When ctx is done it cuts what is left, unless g has failed.
func (d *departure) give(ctx context.Context, g *giver) {
	select {
	case <-d.done:
	case <-ctx.Done():
		if !g.failed() {
			d.end(ctx)
		}
	}
}

// end waits until nothing is left, and when ctx is done it cuts what is.
func (d *departure) end(ctx context.Context) {
	select {
	case <-d.done:
	case <-ctx.Done():
		d.cancel()
		<-d.done
	}
}

// passOn gives a connection to the server that its listener has now. Of a listener that is not there any more the
// connection is closed by who passes it. What cannot be taken goes on where it is.
func (p *Proxy) passOn(what passed, fd int) (taken bool, err error) {
	p.mu.Lock()
	s := p.serving[what.Listener]
	p.mu.Unlock()
	if s.server == nil {
		return true, nil
	}
	number, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return false, nil
	}
	f := os.NewFile(uintptr(number), "connection")
	defer f.Close()
	return s.take(f, what.Secure) == nil, nil
}

func (p *Proxy) departures() []*departure {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Collect(maps.Keys(p.leaving))
}
