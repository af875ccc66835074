package store_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"mainstay/backup/store"
	"mainstay/backup/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t *testing.T, location string) store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), slog.New(slog.NewTextHandler(t.Output(), nil)), location)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func TestDirectory(t *testing.T) {
	storetest.Run(t, open(t, "file://"+filepath.Join(t.TempDir(), "not/there/yet")))
}

func TestS3(t *testing.T) {
	server := storetest.VersityGW(t)
	t.Run("with prefix", func(t *testing.T) { storetest.Run(t, open(t, server.Location(storetest.Bucket, "some/where"))) })
	t.Run("without prefix", func(t *testing.T) { storetest.Run(t, open(t, server.Location(storetest.Bucket, ""))) })

	t.Run("no bucket", func(t *testing.T) {
		err := open(t, server.Location("missing", "")).Put(t.Context(), "a", nil, sha256.Sum256(nil))
		if err == nil || !strings.Contains(err.Error(), "no such bucket; create it first") {
			t.Errorf("put into a missing bucket: %v", err)
		}
	})
	t.Run("wrong credentials", func(t *testing.T) {
		t.Setenv("AWS_SECRET_ACCESS_KEY", "wrong")
		start := time.Now()
		err := open(t, server.Location(storetest.Bucket, "")).Put(t.Context(), "a", nil, sha256.Sum256(nil))
		if err == nil || !strings.Contains(err.Error(), "SignatureDoesNotMatch") {
			t.Errorf("put with a wrong secret: %v after %v", err, time.Since(start))
		}
	})
	t.Run("damaged on the way", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond) // it would try again
		defer cancel()
		s := open(t, server.Location(storetest.Bucket, "damaged"))
		if err := s.Put(ctx, "a", []byte("x"), sha256.Sum256([]byte("y"))); err == nil {
			t.Error("stored an object that does not have its checksum")
		}
		if _, err := s.Stat(t.Context(), "a"); !errors.Is(err, store.ErrNotExist) {
			t.Errorf("stat: %v", err)
		}
	})
}

func TestWhatInterruptedWritersLeaveIsSweptUp(t *testing.T) {
	dir := t.TempDir()
	tmp := filepath.Join(dir, "tmp")
	if err := os.Mkdir(tmp, 0o700); err != nil {
		t.Fatal(err)
	}
	old, busy, fresh := filepath.Join(tmp, "old"), filepath.Join(tmp, "busy"), filepath.Join(tmp, "fresh")
	for path, age := range map[string]time.Duration{old: 2 * time.Minute, busy: 2 * time.Minute, fresh: 0} {
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		then := time.Now().Add(-age)
		if err := os.Chtimes(path, then, then); err != nil {
			t.Fatal(err)
		}
	}
	writer, err := os.Open(busy) // another process that still writes
	if err != nil {
		t.Fatal(err)
	}
	defer writer.Close()
	if err := unix.Flock(int(writer.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if err := open(t, "file://"+dir).Put(t.Context(), "a", nil, sha256.Sum256(nil)); err != nil {
		t.Fatal(err)
	}
	left, err := filepath.Glob(tmp + "/*")
	if err != nil || len(left) != 2 || left[0] != busy || left[1] != fresh {
		t.Errorf("left: %q, %v", left, err)
	}
}

func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Skipf("cannot mount a small file system: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	s := open(t, "file://"+dir)
	data := bytes.Repeat([]byte{1}, 2<<20)
	err := s.Put(t.Context(), "data/large", data, sha256.Sum256(data))
	if !errors.Is(err, unix.ENOSPC) || !strings.HasPrefix(err.Error(), "put data/large: ") {
		t.Errorf("put: %v", err)
	}
	if _, err := s.Stat(t.Context(), "data/large"); !errors.Is(err, store.ErrNotExist) {
		t.Errorf("stat: %v", err)
	}
	small := data[:1<<10]
	if err := s.Put(t.Context(), "data/small", small, sha256.Sum256(small)); err != nil {
		t.Errorf("put after a failed one: %v", err)
	}
}

func TestCheck(t *testing.T) {
	for location, want := range map[string]string{
		"file:///mnt/backup": "",
		"s3://bucket":        "",
		"s3://bucket/a/b?endpoint=http://127.0.0.1:7070&region=us-east-1&path_style=true": "",
		"/mnt/backup":                      "write file:///absolute/path or s3://bucket/prefix",
		"file://mnt/backup":                "the path must be absolute, with three slashes",
		"file:///mnt/?x=1#%zz":             "",
		"s3://bucket/a#1":                  "write %23 for a # in a prefix",
		"s3:///prefix":                     "no bucket",
		"s3://bucket?endpiont=http://x":    `unknown parameter "endpiont"; known are endpoint, path_style, region`,
		"s3://bucket?endpoint=localhost:1": "is no URL like https://host:port",
		"s3://bucket?path_style=maybe":     "path_style is true or false",
		"s3://bucket?region=":              "parameter region needs exactly one value",
		"s3://key:secret@bucket":           "credentials do not belong into the URL",
		"s3:bucket/prefix":                 "write s3://bucket/prefix",
		"s3:https://host:9000/bucket/a":    "write s3://bucket/a?endpoint=https://host:9000",
		"gs://bucket":                      "write file:///absolute/path or s3://bucket/prefix",
		"s3://bucket?region=a&region=b":    "parameter region needs exactly one value",
		"s3://bucket/\x00":                 "write file:///absolute/path or s3:",
	} {
		err := store.Check(location)
		if got := errorText(err); (want == "") != (err == nil) || !strings.Contains(got, want) {
			t.Errorf("check %q: %q, want %q", location, got, want)
		}
		if strings.Contains(errorText(err), "secret@") {
			t.Errorf("check %q tells the secret: %v", location, err)
		}
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
