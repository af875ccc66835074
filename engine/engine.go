// Package engine makes the topology so. It reads what should run from a
// [Source], hands each new [topology.Topology] to the subsystems in order and
// puts the old one back if one of them refuses.
//
// There is one way to change what runs: [Subsystem.Apply] with a whole topology.
// Starting, reloading, scaling by hand, rolling back and stopping are all that
// call. Whoever makes it holds the engine's turn, so there is never more than one
// at a time; everyone else reads the newest [Status] and topology, which are
// immutable and never waited for.
//
// Every topology accepted from the source gets the next generation number and is
// kept in the state directory, which the engine holds locked while it runs. If the
// file is broken when Mainstay starts, the newest generation that can be read runs
// instead. Overrides (scale, stop, restart) are laid over what the file says. A
// roll-back runs an older generation again and pins it until the file changes.
//
// What runs is written down (register.go) until it is stopped. A Mainstay that
// finds the note of one that did not stop it applies that first, so that the stages
// find what still runs as what it is, and then reloads to the file.
//
// Run owns the goroutines: one watches the source and asks for a reload after
// each change; a short-lived one per call of Apply says in the log when that takes long.
package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"mainstay/topology"
)

// A Subsystem keeps one part of a topology running.
//
// Apply makes t what the subsystem runs. It is given the whole desired state,
// never a change, and compares it with what is running now. Five rules hold for
// every subsystem and are checked by enginetest:
//
//   - Whole: applying the previous topology undoes the last one, applying
//     [topology.Empty] stops everything.
//   - Idempotent: applying the same topology again does nothing.
//   - All or nothing: Apply first acquires what may fail (ports, files, clients),
//     then swaps it in, then releases what is no longer wanted. If it returns
//     an error, the subsystem runs what it ran before.
//   - Adding may fail, taking away may not. What does not stop in time is killed and logged.
//   - It waits for what it stops, until ctx is done, and never for what it starts:
//     progress of that is told by the subsystem's Status. What takes its time to stop, and holds nothing that others
//     need, may go on stopping aside unless t is [topology.Empty]: no topology should be in the way of the next.
//
// The engine never calls Apply concurrently.
type Subsystem interface {
	Apply(ctx context.Context, t *topology.Topology) error
}

// A Stage is a subsystem with the name that errors and logs give it.
type Stage struct {
	Name      string
	Subsystem Subsystem
}

// A Survivor is a Subsystem that can leave what it runs running when Mainstay ends.
type Survivor interface {
	Subsystem
	// Suspend lets go of all that runs without ending it, so that the Apply of a next process can take it over. What it runs
	// is not changed by it. It returns when nothing of the subsystem itself runs any more, at the latest soon after ctx is done.
	// The Subsystem is not used afterwards.
	Suspend(ctx context.Context) error
}

// A Judge is a Subsystem that can tell which generations did not work.
type Judge interface {
	Subsystem
	// Failures returns why, by generation, as far as it is known. It does not block.
	Failures() map[int]string
}

// ErrStopped is what those get who ask for a change when the engine has begun to stop or could not start.
var ErrStopped = errors.New("mainstay is stopping")

// ErrUnfit is the cause of the end of Run's context if this process cannot go on, whatever is wanted. What it has only taken over from
// a former Mainstay is then left as it was found.
var ErrUnfit = errors.New("mainstay cannot go on")

// An Engine makes what its source says so: it hands each new topology to the stages in order and puts the
// old one back if one refuses.
type Engine struct {
	log     *slog.Logger
	metrics *metrics
	source  Source
	stages  []Stage

	started chan struct{} // closed once the first topology has been applied
	ended   chan struct{} // closed once nobody is given the turn any more

	// turn holds one token while the engine runs. Who has taken it may call the stages, write generations
	// and replace the view.
	turn        chan struct{}
	generations *generations
	register    *register
	lock        *os.File // of the state directory

	view atomic.Pointer[view]
}

// A view is what is known at one moment. It is never modified, only replaced.
type view struct {
	topology  *topology.Topology // what runs
	file      *topology.Topology // the same without overrides
	overrides overrides
	status    Status
}

// New returns an Engine that has applied nothing yet. Those stages that can refuse come first.
func New(log *slog.Logger, reg prometheus.Registerer, source Source, stages ...Stage) *Engine {
	e := &Engine{
		log:     log,
		source:  source,
		stages:  stages,
		started: make(chan struct{}),
		ended:   make(chan struct{}),
		turn:    make(chan struct{}, 1),
	}
	e.view.Store(&view{topology: topology.Empty, file: topology.Empty})
	e.metrics = newMetrics(reg, e.Status)
	return e
}

// Run loads and applies the topology, follows its source, and when ctx is done stops everything and returns nil.
// It returns an error if nothing could be started: the file's [topology.Problems] when there is no good
// generation to fall back on, a stage's refusal, or a state directory that cannot be written or that
// another Mainstay holds. It is called once.
//
// lock is what a former program in this process has given to the function of [Engine.HandOver]; nil: there was none. Its name is the
// lock's path. What that program ran is gone on with then; if that cannot be, it is let go of again and the error says why.
func (e *Engine) Run(ctx context.Context, lock *os.File) error {
	resumed := lock != nil
	var err error
	if resumed {
		err = e.goOn(ctx, lock)
	} else {
		resumed, err = e.start(ctx)
	}
	if err != nil {
		close(e.ended)
		return err
	}
	defer e.lock.Close()
	close(e.started)
	e.turn <- struct{}{}

	if resumed {
		e.catchUp(ctx)
	}
	e.follow(ctx)

	close(e.ended)
	<-e.turn // whatever is under way ends first
	keep := e.Topology().OnExit == topology.OnExitKeep || resumed && errors.Is(context.Cause(ctx), ErrUnfit)
	e.stop(context.WithoutCancel(ctx), keep)
	return nil
}

// Started is closed once the first topology has been applied. If that is what a former Mainstay left, a reload follows.
func (e *Engine) Started() <-chan struct{} { return e.started }

// take waits for the turn. Who has it must give it back.
func (e *Engine) take(ctx context.Context) error {
	select {
	case <-e.ended:
		return ErrStopped
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-e.turn:
		return nil
	}
}

func (e *Engine) give() { e.turn <- struct{}{} }

// follow reloads after each change of the source until ctx is done. Changes that come during a
// reload are one more reload.
func (e *Engine) follow(ctx context.Context) {
	changes := make(chan struct{}, 1)
	var watching sync.WaitGroup
	defer watching.Wait()
	watching.Go(func() {
		err := e.source.Watch(ctx, func() {
			select {
			case changes <- struct{}{}:
			default: // one is waiting already
			}
		})
		if err != nil && ctx.Err() == nil {
			e.log.Error("source lost, its changes are no longer seen", "err", err)
		}
	})
	for {
		select {
		case <-ctx.Done():
			return
		case <-changes:
			e.Reload(ctx, OriginWatch) // tells the log and the status how it ended
		}
	}
}

// apply hands next to the stages in order. If one refuses, those before it are given have again, last one first.
// It is not cut short by ctx: what is half done has to be ended or undone.
func (e *Engine) apply(ctx context.Context, have, next *topology.Topology) error {
	ctx = context.WithoutCancel(ctx)
	for i, stage := range e.stages {
		err := e.applyStage(ctx, patience(have), stage, next)
		if err == nil {
			continue
		}
		for _, done := range slices.Backward(e.stages[:i]) {
			if undo := e.applyStage(ctx, patience(next), done, have); undo != nil {
				err = errors.Join(err, fmt.Errorf("roll back: %w", undo))
			}
		}
		return err
	}
	return nil
}

// stop lets the requests in flight finish while the processes that answer them still run, then stops
// everything, what was started last first. Taking away cannot fail, so neither can stop. If what runs is to be kept, what can outlive
// Mainstay is left running.
func (e *Engine) stop(ctx context.Context, keep bool) {
	begin := time.Now()
	v := *e.view.Load()
	quiet := v.topology.Quiet()
	for _, stage := range e.stages {
		if err := e.applyStage(ctx, longestGrace(v.topology), stage, quiet); err != nil {
			e.log.Error("stage refused to become quiet", "err", err)
		}
	}
	for _, stage := range slices.Backward(e.stages) {
		if survivor, ok := stage.Subsystem.(Survivor); ok && keep {
			e.suspend(ctx, stage.Name, survivor)
			continue
		}
		if err := e.applyStage(ctx, patience(v.topology), stage, topology.Empty); err != nil {
			e.log.Error("stage refused to stop", "err", err)
		}
	}
	v.topology, v.file, v.overrides, v.status.Overrides = topology.Empty, topology.Empty, nil, nil
	e.view.Store(&v)
	if keep {
		e.log.Info("services left running, the next start takes them over", "took", time.Since(begin))
		return
	}
	e.forget()
	e.log.Info("everything stopped", "took", time.Since(begin))
}

// slow is how long a stage may take before the log says that it is still busy, and how often that is said again.
const slow = 10 * time.Second

// applyStage applies t to one stage, giving up waiting for what it takes away after limit.
func (e *Engine) applyStage(ctx context.Context, limit time.Duration, stage Stage, t *topology.Topology) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()

	begin, done := time.Now(), make(chan struct{})
	var waiting sync.WaitGroup
	waiting.Go(func() {
		again := time.NewTicker(slow)
		defer again.Stop()
		for {
			select {
			case <-done:
				return
			case <-again.C:
				e.log.Warn("stage still busy", "stage", stage.Name, "took", time.Since(begin), "limit", limit)
			}
		}
	})
	defer waiting.Wait()
	defer close(done)

	if err := stage.Subsystem.Apply(ctx, t); err != nil {
		return fmt.Errorf("%s: %w", stage.Name, err)
	}
	return nil
}

// margin is what a stage is given beyond what the services ask for, to kill and to reap.
const margin = 10 * time.Second

// forEver is the longest grace period that counts: several of those that a file may ask for have a sum that is no duration any more.
const forEver = 365 * 24 * time.Hour

// patience returns how long taking away all of t may last. A service is waited for twice, for its requests
// and for its process, and before what it depends on, so the slowest chain of dependencies counts.
func patience(t *topology.Topology) time.Duration {
	chains := make(map[string]time.Duration)
	var chain func(name string) time.Duration
	chain = func(name string) time.Duration {
		if known, ok := chains[name]; ok {
			return known
		}
		var below time.Duration
		for dependency := range t.Services[name].DependsOn {
			below = max(below, chain(dependency))
		}
		chains[name] = below + 2*min(t.Services[name].StopGracePeriod, forEver)
		return chains[name]
	}
	var longest time.Duration
	for name := range t.Services {
		longest = max(longest, chain(name))
	}
	return longest + margin
}

// longestGrace returns how long requests in flight may take to finish.
func longestGrace(t *topology.Topology) time.Duration {
	var longest time.Duration
	for _, s := range t.Services {
		longest = max(longest, s.StopGracePeriod)
	}
	return longest
}
