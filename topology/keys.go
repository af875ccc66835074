package topology

import "time"

// This file and keys_service.go are the table of keys. It drives what is read, what is refused, what is suggested, the
// defaults, the classes of changes, the JSON Schema and the reference page.

// root is the whole file.
var root = &key{
	name: "topology",
	doc:  "One file says everything that should run.",
	typ: &typ{
		name: "a mapping",
		keys: []*key{
			{name: "version", required: true, typ: version, example: "1", class: ClassHot, reason: "it says how to read the file",
				doc: "The version of this format."},
			{name: "name", typ: userGivenName, defDoc: "the directory's name", example: "shop", class: ClassHot, reason: "it only names the topology in logs",
				doc: "Tells this topology from others in logs."},
			{name: "state_dir", typ: file, def: ".mainstay", example: "/var/lib/mainstay/shop", class: ClassManual,
				reason: "generations, logs and the lock live there for as long as Mainstay runs",
				doc:    "Where Mainstay keeps what outlives it: generations, logs, its lock."},
			{name: "defaults", partial: true, typ: service, example: "{stop_grace_period: 20s}",
				doc: "Any key of a service, for every service that does not have it itself."},
			{name: "services", typ: &typ{name: "a mapping of names to services", named: checkName, each: &key{
				name: "NAME", typ: service, class: ClassScale, reason: "exactly its own instances start or stop",
				doc: "A program in one or more instances, or, with external, instances that run elsewhere and are only probed and balanced.",
			}}, example: `{web: {command: "./web --port {port}"}}`, doc: "What runs, by name."},
			{name: "proxy", typ: proxy, example: "{routes: [{service: web}]}", class: ClassHot, reason: "the routing table is swapped in one step",
				doc: "Where requests come in and where they go."},
			{name: "bus", typ: &typ{name: "a mapping of names to relays", named: checkName, each: &key{
				name: "NAME", typ: relay, class: ClassRebind, reason: "only this relay's sockets open or close",
				doc: "A ZeroMQ relay from publishers to subscribers (XSUB and XPUB).",
			}}, doc: "What relays messages, by name.",
				example: "{events: {publishers: tcp://127.0.0.1:5556, subscribers: tcp://127.0.0.1:5557}}"},
			{name: "backups", typ: &typ{name: "a mapping of names to backups", named: checkName, each: &key{
				name: "NAME", typ: backup, class: ClassHot, reason: "the next run does what the file says",
				doc: "What is copied where, when, and for how long it is kept.",
			}}, doc: "What is kept safe, by name.",
				example: "{orders: {paths: [/var/lib/shop], repositories: [/mnt/backup], password_file: backup.key}}"},
			{name: "metrics", example: "{address: 127.0.0.1:9464}", doc: "Where /metrics is served besides the admin socket.", typ: &typ{
				name: "a mapping", keys: []*key{
					{name: "address", typ: listenAddress, required: true, example: "127.0.0.1:9464", class: ClassRebind,
						reason: "the new address is bound before the old one is let go", doc: "The address that Prometheus scrapes."},
				},
			}},
			{name: "logs", example: "{max_total: 2GiB}", class: ClassHot, reason: "it is looked at when a file is full", doc: "How much is kept of what all services print.", typ: &typ{
				name: "a mapping", keys: []*key{
					{name: "max_total", typ: atLeast(1 << 20), def: "1GiB", example: "2GiB", doc: "All log files together. The oldest go first."},
				},
			}},
			{name: "on_exit", typ: oneOf([]string{"stop", "keep"}), def: "stop", example: "keep", class: ClassHot, reason: "it matters when Mainstay is stopped",
				doc: "What becomes of the services when Mainstay is stopped: `stop` them, or `keep` them running for the next start, which takes them over. If Mainstay is killed they run on in any case."},
			{name: "admin", typ: admin, example: `{mode: "0660", group: adm}`, class: ClassManual, reason: "the admin socket is made once, when Mainstay starts",
				doc: "The unix socket that commands talk to."},
		},
		foreign: map[string]foreign{
			"service": {key: "services"}, "processes": {key: "services"}, "apps": {key: "services"}, "programs": {key: "services"},
			"listeners": {key: "proxy.listeners"}, "routes": {key: "proxy.routes"}, "backup": {key: "backups"}, "relays": {key: "bus"},
			"networks": {why: "services share this machine's network"},
			"volumes":  {why: "services use this machine's directories"},
			"include":  {why: "give several files instead: -f base.yaml -f prod.yaml"},
		},
	},
}

var version = &typ{
	name: "1", yaml: "!!int", schema: map[string]any{"const": 1},
	parse: func(s scalar) (any, error) {
		if s.String() != "1" {
			return nil, fault{"this Mainstay reads version 1 of the format", "1"}
		}
		return 1, nil
	},
}

// userGivenName is a name that may stand in paths and labels.
var userGivenName = &typ{
	name: "a name", schema: map[string]any{"type": "string", "pattern": nameForm.String() + `|\$\{`},
	parse: func(s scalar) (any, error) { return s.String(), checkName(s.String()) },
}

var admin = &typ{
	name: "a mapping",
	keys: []*key{
		{name: "socket", typ: file, defDoc: "`admin.sock` in the state directory", example: "/run/mainstay/shop.sock", doc: "The path of the socket, at most 107 bytes."},
		{name: "mode", typ: fileMode, def: "0600", example: `"0660"`, doc: "Its permission bits: who may write to it may do everything."},
		{name: "group", typ: groupName, defDoc: "Mainstay's own", example: "adm", doc: "The group it belongs to."},
	},
	foreign: map[string]foreign{"path": {key: "socket"}, "permissions": {key: "mode"}},
}

var proxy = &typ{
	name: "a mapping",
	keys: []*key{
		{name: "listeners", typ: &typ{name: "a mapping of names to listeners", named: checkName, each: &key{
			name: "NAME", typ: listener, class: ClassRebind, reason: "only this listener's socket opens or closes",
			doc: "An address that accepts HTTP.",
		}}, defDoc: "`http: {address: 127.0.0.1:8080}` if there are routes", example: "{http: {address: :80}}", doc: "Where requests come in, by name."},
		{name: "load_balancing", typ: oneOf([]string{"least_connections"}, "round_robin", "random_two", "ip_hash"), def: "least_connections",
			example: "least_connections", doc: "Which ready instance a request goes to: the one with the fewest in flight for its weight."},
		{name: "engine", typ: oneOf([]string{"auto", "net_http"}), def: "auto", example: "net_http", class: ClassRebind,
			reason: "the other engine takes over on the same socket and gets connections between two requests; WebSockets and TLS finish where they are",
			doc:    "What carries requests: event loops for HTTP/1.1 and Go's net/http for what these decline (`auto`), or net/http for everything (`net_http`)."},
		{name: "access_log", typ: boolean, def: "true", example: "false", reason: "the next request is logged, or not",
			doc: "Whether each request has a line in `logs/access.log` in the state directory."},
		{name: "limits", typ: clientLimits, defDoc: "those below", example: "{header_size: 64KiB}", reason: "what clients send from now on is measured with it", doc: "What a client may ask for, so that none holds what the others need."},
		{name: "trusted_proxies", typ: listOf(cidr), defDoc: "none", example: "[10.0.0.0/8]", reason: "the next request is answered with it",
			doc: "Networks of peers whose X-Forwarded-* headers are believed."},
		{name: "routes", typ: &typ{name: "a list of routes", item: &key{
			typ: route, reason: "the routing table is swapped in one step", doc: "Which requests go to which service.",
		}}, defDoc: "none", example: "[{service: web}]", doc: "Where requests go. The first that matches wins, from top to bottom."},
	},
	foreign: map[string]foreign{
		"listen": {key: "listeners"}, "servers": {key: "listeners"}, "entrypoints": {key: "listeners"}, "rules": {key: "routes"}, "routers": {key: "routes"},
		"upstreams": {why: "instances outside of Mainstay are services: services.NAME.external"},
		"tls":       {why: "TLS belongs to a listener: proxy.listeners.NAME.tls"},
		"timeouts":  {why: "timeouts belong to a route: proxy.routes"},
		"retries":   {why: "retries belong to a route: proxy.routes"},
		"headers":   {why: "headers belong to a route: proxy.routes"},
	},
}

var clientLimits = &typ{
	name: "a mapping",
	keys: []*key{
		{name: "header_timeout", typ: duration(time.Millisecond), def: "10s", example: "5s", doc: "From the first byte of a request, or the start of its connection, to the end of its header."},
		{name: "body_timeout", typ: duration(time.Millisecond), def: "1m", example: "30s", doc: "Without a byte of a request's content that is waited for."},
		{name: "send_timeout", typ: duration(time.Millisecond), def: "1m", example: "30s", doc: "Without the client taking a byte of a response that waits for it."},
		{name: "idle_timeout", typ: duration(time.Millisecond), def: "75s", example: "5m", doc: "Between two requests on a connection."},
		{name: "minimum_rate", typ: size, def: "256B", example: "1KiB",
			doc: "What a client must send of a request's content, or take of a response, in a second on the average, once it has been waited for 20s. WebSockets have no such limit."},
		{name: "header_size", typ: sizeIn(1<<10, 1<<20), def: "32KiB", example: "64KiB", doc: "Bytes of a request's line and fields, 1KiB to 1MiB; more is answered with 431, or 414 if the line alone has as many."},
		{name: "header_fields", typ: integer(1, 10000), def: "100", example: "200", doc: "Fields of a request; more is answered with 431."},
		{name: "connections_per_client", typ: integer(0, 1000000), def: "0", example: "1000",
			doc: "Connections that one address may have open; further ones are closed at once. 0 is no limit, which trusted proxies never have."},
	},
	foreign: map[string]foreign{
		"client_header_timeout": {key: "header_timeout"}, "client_body_timeout": {key: "body_timeout"}, "read_header_timeout": {key: "header_timeout"},
		"keepalive_timeout": {key: "idle_timeout"}, "keep_alive": {key: "idle_timeout"}, "write_timeout": {key: "send_timeout"},
		"max_header_bytes": {key: "header_size"}, "max_headers": {key: "header_fields"}, "limit_conn": {key: "connections_per_client"}, "min_rate": {key: "minimum_rate"},
	},
}

var listener = &typ{
	name: "a mapping",
	keys: []*key{
		{name: "address", typ: listenAddress, required: true, example: `":80"`, reason: "the new address is bound before the old one is let go", doc: "host:port; without a host, every interface."},
		{name: "tls", typ: &typ{
			name: "a mapping",
			keys: []*key{
				{name: "certificate", typ: file, required: true, example: "tls.crt", doc: "PEM file of the certificate and the chain below it."},
				{name: "key", typ: file, required: true, example: "tls.key", doc: "PEM file of the private key."},
			},
			foreign: map[string]foreign{"cert": {key: "certificate"}, "certfile": {key: "certificate"}, "ssl_certificate": {key: "certificate"},
				"keyfile": {key: "key"}, "private_key": {key: "key"}, "ssl_certificate_key": {key: "key"},
				"acme": {why: "certificates are read from files: certificate and key"}},
		}, defDoc: "plain HTTP", example: "{certificate: tls.crt, key: tls.key}", class: ClassHot, reason: "the next handshake uses it",
			doc: "Serves HTTPS. A renewed file is noticed and used from then on."},
		{name: "redirect", typ: oneOf([]string{"https"}), defDoc: "none", example: "https", class: ClassHot, reason: "the next request is answered with it",
			doc: "Answers every request with a redirect to https."},
	},
	foreign: map[string]foreign{"bind": {key: "address"}, "listen": {key: "address"}, "port": {key: "address"}, "host": {key: "address"}, "ssl": {key: "tls"}},
}

var route = &typ{
	name: "a mapping",
	keys: []*key{
		{name: "match", defDoc: "every request", example: "{host: shop.example.com, path_prefix: /api}", doc: "Which requests it is for.", typ: &typ{
			name: "a mapping",
			keys: []*key{
				{name: "host", typ: routeHost, defDoc: "every host", example: "shop.example.com",
					doc: "The request's host without port; `*.example.com` stands for every one label below."},
				{name: "path_prefix", typ: pathPrefix, def: "/", example: "/api",
					doc: "The beginning of the path, segment by segment: `/api` matches `/api` and `/api/x`, not `/apix`."},
			},
			foreign: map[string]foreign{"hosts": {key: "host"}, "domain": {key: "host"}, "hostname": {key: "host"},
				"path": {key: "path_prefix"}, "prefix": {key: "path_prefix"}},
		}},
		{name: "service", typ: text, required: true, example: "web", doc: "The service whose instances answer."},
		{name: "timeouts", example: "{response_header: 30s}", doc: "Bounds of one attempt at an instance.", typ: &typ{
			name: "a mapping",
			keys: []*key{
				{name: "connect", typ: duration(time.Millisecond), def: "1s", example: "500ms", doc: "To establish the connection."},
				{name: "response_header", typ: duration(time.Millisecond), def: "1m", example: "30s", doc: "From the request sent to the response's header."},
				{name: "idle", typ: duration(time.Millisecond), def: "1m", example: "5m", doc: "Without a byte in either direction, once the header has come."},
			},
			foreign: map[string]foreign{"read": {key: "response_header"}, "response": {key: "response_header"}, "dial": {key: "connect"}},
		}},
		{name: "retries", example: "{attempts: 2}", doc: "When a request is sent to another instance.", typ: &typ{
			name: "a mapping",
			keys: []*key{
				{name: "attempts", typ: integer(0, 10), def: "1", example: "2", doc: "Further attempts after the first; 0 is none."},
				{name: "retry_on", typ: listOf(oneOf([]string{"connect_failure", "reset"})), defDoc: "both", example: "[connect_failure]",
					doc: "`connect_failure`: nothing was sent, safe for every method. `reset`: the connection died before a byte of the response, idempotent methods only."},
			},
			foreign: map[string]foreign{"count": {key: "attempts"}, "max": {key: "attempts"}, "on": {key: "retry_on"}},
		}},
		{name: "rate_limit", unsupported: true, example: "{requests: 100, per: 1s, by: client_ip}", doc: "How many requests a client may send.", typ: &typ{
			name: "a mapping",
			keys: []*key{
				{name: "requests", typ: integer(1, 1e9), required: true, example: "100", doc: "How many."},
				{name: "per", typ: duration(time.Millisecond), def: "1s", example: "1s", doc: "In which time."},
				{name: "by", typ: oneOf([]string{"client_ip"}), def: "client_ip", example: "client_ip", doc: "Who is counted as one."},
			},
		}},
		{name: "strip_prefix", typ: pathPrefix, defDoc: "nothing", example: "/shop", doc: "Removed from the path before the request is sent on."},
		{name: "headers", example: "{request: {remove: [Cookie]}}", doc: "Changes of headers on their way: remove, then set, then add.", typ: &typ{
			name: "a mapping",
			keys: []*key{
				{name: "request", typ: headers, example: "{set: {X-Shop: main}}", doc: "Of the request, before it is sent on."},
				{name: "response", typ: headers, example: "{remove: [Server]}", doc: "Of the response, before it is sent back."},
			},
		}},
	},
	foreign: map[string]foreign{
		"host": {key: "match.host"}, "path": {key: "match.path_prefix"}, "path_prefix": {key: "match.path_prefix"}, "prefix": {key: "match.path_prefix"},
		"to": {key: "service"}, "backend": {key: "service"}, "upstream": {key: "service"}, "proxy_pass": {key: "service"},
		"timeout": {key: "timeouts"}, "retry": {key: "retries"}, "rewrite": {key: "strip_prefix"},
	},
}

var headers = &typ{
	name: "a mapping",
	keys: []*key{
		{name: "set", typ: headerValues(checkHeaderName), example: "{X-Frame-Options: DENY}", doc: "Header fields that have exactly this value then."},
		{name: "add", typ: headerValues(checkListName), example: "{Vary: Origin}", doc: "Header fields that get one more line."},
		{name: "remove", typ: listOf(headerName), example: "[Server]", doc: "Header fields that are taken away."},
	},
	foreign: map[string]foreign{"append": {key: "add"}, "delete": {key: "remove"}, "del": {key: "remove"}, "hide": {key: "remove"}},
}

// headerValues is values by the names of header fields that check allows.
func headerValues(check func(string) error) *typ {
	return &typ{
		name: "a mapping of header names to values", named: check, fold: true,
		each: &key{name: "HEADER", typ: headerValue, doc: "The value of this header field."},
	}
}

var relay = &typ{
	name: "a mapping",
	keys: []*key{
		{name: "publishers", typ: endpoint, required: true, example: "tcp://127.0.0.1:5556", reason: "the new address is bound before the old one is let go",
			doc: "Where publishers connect to. The host `*` is every interface."},
		{name: "subscribers", typ: endpoint, required: true, example: "tcp://127.0.0.1:5557", reason: "the new address is bound before the old one is let go",
			doc: "Where subscribers connect to."},
		{name: "queue", example: "{limit: 16MiB, when_full: drop_oldest}", doc: "What waits for one subscriber.", class: ClassHot,
			reason: "queues take their new limit at once", typ: &typ{
				name: "a mapping",
				keys: []*key{
					{name: "limit", typ: size, def: "64MiB", example: "16MiB", doc: "How much may wait."},
					{name: "when_full", typ: oneOf([]string{"drop_newest", "drop_oldest", "disconnect"}), def: "drop_newest", example: "drop_oldest",
						doc: "What happens then: the message that does not fit is lost, or those that wait longest, or the subscriber is disconnected."},
				},
				foreign: map[string]foreign{"size": {key: "limit"}, "high_water_mark": {key: "limit"}, "policy": {key: "when_full"}, "overflow": {key: "when_full"}},
			}},
		{name: "retain", unsupported: true, example: `[{prefix: state., last: 1}]`, doc: "Messages that a late subscriber is given.", typ: &typ{
			name: "a list of rules",
			item: &key{typ: &typ{name: "a mapping", keys: []*key{
				{name: "prefix", typ: text, required: true, example: "state.", doc: "Of the topics."},
				{name: "last", typ: integer(1, 1e6), def: "1", example: "1", doc: "How many of each topic."},
			}}},
		}},
		{name: "replay", unsupported: true, typ: boolean, def: "false", example: "true", doc: "Whether subscribers may ask for what was sent before."},
	},
	foreign: map[string]foreign{
		"xsub": {key: "publishers"}, "frontend": {key: "publishers"}, "xpub": {key: "subscribers"}, "backend": {key: "subscribers"},
		"high_water_mark": {key: "queue.limit"}, "hwm": {key: "queue.limit"},
	},
}

var backup = &typ{
	name: "a mapping",
	keys: []*key{
		{name: "service", typ: text, defDoc: "none", example: "orders", doc: "Whose data this is."},
		{name: "paths", typ: listOf(file), required: true, example: "[/var/lib/shop]", doc: "Files and directories to copy."},
		{name: "consistency", typ: &typ{
			name: "one of none, pause, stop, or a mapping", laterMapping: true, later: []string{"pause", "stop"},
			parse:  func(s scalar) (any, error) { return parseEnum(s.String(), []string{"none"}) },
			schema: map[string]any{"enum": []string{"none", "pause", "stop"}},
			keys: []*key{
				{name: "before", typ: command, example: "./freeze", doc: "Runs before the data is read."},
				{name: "after", typ: command, example: "./thaw", doc: "Runs after the data was read."},
			},
		}, def: "none", example: "none", doc: "How the service is held still while its data is read: not at all."},
		{name: "repositories", typ: listOf(repository), required: true, example: "[s3://shop-backups/prod]",
			doc: "Where snapshots are kept, in restic's format: a directory, or `s3://bucket/prefix` with `?endpoint=URL&region=NAME&path_style=true` for compatible servers."},
		{name: "password_file", typ: file, required: true, example: "/etc/shop/backup.key",
			doc: "The file with the repository's password. It is made with the repository if there is none."},
		{name: "schedule", typ: cron, defDoc: "only by hand", example: `"17 */6 * * *"`, doc: "When it runs: minute, hour, day of the month, month, day of the week, in local time."},
		{name: "retention", defDoc: "every snapshot is kept", example: "{keep_last: 8, keep_daily: 14}", doc: "Which snapshots are kept, as restic's forget counts them.", typ: &typ{
			name: "a mapping",
			keys: []*key{
				{name: "keep_last", typ: keep, def: "0", example: "8", doc: "The newest so many."},
				{name: "keep_hourly", typ: keep, def: "0", example: "24", doc: "The newest of each of the last so many hours that have one."},
				{name: "keep_daily", typ: keep, def: "0", example: "14", doc: "The newest of each of the last so many days that have one."},
				{name: "keep_weekly", typ: keep, def: "0", example: "8", doc: "The newest of each of the last so many weeks that have one."},
				{name: "keep_monthly", typ: keep, def: "0", example: "6", doc: "The newest of each of the last so many months that have one."},
				{name: "keep_yearly", typ: keep, def: "0", example: "2", doc: "The newest of each of the last so many years that have one."},
			},
			foreign: map[string]foreign{"last": {key: "keep_last"}, "hourly": {key: "keep_hourly"}, "daily": {key: "keep_daily"}, "weekly": {key: "keep_weekly"},
				"monthly": {key: "keep_monthly"}, "yearly": {key: "keep_yearly"}},
		}},
		{name: "verify", unsupported: true, example: `{schedule: "0 4 * * 0", read: 5%}`, doc: "When snapshots are proved.", typ: &typ{
			name: "a mapping",
			keys: []*key{
				{name: "schedule", typ: cron, required: true, example: `"0 4 * * 0"`, doc: "When."},
				{name: "read", typ: percentage, def: "0%", example: "5%", doc: "How much of the data is read each time."},
			},
		}},
		{name: "objectives", unsupported: true, example: "{rpo: 6h, rto: 5m}", doc: "What the backup is for, to be measured.", typ: &typ{
			name: "a mapping",
			keys: []*key{
				{name: "rpo", typ: duration(time.Second), example: "6h", doc: "How old the newest snapshot may be."},
				{name: "rto", typ: duration(time.Second), example: "5m", doc: "How long a restore may take."},
			},
		}},
		{name: "restore_on_empty", unsupported: true, typ: boolean, def: "false", example: "true",
			doc: "Whether the newest snapshot is restored before the service's first start when its paths are empty."},
	},
	foreign: map[string]foreign{
		"path": {key: "paths"}, "directories": {key: "paths"}, "source": {key: "paths"}, "repository": {key: "repositories"}, "repo": {key: "repositories"}, "destination": {key: "repositories"},
		"password": {key: "password_file"}, "key_file": {key: "password_file"}, "cron": {key: "schedule"}, "forget": {key: "retention"}, "keep": {key: "retention"}, "prune": {key: "retention"},
	},
}

var keep = integer(0, 1e6)
