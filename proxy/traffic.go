package proxy

import (
	"mainstay/topology"
)

// traffic counts the attempts at an instance that have ended.
type traffic topology.Traffic

// count adds an attempt that has ended with a verdict.
func (t *traffic) count(l *lease) {
	t.Requests++
	if l.status == 0 || l.status >= 500 || l.torn {
		t.Errors++
	}
	bucket := len(topology.LatencyBuckets)
	if l.status != 0 {
		for bucket = 0; bucket < len(topology.LatencyBuckets) && l.took > topology.LatencyBuckets[bucket]; {
			bucket++
		}
	}
	t.Latencies[bucket]++
}

func (t *traffic) addTo(sum *topology.Traffic) {
	sum.Requests += t.Requests
	sum.Errors += t.Errors
	for i, n := range t.Latencies {
		sum.Latencies[i] += n
	}
}
