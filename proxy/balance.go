package proxy

import (
	"slices"
	"time"

	"mainstay/topology"
)

// These are nginx's defaults for a server in an upstream block.
const (
	maxFails    = 1
	failTimeout = 10 * time.Second
)

// A balance is what least connections remembers of one instance.
type balance struct {
	weight    int
	effective int     // weight, lowered by failures and slowly recovering
	share     float64 // of all requests, 0 to 1; 0: none of its own
	credit    float64 // what of its share it has not had yet, in requests
	current   int     // of the smooth weighted round-robin
	fails     int
	accessed  time.Time // of the last failure
	checked   time.Time // of the last failure or the last try after one
}

func newBalance(i topology.Instance) balance {
	return balance{weight: i.Weight, effective: i.Weight, share: i.Share / 100}
}

// reweigh gives the instance another weight and share. What failures have taken from its weight stays taken in proportion.
func (b *balance) reweigh(i topology.Instance) {
	b.effective = int(int64(b.effective) * int64(i.Weight) / int64(b.weight))
	b.weight, b.share = i.Weight, i.Share/100
	if b.share == 0 {
		b.credit = 0
	}
}

// pickShared chooses among instances of which some have a share: one of these as often as that says, otherwise as pick does
// among the others. A share does not depend on what is in flight, because an idle instance with a small weight has, by
// least connections, the least load as soon as the others have anything to do.
func pickShared(active, tried []*upstream, now time.Time) (best *upstream, panicked bool) {
	var rest []*upstream
	for _, up := range active {
		if up.share == 0 {
			rest = append(rest, up)
			continue
		}
		if len(tried) == 0 { // a request counts once, however many attempts it takes
			up.credit = min(up.credit+up.share, 2) // not more is made up for after an ejection
		}
		if best == nil && up.credit >= 1 && !slices.Contains(tried, up) && !up.ejected(now) {
			best = up
		}
	}
	if best != nil {
		best.credit--
		best.check(now)
		return best, false
	}
	if best, panicked = pick(rest, tried, now); best != nil {
		return best, panicked
	}
	return pick(active, tried, now)
}

// pick chooses like nginx's least_conn (ngx_http_upstream_least_conn_module.c): the instance with the fewest requests
// in flight for its weight; among those that tie, the next by smooth weighted round-robin, never by chance. An
// instance that failed is ejected for failTimeout and then tried by one request per failTimeout until one succeeds.
// A single instance is never ejected. What is in tried is passed over.
//
// When all that are left are ejected, nginx answers 502 at once. Here ejection is ignored then (Envoy calls it
// panic mode), because a try that may succeed is better than a certain failure; panicked tells that this was so.
func pick(active, tried []*upstream, now time.Time) (best *upstream, panicked bool) {
	best = leastLoaded(active, func(up *upstream) bool {
		return !slices.Contains(tried, up) && (len(active) == 1 || !up.ejected(now))
	})
	if best == nil {
		panicked = true
		best = leastLoaded(active, func(up *upstream) bool { return !slices.Contains(tried, up) })
	}
	if best == nil {
		return nil, false
	}
	best.check(now)
	return best, panicked
}

// check notes that the instance is tried. Of one that was ejected, this is the one try per failTimeout.
func (b *balance) check(now time.Time) {
	if now.Sub(b.checked) > failTimeout {
		b.checked = now
	}
}

// leastLoaded returns the instance with the least load among the usable ones, or nil.
func leastLoaded(list []*upstream, usable func(*upstream) bool) *upstream {
	first, tied := -1, false
	for i, up := range list {
		switch {
		case !usable(up):
		case first < 0 || up.load(list[first]) < 0:
			first, tied = i, false
		case up.load(list[first]) == 0:
			tied = true
		}
	}
	if first < 0 {
		return nil
	}
	best := list[first]
	if !tied {
		return best
	}
	return roundRobin(list[first:], func(up *upstream) bool { return usable(up) && up.load(best) == 0 })
}

// roundRobin takes the next by smooth weighted round-robin among those of list that are eligible; the first is.
func roundRobin(list []*upstream, eligible func(*upstream) bool) *upstream {
	best, total := list[0], 0
	for _, up := range list {
		if !eligible(up) {
			continue
		}
		up.current += up.effective
		total += up.effective
		up.effective = min(up.effective+(up.weight+99)/100, up.weight) // nginx adds one, which large weights would take long with
		if up.current > best.current {
			best = up
		}
	}
	best.current -= total
	return best
}

// load compares the requests in flight for their weight of u and other: negative if u has fewer.
func (u *upstream) load(other *upstream) int {
	return u.inFlight*other.weight - other.inFlight*u.weight
}

// ejected reports whether the instance must not be picked now.
func (b *balance) ejected(now time.Time) bool {
	return b.fails >= maxFails && now.Sub(b.checked) <= failTimeout
}

// fail records a failed attempt and reports whether it ejected the instance.
func (b *balance) fail(now time.Time, single bool) (ejected bool) {
	if single {
		b.fails = 0
		return false
	}
	before := b.ejected(now)
	b.fails++
	b.accessed, b.checked = now, now
	b.effective = max(b.effective-b.weight/maxFails, 0)
	return !before && b.ejected(now)
}

// succeed records an answered attempt. Only that of a try after the ejection's end clears the failures (the others
// began before it and say nothing about now), unless forgive is set.
func (b *balance) succeed(forgive bool) {
	if forgive || b.accessed.Before(b.checked) {
		b.fails = 0
	}
}
