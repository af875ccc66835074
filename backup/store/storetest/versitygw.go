// Package storetest is for the tests of stores, and of what stands on them: a real
// S3 server, and the one conformance test that every store passes.
package storetest

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// Bucket names the buckets that VersityGW has.
const Bucket = "snapshots"

// A Server is a running S3 server.
type Server struct {
	Endpoint string // http://127.0.0.1:PORT
	Dir      string // in which it keeps its buckets
}

// Location returns where the store with the prefix is.
func (s *Server) Location(bucket, prefix string) string {
	return fmt.Sprintf("s3://%s/%s?endpoint=%s&region=us-east-1&path_style=true", bucket, prefix, s.Endpoint)
}

// VersityGW runs versitygw until the test ends, and sets the environment's credentials for it. It skips the test if
// there is no such program in build/ or the path, and fails it then in continuous integration.
func VersityGW(t *testing.T) *Server {
	t.Helper()
	program := find(t)
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, Bucket), 0o755); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()

	t.Setenv("AWS_ACCESS_KEY_ID", "test")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "test-secret")
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	t.Setenv("AWS_CONFIG_FILE", "/nonexistent")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
	cmd := exec.Command(program, "--access", "test", "--secret", "test-secret", "--port", address, "--quiet", "--keep-alive", "posix", dir)
	cmd.Stdout, cmd.Stderr = t.Output(), t.Output()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	await(t, address)
	return &Server{Endpoint: "http://" + address, Dir: dir}
}

// find returns the program: built into build/ of the directory that has go.mod, or installed.
func find(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for ; dir != "/"; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			if program := filepath.Join(dir, "build", "versitygw"); exec.Command(program, "--version").Run() == nil {
				return program
			}
			break
		}
	}
	program, err := exec.LookPath("versitygw")
	if err != nil {
		const hint = "no versitygw: go build -C testdata/peers -o ../../build/versitygw github.com/versity/versitygw/cmd/versitygw"
		if os.Getenv("CI") == "true" {
			t.Fatal(hint)
		}
		t.Skip(hint)
	}
	return program
}

// await returns once the server accepts connections.
func await(t *testing.T, address string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			conn.Close()
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("versitygw does not listen: %v", err)
		case <-tick.C:
		}
	}
}
