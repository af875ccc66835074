//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// A site is where everything stands: the backends, and the addresses that proxies listen on.
type site struct {
	dir      string // of this run
	root     string // of the sources
	self     string // this program
	engine   string // proxy.engine of the peer mainstay
	binary   string // Mainstay
	backends []string
	echo     string
	nofile   int
}

// A peer is a proxy that can be measured.
type peer struct {
	name string
	base string // the peer that its ratios are against
	note string // what a reader of the table must know
	// prepare makes what is needed to start it, once, and returns the version.
	prepare func(context.Context, *site) (version string, err error)
	// command writes its files into dir and returns what starts it.
	command func(s *site, dir string, at addresses) ([]string, error)
}

// addresses are where a peer listens.
type addresses struct {
	plain, tls, metrics string
}

func peers() []peer {
	return []peer{
		{name: "nginx", base: "nginx", note: "1 worker, least_conn, keepalive 128, no access log", prepare: version("nginx", "-v"),
			command: func(s *site, dir string, at addresses) ([]string, error) { return nginx(s, dir, at, "access_log off;") }},
		{name: "haproxy", base: "nginx", note: "1 thread, leastconn, http-reuse always, no log", prepare: version("haproxy", "-v"), command: haproxy},
		{name: "mainstay", base: "nginx", note: "metrics, retries and limits on, no access log", prepare: buildMainstay,
			command: func(s *site, dir string, at addresses) ([]string, error) {
				return mainstay(s, dir, at, s.engine, false)
			}},
		{name: "mainstay-net_http", base: "nginx", note: "the same with engine: net_http", prepare: buildMainstay,
			command: func(s *site, dir string, at addresses) ([]string, error) {
				return mainstay(s, dir, at, "net_http", false)
			}},
		{name: "nginx-log", base: "nginx-log", note: "nginx with an access log in JSON, buffered by 64 KiB for at most 1 s", prepare: version("nginx", "-v"),
			command: func(s *site, dir string, at addresses) ([]string, error) {
				return nginx(s, dir, at, "log_format json escape=json "+nginxLog+"; access_log "+dir+"/access.log json buffer=64k flush=1s;")
			}},
		{name: "mainstay-log", base: "nginx-log", note: "mainstay with its access log; ratios are against nginx-log", prepare: buildMainstay,
			command: func(s *site, dir string, at addresses) ([]string, error) { return mainstay(s, dir, at, s.engine, true) }},
		{name: "go", base: "nginx", note: "net/http/httputil.ReverseProxy, least requests, 512 idle connections a backend, pooled buffers", prepare: goVersion,
			command: func(s *site, dir string, at addresses) ([]string, error) {
				return []string{s.self, "reverseproxy", at.plain, at.tls, s.cert(), s.key(), s.echo, strings.Join(s.backends, ",")}, nil
			}},
		{name: "caddy", base: "nginx", note: "least_conn, 512 idle connections a backend, no log", prepare: buildPeer("caddy", ".", "github.com/caddyserver/caddy/v2"), command: caddy},
		{name: "traefik", base: "nginx", note: "its default balancing (weighted round robin: it has no least connections), no log", prepare: buildPeer("traefik", "github.com/traefik/traefik/v3/cmd/traefik", "github.com/traefik/traefik/v3"), command: traefik},
	}
}

// nginxLog has what Mainstay's line of the access log has, as far as nginx knows it.
const nginxLog = `'{"time":"$time_iso8601","client":"$remote_addr","method":"$request_method","host":"$host","path":"$request_uri",` +
	`"protocol":"$server_protocol","status":$status,"bytes_in":$request_length,"bytes_out":$body_bytes_sent,"duration":$request_time,` +
	`"upstream":"$upstream_addr","upstream_connect":"$upstream_connect_time","upstream_header":"$upstream_header_time",` +
	`"request_id":"$request_id","user_agent":"$http_user_agent","referer":"$http_referer"}'`

func (s *site) cert() string { return filepath.Join(s.dir, "tls.crt") }
func (s *site) key() string  { return filepath.Join(s.dir, "tls.key") }

// body returns the file that responses to path must be equal to.
func (s *site) body(path string) string { return filepath.Join(s.dir, "www", filepath.Base(path)) }

// version returns a prepare that asks an installed program for the first line it has to say.
func version(command ...string) func(context.Context, *site) (string, error) {
	return func(ctx context.Context, _ *site) (string, error) {
		out, err := exec.CommandContext(ctx, command[0], command[1:]...).CombinedOutput()
		if err != nil {
			return "", fmt.Errorf("run %s: %w", strings.Join(command, " "), err)
		}
		line, _, _ := strings.Cut(string(out), "\n")
		return strings.TrimPrefix(strings.TrimPrefix(strings.TrimSpace(line), "nginx version: "), "HAProxy version "), nil
	}
}

func goVersion(ctx context.Context, _ *site) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOVERSION").Output()
	return strings.TrimSpace(string(out)), err
}

// buildPeer returns a prepare that builds a peer from the module proxy, in its own module below bench/peers.
func buildPeer(name, pkg, module string) func(context.Context, *site) (string, error) {
	return func(ctx context.Context, s *site) (string, error) {
		dir := filepath.Join(s.root, "bench", "peers", name)
		build := exec.CommandContext(ctx, "go", "build", "-o", filepath.Join(s.root, "build", "peers", name), pkg)
		build.Dir = dir
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			return "", fmt.Errorf("build %s: %w: %s", name, err, lastLines(string(out)))
		}
		list := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Version}}", module)
		list.Dir = dir
		out, err := list.Output()
		return strings.TrimSpace(string(out)), err
	}
}

// lastLines returns the last two lines of what a program said, as one.
func lastLines(out string) string {
	lines := strings.Split(strings.TrimSpace(out), "\n")
	lines = lines[max(0, len(lines)-2):]
	for i := range lines {
		lines[i] = strings.TrimSpace(lines[i])
	}
	return strings.Join(lines, " ")
}

// buildMainstay builds Mainstay as make build does, unless a binary was given.
func buildMainstay(ctx context.Context, s *site) (string, error) {
	if s.binary == "" {
		binary := filepath.Join(s.dir, "mainstay")
		describe := exec.CommandContext(ctx, "git", "describe", "--tags", "--always", "--dirty")
		describe.Dir = s.root
		commit, _ := describe.Output()
		build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-X mainstay/cli.version="+strings.TrimSpace(string(commit)), "-o", binary, ".")
		build.Dir = s.root
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			return "", fmt.Errorf("build Mainstay: %w: %s", err, out)
		}
		s.binary = binary
	}
	return version(s.binary, "version")(ctx, s)
}

func write(dir, name, text string) (string, error) {
	file := filepath.Join(dir, name)
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		return "", fmt.Errorf("write configuration: %w", err)
	}
	return file, nil
}

func nginx(s *site, dir string, at addresses, log string) ([]string, error) {
	var servers strings.Builder
	for _, backend := range s.backends {
		fmt.Fprintf(&servers, "server %s; ", backend)
	}
	file, err := write(dir, "nginx.conf", nginxHead(s, dir)+log+`
  upstream backend { least_conn; `+servers.String()+`
    keepalive 128; keepalive_requests 1000000000; keepalive_timeout 3600; }
  upstream echo { server `+s.echo+`; }
  map $http_upgrade $wanted { default upgrade; '' ''; }
  server { listen `+at.plain+` backlog=4096; listen `+at.tls+` ssl http2 backlog=4096;
    ssl_certificate `+s.cert()+`; ssl_certificate_key `+s.key()+`; ssl_protocols TLSv1.3;
    proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $host;
    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; proxy_set_header X-Forwarded-Proto $scheme;
    location / { proxy_pass http://backend; }
    location /echo { proxy_pass http://echo; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $wanted; } } }
`)
	return []string{"nginx", "-p", dir, "-c", file}, err
}

// nginxHead is what nginx as a proxy and nginx as a backend have in common.
func nginxHead(s *site, dir string) string {
	user := ""
	if os.Geteuid() == 0 {
		user = "user root; " // who else could not read what lies in the directory of this run
	}
	return user + `worker_processes 1; daemon off; pid ` + dir + `/nginx.pid; error_log stderr;
worker_rlimit_nofile ` + fmt.Sprint(s.nofile) + `;
events { worker_connections ` + fmt.Sprint(s.nofile*9/10) + `; }
http { keepalive_requests 1000000000; keepalive_timeout 3600; http2_max_concurrent_streams 128;
  client_body_temp_path ` + dir + `/t1; proxy_temp_path ` + dir + `/t2; fastcgi_temp_path ` + dir + `/t3; uwsgi_temp_path ` + dir + `/t4; scgi_temp_path ` + dir + `/t5;
  `
}

func haproxy(s *site, dir string, at addresses) ([]string, error) {
	pem := filepath.Join(dir, "tls.pem")
	cert, err := os.ReadFile(s.cert())
	if err != nil {
		return nil, err
	}
	key, err := os.ReadFile(s.key())
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(pem, append(cert, key...), 0o600); err != nil {
		return nil, err
	}
	var servers strings.Builder
	for i, backend := range s.backends {
		fmt.Fprintf(&servers, "  server s%d %s\n", i, backend)
	}
	file, err := write(dir, "haproxy.cfg", `global
  nbthread 1
  maxconn 15000
  no strict-limits # it wants two descriptors for each connection; idle ones have one
  ssl-default-bind-options ssl-min-ver TLSv1.3
defaults
  mode http
  timeout connect 5s
  timeout client 75s
  timeout server 60s
  timeout tunnel 1h
  option forwardfor
  http-reuse always
frontend f
  bind `+at.plain+` backlog 4096
  bind `+at.tls+` backlog 4096 ssl crt `+pem+` alpn h2,http/1.1
  maxconn 15000
  use_backend echo if { path_beg /echo }
  default_backend backend
backend backend
  balance leastconn
`+servers.String()+`backend echo
  server e `+s.echo+`
`)
	return []string{"haproxy", "-db", "-f", file}, err
}

func caddy(s *site, dir string, at addresses) ([]string, error) {
	file, err := write(dir, "Caddyfile", `{
  admin off
  auto_https off
  persist_config off
  storage file_system `+dir+`/storage
  servers {
    timeouts {
      idle 1h
    }
  }
}
(proxy) {
  handle /echo {
    reverse_proxy `+s.echo+`
  }
  handle {
    reverse_proxy `+strings.Join(s.backends, " ")+` {
      lb_policy least_conn
      transport http {
        keepalive_idle_conns_per_host 512
        compression off
      }
    }
  }
}
http://`+at.plain+` {
  import proxy
}
https://`+at.tls+` {
  tls `+s.cert()+` `+s.key()+` {
    protocols tls1.3
  }
  import proxy
}
`)
	return []string{filepath.Join(s.root, "build", "peers", "caddy"), "run", "--adapter", "caddyfile", "--config", file}, err
}

func traefik(s *site, dir string, at addresses) ([]string, error) {
	var servers strings.Builder
	for _, backend := range s.backends {
		fmt.Fprintf(&servers, "          - url: http://%s\n", backend)
	}
	dynamic, err := write(dir, "dynamic.yaml", `http:
  serversTransports:
    pool: {maxIdleConnsPerHost: 512}
  routers:
    echo: {rule: "PathPrefix(`+"`/echo`"+`)", service: echo, entryPoints: [plain]}
    plain: {rule: "PathPrefix(`+"`/`"+`)", service: backend, entryPoints: [plain]}
    tls: {rule: "PathPrefix(`+"`/`"+`)", service: backend, entryPoints: [tls], tls: {}}
  services:
    echo: {loadBalancer: {servers: [{url: "http://`+s.echo+`"}]}}
    backend:
      loadBalancer:
        serversTransport: pool
        servers:
`+servers.String()+`tls:
  options:
    default: {minVersion: VersionTLS13}
  stores:
    default: {defaultCertificate: {certFile: `+s.cert()+`, keyFile: `+s.key()+`}}
`)
	if err != nil {
		return nil, err
	}
	file, err := write(dir, "traefik.yaml", `global: {checkNewVersion: false, sendAnonymousUsage: false}
log: {level: ERROR}
entryPoints:
  plain: {address: "`+at.plain+`", transport: {respondingTimeouts: {idleTimeout: 1h}}}
  tls: {address: "`+at.tls+`", transport: {respondingTimeouts: {idleTimeout: 1h}}}
providers: {file: {filename: `+dynamic+`, watch: false}}
`)
	return []string{filepath.Join(s.root, "build", "peers", "traefik"), "--configFile=" + file}, err
}

// mainstay writes the file as a user would: what differs from the defaults is further attempts, a limit that counts connections, and
// the ports of this run.
func mainstay(s *site, dir string, at addresses, engine string, log bool) ([]string, error) {
	_, err := write(dir, "topology.yaml", fmt.Sprintf(`version: 1
name: bench
services:
  backend: {external: [%s]}
  echo: {external: ["%s"]}
proxy:
  engine: %s
  access_log: %t
  limits: {connections_per_client: 20000}
  listeners:
    plain: {address: "%s"}
    tls: {address: "%s", tls: {certificate: %s, key: %s}}
  routes:
    - match: {path_prefix: /echo}
      service: echo
    - service: backend
      retries: {attempts: 2}
metrics: {address: "%s"}
`, `"`+strings.Join(s.backends, `", "`)+`"`, s.echo, engine, log, at.plain, at.tls, s.cert(), s.key(), at.metrics))
	return []string{s.binary, "run"}, err
}
