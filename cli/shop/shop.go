// Package shop is the example's web shop: three small services as one would write them
// without knowing of Mainstay, which gives them an address and ends them with SIGTERM.
//
// Web shows a page, Orders keeps what is ordered in a file and tells the bus of it,
// and Mailer hears of it there. Each runs until its context is done and then finishes what it has begun.
package shop

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// finishTime bounds how long requests may still take when a service ends.
const finishTime = 10 * time.Second

// serve answers requests at address until ctx is done and the last one has been answered.
func serve(ctx context.Context, log *slog.Logger, address string, handler http.Handler) error {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return err
	}
	log.Info("listening", "addr", listener.Addr().String())
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 5 * time.Second}
	finished := make(chan struct{})
	context.AfterFunc(ctx, func() {
		defer close(finished)
		limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), finishTime)
		defer cancel()
		server.Shutdown(limit)
	})
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	<-finished
	log.Info("stopped")
	return nil
}

// healthy answers probes.
func healthy(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") }
