package proxy

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"mainstay/proxy/http1"
)

func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var ended []reason
		end := func(r reason) {
			mu.Lock()
			defer mu.Unlock()
			ended = append(ended, r)
		}
		w := newWatch(end)
		pass := func(d time.Duration, want ...reason) {
			t.Helper()
			time.Sleep(d)
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			if !slices.Equal(ended, want) {
				t.Fatalf("ended %q, want %q", ended, want)
			}
		}
		var given []reason
		giveUp := func(why reason) { given = append(given, why) }
		w.begin(1, giveUp)
		pass(time.Hour)
		w.enter(1, stageSend, 10*time.Second, reasonTimeoutIdle)
		for range 10 {
			pass(9 * time.Second)
			w.touch()
		}
		w.enter(1, stageHeader, 5*time.Second, reasonTimeoutHeader)
		pass(4 * time.Second)
		w.abort(1, reasonDrained)
		w.enter(1, stageStream, time.Second, reasonTimeoutIdle) // too late
		w.abort(1, reasonDrained)
		if !slices.Equal(given, []reason{reasonDrained}) {
			t.Errorf("given up: %q", given)
		}
		w.begin(2, giveUp)
		w.enter(2, stageSend, 10*time.Second, reasonTimeoutIdle)
		w.enter(1, stageStream, time.Second, reasonTimeoutIdle) // late news of the first attempt
		w.abort(1, reasonDrained)
		pass(9 * time.Second)
		w.enter(2, stageStream, 3*time.Second, reasonTimeoutIdle)
		w.enter(2, stageHeader, time.Second, reasonTimeoutHeader) // the request was sent after the response had come
		pass(2 * time.Second)
		w.touch()
		pass(2900 * time.Millisecond)
		pass(200*time.Millisecond, reasonTimeoutIdle)
		w.abort(2, reasonDrained)
		w.stop()
		pass(time.Hour, reasonTimeoutIdle)

		w = newWatch(end)
		w.enter(1, stageSend, time.Second, reasonTimeoutIdle)
		w.stop()
		w.abort(1, reasonDrained)
		pass(time.Hour, reasonTimeoutIdle)
	})
}

func TestRequestBody(t *testing.T) {
	var order []string
	newBody := func(content string) *requestBody {
		return &requestBody{
			source: io.LimitReader(strings.NewReader(content), 1<<30),
			before: func() { order = append(order, "before") },
			after:  func(int) { order = append(order, "after") },
			late:   func() bool { return false },
			fields: func() fields { return fields{"X-A": {"1"}, "X-B": {"2"}} },
		}
	}
	b := newBody(strings.Repeat("x", replayLimit))
	first := b.attempt()
	if n, err := io.ReadFull(first, make([]byte, 1000)); n != 1000 || err != nil {
		t.Fatal(n, err)
	}
	first.Close()
	if _, err := first.Read(make([]byte, 1)); !errors.Is(err, errBodyClosed) {
		t.Errorf("read after close: %v", err)
	}
	for range 2 {
		if all, err := io.ReadAll(b.attempt()); len(all) != replayLimit || err != nil {
			t.Errorf("%d bytes, %v", len(all), err)
		}
	}
	if trailer := b.trailer(); !b.replayable() || trailer["X-A"][0] != "1" || b.read.Load() != replayLimit || len(order)%2 != 0 {
		t.Errorf("replayable %t, trailer %v, %d bytes read", b.replayable(), trailer, b.read.Load())
	}

	b = newBody(strings.Repeat("x", replayLimit+1))
	if all, err := io.ReadAll(b.attempt()); len(all) != replayLimit+1 || err != nil {
		t.Errorf("%d bytes, %v", len(all), err)
	}
	if _, err := io.ReadAll(b.attempt()); b.replayable() || !errors.Is(err, errBodySpent) {
		t.Errorf("replayable %t, second attempt %v", b.replayable(), err)
	}

	// A read that waits for the client returns when the request is over.
	pr, pw := io.Pipe()
	b = newBody("")
	b.source, b.rouse = pr, func() { pw.CloseWithError(io.ErrUnexpectedEOF) }
	reading, done := make(chan struct{}), make(chan error)
	b.before = func() { close(reading) }
	go func() {
		_, err := b.attempt().Read(make([]byte, 1))
		done <- err
	}()
	<-reading
	b.stop()
	if err := <-done; !errors.Is(err, io.ErrUnexpectedEOF) || b.failure() == nil {
		t.Errorf("read ended with %v, failure %v", err, b.failure())
	}

	// It does so, too, if that comes while the read is about to begin, and gives itself time.
	b = newBody("")
	woken, stopped := make(chan struct{}, 2), make(chan struct{})
	b.source = readFunc(func([]byte) (int, error) {
		<-woken
		return 0, os.ErrDeadlineExceeded
	})
	roused := make(chan struct{}, 2)
	b.rouse = func() {
		woken <- struct{}{}
		roused <- struct{}{}
	}
	b.before = func() {
		go func() {
			defer close(stopped)
			b.stop()
		}()
		<-roused
		<-woken // the deadline that rouse has set is replaced
	}
	if _, err := b.attempt().Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) || b.failure() != nil {
		t.Errorf("read ended with %v, failure %v", err, b.failure())
	}
	<-stopped
}

type readFunc func([]byte) (int, error)

func (f readFunc) Read(p []byte) (int, error) { return f(p) }

// A killer is a client's end at which the instance dies while the last of its response is written.
type killer struct {
	*httptest.ResponseRecorder
	kill func()
}

func (k killer) Write(p []byte) (int, error) {
	k.kill()
	return k.ResponseRecorder.Write(p)
}

// TestEndedWithLastByte ends a request when net/http has taken the last of the response and has not sent it yet: it does not count as
// one that the client has.
func TestEndedWithLastByte(t *testing.T) {
	open := func(w http.ResponseWriter, end func(*exchange, reason)) *exchange {
		x := &exchange{netHTTP: &netHTTP{}, r: httptest.NewRequest("GET", "/", nil), w: w, control: http.NewResponseController(w), conn: &instanceConn{}}
		x.watch = newWatch(func(why reason) { end(x, why) })
		x.watch.enter(1, stageStream, 0, reasonNone)
		head, limits := []byte("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"), responseLimits()
		x.conn.outgoing.Begin(http1.MethodGet, false)
		x.conn.outgoing.Sent()
		if n, err := x.conn.outgoing.Head(head, &limits); n != len(head) || err != nil {
			t.Fatal(n, err)
		}
		x.conn.rest = []byte("hi")
		return x
	}
	var x *exchange
	x = open(killer{httptest.NewRecorder(), func() { x.abort(1, reasonDrained) }}, func(x *exchange, why reason) { x.fate.end(why) })
	if why := x.copyContent(); why != reasonDrained {
		t.Errorf("it ended with %q", why)
	}
	x = open(httptest.NewRecorder(), func(_ *exchange, why reason) { t.Errorf("%q after the end", why) })
	if why := x.copyContent(); why != reasonNone {
		t.Errorf("it ended with %q", why)
	}
	x.abort(1, reasonDrained) // late
}
