package topology

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"io/fs"
	"net/textproto"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// A resolver makes the resolved types of the walked tree, with every default, and checks what a value means
// beyond its form. What values mean together is checked afterwards.
type resolver struct {
	report    *report
	root      *value
	directory string // of the first file
	unknowns  int    // services that are not defined, so far
}

func resolve(r *report, root *value, directory string) *Topology {
	rs := &resolver{report: r, root: root, directory: directory}
	t := &Topology{
		Name:     get[string](root, "name"),
		StateDir: stateDirectory(root, directory),
		Metrics:  Metrics{Address: get[string](root, "metrics", "address")},
	}
	if t.Name == "" {
		t.Name = filepath.Base(directory)
	}
	t.Admin = rs.admin(t.StateDir)
	t.Logs = Logs{MaxTotal: get[int64](root, "logs", "max_total")}
	t.OnExit = OnExit(get[string](root, "on_exit"))
	t.Services = byName(root.at("services"), rs.service)
	t.Proxy = rs.proxy()
	t.Bus = byName(root.at("bus"), relayOf)
	t.Backups = byName(root.at("backups"), rs.backup)
	rs.check(t)
	t.Read = r.filesRead()
	return t
}

// byName resolves the values of a mapping of names, nil if there are none.
func byName[T any](v *value, one func(name string, v *value) T) map[string]T {
	var out map[string]T
	for _, name := range v.order {
		if out == nil {
			out = map[string]T{}
		}
		out[name] = one(name, v.fields[name])
	}
	return out
}

// maxSocketPath is what a sockaddr_un holds on Linux beside the NUL at its end (unix(7)).
const maxSocketPath = 107

func (rs *resolver) admin(stateDir string) Admin {
	v := rs.root.at("admin")
	a := Admin{
		Socket: adminSocket(rs.root, stateDir),
		Mode:   get[uint32](v, "mode"),
		Group:  get[string](v, "group"),
	}
	if len(a.Socket) > maxSocketPath && v.sound("socket") && rs.root.sound("state_dir") {
		at := rs.root.node
		for _, given := range []*value{rs.root.at("state_dir"), v.at("socket")} {
			if given.node != nil {
				at = given.node
			}
		}
		rs.report.failf(at, "admin.socket", "admin.socket would be %s, which is %d bytes; a socket's path has at most %d: set admin.socket to a shorter one",
			a.Socket, len(a.Socket), maxSocketPath)
	}
	return a
}

func (rs *resolver) service(name string, v *value) Service {
	s := Service{
		Name:            name,
		Command:         rs.command(v.at("command")),
		External:        upstreams(v.at("external")),
		Replicas:        get[int](v, "replicas"),
		Description:     get[string](v, "description"),
		Environment:     rs.environment(v),
		Directory:       get[string](v, "directory"),
		User:            get[string](v, "user"),
		Group:           get[string](v, "group"),
		Port:            get[Port](v, "port"),
		Listen:          Listen(get[string](v, "listen")),
		Limits:          limitsOf(v.at("limits")),
		DependsOn:       dependencies(v.at("depends_on")),
		StopSignal:      get[syscall.Signal](v, "stop_signal"),
		StopGracePeriod: get[time.Duration](v, "stop_grace_period"),
		Restart: Restart{
			Policy: RestartPolicy(get[string](v, "restart", "policy")),
			Backoff: Backoff{
				Initial:    get[time.Duration](v, "restart", "backoff", "initial"),
				Max:        get[time.Duration](v, "restart", "backoff", "max"),
				ResetAfter: get[time.Duration](v, "restart", "backoff", "reset_after"),
			},
		},
		Update:          updateOf(v.at("update")),
		Schedule:        scheduleOf(v.at("schedule")),
		WhenUnavailable: whenUnavailableOf(v.at("when_unavailable")),
		Output:          Output{MaxSize: get[int64](v, "logs", "max_size"), MaxFiles: get[int](v, "logs", "max_files")},
	}
	if s.Schedule != nil {
		jobDefaults(v, &s)
	}
	if s.Directory == "" {
		s.Directory = rs.directory
	}
	if s.Port > 0 && !v.given("update", "order") {
		s.Update.Order = StopFirst
	}
	s.Probes = rs.probes(v.at("probes"), s)
	rs.checkService(v, s)
	if s.External != nil {
		return Service{
			Name: name, Description: s.Description, External: s.External, Replicas: len(s.External),
			Probes: Probes{Readiness: s.Probes.Readiness}, StopGracePeriod: s.StopGracePeriod,
			WhenUnavailable: s.WhenUnavailable,
		}
	}
	return s
}

// command returns the argv that v says, its program absolute if it is a path, and checks that the program is there.
func (rs *resolver) command(v *value) []Text {
	var argv []Text
	at := v.node
	switch {
	case v.node == nil || v.broken:
		return nil
	case v.fields != nil:
		shell, ok := v.at("shell").scalar.(Text)
		if !ok {
			return nil
		}
		return []Text{Plain("/bin/sh"), Plain("-c"), shell}
	case v.scalar != nil:
		argv = v.scalar.([]Text)
	default:
		argv = items[Text](v)
		if len(argv) < len(v.items) { // an argument is broken
			return nil
		}
		if len(argv) == 0 {
			rs.report.failf(v.node, v.path, "%s is empty%s", v.path, like(v.key))
			return nil
		}
		at = v.items[0].node
	}
	program := argv[0]
	switch {
	case program.Reveal() == "":
		rs.report.failf(at, v.path, "%s: the program is empty", v.path)
		return nil
	case strings.Contains(program.Reveal(), "/"):
		program.value = absolute(program.value, at.source.Directory)
		argv[0] = program
	}
	rs.checkProgram(at, v.path, program)
	return argv
}

func upstreams(v *value) []Upstream {
	var out []Upstream
	for _, item := range v.items {
		if item.fields != nil {
			out = append(out, Upstream{get[string](item, "address"), get[int](item, "weight")})
			continue
		}
		address, _ := item.scalar.(string)
		out = append(out, Upstream{Address: address, Weight: 1})
	}
	return out
}

func dependencies(v *value) map[string]Condition {
	var out map[string]Condition
	for _, d := range dependencyValues(v) {
		if out == nil {
			out = map[string]Condition{}
		}
		out[d.service] = d.condition
	}
	return out
}

// A dependency is one entry of depends_on, and where it stands.
type dependency struct {
	service   string
	condition Condition
	value     *value
	at        *node
}

func dependencyValues(v *value) []dependency {
	var out []dependency
	for _, item := range v.items {
		if name, ok := item.scalar.(string); ok {
			out = append(out, dependency{name, ConditionReady, item, item.node})
		}
	}
	for _, name := range v.order {
		field := v.fields[name]
		if condition, ok := field.scalar.(string); ok {
			out = append(out, dependency{name, Condition(condition), field, field.name})
		}
	}
	return out
}

func (rs *resolver) probes(v *value, s Service) Probes {
	p := Probes{
		Startup:   rs.probe(v.at("startup"), s),
		Readiness: rs.probe(v.at("readiness"), s),
		Liveness:  rs.probe(v.at("liveness"), s),
	}
	if p.Readiness == nil && s.Routable() && v.sound("readiness") {
		p.Readiness = rs.probeWith(v.at("readiness"), Probe{TCP: "{address}"})
	}
	return p
}

// probe returns the probe that v says, by TCP if it does not say how and the service has an address.
func (rs *resolver) probe(v *value, s Service) *Probe {
	if v.node == nil || v.broken {
		return nil
	}
	var p Probe
	http := v.at("http_get")
	switch {
	case http.fields != nil:
		p.HTTPGet = &HTTPGet{
			Address: get[string](http, "address"),
			Path:    get[string](http, "path"),
			Host:    get[string](http, "host"),
		}
	case http.node != nil:
		p.HTTPGet = &HTTPGet{Address: "{address}", Path: get[string](http)}
	case v.given("tcp"):
		p.TCP = get[string](v, "tcp")
	case v.given("exec"):
		p.Exec = rs.command(v.at("exec"))
	case v.given("grpc"):
		p.GRPC = grpcOf(v.at("grpc"))
	case get[bool](v, "notify"):
		p.Notify = true
	case s.Routable():
		p.TCP = "{address}"
	default:
		rs.report.failf(v.place(), v.path, "%s needs http_get, tcp, grpc, exec or notify", v.path)
	}
	return rs.probeWith(v, p)
}

// probeWith returns p with the timings that v says.
func (rs *resolver) probeWith(v *value, p Probe) *Probe {
	p.InitialDelay = get[time.Duration](v, "initial_delay")
	p.Period = get[time.Duration](v, "period")
	p.Timeout = get[time.Duration](v, "timeout")
	p.FailureThreshold = get[int](v, "failure_threshold")
	p.SuccessThreshold = get[int](v, "success_threshold")
	return &p
}

func (rs *resolver) proxy() Proxy {
	v := rs.root.at("proxy")
	p := Proxy{
		Engine:         ProxyEngine(get[string](v, "engine")),
		AccessLog:      get[bool](v, "access_log"),
		Limits:         clientLimitsOf(v.at("limits")),
		Listeners:      byName(v.at("listeners"), rs.listener),
		TrustedProxies: items[string](v.at("trusted_proxies")),
	}
	for _, item := range v.at("routes").items {
		p.Routes = append(p.Routes, routeOf(item))
	}
	if p.Listeners == nil && p.Routes != nil && v.sound("listeners") {
		p.Listeners = map[string]Listener{"http": {Name: "http", Address: defaultListener}}
	}
	return p
}

func clientLimitsOf(v *value) ClientLimits {
	return ClientLimits{
		HeaderTimeout:        get[time.Duration](v, "header_timeout"),
		BodyTimeout:          get[time.Duration](v, "body_timeout"),
		SendTimeout:          get[time.Duration](v, "send_timeout"),
		IdleTimeout:          get[time.Duration](v, "idle_timeout"),
		MinimumRate:          get[int64](v, "minimum_rate"),
		HeaderSize:           int(get[int64](v, "header_size")),
		HeaderFields:         get[int](v, "header_fields"),
		ConnectionsPerClient: get[int](v, "connections_per_client"),
	}
}

// defaultListener is where a proxy with routes listens if the file does not say.
const defaultListener = "127.0.0.1:8080"

func (rs *resolver) listener(name string, v *value) Listener {
	l := Listener{
		Name:          name,
		Address:       get[string](v, "address"),
		RedirectHTTPS: get[string](v, "redirect") == "https",
	}
	if v.given("tls") {
		l.TLS = rs.tls(v.at("tls"))
	}
	return l
}

const maxPEMBytes = 1 << 20

// tls reads a listener's certificate and key, and checks that they belong together.
func (rs *resolver) tls(v *value) *TLS {
	t := &TLS{Certificate: get[string](v, "certificate"), Key: get[string](v, "key")}
	if !v.sound("certificate") || !v.sound("key") {
		return t
	}
	certificate, _, certErr := readRegular(t.Certificate, maxPEMBytes)
	if certErr != nil {
		rs.report.failf(v.at("certificate").node, v.at("certificate").path, "%s.certificate: %w", v.path, certErr)
	}
	rs.report.reads(t.Certificate)
	rs.report.reads(t.Key)
	key, _, keyErr := readRegular(t.Key, maxPEMBytes)
	if keyErr != nil {
		rs.report.failf(v.at("key").node, v.at("key").path, "%s.key: %w", v.path, keyErr)
	}
	if certErr != nil || keyErr != nil {
		return t
	}
	if _, err := tls.X509KeyPair(certificate, key); err != nil {
		rs.report.failf(v.at("certificate").node, v.path, "%s: %s", v.path, strings.TrimPrefix(err.Error(), "tls: "))
		return t
	}
	h := sha256.New()
	for _, content := range [][]byte{certificate, key} {
		sum := sha256.Sum256(content)
		h.Write(sum[:])
	}
	t.Digest = hex.EncodeToString(h.Sum(nil))
	return t
}

func routeOf(v *value) Route {
	r := Route{
		Host:        get[string](v, "match", "host"),
		PathPrefix:  get[string](v, "match", "path_prefix"),
		Service:     get[string](v, "service"),
		StripPrefix: get[string](v, "strip_prefix"),
		Timeouts: Timeouts{
			Connect:        get[time.Duration](v, "timeouts", "connect"),
			ResponseHeader: get[time.Duration](v, "timeouts", "response_header"),
			Idle:           get[time.Duration](v, "timeouts", "idle"),
		},
		Retries:         Retries{Attempts: get[int](v, "retries", "attempts")},
		RequestHeaders:  headerEdits(v.at("headers", "request")),
		ResponseHeaders: headerEdits(v.at("headers", "response")),
	}
	for _, condition := range items[string](v.at("retries", "retry_on")) {
		r.Retries.On = append(r.Retries.On, RetryCondition(condition))
	}
	if !v.given("retries", "retry_on") {
		r.Retries.On = []RetryCondition{RetryConnectFailure, RetryReset}
	}
	if r.StripPrefix == "/" {
		r.StripPrefix = ""
	}
	return r
}

func headerEdits(v *value) HeaderEdits {
	canonical := func(v *value) map[string]string {
		var out map[string]string
		for _, name := range v.order {
			if out == nil {
				out = map[string]string{}
			}
			out[textproto.CanonicalMIMEHeaderKey(name)] = get[string](v.fields[name])
		}
		return out
	}
	return HeaderEdits{Set: canonical(v.at("set")), Add: canonical(v.at("add")), Remove: items[string](v.at("remove"))}
}

func relayOf(name string, v *value) Relay {
	return Relay{
		Name:        name,
		Publishers:  get[string](v, "publishers"),
		Subscribers: get[string](v, "subscribers"),
		Queue: Queue{
			Limit:    get[int64](v, "queue", "limit"),
			WhenFull: QueuePolicy(get[string](v, "queue", "when_full")),
		},
	}
}

func (rs *resolver) backup(name string, v *value) Backup {
	b := Backup{
		Name:         name,
		Service:      get[string](v, "service"),
		Paths:        items[string](v.at("paths")),
		PasswordFile: get[string](v, "password_file"),
		Schedule:     get[string](v, "schedule"),
		Retention: Retention{
			KeepLast:    get[int](v, "retention", "keep_last"),
			KeepHourly:  get[int](v, "retention", "keep_hourly"),
			KeepDaily:   get[int](v, "retention", "keep_daily"),
			KeepWeekly:  get[int](v, "retention", "keep_weekly"),
			KeepMonthly: get[int](v, "retention", "keep_monthly"),
			KeepYearly:  get[int](v, "retention", "keep_yearly"),
		},
	}
	if repositories := v.at("repositories"); len(repositories.items) > 0 {
		b.Repository = get[string](repositories.items[0])
		if len(repositories.items) > 1 {
			rs.report.failf(repositories.items[1].node, repositories.path, "%s: more than one repository is not supported yet", repositories.path)
		}
	}
	rs.checkNotEmpty(v.at("paths"))
	rs.checkNotEmpty(v.at("repositories"))
	rs.checkPasswordFile(v.at("password_file"))
	return b
}

func (rs *resolver) checkNotEmpty(v *value) {
	if v.node != nil && !v.broken && len(v.items) == 0 {
		rs.report.failf(v.node, v.path, "%s is empty%s", v.path, like(v.key))
	}
}

func (rs *resolver) checkPasswordFile(v *value) {
	path, ok := v.scalar.(string)
	if !ok {
		return
	}
	_, mode, err := readRegular(path, maxSecretBytes)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		rs.report.warnf(v.node, v.path, "%s does not exist; it will be created with the repository", path)
	case err != nil:
		rs.report.failf(v.node, v.path, "%s: %w", v.path, err)
	default:
		rs.report.warnReadable(v.node, v.path, path, mode)
	}
}

func (rs *resolver) checkDirectory(v *value) {
	path, ok := v.scalar.(string)
	if !ok {
		return
	}
	if stat, err := os.Stat(path); err != nil {
		rs.report.failf(v.node, v.path, "%s: %w", v.path, err)
	} else if !stat.IsDir() {
		rs.report.failf(v.node, v.path, "%s: %s is not a directory", v.path, path)
	}
}
