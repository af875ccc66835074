//go:build linux

package proxy

import (
	"context"
	"io"
	"net/http"
	"testing"
	"time"

	"mainstay/topology"
)

// newLoopRig returns a rig whose listener is on event loops, and its server.
func newLoopRig(t *testing.T) (*rig, *loopServer) {
	t.Helper()
	t.Setenv("PROXY_ENGINE", string(topology.EngineAuto))
	r := newRig(t)
	return r, r.current()[0].server.(*loopServer)
}

// sessions calls f for every session on its loop.
func (s *loopServer) sessions(f func(*session)) {
	s.each(func(b *branch) {
		for at := b.sessions; at != nil; at = at.next {
			f(at)
		}
	})
}

// paused reports whether connections are not accepted for now.
func (s *loopServer) paused() bool {
	s.control.Lock()
	defer s.control.Unlock()
	return s.pausing
}

// TestGiveHurries holds that who has sent part of a header has little time to send the rest once connections are given away.
func TestGiveHurries(t *testing.T) {
	r, s := newLoopRig(t)
	r.topology.Proxy.Limits.HeaderTimeout = time.Hour
	r.apply()
	r.instance("web", "web/1", echo)
	c, br := r.dial()
	left := func() (left time.Duration) {
		s.sessions(func(at *session) {
			if at.state == sessionHead && at.alarm != 0 {
				left = at.alarm - at.lane().clock()
			}
		})
		return left
	}
	io.WriteString(c, "GET / HTTP/1.1\r\nHo")
	await(t, "a part of the header has come", func() bool { return left() > 0 })
	if left() < hurryTimeout {
		t.Errorf("%v are left", left())
	}
	ctx, cancel := context.WithCancel(t.Context())
	given := make(chan struct{})
	go func() {
		defer close(given)
		s.give(ctx, &giver{stop: func() {}, pass: func(passed, int) (bool, error) { return true, nil }})
	}()
	await(t, "it has to hurry", func() bool { return left() > 0 && left() <= hurryTimeout })
	io.WriteString(c, "st: a\r\n\r\n")
	if res, err := http.ReadResponse(br, nil); err != nil || res.StatusCode != 200 {
		t.Errorf("%v, %v", res, err)
	}
	cancel()
	<-given
	r.Resume()
}

// TestPanic has bugs in the handling of one request, and in that of its end: others are served on, and nothing of it stays.
func TestPanic(t *testing.T) {
	for name, spoil := range map[string]func(*loopExchange){
		"once":  func(x *loopExchange) { x.route = nil },
		"again": func(x *loopExchange) { x.lane = nil },
	} {
		t.Run(name, func(t *testing.T) {
			r, s := newLoopRig(t)
			entered, proceed := make(chan struct{}), make(chan struct{})
			r.instance("web", "web/1", func(w http.ResponseWriter, req *http.Request) {
				if req.URL.Path == "/spoilt" {
					entered <- struct{}{}
					<-proceed
				}
				w.WriteHeader(200)
			})
			c, _ := r.dial()
			io.WriteString(c, "GET /spoilt HTTP/1.1\r\nHost: a\r\n\r\n")
			<-entered
			s.sessions(func(at *session) { spoil(at.x); at.lane().sealed = append(at.lane().sealed, "of another"...) })
			close(proceed)
			if got := ended(t, c); got != "" {
				t.Errorf("it got %q", got)
			}
			await(t, "nothing is counted any more", func() bool {
				u, _ := r.upstream("web/1")
				return s.connected() == 0 && u.InFlight == 0
			})
			s.each(func(b *branch) {
				if len(b.lane.sealed) > 0 || b.sessions != nil {
					t.Errorf("lane %d holds %q, and sessions %v", b.lane.number, b.lane.sealed, b.sessions)
				}
			})
			if res, _ := r.do("GET", "/", nil); res.StatusCode != 200 {
				t.Error(res.Status)
			}
		})
	}
}
