package proxy

import (
	"slices"

	"mainstay/topology"
)

// A failure is an attempt that ended before the response's header had come, with what decides whether there is another.
type failure struct {
	reason reason
	// sent says that some of the request may have reached the instance.
	sent bool
	// idempotent says that the request may be sent twice (see idempotent).
	idempotent bool
	// replayable says that all of the request is still there to be sent again.
	replayable bool
	// blameless says that the instance was not at fault, whatever the reason.
	blameless bool
}

// retryOn returns the condition under which the failed attempt may be followed by one at another instance.
// Where nothing was sent that is safe for every method; where something was, a proxy must not send again what is not
// idempotent (RFC 9110, section 9.2.2).
func (f failure) retryOn() (topology.RetryCondition, bool) {
	died := f.reason == reasonReset || f.reason == reasonDrained
	switch {
	case !f.replayable:
		return "", false
	case f.reason == reasonConnectFailure || f.reason == reasonConnectTimeout || died && !f.sent:
		return topology.RetryConnectFailure, true
	case died && f.idempotent:
		return topology.RetryReset, true
	}
	return "", false
}

// stranded reports whether nothing of the request reached the instance, because it does not take connections.
func (f failure) stranded() bool {
	died := f.reason == reasonReset || f.reason == reasonDrained
	return f.replayable && (f.reason == reasonConnectFailure || died && !f.sent)
}

// verdict tells what a failed attempt says about the instance.
func (f *failure) verdict() verdict {
	if f.blameless {
		return verdictNone
	}
	switch f.reason {
	case reasonClientAbort, reasonTimeoutBody, reasonTimeoutSend, reasonBadRequest, reasonDrained, reasonShutdown:
		return verdictNone
	}
	return verdictFailed
}

// mayRetry reports whether the policy grants a further attempt after the given number of attempts.
func mayRetry(policy topology.Retries, attempts int, f failure) (topology.RetryCondition, bool) {
	on, ok := f.retryOn()
	return on, ok && attempts <= policy.Attempts && slices.Contains(policy.On, on)
}

// idempotent reports whether a request may be sent twice: by its method (RFC 9110, section 9.2.2), or because
// the client says so with an Idempotency-Key.
func idempotent(method string, key bool) bool {
	switch method {
	case "GET", "HEAD", "OPTIONS", "PUT", "DELETE":
		return true
	}
	return key
}
