//go:build linux

package proxy

import (
	"net/http"
	"strings"

	"mainstay/proxy/http1"
	"mainstay/topology"
)

// answer ends the request with the proxy's own response, or with none if the client went away.
func (x *loopExchange) answer(why reason, detail string) {
	x.record.Reason, x.record.Status = why, why.answer().status
	if x.record.Status == statusClientClosedRequest {
		x.cut = true
		x.finish()
		return
	}
	x.send(refusal(why, why.answer().saying(detail), x.record.ID))
}

// refuse ends a request that is none with an answer, and with it the connection.
func (x *loopExchange) refuse(err error) { x.reject(reasonBadRequest, misunderstood(err)) }

// tardy ends the connection because the header did not come in time; a client that has sent some of it is told so.
func (x *loopExchange) tardy() {
	if emptyLine(x.raw) == len(x.raw) {
		x.session.close()
		return
	}
	x.reject(reasonTimeoutRequest, reasonTimeoutRequest.answer())
}

// reject answers a request whose header section is not as it should be, and ends the connection.
func (x *loopExchange) reject(why reason, a answer) {
	s := x.session
	began := s.since
	s.enter(sessionBusy)
	x.open()
	x.record.Time = x.record.Time.Add(began - x.opened)
	x.opened = began
	x.upload.fail(why)
	x.identify()
	x.record.Path, _, _ = strings.Cut(x.text(x.incoming.Request.Target), "?")
	x.record.Reason = why
	x.last = true
	x.send(refusal(why, a, x.record.ID))
}

// answerFixed ends the request with the response that the file has for when there is no instance.
func (x *loopExchange) answerFixed(why reason, fixed *topology.Response) {
	x.record.Reason = why
	x.send(substitute(why, fixed, x.record.ID))
}

// redirect sends the client to the same place at https.
func (x *loopExchange) redirect(port string) {
	if x.target.host == "" {
		x.answer(reasonBadRequest, "the request has no host")
		return
	}
	x.record.Reason = reasonRedirect
	x.send(redirection("https://" + withPort(x.record.Host, port) + x.target.path + x.target.query))
}

// send sends a response of the proxy's own and ends the exchange.
func (x *loopExchange) send(r reply) {
	x.record.Status = r.status
	x.reply = x.incoming.Respond(r.status, http1.Length, int64(len(r.content)), x.last || x.session.ends())
	connection := ""
	switch {
	case x.reply.Close:
		connection = "close"
	case x.reply.KeepAlive:
		connection = "keep-alive"
	}
	var date [len(http.TimeFormat)]byte
	b := r.appendHead(x.lane.out[:0], view(x.lane.appendDate(date[:0])), connection)
	if x.reply.Framing != http1.None {
		b = append(b, r.content...)
		x.record.BytesOut = int64(len(r.content))
	}
	x.lane.out = b[:0]
	if x.session.write(b) != nil {
		x.cut = true
		x.finish()
		return
	}
	x.flush()
}
