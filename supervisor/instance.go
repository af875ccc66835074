package supervisor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"time"

	"mainstay/topology"
)

// A version is a specification as it was given in one topology. Instances of one revision differ in nothing
// that a process is made from.
type version struct {
	spec       topology.Service
	generation int
	apply      int // the Apply that it was given in
	revision   int
	digest     *digest // of the recipe, of which nothing else is known; nil: spec has it
}

// makes reports whether a process of spec would be made as one of v is.
func (v version) makes(spec topology.Service) bool {
	if v.digest != nil {
		return v.digest.of(spec)
	}
	return reflect.DeepEqual(recipe(v.spec), recipe(spec))
}

// An instance fills one place of a service, with one process after another, until it is told to stop.
// Its goroutine alone moves its state.
type instance struct {
	site     *site
	log      *slog.Logger
	service  string
	replica  int
	revision int
	upstream topology.Upstream // of a service that runs elsewhere
	output   *output
	changed  func() // tells the service that life() or done may be different

	told  context.Context // done when the instance is to stop
	stop  context.CancelFunc
	force context.Context // done when it is to be killed at once
	done  chan struct{}   // closed when nothing of it is left
	hot   chan struct{}   // the version is another one

	mu      sync.Mutex
	version *version // never changed, only replaced: copies in the frames of 500 goroutines are megabytes
	life    life
	probed  answers     // of the last process
	words   *utterances // of the last process; nil: there was none
	share   float64     // percent of the service's requests that it is to get; 0: as many as any other

	// The goroutine's own, and the place's when it is done.
	socket *socket // that its processes are given; nil: none

	// The goroutine's own.
	outputs   []<-chan struct{} // each closed when the output of one process has ended
	inherited *tenancy          // from a former run, to begin with; nil: none
	concluded *run              // of the process after which there is none; nil: there was none yet
}

// life is how an instance is doing, as others may see it.
type life struct {
	state    State
	reason   string
	status   string    // that the process gave of itself
	since    time.Time // of the state
	pid      int
	address  string
	restarts int
	began    time.Time         // when the last process was started
	launched time.Time         // when the first process was started; zero: not yet
	readied  time.Time         // when it last became ready; zero: not yet
	failures int               // processes that could not be started, or ended other than by being told to
	crashes  int               // of those, in a row, none of them after a stable run
	crashed  time.Time         // when the first of these ended
	failure  string            // why the last of them did
	lost     bool              // how a run of a job ended is not known
	lapses   int               // how often it was ready and then not, other than by being told to stop
	lapse    string            // how long it was ready the last time, and why no longer
	routed   topology.Instance // as the Router was last told of it; zero: never
	excused  time.Time         // until when it has asked not to be given up; zero: it has not
}

// due returns when the instance, which was launched, is to have been ready if its deadline is so long.
func (l life) due(deadline time.Duration) time.Time {
	due := l.launched.Add(deadline)
	if l.excused.After(due) {
		return l.excused
	}
	return due
}

// crashLoop is how many processes in a row have to end, none of them after a run that begins the back-off anew, to be called one.
const crashLoop = 5

// fail adds a process that could not be started, or ended other than by being told to.
func (l *life) fail(end ending, resetAfter time.Duration) {
	l.failures, l.failure = l.failures+1, end.why
	if l.crashes == 0 || resetAfter > 0 && end.ran >= resetAfter {
		l.crashes, l.crashed = 0, time.Now()
	}
	l.crashes++
}

// loops reports whether the instance is in a crash loop. It has left it when its process has run for resetAfter.
func (l life) loops(resetAfter time.Duration) bool {
	stable := l.state.running() && resetAfter > 0 && time.Since(l.began) >= resetAfter
	return l.crashes >= crashLoop && !stable
}

// loop tells of a crash loop, before the reason of the last end; nothing if there is none.
func (i *instance) loop() string {
	l := i.now()
	if l.crashes < crashLoop {
		return ""
	}
	return fmt.Sprintf("crash loop: ended %d times in %s: ", l.crashes, roughly(time.Since(l.crashed)))
}

// ending is how a process came to its end, or why there was none.
type ending struct {
	cause string // one of the Cause constants
	why   string // for people
	clean bool   // it exited by itself with status 0
	lost  bool   // nobody knows how it ended
	ran   time.Duration
	// inFlight is how many requests were at the process.
	inFlight int
}

func instanceID(service string, replica int) string { return service + "/" + strconv.Itoa(replica) }

// startInstance starts an instance of v in p, which is to get share percent of the requests; 0: as many as any other.
func startInstance(site *site, v version, p *place, output *output, share float64, force context.Context, changed func()) *instance {
	i := newInstance(site, v, p, output, force, changed)
	i.share = share
	i.life.restarts, p.restarts = p.restarts, 0
	i.socket = p.takeSocket()
	go i.run()
	return i
}

func newInstance(site *site, v version, p *place, output *output, force context.Context, changed func()) *instance {
	i := &instance{
		site:     site,
		log:      site.log.With("instance", instanceID(v.spec.Name, p.replica)),
		service:  v.spec.Name,
		replica:  p.replica,
		revision: v.revision,
		upstream: p.upstream,
		output:   output,
		changed:  changed,
		force:    force,
		done:     make(chan struct{}),
		hot:      make(chan struct{}, 1),
		version:  &v,
		life:     life{state: StatePending, since: time.Now()},
	}
	i.told, i.stop = context.WithCancel(force)
	return i
}

// adopt gives the instance another version of the same revision.
func (i *instance) adopt(v version) {
	i.mu.Lock()
	i.version = &v
	i.mu.Unlock()
	select {
	case i.hot <- struct{}{}:
	default:
	}
}

// claim gives the instance so many percent of the service's requests; 0: as many as any other.
func (i *instance) claim(share float64) {
	i.mu.Lock()
	same := i.share == share
	i.share = share
	i.mu.Unlock()
	if same {
		return
	}
	select {
	case i.hot <- struct{}{}:
	default:
	}
}

// lost reports whether the instance has ended and what it was made from is known no more.
func (i *instance) lost() bool { return i.current().digest != nil && i.now().state == StateFailed }

func (i *instance) claimed() float64 {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.share
}

// current returns the instance's version.
func (i *instance) current() version {
	i.mu.Lock()
	defer i.mu.Unlock()
	return *i.version
}

// spec returns the instance's specification, which is not to be changed.
func (i *instance) spec() *topology.Service {
	i.mu.Lock()
	defer i.mu.Unlock()
	return &i.version.spec
}

func (i *instance) now() life {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.life
}

// complaint says why the instance is not what it should be, with the last words of its process.
func (i *instance) complaint() string {
	i.mu.Lock()
	reason, words := i.life.reason, i.words
	i.mu.Unlock()
	if words == nil {
		return reason
	}
	return reason + words.String()
}

func (i *instance) status() InstanceStatus {
	i.mu.Lock()
	defer i.mu.Unlock()
	return InstanceStatus{
		ID: instanceID(i.service, i.replica), Replica: i.replica, PID: i.life.pid, Address: i.life.address,
		State: i.life.state, Reason: i.life.reason, Status: i.life.status, Restarts: i.life.restarts,
		Generation: i.version.generation, Since: i.life.since,
		CrashLoop: i.life.loops(i.version.spec.Restart.Backoff.ResetAfter),
	}
}

// update changes what others see, and tells the service.
func (i *instance) update(change func(l *life)) {
	i.mu.Lock()
	change(&i.life)
	i.mu.Unlock()
	i.changed()
}

// move is the only way to another state.
func (i *instance) move(to State, reason string) {
	from := i.now().state
	if from == to && reason == i.now().reason {
		return
	}
	if from != to && !from.mayBecome(to) {
		i.log.Error("instance made an impossible move", "from", from, "to", to)
	}
	i.update(func(l *life) {
		if from == StateReady && to != StateReady && to != StateStopped && i.told.Err() == nil {
			why := reason
			if to == StateWaiting {
				why = l.failure
			}
			l.lapses++
			l.lapse = fmt.Sprintf("ready for %s only: %s", time.Since(l.since).Round(time.Millisecond), why)
		}
		if from != to {
			l.since = time.Now()
		}
		if !to.running() {
			l.pid, l.address, l.status, l.excused = 0, "", "", time.Time{}
		}
		if to == StateReady {
			l.readied = time.Now()
		}
		l.state, l.reason = to, reason
	})
}

// run is the instance's goroutine.
func (i *instance) run() {
	defer i.changed()
	defer close(i.done)
	defer i.hearOut()
	defer i.stop()
	if i.inherited == nil && !i.awaitDependencies() {
		i.move(StateStopped, "")
		return
	}
	var pause backoff
	for {
		p, end := i.live()
		if !i.goOn(p, end, &pause) {
			return
		}
	}
}

// goOn does what follows from the end of a process, and waits until the next may be started. It returns false if none is to be.
// It stands apart from run, and occupy from live, because the two wait for as long as a process runs: what is in their frames is
// there for each instance.
func (i *instance) goOn(p *tenancy, end ending, pause *backoff) bool {
	if i.told.Err() != nil {
		if p != nil && !p.finished && i.isOver(p, end) { // it ended by itself when it was to be let go
			i.conclude(p, end)
		}
		i.leave(p, i.spec().StopGracePeriod)
		i.move(StateStopped, "")
		return false
	}
	over := i.isOver(p, end)
	if !over || !end.clean {
		i.site.morgue.add(i.postmortem(p, end))
	}
	if i.current().digest != nil {
		i.leave(p, i.spec().StopGracePeriod)
		i.log.Warn("instance of an older revision ended", "why", end.why)
		i.move(StateFailed, end.why)
		return false
	}
	restart := i.spec().Restart
	if i.spec().Schedule != nil {
		i.update(func(l *life) { l.lost = end.lost })
	}
	if over {
		i.conclude(p, end)
		i.leave(p, i.spec().StopGracePeriod)
		if end.clean {
			i.log.Info("instance completed")
			i.move(StateStopped, "completed")
		} else {
			i.log.Error("instance failed", "why", end.why)
			i.move(StateFailed, end.why)
		}
		return false
	}
	delay := pause.next(restart.Backoff, end.ran)
	again := time.Now().Add(delay)
	i.log.Warn("instance waits for its restart", "why", end.why, "delay", delay.Round(time.Millisecond))
	i.update(func(l *life) { l.fail(end, restart.Backoff.ResetAfter) })
	i.move(StateWaiting, fmt.Sprintf("%s%s; the next start is in %s", i.loop(), end.why, delay.Round(time.Millisecond)))
	i.leave(p, delay)
	if !wait(i.told, time.Until(again)) {
		i.move(StateStopped, "")
		return false
	}
	i.site.metrics.restarts.WithLabelValues(i.service, end.cause).Inc()
	i.update(func(l *life) { l.restarts++ })
	return true
}

// isOver reports whether no process follows the one that has ended so, or was to be p and is none. A run of a job is over, too, when its
// program cannot be started, and is not done twice if it may have succeeded.
func (i *instance) isOver(p *tenancy, end ending) bool {
	spec := i.spec()
	never := spec.Restart.Policy == topology.RestartNever
	if spec.Schedule != nil {
		return end.lost || end.clean || never
	}
	return p != nil && (never || end.clean && spec.Restart.Policy == topology.RestartOnFailure)
}

// dismiss tells the instance to stop. The service looks again, as one that is done already says nothing more.
func (i *instance) dismiss() {
	i.stop()
	i.changed()
}

// hearOut waits until the output of every process has ended, which for those whose group is gone is soon.
func (i *instance) hearOut() {
	for _, silent := range i.outputs {
		<-silent
	}
}

// awaitDependencies returns true when every condition of the service holds, or false when it is told to stop before.
func (i *instance) awaitDependencies() bool {
	for {
		why, changed := i.site.board.unmet(i.spec().DependsOn)
		if why == "" {
			return i.told.Err() == nil
		}
		i.move(StatePending, why)
		select {
		case <-changed:
		case <-i.hot:
		case <-i.told.Done():
			return false
		}
	}
}

// live starts a process and looks after it until it has ended: by itself, because a probe gave up on it, or because
// the instance was told to stop. The tenancy is nil if no process was started.
func (i *instance) live() (*tenancy, ending) {
	p := i.inherited
	if i.inherited = nil; p == nil {
		var err error
		if p, err = i.occupy(); err != nil {
			return nil, ending{cause: CauseSpawn, why: err.Error()}
		}
	}

	w := newWatch(i, p)
	defer w.probes.stop()
	if i.told.Err() == nil {
		w.begin()
	}
	told := p.notices()
	if why := w.heed(); why != "" {
		return i.giveUp(w, CauseLiveness, why)
	}
	for {
		select {
		case <-p.exited():
			w.probes.stop()
			return p, i.ended(p)
		case <-i.told.Done():
			w.probes.stop()
			switch away := isClosed(i.away(p)); {
			case away && isClosed(p.exited()): // the next Mainstay could not tell how
				return p, i.ended(p)
			case away:
				i.letGo(p)
			default:
				i.end(p, "")
			}
			return p, ending{}
		case <-i.hot:
			p.run.note(func(r *record) { r.Keep = keepOf(*i.spec()) })
			w.reconsider()
			i.readmit(p)
		case <-told:
			told = p.notices()
			if why := w.heed(); why != "" {
				return i.giveUp(w, CauseLiveness, why)
			}
		case <-w.late():
			if why := w.overdue(); why != "" {
				return i.giveUp(w, CauseExit, why)
			}
		case v := <-w.probes.verdicts:
			if why := w.hear(v); why != "" {
				cause := v.probe
				if errors.As(v.answer, new(foreign)) {
					cause = CausePort
				}
				return i.giveUp(w, cause, why)
			}
		}
	}
}

// occupy starts a process and tells of it.
func (i *instance) occupy() (*tenancy, error) {
	p, err := i.settle()
	if err != nil {
		if i.told.Err() == nil {
			i.site.metrics.spawnFailures.WithLabelValues(i.service).Inc()
		}
		return nil, err
	}
	i.mu.Lock()
	i.probed = nil
	i.mu.Unlock()
	i.update(func(l *life) {
		l.began = p.started
		l.pid, l.address = p.pid(), p.seat.address()
		if l.launched.IsZero() {
			l.launched = p.started
		}
	})
	i.move(StateStarting, strings.TrimSuffix(i.loop(), ": "))
	i.log.Info("instance started", "pid", p.pid(), "address", p.seat.address())
	return p, nil
}

// ended takes p, which has ended by itself, out of the rotation and says how it ended.
func (i *instance) ended(p *tenancy) ending {
	end := ending{cause: causeOf(p.exit()), clean: p.exit().clean(), lost: p.exit().unknown, ran: time.Since(p.started), inFlight: i.inFlight(p)}
	i.abandon(p)
	end.why = p.exit().String() + i.said(p)
	return end
}

// giveUp ends a process that runs, but not as it should.
func (i *instance) giveUp(w *watch, cause, why string) (*tenancy, ending) {
	w.probes.stop()
	i.log.Warn("instance is given up", "why", why)
	end := ending{cause: cause, why: why, ran: time.Since(w.tenant.started), inFlight: i.inFlight(w.tenant)}
	i.end(w.tenant, why)
	if !isClosed(i.away(w.tenant)) {
		i.said(w.tenant)
	}
	return w.tenant, end
}
