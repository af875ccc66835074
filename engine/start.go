package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"mainstay/topology"
)

// start takes hold of the state directory and applies the first topology: what ran when the last Mainstay left without stopping it
// or else what the source says or, if that has problems, the newest good generation. It reports whether it was the first of these.
// The state directory is held until the lock is closed.
func (e *Engine) start(ctx context.Context) (resumed bool, err error) {
	o := Outcome{Time: time.Now(), Origin: OriginStart, Result: ResultApplied}
	d, err := e.load(ctx)
	var kept generation // which runs again; none yet
	if d.problems.Failed() {
		if kept, d.topology = e.fallback(d.files); d.topology == nil {
			return false, err
		}
		o.Result = ResultInvalid
	} else if err != nil {
		return false, err
	}

	e.lock, err = lockStateDir(d.topology.StateDir)
	if err != nil {
		return false, err
	}
	defer func() {
		if err != nil {
			e.lock.Close()
		}
	}()
	if err := e.open(d.topology.StateDir); err != nil {
		return false, err
	}
	resumed, err = e.resume(ctx)
	if resumed {
		return true, nil
	}
	if err != nil {
		e.log.Warn("what the last run left cannot be resumed, starting from the file instead", "err", err)
	}

	if o.Result == ResultApplied {
		if newest, t := e.generations.newest(); t != nil && same(t, d.topology) {
			kept = newest
		}
	}
	fresh := kept.Number == 0
	if fresh {
		kept.Number, kept.Time = e.generations.last+1, o.Time
	}
	d.topology.Generation = kept.Number

	if err := e.apply(ctx, topology.Empty, d.topology); err != nil {
		return false, err
	}
	if fresh {
		e.keep(d, o.Origin, nil)
	}
	e.source.Refer(d.topology.Read)
	v := view{topology: d.topology, file: d.topology}
	v.status = Status{Name: d.topology.Name, Generation: kept.Number, Since: kept.Time, Files: d.paths()}
	o.Problems = d.problems
	if o.Result == ResultInvalid {
		e.fallBack(&v, &o)
	}
	e.conclude(v, &o)
	return false, nil
}

// goOn applies what a former program in this process has handed over with lock. On an error that is let go of again.
func (e *Engine) goOn(ctx context.Context, lock *os.File) error {
	e.lock = lock
	err := e.open(filepath.Dir(lock.Name()))
	if err == nil {
		var resumed bool
		if resumed, err = e.resume(ctx); resumed {
			return nil
		}
		e.stopMortals(ctx, margin)
		e.suspendSurvivors(ctx)
	}
	return fmt.Errorf("go on with what runs: %w", cmp.Or(err, errors.New("what runs is not written down")))
}

// open makes ready what is kept in the state directory.
func (e *Engine) open(stateDir string) error {
	e.generations = generationsIn(e.log, stateDir)
	e.register = registerIn(e.log, stateDir)
	return e.generations.open()
}

// resume applies what ran when the last Mainstay ended without stopping it, overrides included, so that the stages find what they
// left as what it is. It is false if there is no such thing or, with the error, it cannot run any more. It begins without listeners:
// when they open, who can answer is known already, and no request is refused for want of an instance.
func (e *Engine) resume(ctx context.Context) (bool, error) {
	was, ok := e.register.read()
	if !ok {
		return false, nil
	}
	kept, err := e.generations.read(was.Generation)
	if err != nil {
		return false, err
	}
	d, err := read(kept.files())
	if err != nil {
		return false, fmt.Errorf("read generation %d again: %s", was.Generation, firstError(d.problems))
	}
	if dir := registerIn(e.log, d.topology.StateDir).path; dir != e.register.path {
		return false, fmt.Errorf("generation %d has another state directory: %s", was.Generation, d.topology.StateDir)
	}
	d.topology.Generation = kept.Number
	laid := was.Overrides.carry(d.topology, d.topology)
	next := laid.over(d.topology)
	quiet := next.Quiet()
	if err := e.apply(ctx, topology.Empty, quiet); err != nil {
		return false, err
	}
	if err := e.apply(ctx, quiet, next); err != nil {
		return false, err
	}
	e.source.Refer(d.topology.Read)
	v := view{topology: next, file: d.topology, overrides: laid}
	v.status = Status{
		Name: next.Name, Generation: kept.Number, Since: kept.Time, Files: d.paths(),
		Overrides: laid.describe(d.topology), Pin: was.Pin,
	}
	e.log.Info("resumed what the last run left",
		"generation", kept.Number, "overrides", len(v.status.Overrides), "pinned", was.Pin != nil)
	e.view.Store(&v)
	return true, nil
}

// catchUp reloads what was resumed to what the source says.
func (e *Engine) catchUp(ctx context.Context) {
	e.change(ctx, OriginStart, func(v *view, o *Outcome) error { // tells the log and the status how it ended
		err := e.reload(ctx, v, o)
		o.tell(err)
		if o.Result == ResultInvalid {
			e.fallBack(v, o)
		}
		return err
	})
}

// fallback returns the newest good generation in the state directory that files name, and its topology; nil if there is none.
func (e *Engine) fallback(files []topology.File) (generation, *topology.Topology) {
	stateDir, _ := topology.Locate(files)
	if stateDir == "" {
		return generation{}, nil
	}
	kept, t := generationsIn(e.log, stateDir).newest()
	if t != nil && t.StateDir != stateDir {
		e.log.Warn("generation skipped", "generation", kept.Number,
			"err", fmt.Sprintf("its state directory is %s, the file's is %s", t.StateDir, stateDir))
		return generation{}, nil
	}
	return kept, t
}

// fallBack says in v and in the log that v runs instead of the file.
func (e *Engine) fallBack(v *view, o *Outcome) {
	reason := o.Error
	if reason == "" {
		reason = firstError(o.Problems)
	}
	v.status.Fallback = fmt.Sprintf("generation %d, accepted %s, runs instead of the file: %s",
		v.status.Generation, v.status.Since.Format(time.RFC3339), reason)
	e.log.Warn("older generation started instead of the file", "generation", v.status.Generation, "accepted", v.status.Since)
}
