package proxy

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"mainstay/topology"
)

// A witness owns leases and tells of what was aborted.
type witness struct{ aborted chan string }

func (w *witness) abort(attempt uint64, why reason) {
	w.aborted <- fmt.Sprint(attempt, " ", string(why))
}

// lease returns a lease that was acquired, or nil.
func (p *pool) lease(now time.Time, tried ...*upstream) *lease {
	l := &lease{owner: &witness{}}
	if !p.acquire(now, l, 1, tried) {
		return nil
	}
	return l
}

func noConns(string) (none [engineKinds]conns) { return none }

func newTestPool(ejected func(string), weights ...int) *pool {
	p := &pool{service: "web", connect: noConns, ejected: ejected}
	for i, w := range weights {
		p.admit(topology.Instance{Service: "web", ID: fmt.Sprintf("web/%d", i+1), Weight: w})
	}
	return p
}

// A peer and leastConn are nginx's least_conn written down literally, statement by statement and with its names
// (ngx_http_upstream_get_least_conn_peer and ngx_http_upstream_free_round_robin_peer), to compare with.
type peer struct {
	conns, weight, currentWeight, effectiveWeight, fails int
	accessed, checked                                    time.Time
}

func (p *peer) down(now time.Time) bool {
	return 1 > 0 && p.fails >= 1 && now.Sub(p.checked) <= 10*time.Second
}

func leastConn(peers []*peer, tried map[int]bool, now time.Time, ignoreFails bool) int {
	best, many, p := (*peer)(nil), false, -1
	for i, peer := range peers {
		if tried[i] || !ignoreFails && len(peers) > 1 && peer.down(now) {
			continue
		}
		if best == nil || peer.conns*best.weight < best.conns*peer.weight {
			best, many, p = peer, false, i
		} else if peer.conns*best.weight == best.conns*peer.weight {
			many = true
		}
	}
	if best == nil {
		return -1
	}
	total := 0
	if many {
		for i := p; i < len(peers); i++ {
			peer := peers[i]
			if tried[i] || !ignoreFails && peer.down(now) || peer.conns*best.weight != best.conns*peer.weight {
				continue
			}
			peer.currentWeight += peer.effectiveWeight
			total += peer.effectiveWeight
			if peer.effectiveWeight < peer.weight {
				peer.effectiveWeight++
			}
			if peer.currentWeight > best.currentWeight {
				best, p = peer, i
			}
		}
	}
	best.currentWeight -= total
	if now.Sub(best.checked) > 10*time.Second {
		best.checked = now
	}
	best.conns++
	return p
}

func (p *peer) free(now time.Time, single bool, v verdict, panicked bool) {
	p.conns--
	switch {
	case v == verdictNone:
	case single:
		p.fails = 0
	case v == verdictFailed:
		p.fails++
		p.accessed, p.checked = now, now
		p.effectiveWeight -= p.weight / 1
		if p.effectiveWeight < 0 {
			p.effectiveWeight = 0
		}
	case p.accessed.Before(p.checked) || panicked: // the second is ours
		p.fails = 0
	}
}

// TestPoolPicksAsNginx compares every pick of random schedules (arrivals, retries, ends with each verdict, passing
// time) with the literal least_conn.
func TestPoolPicksAsNginx(t *testing.T) {
	schedules := 1000
	if os.Getenv("MAINSTAY_SOAK") != "" {
		schedules = 20_000
	}
	for seed := range schedules {
		compareSchedule(t, rand.New(rand.NewPCG(uint64(seed), 7)))
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

func compareSchedule(t *testing.T, rnd *rand.Rand) {
	type request struct {
		*lease
		peer     int
		panicked bool
	}
	var weights []int
	var peers []*peer
	for range 1 + rnd.IntN(6) {
		w := 1 + rnd.IntN(4)
		weights = append(weights, w)
		peers = append(peers, &peer{weight: w, effectiveWeight: w})
	}
	p := newTestPool(func(string) {}, weights...)
	now := time.Unix(1_000_000, 0)
	var running []request
	pick := func(tried []*upstream, triedPeers map[int]bool) (request, bool) {
		want, panicked := leastConn(peers, triedPeers, now, false), false
		if want < 0 {
			want, panicked = leastConn(peers, triedPeers, now, true), true
		}
		l := p.lease(now, tried...)
		switch {
		case want < 0 && l == nil:
			return request{}, false
		case want < 0 || l == nil || l.up.ID != fmt.Sprintf("web/%d", want+1):
			t.Fatalf("picked %v, nginx picks %d", l, want+1)
		}
		return request{l, want, panicked}, true
	}
	end := func(r request, v verdict) {
		r.release(now, v)
		peers[r.peer].free(now, len(peers) == 1, v, r.panicked)
	}
	for range 150 {
		switch n := rnd.IntN(10); {
		case n < 5:
			var tried []*upstream
			triedPeers := map[int]bool{}
			for {
				r, ok := pick(tried, triedPeers)
				if !ok {
					break
				}
				if rnd.IntN(4) > 0 {
					running = append(running, r)
					break
				}
				end(r, verdictFailed)
				tried, triedPeers[r.peer] = append(tried, r.up), true
			}
		case n < 9 && len(running) > 0:
			i := rnd.IntN(len(running))
			end(running[i], verdict(rnd.IntN(3)))
			running = slices.Delete(running, i, i+1)
		default:
			now = now.Add(time.Duration(rnd.IntN(6000)) * time.Millisecond)
		}
	}
	for _, r := range running {
		end(r, verdictOK)
	}
	if p.inFlight != 0 || p.retrying != 0 {
		t.Errorf("in the end %d requests are in flight, %d on a retry", p.inFlight, p.retrying)
	}
	for i, up := range p.active {
		if up.inFlight != 0 || up.leases != nil || peers[i].conns != 0 {
			t.Errorf("in the end %s has %d leases", up.ID, up.inFlight)
		}
	}
}

func TestPoolTies(t *testing.T) {
	p := newTestPool(func(string) {}, 5, 1, 1)
	var got []string
	for range 7 {
		l := p.lease(time.Now())
		got = append(got, l.up.ID)
		l.release(time.Now(), verdictOK)
	}
	// The sequence of smooth weighted round-robin for 5:1:1.
	want := []string{"web/1", "web/1", "web/2", "web/1", "web/3", "web/1", "web/1"}
	if !slices.Equal(got, want) {
		t.Errorf("picked %v, want %v", got, want)
	}
}

func TestPoolEjection(t *testing.T) {
	ejections := 0
	p := newTestPool(func(string) { ejections++ }, 1, 1)
	now := time.Now()
	fail := func() *lease {
		l := p.lease(now)
		l.release(now, verdictFailed)
		return l
	}
	first := fail().up
	for range 3 {
		l := p.lease(now)
		if l.up == first {
			t.Fatal("an ejected instance was picked")
		}
		l.release(now, verdictOK)
	}
	if s := p.status(now); s.Instances[0].State != "ejected" || s.Instances[1].State != "admitted" || ejections != 1 {
		t.Errorf("status %+v, %d ejections", s, ejections)
	}

	now = now.Add(failTimeout + 1)
	second := p.lease(now) // its weight lowered by the failure, the first comes after the other
	probe := p.lease(now)
	if probe.up != first {
		t.Fatal("the ejected instance was not tried again")
	}
	third := p.lease(now)
	if second.up == first || third.up == first {
		t.Fatal("more than one request tried the ejected instance")
	}
	probe.release(now, verdictOK)
	if s := p.status(now); s.Instances[0].State != "admitted" {
		t.Errorf("after an answer: %+v", s.Instances[0])
	}
	second.release(now, verdictOK)
	third.release(now, verdictOK)

	fail()
	fail()
	l := p.lease(now)
	if l == nil || !l.panicked {
		t.Fatal("all being ejected, none was picked")
	}
	l.release(now, verdictOK)
	if l = p.lease(now); l.panicked {
		t.Error("an answer in panic mode did not bring the instance back")
	}
	l.release(now, verdictOK)
	if ejections != 3 {
		t.Errorf("%d ejections, want 3", ejections)
	}
}

func TestPoolSingleIsNeverEjected(t *testing.T) {
	p := newTestPool(func(string) { t.Error("ejected") }, 1)
	for range 5 {
		l := p.lease(time.Now())
		if l == nil || l.panicked {
			t.Fatal("the single instance was not picked")
		}
		if p.lease(time.Now(), l.up) != nil {
			t.Fatal("picked again for the request that failed on it")
		}
		l.release(time.Now(), verdictFailed)
	}
	if s := p.status(time.Now()).Instances[0]; s.State != "admitted" || s.Failures != 5 {
		t.Errorf("status %+v", s)
	}
}

func TestPoolDrain(t *testing.T) {
	p := newTestPool(func(string) {}, 1, 1)
	aborted := make(chan string, 1)
	l := p.lease(time.Now())
	done := make(chan error)
	go func() { done <- p.drain(t.Context(), l.up.ID) }()
	await(t, "the instance drains", func() bool {
		return len(p.status(time.Now()).Instances) == 2 && p.status(time.Now()).Instances[1].State == "draining"
	})
	for range 4 {
		other := p.lease(time.Now())
		if other.up == l.up {
			t.Fatal("a draining instance was picked")
		}
		defer other.release(time.Now(), verdictOK)
	}
	// Admitted again, it is a new instance; what drains goes on.
	p.admit(l.up.Instance)
	again := p.lease(time.Now())
	if again.up.ID != l.up.ID || again.up == l.up {
		t.Error("the instance that was admitted again was not picked")
	}
	again.release(time.Now(), verdictOK)
	l.release(time.Now(), verdictOK)
	if err := <-done; err != nil {
		t.Errorf("drain: %v", err)
	}

	l = &lease{owner: &witness{aborted: aborted}}
	if !p.acquire(time.Now(), l, 7, nil) {
		t.Fatal("there is no instance")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.drain(ctx, l.up.ID); !errors.Is(err, context.Canceled) {
		t.Errorf("drain: %v", err)
	}
	if got := <-aborted; got != "7 drained" {
		t.Errorf("aborted attempt %s", got)
	}
	l.release(time.Now(), verdictNone)
	if err := p.drain(ctx, l.up.ID); err != nil {
		t.Errorf("drain what is gone: %v", err)
	}
}

func TestPoolRetryBudget(t *testing.T) {
	p := newTestPool(func(string) {}, 1)
	var leases []*lease
	for range 30 {
		leases = append(leases, p.lease(time.Now()))
	}
	granted := 0
	for p.beginRetry() {
		granted++
	}
	if granted != 6 {
		t.Errorf("%d retries granted with 30 requests in flight", granted)
	}
	for _, l := range leases {
		l.release(time.Now(), verdictOK)
	}
	for range granted {
		p.endRetry()
	}
	for granted = 0; p.beginRetry(); granted++ {
	}
	if granted != 3 {
		t.Errorf("%d retries granted with none in flight", granted)
	}
}

func BenchmarkPoolAcquire(b *testing.B) {
	for _, n := range []int{1, 3, 16} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			p := newTestPool(func(string) {}, slices.Repeat([]int{1}, n)...)
			now := time.Now()
			l := &lease{owner: &witness{}}
			b.ReportAllocs()
			for b.Loop() {
				p.acquire(now, l, 1, nil)
				l.release(now, verdictOK)
			}
		})
	}
}
