// Package topology says what should run. It reads the user's file, resolves it
// to plain values, checks it and compares it with another; it has no
// goroutines, no clock and no network.
//
// A file becomes a [Topology] in four steps, each in a file of its own: the YAML
// is read into a tree of nodes that know their place (yaml.go), files are laid over
// each other and the tree is walked along the one table of keys, which also
// drives suggestions, the JSON Schema and the reference page (walk.go, keys.go),
// its values become the resolved types below with every default filled in
// (resolve.go), and what they mean together is checked (check.go). Every problem found
// on the way is collected with its place; a Topology exists only if none is an error.
//
// A Topology is whole and immutable. It is shared freely and never changed:
// a subsystem is given the next one and compares it with what it runs. Specs
// are plain data, compared with reflect.DeepEqual.
package topology

import (
	"syscall"
	"time"
)

// A Topology is everything that should run on this node, with every default
// resolved and every path absolute. It must not be modified.
type Topology struct {
	// Name tells this topology from others in logs; the directory's name unless the file says.
	Name string
	// StateDir is where Mainstay keeps what outlives it: generations, logs, its lock.
	StateDir string
	// Generation counts accepted topologies. The engine sets it; it is 0 in a
	// Topology that was only loaded, and no part of any comparison.
	Generation int

	Services map[string]Service // by name
	Proxy    Proxy
	Bus      map[string]Relay  // by name
	Backups  map[string]Backup // by name
	Metrics  Metrics
	Admin    Admin
	Logs     Logs
	// OnExit is what becomes of the services when Mainstay is stopped.
	OnExit OnExit

	// Read are the other files that were read for it, absolute and sorted: secrets, environment files, certificates.
	// A change of one of them is a change of the topology. It is no part of any comparison.
	Read []string
}

// Empty is the topology in which nothing runs. Applying it stops everything.
var Empty = &Topology{}

// A Service is one program in one or more instances, or, when External is set,
// instances that run elsewhere and are only probed and balanced.
type Service struct {
	Name string
	// Description is for people.
	Description string
	// Command is the argv of each instance, with per-instance placeholders
	// ({address} {host} {port} {replica} {service}) still in it. Empty if External is set.
	// A first word "mainstay" without a slash means the running binary.
	Command []Text
	// External is where the instances are that Mainstay does not launch. Such a service has
	// as many Replicas, a readiness probe and a StopGracePeriod, and nothing else.
	External    []Upstream
	Replicas    int
	Environment map[string]Text // in addition to Mainstay's own environment; placeholders still in it
	Directory   string          // working directory, absolute
	User, Group string          // names or ids; empty is Mainstay's own
	Port        Port
	Listen      Listen
	Limits      Limits
	Probes      Probes
	Restart     Restart
	DependsOn   map[string]Condition // by service name
	Update      Update
	StopSignal  syscall.Signal
	// StopGracePeriod bounds both waits of a stop: for the requests in flight to
	// finish, and then, after StopSignal, for the process to exit before SIGKILL.
	StopGracePeriod time.Duration
	// Schedule makes the service a job, which runs and ends; nil: it is none.
	Schedule        *Schedule
	WhenUnavailable WhenUnavailable
	Output          Output

	// Stopped and Epoch are never in the file; the engine's overrides set them.
	// Stopped keeps the service at no instances; another Epoch means that every
	// instance is to be replaced as if its command had changed.
	Stopped bool
	Epoch   int
}

// Routable reports whether requests can be sent to the service's instances.
func (s Service) Routable() bool { return len(s.External) > 0 || s.Port != PortNone }

// A Text is a string from the file after interpolation. Secret says that a value
// from ${file:} is in it; then it prints as *** everywhere except through Reveal.
type Text struct {
	value  string
	secret bool
}

// Plain returns the text s, which may be shown.
func Plain(s string) Text { return Text{value: s} }

// Secret returns the text s, which is shown as ***.
func Secret(s string) Text { return Text{value: s, secret: true} }

// Reveal returns the real value. Never print it.
func (t Text) Reveal() string { return t.value }

// IsSecret reports whether the value must not be shown.
func (t Text) IsSecret() bool { return t.secret }

// String returns the value, or *** if it is secret.
func (t Text) String() string {
	if t.secret {
		return "***"
	}
	return t.value
}

// MarshalText is String, so that JSON and logs cannot show a secret either.
func (t Text) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// GoString is String, so that %#v cannot show a secret either.
func (t Text) GoString() string { return t.String() }

// A Port says where an instance listens.
type Port int

const (
	PortAuto Port = 0  // each instance is given a free port of its own
	PortNone Port = -1 // the service listens on nothing that Mainstay knows of: a worker
	// Any positive value is that fixed port; such a service has one replica.
)

// An Upstream is an instance that Mainstay does not launch.
type Upstream struct {
	Address string // host:port
	Weight  int    // share of the load relative to its siblings, at least 1
}

// Listen says who opens the socket that an instance listens on.
type Listen string

const (
	ListenPort Listen = "port" // the instance
	// ListenFD is Mainstay: the instance is given the listening socket as descriptor 3, with LISTEN_FDS and LISTEN_PID
	// as sd_listen_fds(3) has them.
	ListenFD Listen = "fd"
)

// Limits are what one instance may use. What is 0 is not limited by Mainstay.
type Limits struct {
	Memory    int64   // bytes (cgroup v2 memory.max)
	CPUs      float64 // cores (cgroup v2 cpu.max)
	Processes int     // processes and threads (cgroup v2 pids.max)
	OpenFiles int     // descriptors of each process (RLIMIT_NOFILE, soft and hard)
}

// A Schedule says when a job runs.
type Schedule struct {
	Cron     string        // five fields
	TimeZone string        // whose time the fields are in, a name that time.LoadLocation knows; empty: this machine's
	Overlap  Overlap       // what happens if a run is due while one is under way
	Missed   Missed        // what happens about runs that were due while Mainstay was not running
	Timeout  time.Duration // of one run, which is then stopped and has failed; 0: none
}

type Overlap string

const (
	OverlapSkip    Overlap = "skip"    // the one that is due does not run
	OverlapQueue   Overlap = "queue"   // it runs afterwards, once however many were due
	OverlapReplace Overlap = "replace" // the one under way is stopped
)

type Missed string

const (
	MissedSkip Missed = "skip"
	MissedOnce Missed = "once" // one run, however many were missed
)

// WhenUnavailable is what clients see while no instance of a service can take a request: it is held, then answered by
// Fallback or with Response, else with 503.
type WhenUnavailable struct {
	Hold     Hold
	Fallback string    // a service; empty: none
	Response *Response // nil: none. Never beside a Fallback.
}

// A Hold bounds the requests that wait for an instance.
type Hold struct {
	For      time.Duration // each; 0: none is held
	Requests int           // at once
	Bytes    int64         // of memory that all of them take up
}

// A Response is a fixed answer.
type Response struct {
	Status      int
	ContentType string
	Body        string
}

// Output bounds what is kept of what one instance prints.
type Output struct {
	MaxSize  int64 // bytes of a file
	MaxFiles int   // including the one that is written to
}

// Logs bounds all files below StateDir/logs.
type Logs struct {
	MaxTotal int64 // bytes
}

// OnExit says what becomes of the services when Mainstay is stopped.
type OnExit string

const (
	OnExitStop OnExit = "stop"
	OnExitKeep OnExit = "keep" // they run on, and the next start takes them over
)

// Probes tell how an instance is doing, with the meaning Kubernetes gives them: startup
// holds the others back until it first succeeds and restarts the instance when it gives up;
// readiness decides only whether requests are sent; liveness restarts.
type Probes struct {
	Startup   *Probe // nil: none
	Readiness *Probe // nil: ready once started; a service with a port gets a TCP probe by default
	Liveness  *Probe // nil: none
}

// Told returns of p what an instance is told when it is started, which another needs to be started for: that there are probes by
// notification, and how often it is to say WATCHDOG=1.
func (p Probes) Told() (told Probes) {
	for _, probe := range []*Probe{p.Startup, p.Readiness, p.Liveness} {
		if probe != nil && probe.Notify {
			told.Readiness = &Probe{Notify: true}
		}
	}
	if p.Liveness != nil && p.Liveness.Notify {
		told.Liveness = &Probe{Notify: true, Period: p.Liveness.Period}
	}
	return told
}

// A Probe is one periodic check. Exactly one of HTTPGet, TCP, Exec, GRPC and Notify is set.
type Probe struct {
	HTTPGet *HTTPGet
	TCP     string // host:port to connect to; placeholders {address} {host} {port} still in it
	Exec    []Text // argv; exit status 0 is success; placeholders still in it
	GRPC    *GRPC
	// Notify leaves it to the instance to tell, as sd_notify(3) has it: readiness and startup with READY=1, liveness with
	// WATCHDOG=1 in each Period.
	Notify bool

	InitialDelay     time.Duration // before the first try
	Period           time.Duration // between the starts of tries
	Timeout          time.Duration // of one try
	FailureThreshold int           // failures in a row that count
	SuccessThreshold int           // successes in a row that count
}

// HTTPGet succeeds when a GET of Path at Address answers with a status from 200 to 399.
type HTTPGet struct {
	Address string // host:port; "{address}" unless the file says another
	Path    string
	Host    string // Host header; empty is the address
}

// GRPC succeeds when grpc.health.v1.Health/Check at Address says SERVING of Service.
type GRPC struct {
	Address string // host:port; "{address}" unless the file says another
	Service string // empty: the server as a whole
}

// Restart says what follows when an instance ends by itself.
type Restart struct {
	Policy  RestartPolicy
	Backoff Backoff
}

type RestartPolicy string

const (
	RestartAlways    RestartPolicy = "always"
	RestartOnFailure RestartPolicy = "on-failure" // not after exit status 0
	RestartNever     RestartPolicy = "never"
)

// A Backoff is the wait before a restart: Initial, doubled each time up to Max, with 10 %
// of jitter, and Initial again once an instance has run for ResetAfter.
type Backoff struct {
	Initial, Max, ResetAfter time.Duration
}

// A Condition is what a dependency must have reached before its dependent first starts.
type Condition string

const (
	ConditionStarted   Condition = "started"   // a process is running
	ConditionReady     Condition = "ready"     // at least one instance is ready
	ConditionCompleted Condition = "completed" // ended with exit status 0
)

// An Update says how the instances of a changed service are replaced.
type Update struct {
	Order       UpdateOrder
	Parallelism int           // instances replaced at once, at least 1
	MinReady    time.Duration // how long a new instance must stay ready before the old one is drained
	Deadline    time.Duration // a new instance not ready by then is given up
	// FailureAction is what follows when a new instance is given up.
	FailureAction FailureAction
	Canary        *Canary // nil: none
}

type FailureAction string

const (
	FailureRollback FailureAction = "rollback" // the old instances stay, those replaced already come back
	FailurePause    FailureAction = "pause"    // nothing more is replaced until the service changes again
	FailureContinue FailureAction = "continue" // the others are replaced all the same
)

// A Canary lets the first new instance of an update prove itself on a share of the requests before another is replaced.
type Canary struct {
	Weight   float64       // percent of the service's requests
	Duration time.Duration // of the proof
	// MaxErrorRatio is by how much its share of requests that end with 5xx or without an answer may exceed that of the old
	// instances: 0.01 allows 3 % where they have 2 %.
	MaxErrorRatio float64
	// MaxLatencyRatio is how many times the old instances' 95th percentile of latency its own may be; 0: not judged.
	MaxLatencyRatio float64
}

type UpdateOrder string

const (
	StartFirst UpdateOrder = "start-first" // the new instance is ready before the old one is drained
	StopFirst  UpdateOrder = "stop-first"  // never two at once: for one writer of a directory
)

// A Proxy is where requests come in and where they go.
type Proxy struct {
	Engine         ProxyEngine
	AccessLog      bool // a line for each request in logs/access.log in the state directory
	Limits         ClientLimits
	Listeners      map[string]Listener // by name
	TrustedProxies []string            // CIDR prefixes whose X-Forwarded-* are believed
	Routes         []Route             // first match wins
}

// A ProxyEngine says what carries requests.
type ProxyEngine string

const (
	EngineAuto    ProxyEngine = "auto"     // event loops where there are any, net/http for what these decline
	EngineNetHTTP ProxyEngine = "net_http" // net/http for everything
)

// ClientLimits are what a client of the proxy may ask for. Zero is no limit.
type ClientLimits struct {
	HeaderTimeout time.Duration // from a request's first byte, or the connection's start, to its header's end
	BodyTimeout   time.Duration // without a byte of a request's content that is waited for
	SendTimeout   time.Duration // without a byte of a response being taken
	IdleTimeout   time.Duration // between two requests
	// MinimumRate is the bytes per second that a client must send of a request's content, or take of a response, on the
	// average of the time that it is waited for, once that is more than RateGrace.
	MinimumRate          int64
	HeaderSize           int // bytes of a request's line and fields
	HeaderFields         int
	ConnectionsPerClient int // open at once from one address; trusted proxies have no limit
}

// RateGrace is how long a client may be slower than ClientLimits.MinimumRate.
const RateGrace = 20 * time.Second

// A Listener accepts HTTP on one address.
type Listener struct {
	Name          string
	Address       string // host:port; an empty host is every interface
	TLS           *TLS   // nil: plain
	RedirectHTTPS bool   // answer every request with a redirect to https
}

// TLS names the PEM files of a listener's certificate chain and key.
type TLS struct {
	Certificate, Key string
	// Digest is the SHA-256 of both files' contents when the topology was loaded, so
	// that a renewed certificate is a change.
	Digest string
}

// A Route sends the requests that it matches to a service.
type Route struct {
	Host            string // lower case, without port; empty matches every host; "*.example.com" every one label below
	PathPrefix      string // segment-wise: /api matches /api and /api/x, not /apix; "/" matches all
	Service         string
	Timeouts        Timeouts
	Retries         Retries
	StripPrefix     string // removed from the path before the request is sent on; empty: nothing
	RequestHeaders  HeaderEdits
	ResponseHeaders HeaderEdits
}

// Timeouts bound one attempt at an instance.
type Timeouts struct {
	Connect        time.Duration // to establish the connection
	ResponseHeader time.Duration // from the request sent to the response's header
	Idle           time.Duration // without a byte in either direction, once the header has come
}

// Retries bound how often a request is sent to another instance.
type Retries struct {
	Attempts int // further attempts after the first; 0: none
	On       []RetryCondition
}

type RetryCondition string

const (
	RetryConnectFailure RetryCondition = "connect_failure" // nothing was sent: safe for every method
	RetryReset          RetryCondition = "reset"           // the connection died before a response byte: idempotent methods only
)

// HeaderEdits change a header on its way: Remove, then Set, then Add. Names are canonical.
type HeaderEdits struct {
	Set, Add map[string]string
	Remove   []string
}

// A Relay is one ZeroMQ XSUB/XPUB relay.
type Relay struct {
	Name        string
	Publishers  string // tcp://host:port that publishers connect to; host * is every interface
	Subscribers string // tcp://host:port that subscribers connect to
	Queue       Queue
}

// A Queue bounds what waits for one subscriber.
type Queue struct {
	Limit    int64 // bytes
	WhenFull QueuePolicy
}

type QueuePolicy string

const (
	DropNewest QueuePolicy = "drop_newest" // the message that does not fit
	DropOldest QueuePolicy = "drop_oldest" // those that wait longest, until it fits
	Disconnect QueuePolicy = "disconnect"  // the subscriber
)

// A Backup is what is copied where, when, and for how long it is kept.
type Backup struct {
	Name         string
	Service      string   // whose data this is; may be empty
	Paths        []string // absolute
	Repository   string   // file:///absolute/path or s3://bucket/prefix?endpoint=URL&region=R&path_style=true
	PasswordFile string   // absolute
	Schedule     string   // five cron fields in local time, or empty: only by hand
	Retention    Retention
}

// Retention counts the snapshots that are kept, as restic's forget does. All zero keeps every one.
type Retention struct {
	KeepLast, KeepHourly, KeepDaily, KeepWeekly, KeepMonthly, KeepYearly int
}

// Metrics says where /metrics is served.
type Metrics struct {
	Address string // host:port; empty: nowhere but on the admin socket
}

// Admin says where the API is served.
type Admin struct {
	Socket string // path of the unix socket, absolute
	Mode   uint32 // its permission bits
	Group  string // its group; empty: Mainstay's own
}

// An Instance names one running copy of a service to whoever sends it work.
type Instance struct {
	Service string
	// ID tells instances apart for as long as Mainstay runs, "web/2" with a suffix
	// ("web/2.7") that differs for each process that has filled that place.
	ID      string
	Replica int    // from 1
	Address string // host:port
	Weight  int    // at least 1
	// Share is the percentage of the service's requests that go to it, however busy it and the others are; 0: that is left to
	// Weight and to who is least busy. While all others are idle, or it alone is, least connections does not keep to weights.
	Share float64
}

// Traffic is what was seen of the requests to one instance, since it was first admitted.
type Traffic struct {
	InFlight int    // now
	Requests uint64 // that have ended, other than by the client's leaving or because the instance was stopped
	Errors   uint64 // of those: answered with 5xx, not to the end, or not at all
	// Latencies counts Requests by how long the response's header took: one bucket for each of LatencyBuckets, and one for
	// what took longer or was not answered.
	Latencies [len(LatencyBuckets) + 1]uint64
}

// LatencyBuckets are upper bounds.
var LatencyBuckets = [...]time.Duration{
	500 * time.Microsecond, time.Millisecond, 2 * time.Millisecond, 3 * time.Millisecond, 5 * time.Millisecond, 7 * time.Millisecond,
	10 * time.Millisecond, 15 * time.Millisecond, 20 * time.Millisecond, 30 * time.Millisecond, 50 * time.Millisecond, 70 * time.Millisecond,
	100 * time.Millisecond, 150 * time.Millisecond, 200 * time.Millisecond, 300 * time.Millisecond, 500 * time.Millisecond, 700 * time.Millisecond,
	time.Second, 1500 * time.Millisecond, 2 * time.Second, 3 * time.Second, 5 * time.Second, 7 * time.Second, 10 * time.Second, 30 * time.Second, time.Minute,
}

// Quiet returns t without listeners: the step before stopping, in which requests finish
// while the processes that answer them still run.
func (t *Topology) Quiet() *Topology {
	q := *t
	q.Proxy.Listeners = nil
	return &q
}
