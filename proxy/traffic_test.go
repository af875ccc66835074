package proxy

import (
	"io"
	"math"
	"net/http"
	"testing"
	"time"

	"mainstay/topology"
)

func TestTraffic(t *testing.T) {
	r := newRig(t)
	entered, proceed := make(chan bool), make(chan bool)
	r.instance("web", "web/1", func(w http.ResponseWriter, req *http.Request) {
		switch req.URL.Path {
		case "/wait":
			entered <- true
			<-proceed
		case "/fault":
			w.WriteHeader(502)
		case "/torn":
			w.Header().Set("Content-Length", "9")
			io.WriteString(w, "torn")
		case "/reset":
			panic(http.ErrAbortHandler)
		}
	})
	web := topology.Instance{Service: "web", ID: "web/1"}
	r.do("GET", "/", nil)
	r.do("GET", "/fault", nil)
	r.do("POST", "/reset", nil)
	if res, err := r.client.Get(r.url("/torn")); err == nil {
		io.Copy(io.Discard, res.Body)
		res.Body.Close()
	}
	await(t, "four requests are counted", func() bool { return r.Traffic(web).Requests == 4 })
	got := r.Traffic(web)
	late := got.Latencies[len(topology.LatencyBuckets)]
	sum := uint64(0)
	for _, n := range got.Latencies {
		sum += n
	}
	if got.Errors != 3 || late != 1 || sum != 4 || got.InFlight != 0 {
		t.Errorf("one of four answered well, one not at all: %+v", got)
	}

	done := make(chan bool)
	go func() {
		defer close(done)
		r.do("GET", "/wait", nil)
	}()
	<-entered
	if got := r.Traffic(web); got.InFlight != 1 || got.Requests != 4 {
		t.Errorf("one in flight: %+v", got)
	}
	drained := make(chan error)
	go func() { drained <- r.Drain(t.Context(), web) }()
	await(t, "the instance drains", func() bool { u, _ := r.upstream("web/1"); return u.State == "draining" })
	if got := r.Traffic(web); got.InFlight != 1 || got.Requests != 4 {
		t.Errorf("while it drains: %+v", got)
	}
	close(proceed)
	<-done
	<-drained
	if got := r.Traffic(web); got != (topology.Traffic{}) {
		t.Errorf("after it has drained: %+v", got)
	}
}

// Another weight neither drains the instance nor loses a count, and the next picks keep to it.
func TestPoolReweighs(t *testing.T) {
	p := newTestPool(func(string) {}, 1, 1)
	long := p.lease(time.Now())
	p.lease(time.Now(), long.up).release(time.Now(), verdictOK)
	before := long.up
	long.release(time.Now(), verdictOK)
	i := before.Instance
	i.Weight = 10000
	p.admit(i)
	if len(p.draining) != 0 || p.findLocked(i.ID) != before || before.requests != 1 || p.trafficOf(i.ID).Requests != 1 {
		t.Fatalf("another weight changed more: %+v", p.status(time.Now()))
	}
	got := 0
	for range 1000 {
		l := p.lease(time.Now())
		if l.up == before {
			got++
		}
		l.release(time.Now(), verdictOK)
	}
	if got < 998 {
		t.Errorf("with 10000 to 1 it got %d of 1000", got)
	}

	// A failure takes weight for some time, not for ten thousand requests.
	now := time.Now()
	l := p.lease(now)
	l.release(now, verdictFailed)
	now = now.Add(failTimeout + 1)
	p.lease(now, p.active[1]).release(now, verdictOK)
	for range 100 {
		p.lease(now).release(now, verdictOK)
	}
	if before.effective != before.weight {
		t.Errorf("after a failure and 100 requests its weight is %d of %d", before.effective, before.weight)
	}
}

// A share holds whatever is in flight, and not beside an ejection.
func TestPoolShares(t *testing.T) {
	for _, share := range []float64{1, 5, 50, 100} {
		for _, busy := range []int{0, 1, 7} {
			p := newTestPool(func(string) {}, 1, 1, 1)
			i := p.active[1].Instance
			i.Share = share
			p.admit(i)
			var running []*lease
			got := 0
			for range 1000 {
				l := p.lease(time.Now())
				if l.up.ID == i.ID {
					got++
				}
				if running = append(running, l); len(running) > busy {
					running[0].release(time.Now(), verdictOK)
					running = running[1:]
				}
			}
			if want := share * 10; math.Abs(float64(got)-want) > 1 {
				t.Errorf("with a share of %g %% and %d in flight it got %d of 1000", share, busy, got)
			}
			for _, l := range running {
				l.release(time.Now(), verdictOK)
			}
		}
	}
	p := newTestPool(func(string) {}, 1, 1)
	i := p.active[0].Instance
	i.Share = 100
	p.admit(i)
	l := p.lease(time.Now())
	l.release(time.Now(), verdictFailed)
	if other := p.lease(time.Now(), l.up); other == nil || other.up == l.up {
		t.Error("what failed on the instance did not go to the other")
	}
	if next := p.lease(time.Now()); next.up == l.up {
		t.Error("an ejected instance was picked for its share")
	}
	i.Share = 0
	p.admit(i)
	if p.shared {
		t.Error("a share that was taken away is still there")
	}
}
