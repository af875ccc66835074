package proxy

import (
	"bytes"
	"io"
	"net/http"

	"mainstay/proxy/http1"
)

// A tunnelEnds are the two ends of a tunnel, which fail together.
type tunnelEnds struct{ client, instance io.Closer }

func (t *tunnelEnds) interrupt() {
	t.client.Close()
	t.instance.Close()
}

// tunnel sends the 101 response on and then bytes both ways until both sides have ended, or one fails. Only now is
// the client's connection taken from net/http: what the instance refuses is an ordinary response.
func (x *exchange) tunnel(head []byte) {
	instance := x.conn
	b := http1.AppendStatusLine(nil, http.StatusSwitchingProtocols, http.StatusText(http.StatusSwitchingProtocols))
	edits := &x.route.responseEdits
	for _, f := range instance.outgoing.Response.Fields.Lines {
		if name := f.Text.View(head); f.Name != http1.NameContentLength && passes(f.Name, name, f.Nominated) && !edits.overrides(name) {
			b = http1.AppendField(b, name, f.Value.View(head))
		}
	}
	b = append(edits.appendLines(b), "Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"...)

	client, buffered, err := x.control.Hijack()
	if err != nil {
		x.answer(reasonInternalFailure, "")
		return
	}
	defer client.Close()
	ends := &tunnelEnds{client, instance}
	if !x.fate.hold(ends) || x.r.Context().Err() != nil {
		ends.interrupt()
	}
	client.(interface{ tunnel() }).tunnel()
	if _, err = client.Write(b); err != nil {
		x.record.Reason = x.ended(reasonClientAbort)
		return
	}
	// net/http's reader would end the request's context at the client's end, so only what it has is taken from it.
	early, _ := buffered.Reader.Peek(buffered.Reader.Buffered())
	fromClient := io.MultiReader(bytes.NewReader(early), client)
	sent := make(chan int64, 1)
	go func() { sent <- x.pump(instance, fromClient, ends.interrupt) }()
	x.record.BytesOut = x.pump(client, instance, ends.interrupt)
	x.record.BytesIn += <-sent
	if why := x.cause(); why != reasonNone {
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
