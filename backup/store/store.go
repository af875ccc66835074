// Package store keeps immutable objects under names: in a directory, or in a
// bucket of S3 or a server that speaks its protocol. It knows nothing of what
// the objects mean.
//
// An object is written once, whole or not at all, and never replaced: [Store.Put]
// of a name that is taken is [ErrExist]. The caller gives the SHA-256 of what it
// puts, so that what is damaged on its way is refused by the other side. What is read
// has exactly the length asked for, or is an error; its meaning is the caller's to verify.
//
// A Store starts no goroutine of its own. Every call honours its context. Calls
// to S3 are tried again, with exponential back-off and jitter, for as long as the failure
// may be a passing one; calls to a directory never are.
package store

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"net/url"
	"path"
	"strconv"
	"strings"
)

var (
	// ErrNotExist is in the error of a call for an object that is not there.
	ErrNotExist = errors.New("no such object")
	// ErrExist is in the error of Put when the name is taken.
	ErrExist = errors.New("object exists already")
)

// A Store is a flat space of named objects. Names are slash-separated and without
// empty, "." or ".." elements. All methods are safe for concurrent use.
type Store interface {
	// Put stores data, whose SHA-256 is sum, as the object name. When it returns nil the object is durable.
	Put(ctx context.Context, name string, data []byte, sum [32]byte) error
	// Get returns length bytes of the object from offset on; an object that ends before is io.ErrUnexpectedEOF.
	Get(ctx context.Context, name string, offset, length int64) ([]byte, error)
	// Stat returns the object's size.
	Stat(ctx context.Context, name string) (int64, error)
	// List yields the objects below dir in no particular order, none if there is no such dir. It ends with the first error.
	List(ctx context.Context, dir string) iter.Seq2[Object, error]
	// Delete removes the object. Removing what is not there is no error.
	Delete(ctx context.Context, name string) error
	// Close releases idle connections. The Store must not be used afterwards.
	Close()
	// String returns the store's location.
	String() string
}

// A Redundant is a Store that keeps a copy of each object in several.
type Redundant interface {
	Store
	// Copies returns the stores that can be read, the preferred one first. They are not the caller's to close.
	Copies() []Store
}

// An Object is one entry of a listing.
type Object struct {
	Name string
	Size int64
}

// Check tells what is wrong with location, without touching what it names.
func Check(location string) error {
	_, err := parse(location)
	return err
}

// Open returns the store at location:
//
//	file:///absolute/directory, of which no character has a meaning
//	s3://bucket/prefix?region=R&endpoint=URL&path_style=true
//
// The directory need not exist. Credentials for S3 come from where all AWS programs look for them: environment,
// shared files, container and instance roles. Open reads those but does not contact the store.
func Open(ctx context.Context, log *slog.Logger, location string) (Store, error) {
	l, err := parse(location)
	if err != nil {
		return nil, err
	}
	if l.scheme == "file" {
		return newDir(l.path), nil
	}
	return newS3(ctx, log, l)
}

// A place is a location taken apart.
type place struct {
	scheme    string
	path      string // of the directory, or the prefix within the bucket
	bucket    string
	region    string
	endpoint  string
	pathStyle bool
}

func parse(location string) (place, error) {
	bad := func(format string, args ...any) (place, error) {
		return place{}, fmt.Errorf("repository %q: %s", location, fmt.Sprintf(format, args...))
	}
	if dir, ok := strings.CutPrefix(location, "file://"); ok { // taken as it is: a path may hold anything
		if !path.IsAbs(dir) || strings.ContainsRune(dir, 0) {
			return bad("the path must be absolute, with three slashes: file:///absolute/path")
		}
		return place{scheme: "file", path: path.Clean(dir)}, nil
	}
	u, err := url.Parse(location)
	switch {
	case err == nil && u.Scheme == "s3" && u.Opaque != "":
		return bad("write %s", withSlashes(u.Opaque))
	case err != nil || u.Scheme != "s3":
		return bad("write file:///absolute/path or s3://bucket/prefix")
	case u.User != nil:
		return place{}, errors.New("repository: credentials do not belong into the URL; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or use a shared credentials file")
	case u.Fragment != "":
		return bad("has a fragment (#%s); write %%23 for a # in a prefix", u.Fragment)
	}
	return parseS3(u, bad)
}

// withSlashes returns the URL for what someone has written behind s3: without slashes, as restic has it: a bucket and a prefix, maybe behind a server.
func withSlashes(written string) string {
	server, rest, ok := strings.Cut(written, "://")
	if !ok {
		return "s3://" + written
	}
	host, path, _ := strings.Cut(rest, "/")
	return "s3://" + path + "?endpoint=" + server + "://" + host
}

func parseS3(u *url.URL, bad func(string, ...any) (place, error)) (place, error) {
	p := place{scheme: "s3", bucket: u.Host, path: strings.Trim(path.Clean("/"+u.Path), "/")}
	if p.bucket == "" {
		return bad("no bucket; write s3://bucket/prefix")
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return bad("%v", err)
	}
	for key, values := range query {
		if len(values) != 1 || values[0] == "" {
			return bad("parameter %s needs exactly one value", key)
		}
		value := values[0]
		switch key {
		case "region":
			p.region = value
		case "endpoint":
			e, err := url.Parse(value)
			if err != nil || e.Host == "" || (e.Scheme != "http" && e.Scheme != "https") {
				return bad("endpoint %q is no URL like https://host:port", value)
			}
			p.endpoint = value
		case "path_style":
			if p.pathStyle, err = strconv.ParseBool(value); err != nil {
				return bad("path_style is true or false, not %q", value)
			}
		default:
			return bad("unknown parameter %q; known are endpoint, path_style, region", key)
		}
	}
	return p, nil
}

// valid tells whether name may name an object.
func valid(name string) error {
	if name == "" || path.IsAbs(name) || path.Clean(name) != name || name == "." || name == ".." || strings.HasPrefix(name, "../") {
		return fmt.Errorf("invalid object name %q", name)
	}
	return nil
}
