//go:build linux

package proxy

import (
	"fmt"
	"net/http"
	"strconv"

	"mainstay/proxy/http1"
	"mainstay/topology"
)

// answer ends the request with the proxy's own response, or with none if the client went away.
func (x *loopExchange) answer(why reason, detail string) {
	a := why.answer()
	x.record.Reason, x.record.Status = why, a.status
	if a.status == statusClientClosedRequest {
		x.cut = true
		x.finish()
		return
	}
	x.answerWith(a, why, detail)
}

func (x *loopExchange) answerWith(a answer, why reason, detail string) {
	if detail == "" {
		detail = a.text
	}
	text := fmt.Sprintf("%d %s: %s\nrequest %s\n", a.status, http.StatusText(a.status), detail, x.record.ID)
	b := x.beginAnswer(a.status)
	b = http1.AppendField(b, "Content-Type", "text/plain; charset=utf-8")
	b = x.introduce(b, a.fault, detail)
	switch why {
	case reasonNoInstance, reasonHoldExpired, reasonHoldFull:
		b = http1.AppendField(b, "Retry-After", "1")
	case reasonBadMethod:
		b = http1.AppendField(b, "Allow", "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")
	}
	x.endAnswer(b, a.status, text)
}

// refuse ends a request that is none with an answer, and with it the connection.
func (x *loopExchange) refuse(err error) {
	x.session.enter(sessionBusy)
	x.open()
	x.upload.fail(reasonBadRequest)
	x.identify()
	x.record.Path = x.text(x.incoming.Request.Path)
	a := reasonBadRequest.answer()
	detail := err.Error()
	if e, ok := err.(*http1.Error); ok {
		a.status, detail = e.Status, e.Text
	}
	x.record.Reason, x.record.Status = reasonBadRequest, a.status
	x.last = true
	x.answerWith(a, reasonBadRequest, detail)
}

// answerFixed ends the request with the response that the file has for when there is no instance.
func (x *loopExchange) answerFixed(why reason, fixed *topology.Response) {
	x.record.Reason, x.record.Status = why, fixed.Status
	b := x.beginAnswer(fixed.Status)
	if fixed.ContentType != "" {
		b = http1.AppendField(b, "Content-Type", fixed.ContentType)
	}
	a := why.answer()
	b = x.introduce(b, a.fault, a.text)
	if fixed.Status == http.StatusServiceUnavailable {
		b = http1.AppendField(b, "Retry-After", "1")
	}
	x.endAnswer(b, fixed.Status, fixed.Body)
}

// redirect sends the client to the same place at https.
func (x *loopExchange) redirect(port string) {
	if x.target.host == "" {
		x.answer(reasonBadRequest, "the request has no host")
		return
	}
	x.record.Reason, x.record.Status = reasonRedirect, http.StatusPermanentRedirect
	b := x.beginAnswer(http.StatusPermanentRedirect)
	b = http1.AppendField(b, "Location", "https://"+withPort(x.record.Host, port)+x.target.path+x.target.query)
	x.endAnswer(b, http.StatusPermanentRedirect, "")
}

func (x *loopExchange) beginAnswer(status int) []byte {
	return http1.AppendStatusLine(x.lane.out[:0], status, http.StatusText(status))
}

// introduce says in the fields of a response that it is the proxy's own, and why.
func (x *loopExchange) introduce(b []byte, fault, detail string) []byte {
	b = http1.AppendField(b, "X-Content-Type-Options", "nosniff")
	b = http1.AppendField(b, "Proxy-Status", "mainstay; error="+fault+"; details="+strconv.Quote(detail))
	return http1.AppendField(b, "X-Request-Id", x.record.ID)
}

// endAnswer sends a response of the proxy's own and ends the exchange.
func (x *loopExchange) endAnswer(b []byte, status int, text string) {
	x.reply = x.incoming.Respond(status, http1.Length, int64(len(text)), x.last || x.session.branch.ends())
	b = append(b, "Date: "...)
	b = append(x.lane.appendDate(b), "\r\n"...)
	b = append(x.reply.AppendFields(b), "\r\n"...)
	if x.reply.Framing != http1.None {
		b = append(b, text...)
		x.record.BytesOut = int64(len(text))
	}
	x.lane.out = b[:0]
	if x.session.write(b) != nil {
		x.cut = true
		x.finish()
		return
	}
	x.flush()
}
