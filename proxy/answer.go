package proxy

// A reason says in one word why a request ended as it did. It stands in the access log, and is the cause with which
// a request's context is cancelled. The empty reason is that an instance's response was sent on whole.
type reason string

const (
	reasonNone            reason = ""
	reasonRedirect        reason = "redirect"         // to https
	reasonLastHop         reason = "last_hop"         // OPTIONS that was not to be sent on
	reasonBadRequest      reason = "bad_request"      // malformed, or ambiguous to the point of being dangerous
	reasonBadMethod       reason = "bad_method"       // CONNECT or TRACE
	reasonLoop            reason = "loop"             // has come through this proxy too often
	reasonNoRoute         reason = "no_route"         // no route matches
	reasonNoInstance      reason = "no_instance"      // the service has no instance in rotation
	reasonHoldExpired     reason = "hold_expired"     // nor got one in the time that the request may wait for it
	reasonHoldFull        reason = "hold_full"        // nor may more requests wait for one
	reasonConnectFailure  reason = "connect_failure"  // the connection to the instance was refused
	reasonConnectTimeout  reason = "connect_timeout"  // it was not established in time
	reasonReset           reason = "reset"            // it died before a byte of the response
	reasonBadResponse     reason = "bad_response"     // what came is not a response
	reasonIncomplete      reason = "incomplete"       // the response was cut short
	reasonTimeoutHeader   reason = "timeout_header"   // no response in time
	reasonTimeoutIdle     reason = "timeout_idle"     // no byte in either direction for too long
	reasonTimeoutRequest  reason = "timeout_request"  // the client did not send its request's header in time
	reasonTimeoutBody     reason = "timeout_body"     // the client stopped sending its request, or was too slow
	reasonTimeoutSend     reason = "timeout_send"     // the client stopped taking the response, or was too slow
	reasonClientAbort     reason = "client_abort"     // the client went away
	reasonDrained         reason = "drained"          // the instance was stopped and the time for draining was up
	reasonShutdown        reason = "shutdown"         // the listener was closed and the time for that was up
	reasonInternalFailure reason = "internal_failure" // a bug
)

// Error makes a reason the cause of a cancelled context.
func (r reason) Error() string { return string(r) }

// An answer is what the proxy itself responds with.
type answer struct {
	status int
	// fault is the error type of the Proxy-Status field (RFC 9209, section 2.3).
	fault string
	text  string // for people; it names nothing of the inside
}

// saying returns the answer with another text, unless that is empty.
func (a answer) saying(text string) answer {
	if text != "" {
		a.text = text
	}
	return a
}

// answer returns what the client is told. Where the response has already begun it is cut off instead.
func (r reason) answer() answer {
	switch r {
	case reasonBadRequest:
		return answer{400, "http_request_error", "the request is malformed"}
	case reasonBadMethod:
		return answer{405, "http_request_denied", "the method is not allowed"}
	case reasonLoop:
		return answer{502, "proxy_loop_detected", "the request goes in a circle"}
	case reasonNoRoute:
		return answer{404, "destination_not_found", "nothing is served here"}
	case reasonNoInstance:
		return answer{503, "destination_unavailable", "no instance of the service is ready"}
	case reasonHoldExpired:
		return answer{503, "destination_unavailable", "no instance of the service was ready in time"}
	case reasonHoldFull:
		return answer{503, "destination_unavailable", "no instance of the service is ready and too many requests wait for one"}
	case reasonConnectFailure:
		return answer{502, "connection_refused", "no instance of the service accepts connections"}
	case reasonConnectTimeout:
		return answer{504, "connection_timeout", "no instance of the service accepted the connection in time"}
	case reasonReset:
		return answer{502, "connection_terminated", "the instance closed the connection before it responded"}
	case reasonBadResponse:
		return answer{502, "http_protocol_error", "the instance's response is malformed"}
	case reasonIncomplete:
		return answer{502, "http_response_incomplete", "the instance's response is incomplete"}
	case reasonTimeoutHeader:
		return answer{504, "http_response_timeout", "the instance did not respond in time"}
	case reasonTimeoutIdle:
		return answer{504, "connection_read_timeout", "the instance stopped taking the request"}
	case reasonTimeoutRequest, reasonTimeoutBody:
		return answer{408, "http_request_error", "the request did not arrive in time"}
	case reasonClientAbort, reasonTimeoutSend:
		return answer{status: statusClientClosedRequest}
	case reasonDrained:
		return answer{503, "connection_terminated", "the instance was stopped before it responded"}
	case reasonShutdown:
		return answer{503, "connection_terminated", "the service was stopped"}
	}
	return answer{500, "proxy_internal_error", "the proxy failed"}
}

// statusClientClosedRequest is what nginx logs for a client that did not wait; nothing is sent.
const statusClientClosedRequest = 499
