package proxy

import (
	"mainstay/proxy/http1"
	"mainstay/topology"
)

// requestLimits returns what a client's request may have, and responseLimits what an instance's response may.
func requestLimits(l topology.ClientLimits) http1.Limits {
	limits := http1.DefaultLimits()
	limits.Head, limits.Target, limits.Fields = l.HeaderSize, l.HeaderSize, l.HeaderFields
	return limits
}

// maxInterim is how many 1xx responses an instance may send before the final one.
const maxInterim = 16

func responseLimits() http1.Limits {
	limits := http1.DefaultLimits()
	limits.Head, limits.Fields, limits.Interim = maxResponseHeaderBytes, 0, maxInterim
	return limits
}
