package proxy

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A meaning is what a server understood a request to be.
type meaning struct {
	method, target, host string
	content              []byte
}

// String returns the meaning in one line, which is how meanings are compared.
func (m meaning) String() string {
	return fmt.Sprintf("%+q %+q %+q %d %x", m.method, m.target, m.host, len(m.content), sha256.Sum256(m.content))
}

// An interpreter is a server that is sent what was forwarded, and says in a field Seen of each response how it understood the request.
type interpreter struct {
	name    string
	address string
	conn    net.Conn
	r       *bufio.Reader
}

// newInterpreters starts net/http, and nginx and HAProxy before it.
func newInterpreters(t *testing.T) []*interpreter {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(tell), ErrorLog: log.New(io.Discard, "", 0), MaxHeaderBytes: 128 << 10}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = s.Serve(l)
	}()
	t.Cleanup(func() {
		s.Close()
		<-served
	})
	interpreters := []*interpreter{{name: "net/http", address: l.Addr().String()}}
	for _, peer := range []struct{ name, config string }{{"nginx", nginxInterpreter}, {"haproxy", haproxyInterpreter}} {
		path, err := exec.LookPath(peer.name)
		switch {
		case err == nil:
			interpreters = append(interpreters, &interpreter{name: peer.name, address: startPeer(t, path, peer.config, l.Addr().String())})
		case os.Getenv("CI") == "true":
			t.Fatal(peer.name, " is not installed")
		default:
			t.Log(peer.name, " is not installed, so it is not asked")
		}
	}
	t.Cleanup(func() {
		for _, w := range interpreters {
			w.close()
		}
	})
	return interpreters
}

// tell answers with what net/http understood, or, if another interpreter passed the request on, with what that says it did.
func tell(w http.ResponseWriter, r *http.Request) {
	content, err := io.ReadAll(r.Body)
	m := meaning{method: r.Method, target: r.RequestURI, host: r.Host, content: content}
	if seen, ok := r.Header["Seen-Method"]; ok {
		m.method, m.target, m.host = seen[0][1:], r.Header["Seen-Target"][0][1:], r.Header["Seen-Host"][0][1:]
	}
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	w.Header().Set("Seen", m.String())
}

// In both configurations the values begin with a character of their own, so that neither an empty one nor one that begins with a blank is lost.
const (
	nginxInterpreter = `daemon off; master_process off; pid %[1]s/pid; error_log /dev/null crit;
events { worker_connections 1024; }
http {
	access_log off; client_body_temp_path %[1]s/a; proxy_temp_path %[1]s/b; fastcgi_temp_path %[1]s/c; uwsgi_temp_path %[1]s/d; scgi_temp_path %[1]s/e;
	upstream told { server %[3]s; keepalive 16; keepalive_requests 1000000000; }
	large_client_header_buffers 8 128k; client_max_body_size 0; client_body_buffer_size 128k; keepalive_requests 1000000000; keepalive_timeout 1h;
	underscores_in_headers on; tcp_nodelay on; lingering_close off;
	server {
		listen %[2]s;
		location / {
			proxy_pass http://told/; proxy_http_version 1.1; proxy_pass_request_headers off; proxy_set_header Connection ""; proxy_method POST;
			proxy_set_header Seen-Method _$request_method; proxy_set_header Seen-Target _$request_uri; proxy_set_header Seen-Host _$http_host;
		}
	}
}`
	haproxyInterpreter = `global
	tune.bufsize 262144
	tune.maxrewrite 8192
	tune.http.maxhdr 1000
	nbthread 1
	maxconn 1000
	# %[1]s
defaults
	mode http
	timeout client 1h
	timeout server 1h
	timeout connect 10s
	http-reuse always
frontend in
	bind %[2]s
	http-request set-header Seen-Method "_%%[method]"
	http-request set-header Seen-Target "_%%[url]"
	http-request set-header Seen-Host "_%%[req.fhdr(host)]"
	http-request del-header Upgrade
	http-request set-header Host told
	http-request set-method POST
	http-request set-uri /
	default_backend told
backend told
	server told %[3]s
`
)

// startPeer runs nginx or HAProxy with a configuration and returns its address.
func startPeer(t *testing.T, path, config, told string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	dir := t.TempDir()
	file := filepath.Join(dir, "config")
	if err := os.WriteFile(file, fmt.Appendf(nil, config, dir, address, told), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"-p", dir, "-c", file}
	if filepath.Base(path) == "haproxy" {
		args = []string{"-db", "-q", "-f", file}
	}
	cmd := exec.Command(path, args...)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	await(t, path+" listens", func() bool {
		c, err := net.Dial("tcp", address)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	return address
}

func (w *interpreter) close() {
	if w.conn != nil {
		w.conn.Close()
		w.conn = nil
	}
}

// ask sends requests one after the other on one connection, without waiting between them, and returns how each was understood:
// what Seen said, or the status with which the interpreter refused it. After that it answers no more, and fewer are returned.
func (w *interpreter) ask(requests [][]byte) (seen []string, err error) {
	if w.conn == nil {
		if w.conn, err = net.Dial("tcp", w.address); err != nil {
			return nil, err
		}
		w.r = bufio.NewReader(w.conn)
	}
	conn := w.conn
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	written := make(chan struct{})
	go func() {
		defer close(written)
		_, _ = conn.Write(bytes.Join(requests, nil)) // where it fails the responses tell
	}()
	defer func() {
		if err != nil || len(seen) < len(requests) {
			w.close()
		}
		<-written
	}()
	for range requests {
		said, more, err := w.read()
		if err != nil {
			return seen, err
		}
		if seen = append(seen, said); !more {
			return seen, nil
		}
	}
	return seen, nil
}

// read reads a response that has no content other than that of an error. more says that others may follow.
func (w *interpreter) read() (said string, more bool, err error) {
	for {
		status, err := w.r.ReadString('\n')
		if err != nil {
			return "", false, err
		}
		_, code, ok := strings.Cut(strings.TrimSpace(status), " ")
		if !ok {
			return "", false, fmt.Errorf("the response begins with %q", status)
		}
		said = ""
		content := false
		for {
			line, err := w.r.ReadString('\n')
			if err != nil {
				return "", false, err
			}
			line = strings.TrimRight(line, "\r\n")
			if line == "" {
				break
			}
			name, value, _ := strings.Cut(line, ":")
			switch strings.ToLower(name) {
			case "seen":
				said = strings.TrimSpace(value)
			case "content-length":
				content = strings.TrimSpace(value) != "0"
			case "transfer-encoding":
				content = true
			}
		}
		switch {
		case strings.HasPrefix(code, "1"):
			continue
		case said == "":
			return "refused: " + code, false, nil
		case content:
			return "", false, errors.New("the response has content")
		}
		return said, true, nil
	}
}

// A sighting is one request as an instance was sent it.
type sighting struct {
	raw    []byte
	means  meaning
	client string // whom Mainstay names as the client
	widest int    // bytes of the longest field name, trailers included
}

// see reads one request from a connection, by the letter of RFC 9112 with none of what a recipient may put up with: what a proxy itself
// writes has no need of that. reply is called when the client waits to be told to go on.
func see(r *bufio.Reader, reply func(string)) (s sighting, err error) {
	line := func() (string, error) {
		got, err := r.ReadSlice('\n')
		s.raw = append(s.raw, got...)
		switch {
		case err != nil:
			return "", err
		case !bytes.HasSuffix(got, []byte("\r\n")) || bytes.IndexByte(got, '\r') != len(got)-2 || bytes.IndexByte(got, 0) >= 0:
			return "", fmt.Errorf("forwarded the line %q", got)
		}
		return string(got[:len(got)-2]), nil
	}
	take := func(n int64) ([]byte, error) {
		begin := len(s.raw)
		var b bytes.Buffer
		_, err := io.CopyN(&b, r, n)
		s.raw = append(s.raw, b.Bytes()...)
		return s.raw[begin:], err
	}
	first, err := line()
	if err != nil {
		return s, err
	}
	words := strings.Split(first, " ")
	if len(words) != 3 || !isToken(words[0]) || words[1] == "" || words[2] != "HTTP/1.1" {
		return s, fmt.Errorf("forwarded the request line %q", first)
	}
	s.means.method, s.means.target = words[0], words[1]
	once := map[string]string{}
	var fault error // which waits until it is known whose request it is
	for {
		field, err := line()
		if err != nil {
			return s, err
		}
		if field == "" {
			break
		}
		name, value, ok := strings.Cut(field, ":")
		if !ok || !isToken(name) {
			fault = fmt.Errorf("forwarded the field %q", field)
		}
		s.widest = max(s.widest, len(name))
		name = strings.ReplaceAll(strings.ToLower(name), "_", "-") // as many who are told it by environment variables see it
		_, twice := once[name]
		switch name {
		case "host", "content-length", "transfer-encoding", "x-real-ip":
			if twice {
				fault = fmt.Errorf("forwarded %s twice", name)
			}
		}
		if !twice {
			once[name] = strings.Trim(value, " \t")
		}
	}
	host, ok := once["host"]
	s.means.host, s.client = host, once["x-real-ip"]
	switch {
	case fault != nil:
		return s, fault
	case !ok:
		return s, errors.New("forwarded no Host")
	}
	if once["expect"] == "100-continue" {
		reply("HTTP/1.1 100 Continue\r\n\r\n")
	}
	length, sized := once["content-length"]
	coding, coded := once["transfer-encoding"]
	switch {
	case sized && coded:
		return s, errors.New("forwarded a length and a coding")
	case sized:
		n, err := number(length, 10)
		if err != nil {
			return s, err
		}
		s.means.content, err = take(n)
		return s, err
	case coded && coding != "chunked":
		return s, fmt.Errorf("forwarded the coding %q", coding)
	case coded:
		return s, s.seeChunks(line, take)
	}
	return s, nil
}

func (s *sighting) seeChunks(line func() (string, error), take func(int64) ([]byte, error)) error {
	for {
		size, err := line()
		if err != nil {
			return err
		}
		n, err := number(size, 16)
		if err != nil {
			return err
		}
		if n == 0 {
			break
		}
		chunk, err := take(n)
		if err != nil {
			return err
		}
		s.means.content = append(s.means.content, chunk...)
		if end, err := line(); err != nil || end != "" {
			return fmt.Errorf("forwarded %q after a chunk: %w", end, err)
		}
	}
	for {
		field, err := line()
		if err != nil || field == "" {
			return err
		}
		name, _, ok := strings.Cut(field, ":")
		if !ok || !isToken(name) {
			return fmt.Errorf("forwarded the trailer field %q", field)
		}
		s.widest = max(s.widest, len(name))
	}
}

// number reads digits and nothing else.
func number(s string, base int) (int64, error) {
	n, err := strconv.ParseInt(s, base, 64)
	if err != nil || s[0] == '+' || s[0] == '-' {
		return 0, fmt.Errorf("forwarded the number %q", s)
	}
	return n, nil
}

func isToken(s string) bool {
	for i := range len(s) {
		if !isAlphanumeric(s[i]) && strings.IndexByte("!#$%&'*+-.^_`|~", s[i]) < 0 {
			return false
		}
	}
	return s != ""
}

// keyed reports whether a header section has a key of the length that RFC 6455, section 4.1, gives it. HAProxy looks for one in every request
// to upgrade to a WebSocket, and answers 400 where there is none of 24 characters (h1_search_websocket_key in its src/mux_h1.c). A server that
// is no WebSocket's may not care, and RFC 6455, section 4.2.1, has the server itself refuse, so Mainstay leaves that to the instance.
func keyed(head string) bool {
	for line := range strings.Lines(head) {
		name, value, _ := strings.Cut(line, ":")
		if strings.EqualFold(name, "sec-websocket-key") && len(strings.Trim(value, " \t\r\n")) == 24 {
			return true
		}
	}
	return false
}

// narrow returns why an interpreter may refuse a request that can stand, or nothing.
func narrow(interpreter string, s sighting) string {
	head := string(s.raw[:bytes.Index(s.raw, []byte("\r\n\r\n"))])
	switch interpreter {
	case "nginx":
		if strings.Trim(s.means.method, "ABCDEFGHIJKLMNOPQRSTUVWXYZ_-") != "" {
			return "takes methods of capital letters only"
		}
		once := map[string]bool{}
		for line := range strings.Lines(head) {
			name, _, _ := strings.Cut(strings.ToLower(line), ":")
			switch name {
			case "if-modified-since", "if-unmodified-since", "if-match", "if-none-match", "if-range", "range", "authorization", "content-type", "content-range", "te", "upgrade", "expect", "keep-alive":
				if once[name] {
					return "takes some fields once only"
				}
				once[name] = true
			}
		}
	case "haproxy":
		if strings.Contains(head, "\r\nUpgrade: ") && !keyed(head) {
			return "takes no WebSocket without a key of 24 characters"
		}
		if s.means.method == "PRI" {
			return "takes no method PRI"
		}
		if strings.IndexFunc(s.means.target, func(r rune) bool { return r >= 0x80 }) >= 0 {
			return "takes targets of ASCII only"
		}
		if s.widest > 255 { // its HTX keeps the length in eight bits (include/haproxy/htx-t.h)
			return "takes field names of at most 255 bytes"
		}
	}
	return ""
}
