package store

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"
)

// A retry calls again what failed for a reason that may pass. The SDK's own is not used: it gives up
// after seconds and does not know of credentials that expire in the middle.
type retry struct {
	log     *slog.Logger
	budget  time.Duration // for one call
	first   time.Duration // for one call until any has succeeded
	delay   time.Duration
	reached atomic.Bool // the store has answered a call
}

// do calls f until it succeeds, fails for good, or the time is up. Each attempt is cancelled when it makes no progress.
func (r *retry) do(ctx context.Context, what string, f func(ctx context.Context, w *watchdog, attempt int) error) error {
	start := time.Now()
	delay := r.delay
	for attempt := 0; ; attempt++ {
		err := watch(ctx, func(ctx context.Context, w *watchdog) error { return f(ctx, w, attempt) })
		if err == nil || errors.Is(err, ErrExist) || errors.Is(err, ErrNotExist) {
			r.reached.Store(true)
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		budget := r.first
		if r.reached.Load() {
			budget = r.budget
		}
		pause := delay/2 + rand.N(delay/2+1)
		if !passing(err) {
			return err
		}
		if time.Since(start)+pause > budget {
			return fmt.Errorf("given up after %d attempts: %w", attempt+1, err)
		}
		r.log.Warn("store call failed, trying again", "call", what, "attempt", attempt+1, "pause", pause, "error", err)
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(pause):
		}
		delay = min(2*delay, maxDelay)
	}
}

// again is an error after which the call is worth trying again whatever it says.
type again struct{ error }

func (a again) Unwrap() error { return a.error }

// lasting are codes that come with a status that usually passes.
var lasting = []string{"NotImplemented", "QuotaExceeded", "InsufficientStorage"}

// fleeting are codes of refusals that pass: credentials are fetched anew, clocks are set, bytes arrive whole the next time.
var fleeting = []string{
	"RequestTimeout", "SlowDown", "Throttling", "ThrottlingException", "TooManyRequests",
	"ExpiredToken", "ExpiredTokenException", "RequestExpired", "RequestTimeTooSkewed",
	"BadDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch", "IncompleteBody", "OperationAborted", "ConditionalRequestConflict",
}

// passing tells whether the same call may succeed later.
func passing(err error) bool {
	var signing *v4.SigningError
	var certificate *tls.CertificateVerificationError
	var dns *net.DNSError
	var response *awshttp.ResponseError
	switch {
	case errors.As(err, new(again)):
		return true
	case errors.As(err, &signing), errors.As(err, &certificate), errors.Is(err, io.ErrUnexpectedEOF):
		return false
	case errors.As(err, &dns) && dns.IsNotFound:
		return false
	case slices.ContainsFunc(fleeting, func(code string) bool { return hasCode(err, code) }):
		return true
	case slices.ContainsFunc(lasting, func(code string) bool { return hasCode(err, code) }):
		return false
	case errors.As(err, &response) && response.HTTPStatusCode() != 0: // there was an answer
		status := response.HTTPStatusCode()
		return status >= 500 || status == http.StatusRequestTimeout || status == http.StatusTooManyRequests
	}
	var network net.Error
	return errors.As(err, &network) || errors.Is(err, io.EOF) || errors.Is(err, errStalled)
}

func hasCode(err error, code string) bool {
	var api smithy.APIError
	return errors.As(err, &api) && api.ErrorCode() == code
}

// meaning says the two sentinels in the package's own words, and spares the reader the SDK's wrapping where it says nothing.
func meaning(err error) error {
	var api smithy.APIError
	if !errors.As(err, &api) {
		return err
	}
	switch api.ErrorCode() {
	case "NoSuchKey", "NotFound":
		return ErrNotExist
	case "PreconditionFailed":
		return ErrExist
	case "NoSuchBucket":
		return errors.New("no such bucket; create it first")
	case "InvalidRange":
		return io.ErrUnexpectedEOF
	}
	return err
}

var errStalled = fmt.Errorf("no progress for %v", stallTimeout)

// A watchdog ends an attempt that makes no progress. The zero watchdog never does.
type watchdog struct{ timer *time.Timer }

func watch(ctx context.Context, f func(context.Context, *watchdog) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	w := &watchdog{time.AfterFunc(2*stallTimeout, func() { cancel(errStalled) })} // twice: the transport waits stallTimeout for the answer
	defer w.timer.Stop()
	err := f(ctx, w)
	if err != nil && errors.Is(context.Cause(ctx), errStalled) {
		return errStalled
	}
	return err
}

func (w *watchdog) progress() {
	if w.timer != nil {
		w.timer.Reset(2 * stallTimeout)
	}
}

type watchedReader struct {
	io.Reader
	dog *watchdog
}

func (r watchedReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	r.dog.progress()
	return n, err
}

// A watchedBody can be rewound, as the SDK asks of a body.
type watchedBody struct {
	io.ReadSeeker
	dog *watchdog
}

func (b watchedBody) Read(p []byte) (int, error) {
	n, err := b.ReadSeeker.Read(p)
	b.dog.progress()
	return n, err
}
