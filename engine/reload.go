package engine

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"time"

	"mainstay/topology"
)

// Reload loads the source and applies it if it says something new. It is safe for concurrent use; calls
// wait for each other, and before Started for the first topology. origin says who asked: watch, SIGHUP, api. Once it
// has begun to apply, ctx does not cut it short. The error is [topology.Problems], the source's, a refusal or
// [ErrStopped]; the log tells every outcome, so the caller need not.
func (e *Engine) Reload(ctx context.Context, origin string) (Outcome, error) {
	return e.change(ctx, origin, func(v *view, o *Outcome) error { return e.reload(ctx, v, o) })
}

// change calls f, which may apply something and changes the view and the outcome accordingly, when nobody else has the turn.
func (e *Engine) change(ctx context.Context, origin string, f func(v *view, o *Outcome) error) (Outcome, error) {
	if err := e.take(ctx); err != nil {
		return Outcome{}, err
	}
	defer e.give()
	v := *e.view.Load()
	o := Outcome{Time: time.Now(), Origin: origin}
	err := f(&v, &o)
	o.tell(err)
	e.conclude(v, &o)
	return o, err
}

// tell puts err into the outcome, unless its problems say it already.
func (o *Outcome) tell(err error) {
	if problems := (topology.Problems{}); err != nil && !errors.As(err, &problems) {
		o.Error = err.Error()
	}
}

// reload makes what the source says so, and changes v and o accordingly. While an older generation is pinned and the file
// is the one that it was rolled back from, that generation is read again instead: its secrets may have changed.
func (e *Engine) reload(ctx context.Context, v *view, o *Outcome) error {
	pin := v.status.Pin
	files, err := e.source.Load(ctx)
	if pin != nil && (o.Origin != OriginWatch && o.Origin != OriginStart || sumOf(files, err) != pin.Sum) {
		pin = nil
	}
	if pin != nil {
		var kept generation
		kept, err = e.generations.read(v.status.Generation)
		files = kept.files()
	}
	var d draft
	if err == nil {
		d, err = read(files)
	}
	o.Problems = d.problems
	if err != nil {
		o.Result = ResultInvalid
		return err
	}
	return e.become(ctx, v, o, d, pin)
}

// become makes d what runs, pinned if pin says so, and changes v and o accordingly.
func (e *Engine) become(ctx context.Context, v *view, o *Outcome, d draft, pin *Pin) error {
	e.source.Refer(d.topology.Read)
	if same(v.file, d.topology) {
		o.Result = ResultUnchanged
		v.status.Fallback, v.status.Pin = "", pin
		return nil
	}
	d.topology.Generation = e.generations.last + 1
	laid := v.overrides.carry(v.file, d.topology)
	next := laid.over(d.topology)
	o.Changes = topology.Plan(v.topology, next)
	if err := manual(o.Changes); err != nil {
		o.Result = ResultRefused
		return err
	}
	if err := e.apply(ctx, v.topology, next); err != nil {
		o.Result = ResultRefused
		return err
	}
	o.Result = ResultApplied
	e.keep(d, o.Origin, pin)
	for name := range v.overrides.describe(v.file) {
		if _, ok := laid.describe(d.topology)[name]; !ok {
			e.log.Info("override dropped", "service", name)
		}
	}
	v.topology, v.file, v.overrides = next, d.topology, laid
	v.status = Status{
		Name: next.Name, Generation: next.Generation, Since: o.Time, Files: d.paths(),
		LastGood: v.status.LastGood, Overrides: laid.describe(d.topology), Pin: pin,
	}
	return nil
}

// conclude makes v, with the outcome in it, what everyone sees, and tells the log and the metrics.
func (e *Engine) conclude(v view, o *Outcome) {
	o.Generation = v.status.Generation
	o.TookSeconds = time.Since(o.Time).Seconds()
	if o.good() {
		v.status.LastGood = o.Time
	}
	v.status.LastReload = *o
	before := e.view.Swap(&v).status.Pin
	e.remember(v)
	e.metrics.reloads.WithLabelValues(o.Result).Inc()

	log := e.log.With("origin", o.Origin, "generation", o.Generation)
	if before != nil && v.status.Pin == nil {
		log.Info("file followed again", "rolled_back_to", before.Generation)
	}
	switch o.Result {
	case ResultUnchanged:
		log.Debug("topology unchanged")
		return
	case ResultApplied:
		log.Info("topology applied", "changes", len(o.Changes), "took_seconds", o.TookSeconds)
	default:
		facts := []any{"result", o.Result, "problems", len(o.Problems)}
		if o.Error != "" {
			facts = append(facts, "err", o.Error)
		}
		log.Warn("topology not applied", facts...)
	}
	for _, problem := range o.Problems {
		log.Warn("problem in topology", "problem", problem.String())
	}
}

// Plan returns what a Reload would change now, without any effect, and the file's warnings; or, as the error, the
// file's [topology.Problems]. It waits for nobody.
func (e *Engine) Plan(ctx context.Context) ([]topology.Change, topology.Problems, error) {
	d, err := e.load(ctx)
	if err != nil {
		return nil, nil, err
	}
	v := e.view.Load()
	return topology.Plan(v.topology, v.overrides.carry(v.file, d.topology).over(d.topology)), d.problems, nil
}

// A draft is what the source said at one moment.
type draft struct {
	files    []topology.File
	topology *topology.Topology // nil if the problems have an error
	problems topology.Problems
}

// load returns what the source says now. The error is the source's, or the draft's problems.
func (e *Engine) load(ctx context.Context) (draft, error) {
	files, err := e.source.Load(ctx)
	if err != nil {
		return draft{}, err
	}
	return read(files)
}

// read returns what files say. The error is the draft's problems.
func read(files []topology.File) (draft, error) {
	d := draft{files: files}
	d.topology, d.problems = topology.Parse(files)
	if d.problems.Failed() {
		return d, d.problems
	}
	return d, nil
}

func (d draft) paths() []string {
	var paths []string
	for _, f := range d.files {
		paths = append(paths, f.Path)
	}
	return paths
}

// keep keeps d as the generation that its topology says. That it runs is worth more than its copy: if it cannot be
// written (a full disk), the log says so and a start with a broken file will find the one before.
func (e *Engine) keep(d draft, origin string, pin *Pin) {
	again := 0
	if pin != nil {
		again = pin.Generation
	}
	if err := e.generations.add(d.topology.Generation, d.files, origin, again); err != nil {
		e.log.Error("generation not kept", "generation", d.topology.Generation, "err", err)
	}
}

// same reports whether a and b ask for the same.
func same(a, b *topology.Topology) bool {
	x, y := *a, *b
	x.Generation, y.Generation = 0, 0
	x.Read, y.Read = nil, nil
	return reflect.DeepEqual(x, y)
}

// manual returns why changes need a restart of Mainstay, nil if none does.
func manual(changes []topology.Change) error {
	var err error
	for _, c := range changes {
		if c.Class == topology.ClassManual {
			err = errors.Join(err, fmt.Errorf("change %s: needs a restart of mainstay: %s", c.Path, c.Reason))
		}
	}
	return err
}

// firstError returns the first problem that is an error, as one line.
func firstError(problems topology.Problems) string {
	for _, p := range problems {
		if p.Severity == "error" {
			return p.String()
		}
	}
	return ""
}
