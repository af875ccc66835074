package supervisor

import (
	"fmt"
	"reflect"
	"strconv"
	"time"

	"mainstay/topology"
)

// A canary is the first new instance of an update while it proves itself on a share of the service's requests. What is seen
// of these is compared all the time with what is seen of the old instances' since it became ready.
//
// Too few requests are no verdict: then it proves itself by staying ready, as any other does.
type canary struct {
	place *place
	begun bool // it has been ready, and is counted
	fresh tally
	old   tally
}

const (
	// canaryErrors is from how many failed requests on its share of them is judged: one or two say nothing.
	canaryErrors = 3
	// canaryRequests is from how many requests on, of its own and of the old ones, its latency is judged.
	canaryRequests = 50
	// canaryPeriod is how often it is judged.
	canaryPeriod = time.Second
)

// A tally sums what is seen of the requests to several instances from when each was first noted.
type tally struct {
	last map[string]topology.Traffic // by instance ID
	sum  topology.Traffic
}

// note adds what i was sent since it was last noted, or if it never was, all of it.
func (t *tally) note(i topology.Instance, now topology.Traffic) {
	was := t.last[i.ID]
	if now.Requests < was.Requests { // forgotten by the Router
		return
	}
	t.last[i.ID] = now
	t.sum.Requests += now.Requests - was.Requests
	t.sum.Errors += now.Errors - was.Errors
	for b := range t.sum.Latencies {
		t.sum.Latencies[b] += now.Latencies[b] - was.Latencies[b]
	}
}

// probation reports whether an instance of the target in p is to be a canary, or has to wait for one. One that differs from what ran
// before only in that it was restarted by hand is not: there is nothing to judge.
func (s *service) probation(p *place) bool {
	if s.want.Update.Canary == nil || !s.canFail(p) || s.vetted == s.target.revision || !s.target.spec.Routable() {
		return false
	}
	if !s.canReturn() {
		return true
	}
	next, before := recipe(s.target.spec), recipe(s.proven.spec)
	next.Epoch, before.Epoch = 0, 0
	return !reflect.DeepEqual(next, before)
}

// isCanary reports whether the instance on trial in p is judged by its requests.
func (s *service) isCanary(p *place) bool {
	return s.canary != nil && s.canary.place == p && p.next != nil
}

// observe notes what was seen of the requests by now.
func (s *service) observe() {
	c := s.canary
	traffic := func(i *instance) (topology.Instance, topology.Traffic, bool) {
		to := i.now().routed
		if to.ID == "" {
			return to, topology.Traffic{}, false
		}
		return to, s.site.router.Traffic(to), true
	}
	if !c.begun {
		c.begun = true
		c.fresh.last, c.old.last = map[string]topology.Traffic{}, map[string]topology.Traffic{}
		for _, p := range s.places {
			if p.current != nil {
				if to, now, ok := traffic(p.current); ok {
					c.old.last[to.ID] = now
				}
			}
		}
	}
	for _, p := range s.places {
		if p.current != nil && p.current.revision != s.target.revision {
			if to, now, ok := traffic(p.current); ok {
				c.old.note(to, now)
			}
		}
	}
	if to, now, ok := traffic(c.place.next); ok {
		c.fresh.note(to, now)
	}
}

// tend keeps the canary at what the update asks for now and counts its requests. It returns for how long it has to be ready.
func (s *service) tend(l life) time.Duration {
	rule := s.want.Update.Canary
	if rule == nil {
		s.endCanary("")
		return 0
	}
	s.canary.place.next.claim(rule.Weight)
	if l.state == StateReady || s.canary.begun {
		s.observe()
	}
	return rule.Duration
}

// fault says why the canary is worse than the old instances by more than rule allows; empty if it is not, or if that cannot be told.
func (c *canary) fault(rule topology.Canary) string {
	fresh, old := figuresOf(c.fresh.sum), figuresOf(c.old.sum)
	if c.fresh.sum.Errors >= canaryErrors && fresh.ErrorRatio > old.ErrorRatio+rule.MaxErrorRatio {
		return fmt.Sprintf("as a canary it had errors in %s of %d requests, the old instances in %s of %d; %s more are allowed",
			percent(fresh.ErrorRatio), fresh.Requests, percent(old.ErrorRatio), old.Requests, percent(rule.MaxErrorRatio))
	}
	enough := fresh.Requests >= canaryRequests && old.Requests >= canaryRequests
	if enough && rule.MaxLatencyRatio > 0 && fresh.P95 > rule.MaxLatencyRatio*old.P95 {
		return fmt.Sprintf("as a canary it answered 95 %% of %d requests within %s, the old instances within %s; %s times that is allowed",
			fresh.Requests, seconds(fresh.P95), seconds(old.P95), strconv.FormatFloat(rule.MaxLatencyRatio, 'g', 3, 64))
	}
	return ""
}

func percent(ratio float64) string { return strconv.FormatFloat(100*ratio, 'g', 3, 64) + " %" }

func seconds(s float64) time.Duration {
	return time.Duration(s * float64(time.Second)).Round(10 * time.Microsecond)
}

func figuresOf(t topology.Traffic) CanaryFigures {
	f := CanaryFigures{Requests: t.Requests, P95: percentile(t, 0.95).Seconds()}
	if t.Requests > 0 {
		f.ErrorRatio = float64(t.Errors) / float64(t.Requests)
	}
	return f
}

// percentile returns the latency that the share of the requests q was not above, interpolated in its bucket; of what took longer than
// all buckets it knows no more than that. It is 0 if there were no requests.
func percentile(t topology.Traffic, q float64) time.Duration {
	total := uint64(0)
	for _, n := range t.Latencies {
		total += n
	}
	if total == 0 {
		return 0
	}
	rank, below, lower := q*float64(total), uint64(0), time.Duration(0)
	for b, upper := range topology.LatencyBuckets {
		if n := t.Latencies[b]; n > 0 && float64(below+n) >= rank {
			return lower + time.Duration(float64(upper-lower)*(rank-float64(below))/float64(n))
		}
		below += t.Latencies[b]
		lower = upper
	}
	return lower
}

// status returns how the canary is doing.
func (c *canary) status(rule topology.Canary) *CanaryStatus {
	return &CanaryStatus{
		Instance: instanceID(c.place.next.service, c.place.replica), Weight: rule.Weight,
		Ends: c.place.next.now().since.Add(rule.Duration), New: figuresOf(c.fresh.sum), Old: figuresOf(c.old.sum),
	}
}

// endCanary gives the canary the requests that any instance gets.
func (s *service) endCanary(result string) {
	if s.canary.place.next != nil {
		s.canary.place.next.claim(0)
	}
	s.canary = nil
	if result != "" {
		s.vetted = s.target.revision
		s.site.metrics.canaries.WithLabelValues(s.name, result).Inc()
	}
}
