package proxy

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"mainstay/proxy/http1"
	"mainstay/topology"
)

// A reply is a response of the proxy's own.
type reply struct {
	status  int
	fields  []replyField // in the order of their names
	content string       // not sent in response to HEAD
}

type replyField struct{ name, value string }

// misunderstood returns the answer to a request that cannot be understood.
func misunderstood(err error) answer {
	a := reasonBadRequest.answer().saying(err.Error())
	if fault := (*http1.Error)(nil); errors.As(err, &fault) {
		a.status = fault.Status
	}
	return a
}

// refusal returns the reply to a request that is not served: a, which is the reason's answer or says more.
func refusal(why reason, a answer, id string) reply {
	r := reply{status: a.status, content: fmt.Sprintf("%d %s: %s\nrequest %s\n", a.status, http.StatusText(a.status), a.text, id)}
	if why == reasonBadMethod {
		r.add("Allow", allowedMethods)
	}
	r.add("Content-Length", strconv.Itoa(len(r.content)))
	r.add("Content-Type", "text/plain; charset=utf-8")
	switch why {
	case reasonNoInstance, reasonHoldExpired, reasonHoldFull:
		r.introduce(a, "1", id)
	default:
		r.introduce(a, "", id)
	}
	return r
}

// substitute returns the reply that the file has for when no instance can take a request.
func substitute(why reason, fixed *topology.Response, id string) reply {
	r := reply{status: fixed.Status, content: fixed.Body}
	if fixed.Status == http.StatusNoContent || fixed.Status == http.StatusNotModified {
		r.content = ""
	} else {
		r.add("Content-Length", strconv.Itoa(len(r.content)))
	}
	if fixed.ContentType != "" {
		r.add("Content-Type", fixed.ContentType)
	}
	later := ""
	if fixed.Status == http.StatusServiceUnavailable {
		later = "1"
	}
	r.introduce(why.answer(), later, id)
	return r
}

// redirection returns the reply that sends a client to another place, for good.
func redirection(location string) reply {
	r := reply{status: http.StatusPermanentRedirect}
	r.add("Content-Length", "0")
	r.add("Location", location)
	return r
}

// allowedMethods are those that are sent on, by what Allow says, beside any that are not known.
const allowedMethods = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"

// capabilities returns the reply to OPTIONS that asks the proxy itself (RFC 9110, section 9.3.7).
func capabilities() reply {
	r := reply{status: http.StatusOK}
	r.add("Allow", allowedMethods)
	r.add("Content-Length", "0")
	return r
}

// introduce says that the reply is the proxy's own and why (RFC 9209), and, if later is not empty, after how many seconds it is worth
// while to ask again.
func (r *reply) introduce(a answer, later, id string) {
	r.add("Proxy-Status", fmt.Sprintf("mainstay; error=%s; details=%q", a.fault, a.text))
	if later != "" {
		r.add("Retry-After", later)
	}
	r.add("X-Content-Type-Options", "nosniff")
	r.add("X-Request-Id", id)
}

func (r *reply) add(name, value string) { r.fields = append(r.fields, replyField{name, value}) }

// appendHead appends the reply's header, in which date is what Date says and connection what Connection does, if it is not empty.
func (r *reply) appendHead(b []byte, date, connection string) []byte {
	b = http1.AppendStatusLine(b, r.status, http.StatusText(r.status))
	for _, f := range r.fields {
		if connection != "" && f.name > "Connection" {
			b = http1.AppendField(b, "Connection", connection)
			connection = ""
		}
		b = http1.AppendField(b, f.name, f.value)
	}
	b = http1.AppendField(b, "Date", date)
	return append(b, "\r\n"...)
}
