package supervisor

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"mainstay/topology"
)

// A tenancy is one process in the instance's place, with what it holds.
type tenancy struct {
	process
	seat     seat
	port     int // to give back; 0: none
	words    *utterances
	started  time.Time
	run      *run // nil: it has none
	up       bool // its startup probe has succeeded, or there is none
	finished bool // nothing of it is left, or it was let go

	notify notifySocket // where it tells of itself; nil: nowhere
	told   *testimony   // what it has told; nil: it tells nothing

	// What the Router knows of it. Each time that it is admitted it has another ID, so that a Drain of
	// before, which still waits for requests, has no effect on it.
	routable bool
	admitted topology.Instance // zero: not in the rotation
	drains   sync.WaitGroup    // of those that it was in the rotation as
	patience context.Context   // of those drains
	lose     context.CancelFunc
}

// busyTries bounds how often a program that is being written to is tried again before that is an error.
const busyTries = 50

// settle takes a port and starts a process there.
func (i *instance) settle() (*tenancy, error) {
	v := i.current()
	p := &tenancy{seat: seat{service: i.service, replica: i.replica, generation: v.generation}, words: &utterances{}}
	if i.upstream != (topology.Upstream{}) {
		p.process = newRemote()
		p.seat.host, p.seat.port, _ = net.SplitHostPort(i.upstream.Address)
	} else {
		if err := i.takePort(p, v.spec); err != nil {
			return nil, err
		}
		if err := i.listenOn(p, v.spec); err != nil {
			i.givePort(p)
			return nil, err
		}
		p.seat.socket = i.socket != nil
		if v.spec.Probes.Told() != (topology.Probes{}) {
			p.seat.notify = "@mainstay/" + rand.Text()
			if err := i.listen(p); err != nil {
				i.givePort(p)
				return nil, err
			}
		}
		c := p.seat.command(v.spec, v.spec.Command)
		c.limits = v.spec.Limits
		p.run = i.site.runs.open(record{
			Service: i.service, Replica: i.replica, Port: p.port, Generation: v.generation,
			Recipe: digestOf(v.spec), Keep: keepOf(v.spec), Restarts: i.now().restarts, Started: time.Now(),
			Notify: p.seat.notify, Socket: p.seat.socket,
		})
		c.run, c.watchdog = p.run.path(), v.spec.Probes.Told().Liveness != nil
		if i.socket != nil {
			c.socket = i.socket.file
		}
		c.line = func(stream string, text []byte, partial bool) {
			p.words.add(stream, text, partial)
			i.output.add(stream, text, partial)
		}
		var err error
		// A deployment that writes the program while it is started is no failure of the program.
		for range busyTries {
			if p.process, err = i.site.host.start(c); !errors.Is(err, syscall.ETXTBSY) || !wait(i.told, 20*time.Millisecond) {
				break
			}
		}
		if err != nil {
			p.run.remove()
			i.vacate(p)
			return nil, err
		}
		i.hearken(p)
	}
	p.started = time.Now()
	i.outputs = append(slices.DeleteFunc(i.outputs, isClosed), p.silent())
	i.mu.Lock()
	i.words = p.words
	i.mu.Unlock()
	p.routable = v.spec.Routable()
	i.arrive(p)
	return p, nil
}

// arrive makes p the process that is waited for when the instance is killed.
func (i *instance) arrive(p *tenancy) { p.patience, p.lose = context.WithCancel(i.force) }

// listen opens p's notification socket.
func (i *instance) listen(p *tenancy) (err error) {
	if p.notify, err = i.site.host.notify(p.seat.notify); err == nil {
		p.told = newTestimony()
	}
	return err
}

// hearken begins to take what p tells.
func (i *instance) hearken(p *tenancy) {
	if p.notify != nil {
		p.notify.serve(p.contains, func(n notice) { i.note(p, n) })
	}
}

// note takes what p has told.
func (i *instance) note(p *tenancy, n notice) {
	for _, why := range p.told.take(n, p.pid()) {
		i.log.Warn("notification refused", "why", why)
	}
}

// vacate gives back what p holds, of whose process nothing is left.
func (i *instance) vacate(p *tenancy) {
	p.finished = true
	i.deafen(p)
	i.givePort(p)
}

// deafen closes p's notification socket.
func (i *instance) deafen(p *tenancy) {
	if p.notify != nil {
		p.notify.close()
		p.notify = nil
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func (i *instance) takePort(p *tenancy, spec topology.Service) (err error) {
	port := spec.Port
	if i.socket != nil && !i.socket.fits(spec) {
		i.socket.close()
		i.socket = nil
	}
	switch {
	case port == topology.PortNone:
		return nil
	case i.socket != nil:
		p.port = i.socket.port
	case port == topology.PortAuto:
		p.port, err = i.site.ports.acquire()
	default:
		p.port = int(port)
		err = i.site.ports.claim(i.told, p.port, func() {
			i.move(StatePending, fmt.Sprintf("waits for port %d, which another instance holds", port))
		})
		// Otherwise a probe would take that program's answers for ours, and requests would go to it.
		if err == nil && !i.site.ports.free(p.port) {
			i.site.ports.release(p.port)
			err = fmt.Errorf("take port %d: another program listens on it", port)
		}
	}
	if err != nil {
		p.port = 0
		return err
	}
	p.seat.host, p.seat.port = "127.0.0.1", strconv.Itoa(p.port)
	return nil
}

func (i *instance) givePort(p *tenancy) {
	if p.port != 0 && i.socket == nil { // a socket keeps its port
		i.site.ports.release(p.port)
	}
	p.port = 0
}

// end takes a process out of the rotation, waits for its requests, and ends it: with its stop signal, and with SIGKILL
// when that has not helped in time.
func (i *instance) end(p *tenancy, reason string) {
	spec := i.spec()
	p.run.note(func(r *record) { r.Leaving = true })
	i.move(StateDraining, reason)
	i.drain(p, spec.StopGracePeriod)
	i.move(StateStopping, reason)
	away := i.away(p)
	if isClosed(away) {
		i.letGo(p)
		return
	}
	sig := spec.StopSignal
	if sig == 0 {
		sig = syscall.SIGTERM
	}
	begun := time.Now()
	deadline := begun.Add(spec.StopGracePeriod)
	if !isClosed(p.exited()) {
		p.signal(sig)
	}
	if !i.outlast(p, deadline, away) {
		if isClosed(away) {
			i.letGo(p)
			return
		}
		i.log.Warn("instance killed", "pid", p.pid(), "after", time.Since(begun).Round(time.Millisecond))
		p.signal(syscall.SIGKILL)
		<-p.exited()
	}
	ctx, cancel := context.WithDeadline(i.force, p.excused(deadline))
	defer cancel()
	p.sweep(ctx)
	i.finish(p)
	i.log.Info("instance stopped", "how", p.exit().String())
}

// finish is called when nothing of p is left.
func (i *instance) finish(p *tenancy) {
	i.vacate(p)
	if p.run == i.concluded {
		return // what became of it is still to be known
	}
	p.run.remove()
}

// away returns a channel that is closed when p is to be let go: a process of which nothing is noted cannot be.
func (i *instance) away(p *tenancy) <-chan struct{} {
	if _, elsewhere := p.process.(remote); p.run == nil && !elsewhere {
		return nil
	}
	return i.site.suspended
}

// letGo leaves p to the next Mainstay.
func (i *instance) letGo(p *tenancy) {
	p.lose()
	p.drains.Wait()
	p.release()
	p.finished = true
	i.deafen(p)
	if i.socket != nil {
		i.socket.file.Close() // p has it
		i.socket = nil
	}
}

// leave ends what an ended process left behind in its group, within grace, or at once when the instance is told to stop.
func (i *instance) leave(p *tenancy, grace time.Duration) {
	if p == nil || p.finished {
		return
	}
	ctx, cancel := context.WithTimeout(i.told, grace)
	defer cancel()
	p.sweep(ctx)
	i.finish(p)
}

// outlast waits until p has ended or its time is up, which is at deadline, or later if it asks for more. Then, or when the instance is to be
// killed or let go, it returns false.
func (i *instance) outlast(p *tenancy, deadline time.Time, away <-chan struct{}) bool {
	t := time.NewTimer(time.Until(deadline))
	defer t.Stop()
	for {
		select {
		case <-p.exited():
			return true
		case <-away:
			return false
		case <-i.force.Done():
			return false
		case <-t.C:
			rest := time.Until(p.excused(deadline))
			if rest <= 0 {
				return false
			}
			t.Reset(rest)
		}
	}
}

// excused returns until when p may take its time if it has until deadline anyway.
func (p *tenancy) excused(deadline time.Time) time.Time {
	if p.told != nil {
		if asked := p.told.excused(); asked.After(deadline) {
			return asked
		}
	}
	return deadline
}

// admit puts p into the rotation.
func (i *instance) admit(p *tenancy) {
	if !p.routable {
		return
	}
	p.admitted = topology.Instance{
		Service: i.service,
		ID:      instanceID(i.service, i.replica) + "." + strconv.FormatUint(i.site.admits.Add(1), 10),
		Replica: i.replica,
		Address: net.JoinHostPort(p.seat.host, p.seat.port),
		Weight:  i.weight(),
		Share:   i.claimed(),
	}
	i.tell(p)
}

// weight returns the instance's weight: of one that runs elsewhere what the specification has now for its address.
func (i *instance) weight() int {
	for _, u := range i.spec().External {
		if u.Address == i.upstream.Address {
			return max(1, u.Weight)
		}
	}
	return max(1, i.upstream.Weight)
}

// readmit gives p, if it is in the rotation, the weight and the share that its instance has now.
func (i *instance) readmit(p *tenancy) {
	weight, share := i.weight(), i.claimed()
	if p.admitted.ID != "" && (p.admitted.Weight != weight || p.admitted.Share != share) {
		p.admitted.Weight, p.admitted.Share = weight, share
		i.tell(p)
	}
}

// tell tells the Router of p.
func (i *instance) tell(p *tenancy) {
	i.mu.Lock()
	i.life.routed = p.admitted
	i.mu.Unlock()
	i.site.router.Admit(p.admitted)
}

// withdraw takes p out of the rotation. Its requests go on.
func (i *instance) withdraw(p *tenancy) {
	was := p.admitted
	p.admitted = topology.Instance{}
	if was.ID != "" {
		p.drains.Go(func() { i.site.router.Drain(p.patience, was) }) // the error is that patience was lost
	}
}

// drain takes p out of the rotation and waits until its requests have finished, for at most limit, and not for those of
// a process that has ended.
func (i *instance) drain(p *tenancy, limit time.Duration) {
	i.withdraw(p)
	drained := make(chan struct{})
	go func() { p.drains.Wait(); close(drained) }()
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case <-drained:
	case <-p.exited():
	case <-i.force.Done():
	case <-i.away(p):
	case <-t.C:
		i.log.Warn("requests were still in flight when their time was up", "limit", limit)
	}
	p.lose()
	<-drained
}

// abandon takes p, which has ended, out of the rotation, and its requests with it.
func (i *instance) abandon(p *tenancy) {
	p.lose()
	if p.admitted.ID != "" {
		i.site.router.Drain(p.patience, p.admitted) // the error is that it did not wait
		p.admitted = topology.Instance{}
	}
	p.drains.Wait()
}

// patienceForWords bounds the wait for the last words of a process that has ended.
const patienceForWords = 100 * time.Millisecond

// said returns the last lines that p wrote, to follow a message.
func (i *instance) said(p *tenancy) string {
	t := time.NewTimer(patienceForWords)
	defer t.Stop()
	select {
	case <-p.silent():
	case <-t.C:
	}
	return p.words.String()
}

// utterances keeps the last lines of one process.
type utterances struct {
	mu    sync.Mutex
	lines []LogLine
	size  int // of their texts
}

const (
	wordsKept   = 50       // lines
	wordsInAll  = 32 << 10 // bytes of them
	wordLimit   = 1 << 10  // bytes of a line
	wordsTold   = 3        // lines that follow a message
	wordInShort = 200      // bytes of such a line
)

func (w *utterances) add(stream string, text []byte, partial bool) {
	line := LogLine{
		Time: time.Now(), Stream: stream, Text: strings.ToValidUTF8(string(text[:min(len(text), wordLimit)]), "\uFFFD"),
		Partial: partial || len(text) > wordLimit,
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	over := 0
	for w.size += len(line.Text); over < len(w.lines) && (len(w.lines)-over >= wordsKept || w.size > wordsInAll); over++ {
		w.size -= len(w.lines[over].Text)
	}
	w.lines = append(slices.Delete(w.lines, 0, over), line)
}

// last returns a copy of the lines.
func (w *utterances) last() []LogLine {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.lines)
}

func (w *utterances) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var told []string
	for _, l := range w.lines[max(0, len(w.lines)-wordsTold):] {
		text := l.Text
		if len(text) > wordInShort {
			text = text[:wholeRunes([]byte(text[:wordInShort]))]
		}
		told = append(told, text)
	}
	if len(told) == 0 {
		return ""
	}
	return ": " + strings.Join(told, " | ")
}
