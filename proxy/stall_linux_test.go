package proxy

import "sync"

// stall keeps the event loops from doing anything until the function that it returns is called.
func (r *rig) stall() (release func()) {
	ended := make(chan struct{})
	var stalled, done sync.WaitGroup
	for _, l := range r.engines[engineLoop].engine.(*loopEngine).running() {
		stalled.Add(1)
		done.Go(func() { l.loop.Do(func() { stalled.Done(); <-ended }) })
	}
	stalled.Wait()
	return func() { close(ended); done.Wait() }
}
