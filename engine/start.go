package engine

import (
	"context"
	"fmt"
	"os"
	"time"

	"mainstay/topology"
)

// start takes hold of the state directory and applies the first topology: what ran when the last Mainstay left without stopping it,
// and then what the source says or, if that has problems, the newest good generation. The state directory is held until the
// file returned is closed.
func (e *Engine) start(ctx context.Context) (_ *os.File, err error) {
	o := Outcome{Time: time.Now(), Origin: OriginStart, Result: ResultApplied}
	d, err := e.load(ctx)
	var kept generation // which runs again; none yet
	if d.problems.Failed() {
		if kept, d.topology = e.fallback(d.files); d.topology == nil {
			return nil, err
		}
		o.Result = ResultInvalid
	} else if err != nil {
		return nil, err
	}

	lock, err := lockStateDir(d.topology.StateDir)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			lock.Close()
		}
	}()
	e.generations = generationsIn(e.log, d.topology.StateDir)
	if err := e.generations.open(); err != nil {
		return nil, err
	}
	e.register = registerIn(e.log, d.topology.StateDir)
	if v, ok := e.resume(ctx); ok {
		e.catchUp(ctx, v, &o)
		return lock, nil
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
		return nil, err
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
	return lock, nil
}

// resume applies what ran when the last Mainstay ended without stopping it, overrides included, so that the stages find what they
// left as what it is. It is false if there is no such thing or it cannot run any more. It begins without listeners: when they
// open, who can answer is known already, and no request is refused for want of an instance.
func (e *Engine) resume(ctx context.Context) (view, bool) {
	was, ok := e.register.read()
	if !ok {
		return view{}, false
	}
	log := e.log.With("generation", was.Generation)
	giveUp := func(err error) (view, bool) {
		log.Warn("what the last run left cannot be resumed, starting from the file instead", "overrides", len(was.Overrides), "err", err)
		return view{}, false
	}
	kept, err := e.generations.read(was.Generation)
	if err != nil {
		return giveUp(err)
	}
	d, err := read(kept.files())
	if err != nil {
		return giveUp(fmt.Errorf("read generation again: %s", firstError(d.problems)))
	}
	if dir := registerIn(e.log, d.topology.StateDir).path; dir != e.register.path {
		return giveUp(fmt.Errorf("its state directory is another one: %s", d.topology.StateDir))
	}
	d.topology.Generation = kept.Number
	laid := was.Overrides.carry(d.topology, d.topology)
	next := laid.over(d.topology)
	quiet := next.Quiet()
	if err := e.apply(ctx, topology.Empty, quiet); err != nil {
		return giveUp(err)
	}
	if err := e.apply(ctx, quiet, next); err != nil {
		return giveUp(err)
	}
	e.source.Refer(d.topology.Read)
	v := view{topology: next, file: d.topology, overrides: laid}
	v.status = Status{
		Name: next.Name, Generation: kept.Number, Since: kept.Time, Files: d.paths(),
		Overrides: laid.describe(d.topology), Pin: was.Pin,
	}
	log.Info("resumed what the last run left", "overrides", len(v.status.Overrides), "pinned", was.Pin != nil)
	return v, true
}

// catchUp reloads v, which was resumed, to what the source says.
func (e *Engine) catchUp(ctx context.Context, v view, o *Outcome) {
	e.view.Store(&v)
	err := e.reload(ctx, &v, o)
	o.tell(err)
	if o.Result == ResultInvalid {
		e.fallBack(&v, o)
	}
	e.conclude(v, o)
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
