package topology

import (
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A tree is a resolved topology, or a part of one, under the names that the table of keys has for it. Its values
// are other trees, a string, a Text, or a []Text. What is empty is not in it.
type tree map[string]any

func (t tree) put(name string, v any) {
	switch v := v.(type) {
	case tree:
		if len(v) == 0 {
			return
		}
	case string:
		if v == "" {
			return
		}
	case []Text:
		if len(v) == 0 {
			return
		}
	}
	t[name] = v
}

func treeOf(t *Topology) tree {
	out := tree{}
	out.put("name", t.Name)
	out.put("state_dir", t.StateDir)
	out["services"] = treesOf(t.Services, serviceTree)
	out["bus"] = treesOf(t.Bus, relayTree)
	out["backups"] = treesOf(t.Backups, backupTree)

	proxy := tree{}
	proxy.put("engine", string(t.Proxy.Engine))
	proxy.put("access_log", strconv.FormatBool(t.Proxy.AccessLog))
	proxy["limits"] = clientLimitsTree(t.Proxy.Limits)
	proxy["listeners"] = treesOf(t.Proxy.Listeners, listenerTree)
	proxy.put("trusted_proxies", strings.Join(t.Proxy.TrustedProxies, ", "))
	routes := tree{}
	for i, label := range routeLabels(t.Proxy.Routes) {
		routes[label] = routeTree(t.Proxy.Routes[i])
	}
	proxy["routes"] = routes
	out["proxy"] = proxy

	metrics := tree{}
	metrics.put("address", t.Metrics.Address)
	out["metrics"] = metrics

	logs := tree{}
	if t.Logs.MaxTotal > 0 {
		logs["max_total"] = shortSize(t.Logs.MaxTotal)
	}
	out["logs"] = logs
	out.put("on_exit", string(t.OnExit))

	admin := tree{}
	admin.put("socket", t.Admin.Socket)
	if t.Admin.Socket != "" {
		admin.put("mode", fmt.Sprintf("%04o", t.Admin.Mode&uint32(os.ModePerm)))
	}
	admin.put("group", t.Admin.Group)
	out["admin"] = admin
	return out
}

func treesOf[T any](named map[string]T, one func(T) tree) tree {
	out := tree{}
	for name, t := range named {
		out[name] = one(t)
	}
	return out
}

func serviceTree(s Service) tree {
	out := tree{}
	probes := tree{}
	for name, p := range map[string]*Probe{"startup": s.Probes.Startup, "readiness": s.Probes.Readiness, "liveness": s.Probes.Liveness} {
		if p != nil {
			probes[name] = probeTree(p)
		}
	}
	out["probes"] = probes
	out.put("stop_grace_period", shortDuration(s.StopGracePeriod))
	out.put("description", s.Description)
	out["when_unavailable"] = whenUnavailableTree(s.WhenUnavailable)
	if s.External != nil {
		out.put("external", upstreamsText(s.External))
		return out
	}
	out.put("command", s.Command)
	out.put("replicas", strconv.Itoa(s.Replicas))
	environment := tree{}
	for name, t := range s.Environment {
		environment[name] = t
	}
	out["environment"] = environment
	out.put("directory", s.Directory)
	out.put("user", s.User)
	out.put("group", s.Group)
	out.put("port", s.Port.String())
	out.put("listen", string(s.Listen))
	out["limits"] = limitsTree(s.Limits)
	out["restart"] = tree{
		"policy": string(s.Restart.Policy),
		"backoff": tree{
			"initial":     shortDuration(s.Restart.Backoff.Initial),
			"max":         shortDuration(s.Restart.Backoff.Max),
			"reset_after": shortDuration(s.Restart.Backoff.ResetAfter),
		},
	}
	dependsOn := tree{}
	for name, condition := range s.DependsOn {
		dependsOn[name] = string(condition)
	}
	out["depends_on"] = dependsOn
	out["update"] = updateTree(s.Update)
	if s.Schedule != nil {
		out["schedule"] = scheduleTree(*s.Schedule)
	}
	if s.Output != (Output{}) {
		out["logs"] = tree{"max_size": shortSize(s.Output.MaxSize), "max_files": strconv.Itoa(s.Output.MaxFiles)}
	}
	out.put("stop_signal", unix.SignalName(s.StopSignal))
	return out
}

func upstreamsText(external []Upstream) string {
	var out []string
	for _, up := range external {
		if up.Weight == 1 {
			out = append(out, up.Address)
		} else {
			out = append(out, fmt.Sprintf("{address: %s, weight: %d}", up.Address, up.Weight))
		}
	}
	return strings.Join(out, ", ")
}

func probeTree(p *Probe) tree {
	out := tree{
		"initial_delay":     shortDuration(p.InitialDelay),
		"period":            shortDuration(p.Period),
		"timeout":           shortDuration(p.Timeout),
		"failure_threshold": strconv.Itoa(p.FailureThreshold),
		"success_threshold": strconv.Itoa(p.SuccessThreshold),
	}
	if p.HTTPGet != nil {
		get := tree{"address": p.HTTPGet.Address, "path": p.HTTPGet.Path}
		get.put("host", p.HTTPGet.Host)
		out["http_get"] = get
	}
	if p.GRPC != nil {
		grpc := tree{"address": p.GRPC.Address}
		grpc.put("service", p.GRPC.Service)
		out["grpc"] = grpc
	}
	out.put("tcp", p.TCP)
	out.put("exec", p.Exec)
	if p.Notify {
		out["notify"] = "true"
	}
	return out
}

func clientLimitsTree(l ClientLimits) tree {
	return tree{
		"header_timeout": shortDuration(l.HeaderTimeout), "body_timeout": shortDuration(l.BodyTimeout),
		"send_timeout": shortDuration(l.SendTimeout), "idle_timeout": shortDuration(l.IdleTimeout),
		"minimum_rate": shortSize(l.MinimumRate), "header_size": shortSize(int64(l.HeaderSize)),
		"header_fields": strconv.Itoa(l.HeaderFields), "connections_per_client": strconv.Itoa(l.ConnectionsPerClient),
	}
}

func listenerTree(l Listener) tree {
	out := tree{}
	out.put("address", l.Address)
	if l.TLS != nil {
		tls := tree{"certificate": l.TLS.Certificate, "key": l.TLS.Key}
		if l.TLS.Digest != "" {
			tls["contents"] = l.TLS.Digest[:min(len(l.TLS.Digest), 12)]
		}
		out["tls"] = tls
	}
	if l.RedirectHTTPS {
		out["redirect"] = "https"
	}
	return out
}

// routeLabels returns a name for each route: its host and path, so that the others keep theirs when one comes or goes.
func routeLabels(routes []Route) []string {
	labels := make([]string, len(routes))
	count := map[string]int{}
	for i, r := range routes {
		label := r.Host + r.PathPrefix
		if count[label]++; count[label] > 1 {
			label = fmt.Sprintf("%s#%d", label, count[label])
		}
		labels[i] = label
	}
	return labels
}

func routeTree(r Route) tree {
	out := tree{}
	match := tree{}
	match.put("host", r.Host)
	match.put("path_prefix", r.PathPrefix)
	out.put("match", match)
	out.put("service", r.Service)
	out.put("timeouts", tree{
		"connect":         shortDuration(r.Timeouts.Connect),
		"response_header": shortDuration(r.Timeouts.ResponseHeader),
		"idle":            shortDuration(r.Timeouts.Idle),
	})
	retries := tree{"attempts": strconv.Itoa(r.Retries.Attempts)}
	on := make([]string, len(r.Retries.On))
	for i, condition := range r.Retries.On {
		on[i] = string(condition)
	}
	retries.put("retry_on", strings.Join(on, ", "))
	out.put("retries", retries)
	out.put("strip_prefix", r.StripPrefix)
	headers := tree{}
	headers.put("request", headersTree(r.RequestHeaders))
	headers.put("response", headersTree(r.ResponseHeaders))
	out.put("headers", headers)
	return out
}

func headersTree(h HeaderEdits) tree {
	out := tree{}
	for name, values := range map[string]map[string]string{"set": h.Set, "add": h.Add} {
		fields := tree{}
		for field, value := range values {
			fields[field] = value
		}
		out.put(name, fields)
	}
	out.put("remove", strings.Join(h.Remove, ", "))
	return out
}

func relayTree(r Relay) tree {
	out := tree{}
	out.put("publishers", r.Publishers)
	out.put("subscribers", r.Subscribers)
	out.put("queue", tree{"limit": shortSize(r.Queue.Limit), "when_full": string(r.Queue.WhenFull)})
	return out
}

func backupTree(b Backup) tree {
	out := tree{}
	out.put("service", b.Service)
	out.put("paths", strings.Join(b.Paths, ", "))
	out.put("repositories", b.Repository)
	out.put("password_file", b.PasswordFile)
	out.put("schedule", b.Schedule)
	retention := tree{}
	for name, n := range map[string]int{
		"keep_last": b.Retention.KeepLast, "keep_hourly": b.Retention.KeepHourly, "keep_daily": b.Retention.KeepDaily,
		"keep_weekly": b.Retention.KeepWeekly, "keep_monthly": b.Retention.KeepMonthly, "keep_yearly": b.Retention.KeepYearly,
	} {
		if n != 0 {
			retention[name] = strconv.Itoa(n)
		}
	}
	out["retention"] = retention
	return out
}

// String returns auto, none or the number.
func (p Port) String() string {
	switch p {
	case PortAuto:
		return "auto"
	case PortNone:
		return "none"
	}
	return strconv.Itoa(int(p))
}

// shown returns v as people may see it, with secrets as ***, and without what is k's default anyway.
func shown(k *key, v any) string {
	switch v := v.(type) {
	case tree:
		var parts []string
		for _, name := range slices.Sorted(maps.Keys(v)) {
			child := below(k, name)
			if text := shown(child, v[name]); child == nil || text != child.def && text != "{}" {
				parts = append(parts, name+": "+text)
			}
		}
		return "{" + strings.Join(parts, ", ") + "}"
	case Text:
		return v.String()
	case []Text:
		return joinWords(v, Text.String)
	}
	return v.(string)
}

// same reports whether two leaves say the same, secrets included.
func same(a, b any) bool {
	switch a := a.(type) {
	case Text:
		b, ok := b.(Text)
		return ok && a == b
	case []Text:
		b, ok := b.([]Text)
		return ok && slices.Equal(a, b)
	}
	return a == b
}

var plainWord = regexp.MustCompile(`^[-A-Za-z0-9_@%+=:,./{}*]+$`)

// joinWords is the command that splits into the given words.
func joinWords(words []Text, show func(Text) string) string {
	out := make([]string, len(words))
	for i, word := range words {
		out[i] = show(word)
		if !plainWord.MatchString(out[i]) {
			out[i] = "'" + strings.ReplaceAll(out[i], "'", `'\''`) + "'"
		}
	}
	return strings.Join(out, " ")
}

// below returns the key that a tree has under name, nil if the table has none.
func below(k *key, name string) *key {
	if k == nil {
		return nil
	}
	if k.typ.item != nil && !k.typ.isMapping() {
		return k.typ.item
	}
	return k.typ.child(name)
}
