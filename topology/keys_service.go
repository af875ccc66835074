package topology

import (
	"strconv"
	"strings"
	"time"
)

var service = &typ{
	name: "a mapping",
	keys: []*key{
		{name: "command", typ: command, required: true, alternative: "program", secrets: true, example: "./web --port {port}", class: ClassRoll,
			reason: "the command is part of the process",
			doc: "What each instance runs. A string is split like shell words and run without a shell; a list is taken as it is; `{shell: …}` asks for a shell. " +
				"A program with a slash in it is relative to the file, one without is looked up in PATH. " +
				"`{address}` `{host}` `{port}` `{replica}` `{service}` stand for the instance's own."},
		{name: "external", required: true, alternative: "program", external: true, example: "[10.0.0.5:8080, 10.0.0.6:8080]", class: ClassScale,
			reason: "only instances that came or went are touched", doc: "Instead of a command: instances that run elsewhere and are only probed and balanced.", typ: &typ{
				name: "a list of addresses",
				item: &key{doc: "One instance.", typ: &typ{
					name: "an address, or a mapping", parse: hostAddress.parse, schema: hostAddress.schema,
					keys: []*key{
						{name: "address", typ: hostAddress, required: true, example: "10.0.0.5:8080", doc: "host:port of the instance."},
						{name: "weight", typ: integer(1, 1000), def: "1", example: "2", doc: "Its share of the load, relative to its siblings."},
					},
				}},
			}},
		{name: "description", external: true, typ: text, defDoc: "none", example: "takes the orders", class: ClassHot, reason: "it is for people",
			doc: "What it is, for people."},
		{name: "replicas", typ: integer(0, 1000), def: "1", example: "3", class: ClassScale, reason: "exactly the difference is started or drained",
			doc: "How many instances run."},
		{name: "environment", secrets: true, example: "{LOG_LEVEL: info}", class: ClassRoll, reason: "the environment is part of the process",
			doc: "Variables in addition to Mainstay's own environment. PORT, HOST, MAINSTAY_SERVICE, MAINSTAY_REPLICA and MAINSTAY_GENERATION are set anyway.",
			typ: &typ{name: "a mapping of variables to values", named: checkVariable, each: &key{name: "VARIABLE", typ: argument, doc: "Its value."}}},
		{name: "env_file", typ: &typ{name: "a path, or a list of paths", parse: file.parse, schema: file.schema, item: &key{typ: file, doc: "One file."}},
			defDoc: "none", example: ".env", class: ClassRoll, reason: "the environment is part of the process",
			doc: "Files with more variables, as NAME=VALUE lines; `#` begins a comment, quotes around a value are taken off. What `environment` says counts more, and so does a later file. " +
				"The values are secret. A file that changes is a change of the service."},
		{name: "directory", typ: file, defDoc: "the file's directory", example: "/srv/shop", class: ClassRoll, reason: "the working directory is part of the process",
			doc: "The working directory."},
		{name: "user", typ: userName, defDoc: "Mainstay's own", example: "shop", class: ClassRoll, reason: "the user is part of the process",
			doc: "The user, by name or id, that instances run as."},
		{name: "group", typ: groupName, defDoc: "the user's own", example: "shop", class: ClassRoll, reason: "the group is part of the process",
			doc: "The group, by name or id, that instances run as."},
		{name: "port", typ: port, def: "auto", example: "none", class: ClassRoll, reason: "the port is part of the process",
			doc: "Where an instance listens: `auto` gives each a free port, `none` is a worker that nobody connects to, a number is that port, for one replica."},
		{name: "listen", typ: oneOf([]string{"port", "fd"}), def: "port", example: "fd", class: ClassRoll, reason: "the socket is part of the process",
			doc: "Who opens the socket. `port`: the instance. `fd`: Mainstay, and the instance is given it as descriptor 3, as systemd's socket activation does (LISTEN_FDS, LISTEN_PID); " +
				"it stays open while the instance is started again, so that connections wait instead of failing. " +
				"A probe by TCP succeeds from the start then, as the kernel answers it: http_get, grpc or notify tell more."},
		{name: "probes", external: true, example: "{readiness: {http_get: /readyz}}", class: ClassHot, reason: "the next check is made with it",
			doc: "Checks that tell how an instance is doing, with the meaning that Kubernetes gives them.", typ: &typ{
				name: "a mapping",
				keys: []*key{
					{name: "startup", typ: probe("1s", 60), defDoc: "none", example: "{http_get: /readyz, period: 1s}",
						doc: "Holds the others back until it first succeeds; the instance is restarted when it gives up."},
					{name: "readiness", external: true, typ: probe("2s", 3), defDoc: "`{tcp: true}` if the service has a port or is external", example: "{http_get: /readyz}",
						doc: "Decides whether requests are sent to the instance; it never restarts it."},
					{name: "liveness", typ: probe("10s", 3), defDoc: "none", example: "{http_get: /healthz}", doc: "Restarts the instance when it fails."},
				},
				foreign: map[string]foreign{"ready": {key: "readiness"}, "live": {key: "liveness"}, "health": {key: "liveness"}, "http_get": {key: "readiness.http_get"},
					"tcp": {key: "readiness.tcp"}, "exec": {key: "readiness.exec"}},
			}},
		{name: "limits", example: "{memory: 512MiB, cpus: 2}", class: ClassRoll, reason: "limits are part of the process",
			defDoc: "none", doc: "What each instance may use. All but open_files need cgroup v2 with the controller; where that is missing, the instance is not started and says so.", typ: &typ{
				name: "a mapping",
				keys: []*key{
					{name: "memory", typ: atLeast(1 << 20), defDoc: "none", example: "512MiB", doc: "Memory of all its processes. What goes beyond ends them all, and is told as an OOM kill."},
					{name: "cpus", typ: cores, defDoc: "none", example: "1.5", doc: "Cores, as time: 0.5 is half of one."},
					{name: "processes", typ: integer(1, 1<<22), defDoc: "none", example: "200", doc: "Processes and threads."},
					{name: "open_files", typ: integer(16, 1<<20), defDoc: "Mainstay's own", example: "65536", doc: "Open files of each process."},
				},
				foreign: map[string]foreign{"mem": {key: "memory"}, "MemoryMax": {key: "memory"}, "cpu": {key: "cpus"}, "pids": {key: "processes"}, "nofile": {key: "open_files"}, "LimitNOFILE": {key: "open_files"}},
			}},
		{name: "restart", example: "{policy: on-failure}", class: ClassHot, reason: "the next exit is handled with it",
			doc: "What follows when an instance ends by itself.", typ: &typ{
				name: "a mapping",
				keys: []*key{
					{name: "policy", typ: oneOf([]string{"always", "on-failure", "never"}), def: "always", example: "on-failure",
						doc: "When it is started again. `on-failure` is not after exit status 0."},
					{name: "backoff", example: "{initial: 500ms, max: 30s, reset_after: 30s}", typ: &typ{
						name: "a mapping",
						keys: []*key{
							{name: "initial", typ: duration(time.Millisecond), def: "500ms", example: "1s", doc: "Before the first restart."},
							{name: "max", typ: duration(time.Millisecond), def: "30s", example: "1m", doc: "The most that it grows to."},
							{name: "reset_after", typ: duration(time.Millisecond), def: "30s", example: "1m", doc: "After running for so long it begins anew."},
						},
					}, doc: "The wait before a restart, doubled each time."},
				},
				foreign: map[string]foreign{"condition": {key: "policy"}, "delay": {key: "backoff.initial"}},
			}},
		{name: "depends_on", example: "[orders]", defDoc: "none", class: ClassHot, reason: "it only orders first starts",
			doc: "Services that come first. A list waits until each is ready; a mapping says what to wait for.", typ: &typ{
				name: "a list of services, or a mapping of services to conditions",
				item: &key{typ: text},
				each: &key{name: "SERVICE", typ: oneOf([]string{"started", "ready", "completed"}), example: "ready",
					doc: "`started`: a process runs. `ready`: an instance is ready. `completed`: it ended with exit status 0."},
				named: checkName,
			}},
		{name: "update", example: "{order: stop-first}", class: ClassHot, reason: "the next replacement is made with it",
			doc: "How the instances of a changed service are replaced.", typ: &typ{
				name: "a mapping",
				keys: []*key{
					{name: "order", typ: oneOf([]string{"start-first", "stop-first"}), def: "start-first", defDoc: "`start-first`; `stop-first` with a fixed port", example: "stop-first",
						doc: "`start-first`: the new instance is ready before the old one is drained. `stop-first`: never two at once, for one writer of a directory."},
					{name: "parallelism", typ: integer(1, 1000), def: "1", example: "2", doc: "How many are replaced at once."},
					{name: "min_ready", typ: duration(0), def: "1s", example: "5s", doc: "How long a new instance must stay ready before the old one is drained."},
					{name: "deadline", typ: duration(time.Millisecond), def: "2m", example: "10m", doc: "A new instance that is not ready by then is given up."},
					{name: "failure_action", typ: oneOf([]string{"rollback", "pause", "continue"}), def: "rollback", example: "pause",
						doc: "What follows when a new instance is given up. `rollback`: what ran before runs again. `pause`: nothing more is replaced until the service changes again. " +
							"`continue`: the others are replaced all the same."},
					{name: "canary", defDoc: "none", example: "{weight: 10%, duration: 2m, max_error_ratio: 0.01}", typ: canary,
						doc: "Lets the first new instance prove itself on a share of the requests."},
				},
				foreign: map[string]foreign{"monitor": {key: "min_ready"}, "max_surge": {key: "parallelism"}, "strategy": {key: "order"}, "timeout": {key: "deadline"}},
			}},
		{name: "stop_signal", typ: signal, def: "SIGTERM", example: "SIGINT", class: ClassHot, reason: "the next stop is made with it",
			doc: "The signal that asks an instance to end."},
		{name: "stop_grace_period", external: true, typ: duration(0), def: "10s", example: "45s", class: ClassHot, reason: "the next stop is made with it",
			doc: "How long a stop waits, first for the requests in flight and then, after the signal, for the process, before it is killed."},
		{name: "schedule", typ: jobSchedule, defDoc: "none", example: `"0 3 * * *"`, class: ClassHot, reason: "the next run is when it says",
			doc: "Makes it a job, which runs and ends. It has one replica, `port: none` and `restart: {policy: never}` unless it says otherwise; with on-failure a run that fails is tried again."},
		{name: "slo", unsupported: true, external: true, example: "{objective: 99.9, latency: 300ms, window: 30d}", doc: "What the service promises.", typ: &typ{
			name: "a mapping",
			keys: []*key{
				{name: "objective", typ: number, required: true, example: "99.9", doc: "The percentage of good requests."},
				{name: "latency", typ: duration(time.Millisecond), example: "300ms", doc: "A good request is answered by then."},
				{name: "window", typ: duration(time.Hour), def: "30d", example: "30d", doc: "The time that is looked back at."},
			},
		}},
		{name: "when_unavailable", external: true, typ: whenUnavailable, defDoc: "an answer of 503", example: "{hold: 5s, fallback: static-page}", class: ClassHot,
			reason: "the next request is answered with it", doc: "What clients see while no instance can take their request."},
		{name: "logs", typ: &typ{
			name: "a mapping",
			keys: []*key{
				{name: "max_size", typ: atLeast(64 << 10), def: "10MiB", example: "50MiB", doc: "Of one file."},
				{name: "max_files", typ: integer(1, 1000), def: "5", example: "3", doc: "How many are kept of each instance, including the one that is written to."},
			},
			foreign: map[string]foreign{"max-size": {key: "max_size"}, "max-file": {key: "max_files"}, "size": {key: "max_size"}, "keep": {key: "max_files"}, "rotate": {key: "max_files"}},
		}, example: "{max_size: 50MiB, max_files: 3}", class: ClassHot, reason: "the next line is kept with it",
			doc: "How much is kept of what an instance prints."},
	},
	foreign: map[string]foreign{
		"cmd": {key: "command"}, "exec": {key: "command"}, "run": {key: "command"}, "entrypoint": {key: "command"}, "args": {key: "command"}, "program": {key: "command"}, "ExecStart": {key: "command"},
		"image": {key: "command", why: "Mainstay runs programs of this machine, not images"},
		"build": {key: "command", why: "Mainstay runs programs that are built already"},
		"env":   {key: "environment"}, "environ": {key: "environment"}, "Environment": {key: "environment"}, "envFrom": {key: "env_file"},
		"replica": {key: "replicas"}, "count": {key: "replicas"}, "scale": {key: "replicas"}, "instances": {key: "replicas"}, "numprocs": {key: "replicas"},
		"deploy":      {why: "replicas, update, restart and limits stand in the service itself"},
		"healthcheck": {key: "probes.readiness"}, "health_check": {key: "probes.readiness"}, "check": {key: "probes.readiness"},
		"readinessProbe": {key: "probes.readiness"}, "readiness_probe": {key: "probes.readiness"}, "readiness": {key: "probes.readiness"},
		"livenessProbe": {key: "probes.liveness"}, "liveness_probe": {key: "probes.liveness"}, "liveness": {key: "probes.liveness"},
		"startupProbe": {key: "probes.startup"}, "startup_probe": {key: "probes.startup"}, "startup": {key: "probes.startup"},
		"ports": {key: "port"}, "expose": {key: "port"}, "volumes": {why: "a service uses this machine's directories"}, "networks": {why: "a service shares this machine's network"},
		"working_dir": {key: "directory"}, "workdir": {key: "directory"}, "cwd": {key: "directory"}, "WorkingDirectory": {key: "directory"},
		"stopsignal": {key: "stop_signal"}, "kill_signal": {key: "stop_signal"}, "stop_timeout": {key: "stop_grace_period"}, "kill_timeout": {key: "stop_grace_period"},
		"terminationGracePeriodSeconds": {key: "stop_grace_period"}, "stopwaitsecs": {key: "stop_grace_period"},
		"cron": {key: "schedule"}, "cronjob": {key: "schedule"}, "EnvironmentFile": {key: "env_file"}, "logging": {key: "logs"}, "stdout_logfile_maxbytes": {key: "logs.max_size"},
		"depends": {key: "depends_on"}, "after": {key: "depends_on"}, "requires": {key: "depends_on"}, "update_config": {key: "update"}, "resources": {key: "limits"},
		"restart_policy": {key: "restart"}, "autorestart": {key: "restart"}, "availability": {key: "restart"}, "upstreams": {key: "external"}, "servers": {key: "external"},
	},
}

// command is an argv.
var command = &typ{
	name:   "a command",
	parse:  parseCommand,
	schema: map[string]any{"type": "string"},
	item:   &key{typ: argument},
	keys: []*key{
		{name: "shell", typ: argument, required: true, example: `"./web | tee web.log"`, doc: "The line that `/bin/sh -c` is given."},
	},
}

func parseCommand(s scalar) (any, error) {
	if err := checkPlaceholders(s); err != nil {
		return nil, err
	}
	words, err := splitWords(s)
	if err != nil {
		return nil, err
	}
	if len(words) == 0 {
		return nil, faultf("is empty")
	}
	if strings.ContainsRune(s.String(), 0) {
		return nil, faultf("has a NUL byte in it")
	}
	return words, nil
}

// probe is a check with the given defaults.
func probe(period string, failures int) *typ {
	return &typ{
		name: "a mapping",
		keys: []*key{
			{name: "http_get", alternative: "kind", external: true, example: "/readyz", doc: "A GET of this path is answered with a status from 200 to 399.", typ: &typ{
				name: "a path, or a mapping", parse: requestPath.parse, schema: requestPath.schema,
				keys: []*key{
					{name: "path", typ: requestPath, required: true, example: "/readyz", doc: "What is asked for."},
					{name: "address", typ: probeAddress, def: "{address}", example: "127.0.0.1:{port}", doc: "Who is asked."},
					{name: "host", typ: text, defDoc: "the address", example: "shop.example.com", doc: "The Host header."},
				},
				foreign: map[string]foreign{"port": {key: "address"}, "url": {key: "path"}},
			}},
			{name: "tcp", alternative: "kind", external: true, typ: tcpProbe, example: "true", doc: "A connection to the instance, or to this address, is accepted."},
			{name: "exec", alternative: "kind", external: true, secrets: true, typ: command, example: "./check {address}", doc: "This command ends with exit status 0."},
			{name: "grpc", alternative: "kind", external: true, typ: &typ{
				name: "true, a service, or a mapping", yaml: "any", schema: map[string]any{"type": []string{"boolean", "string", "number"}}, parse: parseGRPC,
				keys: []*key{
					{name: "service", typ: text, defDoc: "the server as a whole", example: "shop.Orders", doc: "Whose health is asked for."},
					{name: "address", typ: probeAddress, def: "{address}", example: "127.0.0.1:{port}", doc: "Who is asked."},
				},
				foreign: map[string]foreign{"port": {key: "address"}},
			}, example: "shop.Orders", doc: "grpc.health.v1.Health says SERVING: `true` asks for the server as a whole."},
			{name: "notify", alternative: "kind", typ: boolean, example: "true",
				doc: "The instance says so itself, as programs for systemd do (sd_notify): startup and readiness with READY=1, liveness with WATCHDOG=1 in each period."},
			{name: "initial_delay", external: true, typ: duration(0), def: "0s", example: "5s", doc: "Before the first try."},
			{name: "period", external: true, typ: duration(time.Millisecond), def: period, example: "5s", doc: "Between the starts of tries."},
			{name: "timeout", external: true, typ: duration(time.Millisecond), def: "1s", example: "3s", doc: "Of one try."},
			{name: "failure_threshold", external: true, typ: integer(1, 1e6), def: strconv.Itoa(failures), example: "5", doc: "So many failures in a row count."},
			{name: "success_threshold", external: true, typ: integer(1, 1e6), def: "1", example: "2", doc: "So many successes in a row count; more than one for readiness only."},
		},
		foreign: map[string]foreign{
			"httpGet": {key: "http_get"}, "http": {key: "http_get"}, "path": {key: "http_get"}, "test": {key: "exec"}, "command": {key: "exec"}, "tcpSocket": {key: "tcp"}, "tcp_socket": {key: "tcp"},
			"interval": {key: "period"}, "periodSeconds": {key: "period"}, "timeoutSeconds": {key: "timeout"}, "retries": {key: "failure_threshold"}, "failureThreshold": {key: "failure_threshold"},
			"successThreshold": {key: "success_threshold"}, "initialDelaySeconds": {key: "initial_delay"}, "start_period": {key: "initial_delay"}, "delay": {key: "initial_delay"},
		},
	}
}

// parseGRPC reads true, for the server as a whole, or the name of a service. It is a GRPC.
func parseGRPC(s scalar) (any, error) {
	switch s.String() {
	case "true", "True", "TRUE":
		return GRPC{Address: "{address}"}, nil
	case "false", "False", "FALSE":
		return nil, faultf("is true or a service; leave the probe out to have none")
	}
	name, err := parseText(s)
	if err != nil {
		return nil, err
	}
	return GRPC{Address: "{address}", Service: name.(string)}, nil
}

var canary = &typ{
	name: "a mapping",
	keys: []*key{
		{name: "weight", typ: canaryWeight, required: true, example: "10%", doc: "Its share of the service's requests, whatever else is under way."},
		{name: "duration", typ: duration(time.Second), required: true, example: "2m",
			doc: "For how long, unless it fails before. With too few requests to judge by, it passes if it stays ready so long."},
		{name: "max_error_ratio", typ: ratio, def: "0.01", example: "0.05",
			doc: "By how much its share of requests that end with 5xx, or without an answer, may exceed that of the old instances: 0.01 allows 3 % where they have 2 %. " +
				"It is judged from its third failed request on."},
		{name: "max_latency_ratio", typ: factor, defDoc: "latency is not judged", example: "1.5",
			doc: "How many times as long as with the old instances the 95th percentile of the time to the response's header may be. It is judged from the 50th request of either side on."},
	},
}

var jobSchedule = &typ{
	name: "a cron expression, or a mapping", parse: cron.parse, schema: cron.schema,
	keys: []*key{
		{name: "cron", typ: cron, required: true, example: `"0 3 * * *"`, doc: "Minute, hour, day of the month, month, day of the week."},
		{name: "time_zone", typ: timeZone, defDoc: "this machine's", example: "Europe/Berlin", doc: "Whose time that is. A time that a change of clocks leaves out runs right after it; one that comes twice runs once."},
		{name: "overlap", typ: oneOf([]string{"skip", "queue", "replace"}), def: "skip", example: "queue",
			doc: "When a run is due while one is under way: `skip` it, `queue` it for afterwards, or `replace` the one under way."},
		{name: "missed", typ: oneOf([]string{"skip", "once"}), def: "skip", example: "once",
			doc: "What was due while Mainstay was not running: `skip` it, or run it `once`, however often it was due."},
		{name: "timeout", typ: duration(time.Second), defDoc: "none", example: "1h", doc: "A run that takes longer is stopped and has failed."},
	},
	foreign: map[string]foreign{"expression": {key: "cron"}, "timezone": {key: "time_zone"}, "tz": {key: "time_zone"}, "concurrencyPolicy": {key: "overlap"}, "catch_up": {key: "missed"}, "prohibit_overlap": {key: "overlap"}},
}

var whenUnavailable = &typ{
	name: "a mapping",
	keys: []*key{
		{name: "hold", external: true, defDoc: "none is held", example: "5s", doc: "Requests wait so long for an instance.", typ: &typ{
			name: "a duration, or a mapping", yaml: "any", parse: duration(0).parse, schema: duration(0).schema,
			keys: []*key{
				{name: "for", external: true, typ: duration(0), required: true, example: "5s", doc: "How long each may wait."},
				{name: "requests", external: true, typ: integer(1, 1e6), def: "1000", example: "200", doc: "How many may wait at once."},
				{name: "bytes", external: true, typ: atLeast(64 << 10), def: "64MiB", example: "16MiB", doc: "How much memory they may take up together: for each its method, target and header fields, what has been read of its content, and 24 KiB."},
			},
			foreign: map[string]foreign{"max_requests": {key: "requests"}, "timeout": {key: "for"}},
		}},
		{name: "fallback", alternative: "answer", external: true, typ: text, defDoc: "none", example: "static-page", doc: "The service that answers then."},
		{name: "response", alternative: "answer", external: true, defDoc: "503", example: `{status: 503, body: "back soon"}`, doc: "The answer then.", typ: &typ{
			name: "a mapping",
			keys: []*key{
				{name: "status", external: true, typ: integer(200, 599), def: "503", example: "503", doc: "Its status."},
				{name: "content_type", external: true, typ: headerValue, def: "text/plain; charset=utf-8", example: "text/html", doc: "Its Content-Type."},
				{name: "body", external: true, typ: body, defDoc: "empty", example: `"back soon"`, doc: "Its content."},
			},
		}},
	},
}
