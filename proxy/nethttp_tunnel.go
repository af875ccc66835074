package proxy

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"strings"
)

// switchesToWebSocket reports whether a 101 response is one to what the client asked for (RFC 6455, section 4.2.2).
func switchesToWebSocket(r *http.Request, response *http.Response) bool {
	return isWebSocket(r) && strings.EqualFold(response.Header.Get("Upgrade"), "websocket") &&
		hasToken(response.Header["Connection"], "upgrade")
}

// tunnel sends the 101 response on and then bytes both ways until both sides have ended, or one fails. Only now is
// the client's connection taken from net/http: what the instance refuses is an ordinary response.
func (x *exchange) tunnel(response *http.Response) {
	instance, ok := response.Body.(io.ReadWriteCloser)
	if !ok {
		x.answer(reasonInternalFailure, "")
		return
	}
	removeHopByHop(response.Header)
	x.route.responseEdits.apply(response.Header)
	response.Header["Connection"], response.Header["Upgrade"] = []string{"Upgrade"}, []string{"websocket"}

	client, buffered, err := x.control.Hijack()
	if err != nil {
		x.answer(reasonInternalFailure, "")
		return
	}
	defer client.Close()
	fail := func() {
		client.Close()
		instance.Close()
	}
	defer context.AfterFunc(x.ctx, fail)()
	client.(interface{ tunnel() }).tunnel()

	response.Body = nil
	if err = response.Write(buffered); err == nil {
		err = buffered.Flush()
	}
	if err != nil {
		x.record.Reason = x.ended(reasonClientAbort)
		return
	}
	// net/http's reader would end the request's context at the client's end, so only what it has is taken from it.
	early, _ := buffered.Reader.Peek(buffered.Reader.Buffered())
	fromClient := io.MultiReader(bytes.NewReader(early), client)
	sent := make(chan int64, 1)
	go func() { sent <- x.pump(instance, fromClient, fail) }()
	x.record.BytesOut = x.pump(client, instance, fail)
	x.record.BytesIn += <-sent
	if why, ok := context.Cause(x.ctx).(reason); ok {
		x.record.Reason = why
	}
}

// pump copies until from ends, which it passes on by closing the write side of to. It calls fail on any error.
func (x *exchange) pump(to io.WriteCloser, from io.Reader, fail func()) (copied int64) {
	buffer := x.buffers.Get().(*[copySize]byte)
	defer x.buffers.Put(buffer)
	for {
		n, err := from.Read(buffer[:])
		if n > 0 {
			x.watch.touch()
			if _, err := to.Write(buffer[:n]); err != nil {
				fail()
				return copied
			}
			copied += int64(n)
			x.watch.touch()
		}
		if err != nil {
			half, ok := to.(interface{ CloseWrite() error })
			if err != io.EOF || !ok || half.CloseWrite() != nil {
				fail()
			}
			return copied
		}
	}
}
