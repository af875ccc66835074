package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"time"

	"mainstay/topology"
)

// ErrNoGeneration is in the error of Rollback when there is no such generation to go back to.
var ErrNoGeneration = errors.New("no such generation")

// A Pin says that an older generation runs again, and until when: the file as it was then is not followed.
type Pin struct {
	Generation int       `json:"generation"`            // that was rolled back to
	Since      time.Time `json:"since"`                 // when
	Sum        string    `json:"file_sha256,omitempty"` // of the file as it was; empty: it could not be read
}

// A Kept is a generation that can be rolled back to.
type Kept struct {
	Generation int       `json:"generation"`
	Time       time.Time `json:"time"`             // when it was accepted
	Origin     string    `json:"origin,omitempty"` // who asked for it, as in Outcome
	Again      int       `json:"again,omitempty"`  // the generation that was rolled back to with it; 0: none
	Current    bool      `json:"current,omitempty"`
	Failed     string    `json:"failed,omitempty"` // why it did not work, as far as this process knows
	Error      string    `json:"error,omitempty"`  // why it cannot be read any more
}

// Rollback applies a kept generation as a new one, as a reload would; with 0 the newest before the one that runs that says
// something else and is not known to have failed. If the file says otherwise it is not followed until its content changes or somebody else than the watch asks
// for a Reload: Status has the Pin. Rollback waits as Reload does. The error is [ErrNoGeneration], the generation's
// [topology.Problems], a refusal or [ErrStopped].
func (e *Engine) Rollback(ctx context.Context, number int) (Outcome, error) {
	return e.change(ctx, OriginRollback, func(v *view, o *Outcome) error { return e.rollBack(ctx, v, o, number) })
}

func (e *Engine) rollBack(ctx context.Context, v *view, o *Outcome, number int) error {
	number, d, err := e.older(v, number)
	o.Problems = d.problems
	if err != nil {
		o.Result = ResultRefused
		if d.problems.Failed() {
			o.Result = ResultInvalid
		}
		return err
	}
	pin := &Pin{Generation: number, Since: o.Time.Round(0)}
	files, err := e.source.Load(ctx)
	pin.Sum = sumOf(files, err)
	if err == nil {
		if file, err := read(files); err == nil && same(file.topology, d.topology) {
			pin = nil
		}
	}
	return e.become(ctx, v, o, d, pin)
}

// older returns the generation with the number; with 0 the newest before the one that runs that says something else and
// is not known to have failed.
func (e *Engine) older(v *view, number int) (int, draft, error) {
	if number != 0 {
		kept, err := e.generations.read(number)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return number, draft{}, fmt.Errorf("%w: %d", ErrNoGeneration, number)
		case err != nil:
			return number, draft{}, fmt.Errorf("%w: %d: %w", ErrNoGeneration, number, err)
		}
		d, err := read(kept.files())
		return number, d, err
	}
	before := v.status.Generation
	if pin := v.status.Pin; pin != nil {
		before = pin.Generation
	}
	numbers, err := e.generations.numbers()
	if err != nil {
		return 0, draft{}, err
	}
	failures := e.failures()
	for _, number := range numbers {
		if number >= before || failures[number] != "" {
			continue
		}
		kept, err := e.generations.read(number)
		if err != nil {
			e.log.Warn("generation skipped", "generation", number, "err", err)
			continue
		}
		d, err := read(kept.files())
		if err != nil {
			e.log.Warn("generation skipped", "generation", number, "err", firstError(d.problems))
			continue
		}
		if !same(d.topology, v.file) {
			return number, d, nil
		}
	}
	return 0, draft{}, fmt.Errorf("%w: none is kept from before generation %d that says something else and has not failed", ErrNoGeneration, before)
}

// failures returns which generations did not work, and why, by what the stages know.
func (e *Engine) failures() map[int]string {
	all := map[int]string{}
	for _, stage := range e.stages {
		if judge, ok := stage.Subsystem.(Judge); ok {
			maps.Copy(all, judge.Failures())
		}
	}
	return all
}

// Generations returns those that are kept, newest first. It waits for nobody.
func (e *Engine) Generations() ([]Kept, error) {
	v := e.view.Load()
	if v.topology.StateDir == "" {
		return nil, ErrStopped
	}
	g := generationsIn(e.log, v.topology.StateDir)
	numbers, err := g.numbers()
	if err != nil {
		return nil, err
	}
	failures := e.failures()
	list := make([]Kept, 0, len(numbers))
	for _, number := range numbers {
		kept, err := g.read(number)
		k := Kept{
			Generation: number, Time: kept.Time, Origin: kept.Origin, Again: kept.Again,
			Current: number == v.status.Generation, Failed: failures[number],
		}
		if err != nil {
			k.Error = err.Error()
		}
		list = append(list, k)
	}
	return list, nil
}

// sumOf returns what tells one content of the source's files from another; nothing if they could not be loaded.
func sumOf(files []topology.File, err error) string {
	if err != nil {
		return ""
	}
	g, err := newGeneration(0, files)
	if err != nil {
		return ""
	}
	return g.SHA256
}
