package proxy

import (
	"context"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/coder/websocket"

	"mainstay/topology"
)

// Requests go on while a listener goes from one engine to the other and back, and so does a WebSocket.
func TestEngineChanges(t *testing.T) {
	r := newRig(t)
	if r.engines[engineLoop] == nil {
		e := loops(&r.policies)
		if e == nil {
			t.Skip("there is but one engine")
		}
		r.engines[engineLoop] = &engineUse{engine: e}
	}
	r.topology.Proxy.Engine = topology.EngineNetHTTP
	r.apply()
	r.instance("web", "web/1", func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path != "/ws" {
			echo(w, req)
			return
		}
		c, err := websocket.Accept(w, req, nil)
		if err != nil {
			return
		}
		defer c.CloseNow()
		for {
			kind, message, err := c.Read(req.Context())
			if err != nil || c.Write(req.Context(), kind, message) != nil {
				return
			}
		}
	})
	ws, _, err := websocket.Dial(t.Context(), "ws"+strings.TrimPrefix(r.url("/ws"), "http"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer ws.CloseNow()
	ctx, stop := context.WithCancel(t.Context())
	url := r.url("/")
	var clients sync.WaitGroup
	for range 4 {
		clients.Go(func() {
			for ctx.Err() == nil {
				res, err := r.client.Post(url, "text/plain", strings.NewReader("hello"))
				if err != nil {
					t.Errorf("while the engine changed: %v", err)
					return
				}
				b, err := io.ReadAll(res.Body)
				res.Body.Close()
				if err != nil || res.StatusCode != 200 || string(b) != "hello" {
					t.Errorf("while the engine changed: %s %q %v", res.Status, b, err)
				}
			}
		})
	}
	for _, engine := range []topology.ProxyEngine{topology.EngineAuto, topology.EngineNetHTTP, topology.EngineAuto} {
		before, _ := r.upstream("web/1")
		r.topology.Proxy.Engine = engine
		r.apply()
		await(t, "requests pass", func() bool { now, _ := r.upstream("web/1"); return now.Requests > before.Requests+50 })
		if err := ws.Write(ctx, websocket.MessageText, []byte("still here")); err != nil {
			t.Fatal(err)
		}
		if _, b, err := ws.Read(ctx); err != nil || string(b) != "still here" {
			t.Fatalf("the WebSocket says %q, %v", b, err)
		}
	}
	stop()
	clients.Wait()
}
