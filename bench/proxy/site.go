//go:build linux

package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A ports hands out ports on loopback below the range that the kernel takes for itself, as users choose them.
type ports struct{ next int }

func (p *ports) address() (string, error) {
	for range 5000 {
		address := net.JoinHostPort("127.0.0.1", strconv.Itoa(p.next))
		p.next++
		listener, err := net.Listen("tcp", address)
		if err == nil {
			return address, listener.Close()
		}
	}
	return "", errors.New("find a free port: there is none")
}

// newSite makes the files that everyone needs, in dir.
func newSite(dir, root string) (*site, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	s := &site{dir: dir, root: root, self: self}
	// Peers inherit it. HAProxy needs two for each connection that it may have.
	limit := syscall.Rlimit{Cur: 65536, Max: 65536}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
			return nil, fmt.Errorf("read limits: %w", err)
		}
		limit.Cur = limit.Max
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
			return nil, fmt.Errorf("raise limits: %w", err)
		}
	}
	s.nofile = int(limit.Cur)
	if err := os.MkdirAll(filepath.Join(dir, "www"), 0o755); err != nil {
		return nil, err
	}
	for _, r := range rows() {
		if r.size == 0 {
			continue
		}
		body := make([]byte, r.size)
		rand.Read(body)
		if r.size < 1024 {
			body = append(bytes.Repeat([]byte("x"), r.size-1), '\n')
		}
		if err := os.WriteFile(s.body(r.path), body, 0o644); err != nil {
			return nil, err
		}
	}
	return s, s.writeCertificate()
}

func (s *site) writeCertificate() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "127.0.0.1"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(7 * 24 * time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	if err := os.WriteFile(s.cert(), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}), 0o644); err != nil {
		return err
	}
	return os.WriteFile(s.key(), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600)
}

// startBackends starts one nginx that listens as three, and the one for WebSockets.
func (s *site) startBackends(l launcher, p *ports, cores string) ([]*process, error) {
	var listen strings.Builder
	for range 3 {
		address, err := p.address()
		if err != nil {
			return nil, err
		}
		s.backends = append(s.backends, address)
		fmt.Fprintf(&listen, "listen %s backlog=4096; ", address)
	}
	var err error
	if s.echo, err = p.address(); err != nil {
		return nil, err
	}
	dir := filepath.Join(s.dir, "backend")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	file, err := write(dir, "nginx.conf", nginxHead(s, dir)+`access_log off; sendfile on; open_file_cache max=16;
  server { `+listen.String()+`
    location / { root `+s.dir+`/www; default_type text/plain; }
    location = /119B { default_type text/plain; return 200 "`+strings.Repeat("x", 118)+`\n"; } } }
`)
	if err != nil {
		return nil, err
	}
	backend, err := l.start("backend", dir, cores, nil, "nginx", "-p", dir, "-c", file)
	if err != nil {
		return nil, err
	}
	echo, err := l.start("echo", dir, cores, nil, s.self, "echo", s.echo)
	if err != nil {
		return []*process{backend}, err
	}
	return []*process{backend, echo}, nil
}

// fetch asks for path and compares every byte of the answer.
func (s *site) fetch(ctx context.Context, base, path string) error {
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}
	client := &http.Client{Transport: transport, Timeout: 5 * time.Second}
	request, err := http.NewRequestWithContext(ctx, "GET", base+path, nil)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	want, err := os.ReadFile(s.body(path))
	if err != nil {
		return err
	}
	if response.StatusCode != 200 || !bytes.Equal(body, want) {
		return fmt.Errorf("%s%s: status %d with %d bytes, not what the file has", base, path, response.StatusCode, len(body))
	}
	return nil
}
