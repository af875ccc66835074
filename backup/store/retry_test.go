package store

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// A server that answers as it is told to, and keeps one object as S3 does otherwise.
type fickle struct {
	t      *testing.T
	answer func(n int64, w http.ResponseWriter, r *http.Request) bool // whether it has answered call n
	calls  atomic.Int64
	object atomic.Pointer[[]byte]
}

func (f *fickle) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if f.answer(f.calls.Add(1), w, r) {
		return
	}
	switch r.Method {
	case http.MethodPut:
		f.keep(w, r)
	case http.MethodGet, http.MethodHead:
		object := f.object.Load()
		if object == nil {
			refuse(w, 404, "NoSuchKey")
			return
		}
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader(string(*object)))
	default:
		w.WriteHeader(204)
	}
}

func (f *fickle) keep(w http.ResponseWriter, r *http.Request) {
	data, err := io.ReadAll(r.Body)
	if err != nil {
		f.t.Errorf("read body: %v", err)
	}
	if r.Header.Get("If-None-Match") == "*" && f.object.Load() != nil {
		refuse(w, 412, "PreconditionFailed")
		return
	}
	if r.Header.Get("Content-Encoding") != "" || r.Header.Get("X-Amz-Checksum-Sha256") == "" || r.Header.Get("X-Amz-Content-Sha256") != fmt.Sprintf("%x", sha256.Sum256(data)) {
		f.t.Errorf("put is not plain: %v", r.Header)
	}
	f.object.Store(&data)
}

func refuse(w http.ResponseWriter, status int, code string) {
	w.WriteHeader(status)
	fmt.Fprintf(w, `<?xml version="1.0"?><Error><Code>%s</Code><Message>for the test</Message></Error>`, code)
}

func fickleStore(t *testing.T, answer func(n int64, w http.ResponseWriter, r *http.Request) bool) (*bucket, *fickle) {
	t.Helper()
	for name, value := range map[string]string{"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_CONFIG_FILE": "/nonexistent", "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent"} {
		t.Setenv(name, value)
	}
	f := &fickle{t: t, answer: answer}
	server := httptest.NewServer(f)
	t.Cleanup(server.Close)
	p, err := parse("s3://bucket?path_style=true&endpoint=" + server.URL)
	if err != nil {
		t.Fatal(err)
	}
	b, err := newS3(t.Context(), slog.New(slog.NewTextHandler(t.Output(), nil)), p)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	b.retry.delay = time.Millisecond
	return b, f
}

func put(ctx context.Context, s Store, text string) error {
	return s.Put(ctx, "object", []byte(text), sha256.Sum256([]byte(text)))
}

func TestPassingFailuresAreTriedAgain(t *testing.T) {
	for name, failure := range map[string]func(w http.ResponseWriter){
		"SlowDown":      func(w http.ResponseWriter) { refuse(w, 503, "SlowDown") },
		"InternalError": func(w http.ResponseWriter) { refuse(w, 500, "InternalError") },
		"no XML":        func(w http.ResponseWriter) { w.WriteHeader(502) },
		"ExpiredToken":  func(w http.ResponseWriter) { refuse(w, 400, "ExpiredToken") },
		"clock":         func(w http.ResponseWriter) { refuse(w, 403, "RequestTimeTooSkewed") },
		"reset":         func(http.ResponseWriter) { panic(http.ErrAbortHandler) },
	} {
		t.Run(name, func(t *testing.T) {
			s, f := fickleStore(t, func(n int64, w http.ResponseWriter, _ *http.Request) bool {
				if n <= 4 {
					failure(w)
				}
				return n <= 4
			})
			if err := put(t.Context(), s, "whole"); err != nil {
				t.Error(err)
			}
			if f.calls.Load() != 5 {
				t.Errorf("%d calls", f.calls.Load())
			}
		})
	}
}

func TestLastingFailuresAreTold(t *testing.T) {
	for code, status := range map[string]int{"AccessDenied": 403, "InvalidAccessKeyId": 403, "QuotaExceeded": 507, "MalformedXML": 400} {
		s, f := fickleStore(t, func(_ int64, w http.ResponseWriter, _ *http.Request) bool { refuse(w, status, code); return true })
		err := put(t.Context(), s, "x")
		if err == nil || !strings.HasPrefix(err.Error(), "put object: ") || !strings.Contains(err.Error(), code) {
			t.Errorf("%s: %v", code, err)
		}
		if f.calls.Load() != 1 {
			t.Errorf("%s: %d calls", code, f.calls.Load())
		}
	}
}

func TestRetriesEnd(t *testing.T) {
	s, _ := fickleStore(t, func(_ int64, w http.ResponseWriter, _ *http.Request) bool { refuse(w, 503, "SlowDown"); return true })
	s.retry.first = 20 * time.Millisecond
	if err := put(t.Context(), s, "x"); err == nil || !strings.Contains(err.Error(), "given up after") || !strings.Contains(err.Error(), "SlowDown") {
		t.Errorf("out of budget: %v", err)
	}
	s.retry.first = time.Hour
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("enough")
	time.AfterFunc(10*time.Millisecond, func() { cancel(why) })
	if err := put(ctx, s, "x"); !errors.Is(err, why) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestAnswerLostAfterPut(t *testing.T) {
	var f *fickle
	var s *bucket
	s, f = fickleStore(t, func(n int64, w http.ResponseWriter, r *http.Request) bool {
		if n == 1 {
			f.keep(httptest.NewRecorder(), r)
			panic(http.ErrAbortHandler)
		}
		return false
	})
	if err := put(t.Context(), s, "whole"); err != nil {
		t.Errorf("put, stored at the first attempt: %v", err)
	}
	if err := put(t.Context(), s, "other"); !errors.Is(err, ErrExist) {
		t.Errorf("put of another: %v", err)
	}
}

func TestServerWithoutConditionalWrites(t *testing.T) {
	s, _ := fickleStore(t, func(_ int64, w http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("If-None-Match") == "" {
			return false
		}
		refuse(w, 501, "NotImplemented")
		return true
	})
	if err := put(t.Context(), s, "first"); err != nil {
		t.Fatal(err)
	}
	if err := put(t.Context(), s, "second"); !errors.Is(err, ErrExist) {
		t.Errorf("second put: %v", err)
	}
	if got, err := s.Get(t.Context(), "object", 0, 5); err != nil || string(got) != "first" {
		t.Errorf("get: %q, %v", got, err)
	}
}

func TestTruncatedAnswer(t *testing.T) {
	s, f := fickleStore(t, func(n int64, w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodGet || n > 4 {
			return false
		}
		w.Header().Set("Content-Length", "10")
		w.WriteHeader(206)
		io.WriteString(w, "0123")
		return true
	})
	if err := put(t.Context(), s, "0123456789"); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Get(t.Context(), "object", 0, 10); err != nil || string(got) != "0123456789" {
		t.Errorf("get: %q, %v", got, err)
	}
	if f.calls.Load() != 5 {
		t.Errorf("%d calls", f.calls.Load())
	}
}

// A server that ignores the range, and sends more than was asked for.
func TestAnswerOfAnotherLength(t *testing.T) {
	s, _ := fickleStore(t, func(_ int64, w http.ResponseWriter, _ *http.Request) bool {
		io.WriteString(w, strings.Repeat("x", 1000))
		return true
	})
	if _, err := s.Get(t.Context(), "object", 0, 10); err == nil || !strings.Contains(err.Error(), "answers a request for 10 bytes with 1000") {
		t.Errorf("get: %v", err)
	}
}
