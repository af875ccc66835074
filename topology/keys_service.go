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
		{name: "replicas", typ: integer(0, 1000), def: "1", example: "3", class: ClassScale, reason: "exactly the difference is started or drained",
			doc: "How many instances run."},
		{name: "environment", secrets: true, example: "{LOG_LEVEL: info}", class: ClassRoll, reason: "the environment is part of the process",
			doc: "Variables in addition to Mainstay's own environment. PORT, HOST, MAINSTAY_SERVICE, MAINSTAY_REPLICA and MAINSTAY_GENERATION are set anyway.",
			typ: &typ{name: "a mapping of variables to values", named: checkVariable, each: &key{name: "VARIABLE", typ: argument, doc: "Its value."}}},
		{name: "env_file", unsupported: true, typ: file, example: ".env", doc: "A file with more variables."},
		{name: "directory", typ: file, defDoc: "the file's directory", example: "/srv/shop", class: ClassRoll, reason: "the working directory is part of the process",
			doc: "The working directory."},
		{name: "user", typ: userName, defDoc: "Mainstay's own", example: "shop", class: ClassRoll, reason: "the user is part of the process",
			doc: "The user, by name or id, that instances run as."},
		{name: "group", typ: groupName, defDoc: "the user's own", example: "shop", class: ClassRoll, reason: "the group is part of the process",
			doc: "The group, by name or id, that instances run as."},
		{name: "port", typ: port, def: "auto", example: "none", class: ClassRoll, reason: "the port is part of the process",
			doc: "Where an instance listens: `auto` gives each a free port, `none` is a worker that nobody connects to, a number is that port, for one replica."},
		{name: "listen", unsupported: true, typ: oneOf([]string{"port", "fd"}), def: "port", example: "fd", doc: "Whether instances are given a port or an open socket."},
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
		{name: "limits", unsupported: true, example: "{memory: 512MiB, cpus: 2}", class: ClassRoll, reason: "limits are part of the process",
			doc: "What an instance may use.", typ: &typ{
				name: "a mapping",
				keys: []*key{
					{name: "memory", typ: size, example: "512MiB", doc: "Memory."},
					{name: "cpus", typ: number, example: "2", doc: "Cores."},
					{name: "open_files", typ: integer(1, 1<<20), example: "65536", doc: "Open files."},
				},
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
					{name: "failure_action", typ: oneOf([]string{"rollback"}, "pause", "continue"), def: "rollback", example: "rollback",
						doc: "What follows when a new instance is given up: the old ones stay."},
				},
				foreign: map[string]foreign{"monitor": {key: "min_ready"}, "max_surge": {key: "parallelism"}, "strategy": {key: "order"}, "timeout": {key: "deadline"}},
			}},
		{name: "stop_signal", typ: signal, def: "SIGTERM", example: "SIGINT", class: ClassHot, reason: "the next stop is made with it",
			doc: "The signal that asks an instance to end."},
		{name: "stop_grace_period", external: true, typ: duration(0), def: "10s", example: "45s", class: ClassHot, reason: "the next stop is made with it",
			doc: "How long a stop waits, first for the requests in flight and then, after the signal, for the process, before it is killed."},
		{name: "schedule", unsupported: true, typ: cron, example: `"0 3 * * *"`, doc: "Makes it a job that runs and ends."},
		{name: "slo", unsupported: true, external: true, example: "{objective: 99.9, latency: 300ms, window: 30d}", doc: "What the service promises.", typ: &typ{
			name: "a mapping",
			keys: []*key{
				{name: "objective", typ: number, required: true, example: "99.9", doc: "The percentage of good requests."},
				{name: "latency", typ: duration(time.Millisecond), example: "300ms", doc: "A good request is answered by then."},
				{name: "window", typ: duration(time.Hour), def: "30d", example: "30d", doc: "The time that is looked back at."},
			},
		}},
		{name: "when_unavailable", unsupported: true, external: true, example: "{hold: 5s, fallback: static-page}", doc: "What clients see while no instance is ready.", typ: &typ{
			name: "a mapping",
			keys: []*key{
				{name: "hold", typ: duration(0), example: "5s", doc: "How long requests wait for one."},
				{name: "fallback", typ: text, example: "static-page", doc: "The service that answers then."},
			},
		}},
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
			{name: "grpc", alternative: "kind", external: true, unsupported: true, typ: text, example: "shop.Orders", doc: "The gRPC health service says SERVING."},
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
