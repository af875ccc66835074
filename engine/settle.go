package engine

import (
	"context"
	"time"
)

const (
	quiet     = 250 * time.Millisecond // without a change before a change counts
	ceiling   = 2 * time.Second        // without such a moment before a change counts all the same
	absence   = 2 * time.Second        // how long files may be missing or empty before that counts
	pollEvery = 2 * time.Second        // between looks at the stamp without a hint
	readEvery = 30 * time.Second       // between looks at the content without another stamp
)

// A watched is something outside whose content changes in its own time.
type watched struct {
	stamp   func() string                      // cheap, and another one after most changes
	content func() (digest string, whole bool) // not whole: most likely caught in the middle of a change
	follow  func()                             // called at first and after another stamp: where hints come from may have moved
	changed func()                             // called after each change of content, once it has settled
}

// settle calls w.changed whenever w's content is no longer the one with the digest known, and has been the same
// at both ends of a moment of quiet, or has been changing for as long as the ceiling; it returns when ctx is done. A hint says that now is a good
// time to look, but settle finds every change without any, too.
func settle(ctx context.Context, known string, hints <-chan struct{}, w watched) {
	poll, read, rest := time.NewTicker(pollEvery), time.NewTicker(readEvery), time.NewTimer(quiet)
	defer poll.Stop()
	defer read.Stop()
	defer rest.Stop()

	w.follow()
	stamp := w.stamp()
	seen, _ := w.content()
	var brokenSince time.Time   // zero: the content is whole
	restlessSince := time.Now() // zero: nothing changes
	look := func() {
		seen, _ = w.content()
		if restlessSince.IsZero() {
			restlessSince = time.Now()
		}
		rest.Reset(max(0, min(quiet, ceiling-time.Since(restlessSince))))
	}
	lookIfTouched := func() {
		if now := w.stamp(); now != stamp {
			stamp = now
			w.follow()
			look()
		}
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-hints:
			lookIfTouched()
		case <-poll.C:
			lookIfTouched()
		case <-read.C:
			look()
		case <-rest.C:
			digest, whole := w.content()
			switch {
			case whole:
				brokenSince = time.Time{}
			case brokenSince.IsZero():
				brokenSince = time.Now()
			}
			restless := digest != seen && time.Since(restlessSince) < ceiling
			broken := !whole && time.Since(brokenSince) < absence
			switch {
			case digest == known:
				restlessSince = time.Time{}
			case restless, broken:
				seen = digest
				rest.Reset(quiet)
			default:
				restlessSince = time.Time{}
				known = digest
				w.changed()
			}
		}
	}
}
