package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"time"

	"mainstay/topology"
)

// A Successor is another program that goes on in this one's place.
type Successor interface {
	// Prepare is called before anything is let go of. After an error everything goes on; then it has left nothing to be undone. ctx is done
	// when what is under way has had its time.
	Prepare(ctx context.Context) error
	// Abandon undoes Prepare: Mainstay is to stop. What is under way has until ctx is done.
	Abandon(ctx context.Context)
	// Follow is called when all has been let go of. It makes the process that program and so returns only if that could not be. lock is
	// the state directory's, for that program's Run.
	Follow(lock *os.File) error
}

// HandOver lets go of all that runs so that another program goes on with it in this process. It waits for its turn as Reload does. What is
// under way may take until limit has passed since then, and the stages a moment to stop; what a [Survivor] runs is not touched.
//
// The error is ctx's, Prepare's, [ErrStopped] or why what runs cannot be written down for that program, and then
// everything goes on as it would have, or it is Follow's: then nothing runs any more that could go on, and the process has to end.
func (e *Engine) HandOver(ctx context.Context, limit time.Duration, next Successor) error {
	if err := e.take(ctx); err != nil {
		return err
	}
	begin, t := time.Now(), e.view.Load().topology
	if err := e.register.ensure(e.view.Load().running()); err != nil {
		e.give()
		return fmt.Errorf("write down what runs: %w", err)
	}
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
	defer cancel()
	// Who is to stop waits for what is under way no longer than a stop does.
	unregister := context.AfterFunc(ctx, func() { time.AfterFunc(longestGrace(t), cancel) })
	defer unregister()
	err := next.Prepare(bounded)
	if err == nil && ctx.Err() != nil {
		e.abandon(next, t)
		err = ErrStopped
	}
	if err != nil {
		e.give()
		return err
	}
	keep := context.WithoutCancel(ctx)
	limit = max(margin, limit-time.Since(begin))
	for _, stage := range e.stages {
		if err := e.applyStage(keep, limit, stage, t.Quiet()); err != nil {
			e.log.Error("stage refused to become quiet", "err", err)
		}
	}
	e.stopMortals(keep, limit)
	if ctx.Err() != nil { // a signal came meanwhile: who waits for the turn stops the rest
		e.abandon(next, t)
		e.give()
		return ErrStopped
	}
	e.suspendSurvivors(keep)
	return next.Follow(e.lock)
}

func (e *Engine) abandon(next Successor, t *topology.Topology) {
	ctx, cancel := context.WithTimeout(context.Background(), longestGrace(t))
	defer cancel()
	next.Abandon(ctx)
}

// stopMortals stops the stages whose work ends with the process.
func (e *Engine) stopMortals(ctx context.Context, limit time.Duration) {
	for _, stage := range slices.Backward(e.stages) {
		if _, ok := stage.Subsystem.(Survivor); ok {
			continue
		}
		if err := e.applyStage(ctx, limit, stage, topology.Empty); err != nil {
			e.log.Error("stage refused to stop", "err", err)
		}
	}
}

// suspendSurvivors lets go of what outlives the process.
func (e *Engine) suspendSurvivors(ctx context.Context) {
	for _, stage := range slices.Backward(e.stages) {
		if survivor, ok := stage.Subsystem.(Survivor); ok {
			e.suspend(ctx, stage.Name, survivor)
		}
	}
}

func (e *Engine) suspend(ctx context.Context, name string, s Survivor) {
	ctx, cancel := context.WithTimeout(ctx, margin)
	defer cancel()
	if err := s.Suspend(ctx); err != nil {
		e.log.Error("stage did not let go", "stage", name, "err", err)
	}
}

// CheckGeneration reports whether this program can run a generation that is kept in stateDir: nil, or what is wrong with it.
func CheckGeneration(stateDir string, number int) error {
	kept, err := generationsIn(slog.New(slog.DiscardHandler), stateDir).read(number)
	if err != nil {
		return err
	}
	d, err := read(kept.files())
	if err != nil {
		return fmt.Errorf("generation %d: %w", number, errors.New(firstError(d.problems)))
	}
	return nil
}
