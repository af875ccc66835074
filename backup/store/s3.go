package store

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go/middleware"
)

// A bucket is the Store in a bucket of S3 below a prefix.
//
// Requests are the plainest there are, since servers that only resemble S3 choke on the
// rest: one PutObject with its SHA-256 given, never a multipart upload, no trailing checksums.
type bucket struct {
	place  place
	client *s3.Client
	http   *http.Client
	retry  retry
	// overwrites is set once the server has shown that it knows no conditional writes.
	overwrites atomic.Bool
}

func newS3(ctx context.Context, log *slog.Logger, p place) (*bucket, error) {
	cfg, err := config.LoadDefaultConfig(ctx,
		config.WithRegion(p.region), // empty: from the environment
		config.WithHTTPClient(awshttp.NewBuildableClient().WithTransportOptions(func(t *http.Transport) {
			t.MaxIdleConnsPerHost = 16
			t.ResponseHeaderTimeout = stallTimeout
		})),
		config.WithRetryer(func() aws.Retryer { return aws.NopRetryer{} }),
		config.WithRequestChecksumCalculation(aws.RequestChecksumCalculationWhenRequired),
		config.WithResponseChecksumValidation(aws.ResponseChecksumValidationWhenRequired),
	)
	if err != nil {
		return nil, fmt.Errorf("read AWS configuration: %w", err)
	}
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	if built, ok := cfg.HTTPClient.(*awshttp.BuildableClient); ok { // with the environment's certificates
		client.Transport = built.GetTransport()
	}
	if cfg.Region == "" {
		if p.endpoint == "" {
			return nil, fmt.Errorf("repository s3://%s: no region; add ?region=NAME or set AWS_REGION", p.bucket)
		}
		cfg.Region = "us-east-1" // what compatible servers go by
	}
	b := &bucket{place: p, http: client, retry: retry{log: log, budget: retryBudget, first: firstBudget, delay: firstDelay}}
	b.client = s3.NewFromConfig(cfg, func(o *s3.Options) {
		o.HTTPClient = client // whose idle connections can be closed
		o.UsePathStyle = p.pathStyle
		if p.endpoint != "" {
			o.BaseEndpoint = aws.String(p.endpoint)
		}
		o.DisableLogOutputChecksumValidationSkipped = true
	})
	return b, nil
}

func (b *bucket) String() string {
	return strings.TrimSuffix("s3://"+b.place.bucket+"/"+b.place.path, "/")
}

func (b *bucket) Close() { b.http.CloseIdleConnections() }

// key returns the object's name within the bucket.
func (b *bucket) key(name string) *string {
	if b.place.path != "" {
		name = b.place.path + "/" + name
	}
	return &name
}

// Put sends the object with If-None-Match, or looks first where the server does not know that.
func (b *bucket) Put(ctx context.Context, name string, data []byte, sum [32]byte) error {
	if err := valid(name); err != nil {
		return err
	}
	err := b.retry.do(ctx, "put "+name, func(ctx context.Context, w *watchdog, attempt int) error {
		if b.overwrites.Load() {
			if _, err := b.stat(ctx, name); !errors.Is(err, ErrNotExist) {
				return b.settle(ctx, name, attempt, data, cmp.Or(err, ErrExist))
			}
		}
		err := b.put(ctx, w, name, data, sum, !b.overwrites.Load())
		if hasCode(err, "NotImplemented") && b.overwrites.CompareAndSwap(false, true) {
			b.retry.log.Warn("store without conditional writes", "store", b.String())
			return again{err}
		}
		return b.settle(ctx, name, attempt, data, err)
	})
	if err != nil {
		return fmt.Errorf("put %s: %w", name, err)
	}
	return nil
}

func (b *bucket) put(ctx context.Context, w *watchdog, name string, data []byte, sum [32]byte, ifNew bool) error {
	in := &s3.PutObjectInput{
		Bucket:         &b.place.bucket,
		Key:            b.key(name),
		Body:           watchedBody{bytes.NewReader(data), w},
		ContentLength:  aws.Int64(int64(len(data))),
		ChecksumSHA256: aws.String(base64.StdEncoding.EncodeToString(sum[:])),
	}
	if ifNew {
		in.IfNoneMatch = aws.String("*")
	}
	_, err := b.client.PutObject(ctx, in, signPayload(sum))
	return meaning(err)
}

// settle decides what ErrExist means to a Put that is not at its first attempt: an earlier
// one may have been stored although its answer was lost.
func (b *bucket) settle(ctx context.Context, name string, attempt int, data []byte, err error) error {
	if attempt == 0 || !errors.Is(err, ErrExist) {
		return err
	}
	there, getErr := b.get(ctx, &watchdog{}, name, 0, int64(len(data)))
	if getErr == nil && bytes.Equal(there, data) {
		return nil
	}
	return err
}

// signPayload lets the signature cover a checksum that is known instead of computing it again.
func signPayload(sum [32]byte) func(*s3.Options) {
	known := middleware.InitializeMiddlewareFunc("KnownPayloadHash", func(ctx context.Context, in middleware.InitializeInput, next middleware.InitializeHandler) (middleware.InitializeOutput, middleware.Metadata, error) {
		return next.HandleInitialize(v4.SetPayloadHash(ctx, hex.EncodeToString(sum[:])), in)
	})
	return s3.WithAPIOptions(func(stack *middleware.Stack) error { return stack.Initialize.Add(known, middleware.Before) })
}

// Get sends a request for the range and checks the length of what comes.
func (b *bucket) Get(ctx context.Context, name string, offset, length int64) ([]byte, error) {
	if err := valid(name); err != nil {
		return nil, err
	}
	var data []byte
	err := b.retry.do(ctx, "get "+name, func(ctx context.Context, w *watchdog, _ int) (err error) {
		data, err = b.get(ctx, w, name, offset, length)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", name, err)
	}
	return data, nil
}

func (b *bucket) get(ctx context.Context, w *watchdog, name string, offset, length int64) ([]byte, error) {
	if offset < 0 || length < 0 {
		return nil, io.ErrUnexpectedEOF
	}
	if length == 0 { // no range says that
		size, err := b.stat(ctx, name)
		if err == nil && size < offset {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	out, err := b.client.GetObject(ctx, &s3.GetObjectInput{
		Bucket: &b.place.bucket,
		Key:    b.key(name),
		Range:  aws.String(fmt.Sprintf("bytes=%d-%d", offset, offset+length-1)),
	})
	if err != nil {
		return nil, meaning(err)
	}
	defer out.Body.Close()
	if announced := aws.ToInt64(out.ContentLength); announced != length {
		if announced < length {
			return nil, io.ErrUnexpectedEOF
		}
		return nil, fmt.Errorf("the server answers a request for %d bytes with %d", length, announced)
	}
	data := make([]byte, length)
	if _, err := io.ReadFull(watchedReader{out.Body, w}, data); err != nil {
		return nil, again{err} // cut short on the way
	}
	return data, nil
}

// Stat sends a HEAD request. It cannot tell a missing bucket from a missing object.
func (b *bucket) Stat(ctx context.Context, name string) (int64, error) {
	if err := valid(name); err != nil {
		return 0, err
	}
	var size int64
	err := b.retry.do(ctx, "stat "+name, func(ctx context.Context, _ *watchdog, _ int) (err error) {
		size, err = b.stat(ctx, name)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("stat %s: %w", name, err)
	}
	return size, nil
}

func (b *bucket) stat(ctx context.Context, name string) (int64, error) {
	out, err := b.client.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &b.place.bucket, Key: b.key(name)})
	if err != nil {
		return 0, meaning(err)
	}
	return aws.ToInt64(out.ContentLength), nil
}

// List asks page by page.
func (b *bucket) List(ctx context.Context, below string) iter.Seq2[Object, error] {
	return func(yield func(Object, error) bool) {
		if err := valid(below); err != nil {
			yield(Object{}, err)
			return
		}
		in := &s3.ListObjectsV2Input{Bucket: &b.place.bucket, Prefix: aws.String(*b.key(below) + "/")}
		strip := len(*b.key(below)) - len(below)
		for {
			var page *s3.ListObjectsV2Output
			err := b.retry.do(ctx, "list "+below, func(ctx context.Context, _ *watchdog, _ int) (err error) {
				page, err = b.client.ListObjectsV2(ctx, in)
				return meaning(err)
			})
			if err != nil {
				yield(Object{}, fmt.Errorf("list %s: %w", below, err))
				return
			}
			for _, o := range page.Contents {
				key := aws.ToString(o.Key)
				if !strings.HasPrefix(key, *in.Prefix) || strings.HasSuffix(key, "/") {
					continue
				}
				if !yield(Object{Name: key[strip:], Size: aws.ToInt64(o.Size)}, nil) {
					return
				}
			}
			if !aws.ToBool(page.IsTruncated) || aws.ToString(page.NextContinuationToken) == aws.ToString(in.ContinuationToken) {
				return
			}
			in.ContinuationToken = page.NextContinuationToken
		}
	}
}

// Delete sends one request for the one object.
func (b *bucket) Delete(ctx context.Context, name string) error {
	if err := valid(name); err != nil {
		return err
	}
	err := b.retry.do(ctx, "delete "+name, func(ctx context.Context, _ *watchdog, _ int) error {
		_, err := b.client.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &b.place.bucket, Key: b.key(name)})
		return meaning(err)
	})
	if err != nil && !errors.Is(err, ErrNotExist) {
		return fmt.Errorf("delete %s: %w", name, err)
	}
	return nil
}

const (
	stallTimeout = time.Minute            // without a byte of progress
	retryBudget  = 5 * time.Minute        // for one call, once the store has answered
	firstBudget  = 15 * time.Second       // before that: a wrong endpoint should be told soon
	firstDelay   = 200 * time.Millisecond // doubled each time, up to maxDelay
	maxDelay     = 10 * time.Second
)
