package engine

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A paper is content in memory that settle can watch. Its stamp is another after each write, unless it is kept.
type paper struct {
	mu      sync.Mutex // guards the fields below
	text    string     // empty: not whole
	stamp   string
	follows int
	read    []string // the text at each call of changed
}

func (p *paper) write(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.text = text
	p.stamp += "'"
}

func (p *paper) watched() watched {
	locked := func(f func()) {
		p.mu.Lock()
		defer p.mu.Unlock()
		f()
	}
	return watched{
		stamp:   func() (stamp string) { locked(func() { stamp = p.stamp }); return },
		content: func() (text string, whole bool) { locked(func() { text, whole = p.text, p.text != "" }); return },
		follow:  func() { locked(func() { p.follows++ }) },
		changed: func() { locked(func() { p.read = append(p.read, p.text) }) },
	}
}

func (p *paper) wantRead(t *testing.T, want ...string) {
	t.Helper()
	synctest.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.read) != len(want) {
		t.Fatalf("changed was called with %q, want %q", p.read, want)
	}
	for i := range want {
		if p.read[i] != want[i] {
			t.Fatalf("changed was called with %q, want %q", p.read, want)
		}
	}
}

// settling runs settle on a paper with the text "one", which is known, in a bubble.
func settling(t *testing.T, test func(t *testing.T, p *paper, hint func())) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		p, hints := &paper{text: "one"}, make(chan struct{}, 1)
		var running sync.WaitGroup
		running.Go(func() { settle(ctx, "one", hints, p.watched()) })
		time.Sleep(time.Hour + readEvery/2) // what it looks at by itself is over, or a while away
		synctest.Wait()
		test(t, p, func() { hints <- struct{}{}; synctest.Wait() })
		cancel()
		running.Wait()
	})
}

func TestSettleWaitsForQuiet(t *testing.T) {
	settling(t, func(t *testing.T, p *paper, hint func()) {
		p.write("two")
		hint()
		time.Sleep(quiet - 1)
		p.wantRead(t)
		p.write("three")
		hint()
		time.Sleep(quiet - 1)
		p.wantRead(t)
		time.Sleep(time.Nanosecond)
		p.wantRead(t, "three")
		time.Sleep(time.Hour)
		p.wantRead(t, "three")
	})
}

func TestSettleReadsWhatNeverRests(t *testing.T) {
	settling(t, func(t *testing.T, p *paper, hint func()) {
		for i := range 50 {
			p.write(fmt.Sprint("save ", i))
			hint()
			time.Sleep(quiet / 5)
		}
		p.mu.Lock()
		reads := len(p.read)
		p.mu.Unlock()
		if reads != 1 {
			t.Errorf("read %d times in %s of saving, want once each %s", reads, 50*quiet/5, ceiling)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		p.mu.Lock()
		defer p.mu.Unlock()
		if len(p.read) != 2 || p.read[1] != "save 49" {
			t.Errorf("read %q, want the last save at the end", p.read)
		}
	})
}

func TestSettleFindsChangeBeforeItBegan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		p := &paper{text: "two"}
		settle(ctx, "one", nil, p.watched())
		p.wantRead(t, "two")
	})
}

func TestSettleSeesOnlyContent(t *testing.T) {
	settling(t, func(t *testing.T, p *paper, hint func()) {
		p.write("one") // touched
		hint()
		time.Sleep(time.Minute)
		p.wantRead(t)
		p.write("two") // there and back before it is quiet
		hint()
		time.Sleep(quiet / 2)
		p.write("one")
		hint()
		time.Sleep(time.Minute)
		p.wantRead(t)
	})
}

func TestSettleIgnoresHintsOfOthers(t *testing.T) {
	settling(t, func(t *testing.T, p *paper, hint func()) {
		p.write("two")
		hint()
		for range 10 { // a log file in the same directory, say
			time.Sleep(quiet / 5)
			hint()
		}
		p.wantRead(t, "two")
	})
}

func TestSettleNeedsNoHint(t *testing.T) {
	settling(t, func(t *testing.T, p *paper, _ func()) {
		p.write("two")
		time.Sleep(pollEvery + quiet)
		p.wantRead(t, "two")

		p.mu.Lock()
		p.text = "six" // with the same stamp
		p.mu.Unlock()
		time.Sleep(readEvery + quiet)
		p.wantRead(t, "two", "six")
	})
}

func TestSettleFindsChangeWithinQuiet(t *testing.T) {
	settling(t, func(t *testing.T, p *paper, hint func()) {
		p.write("tw")
		hint()
		time.Sleep(quiet / 2)
		p.mu.Lock()
		p.text = "two" // neither hint nor stamp
		p.mu.Unlock()
		time.Sleep(quiet)
		p.wantRead(t)
		time.Sleep(quiet)
		p.wantRead(t, "two")
	})
}

func TestSettleGivesTheMissingTime(t *testing.T) {
	settling(t, func(t *testing.T, p *paper, hint func()) {
		p.write("")
		hint()
		time.Sleep(absence - quiet)
		p.wantRead(t)
		p.write("two")
		hint()
		time.Sleep(quiet)
		p.wantRead(t, "two")

		p.write("")
		hint()
		time.Sleep(time.Hour) // missing for good: that is told, and once
		p.wantRead(t, "two", "")
		p.write("two")
		hint()
		time.Sleep(quiet)
		p.wantRead(t, "two", "", "two")
	})
}

func TestSettleFollowsAfterAnotherStamp(t *testing.T) {
	settling(t, func(t *testing.T, p *paper, hint func()) {
		hint()
		p.write("two")
		hint()
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.follows != 2 {
			t.Errorf("follow was called %d times, want 2: at first and after the other stamp", p.follows)
		}
	})
}
