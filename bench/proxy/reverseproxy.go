//go:build linux

package main

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// runReverseProxy is a process that proxies with Go's own httputil.ReverseProxy, tuned as its users tune it: enough idle connections, and
// buffers from a pool. A request goes to the backend with the fewest in flight.
func runReverseProxy(plain, tls, cert, key, echo string, backends []string) error {
	targets := make([]*target, len(backends))
	for i, backend := range backends {
		targets[i] = &target{host: backend}
	}
	transport := &http.Transport{MaxIdleConns: 4096, MaxIdleConnsPerHost: 512, IdleConnTimeout: time.Hour, DisableCompression: true}
	buffers := &buffers{pool: sync.Pool{New: func() any { return new([32 << 10]byte) }}}
	proxy := func(host func(*http.Request) string) http.Handler {
		return &httputil.ReverseProxy{Transport: transport, BufferPool: buffers, Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "http", Host: host(r.In)})
			r.Out.Host = r.In.Host
			r.SetXForwarded()
		}}
	}
	chosen := proxy(func(r *http.Request) string { return r.Context().Value(targetKey{}).(*target).host })
	fixed := proxy(func(*http.Request) string { return echo })
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/echo") {
			fixed.ServeHTTP(w, r)
			return
		}
		best := targets[0]
		for _, t := range targets[1:] {
			if t.inFlight.Load() < best.inFlight.Load() {
				best = t
			}
		}
		best.inFlight.Add(1)
		defer best.inFlight.Add(-1)
		chosen.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), targetKey{}, best)))
	})
	failed := make(chan error)
	go func() {
		failed <- (&http.Server{Addr: plain, Handler: handler, IdleTimeout: time.Hour}).ListenAndServe()
	}()
	go func() {
		failed <- (&http.Server{Addr: tls, Handler: handler, IdleTimeout: time.Hour}).ListenAndServeTLS(cert, key)
	}()
	return fmt.Errorf("serve: %w", <-failed)
}

type target struct {
	host     string
	inFlight atomic.Int64
}

// targetKey is where the context of a request has its target.
type targetKey struct{}

type buffers struct{ pool sync.Pool }

func (b *buffers) Get() []byte  { return b.pool.Get().(*[32 << 10]byte)[:] }
func (b *buffers) Put(p []byte) { b.pool.Put((*[32 << 10]byte)(p)) }
