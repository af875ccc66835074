package topology

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"os/user"
	"slices"
	"strings"
)

// check checks what values mean together.
func (rs *resolver) check(t *Topology) {
	rs.checkDependencies(t)
	rs.checkRoutes(t)
	rs.checkFallbacks(t)
	rs.checkListeners(t)
	rs.checkAddresses(t)
	rs.checkBackups(t)
}

// checkProgram reports a program that is missing. What is only known when an instance starts is not looked for.
func (rs *resolver) checkProgram(at *node, path string, program Text) {
	name := program.Reveal()
	if program.IsSecret() || placeholderForm.MatchString(name) || name == "mainstay" {
		return
	}
	if !strings.Contains(name, "/") {
		if _, err := exec.LookPath(name); err != nil {
			rs.report.failf(at, path, "%s: there is no program %q in PATH; write ./%s for one beside the file", path, name, name)
		}
		return
	}
	stat, err := os.Stat(name)
	switch {
	case err != nil:
		rs.report.failf(at, path, "%s: %w", path, err)
	case stat.IsDir():
		rs.report.failf(at, path, "%s: %s is a directory", path, name)
	case stat.Mode()&0o111 == 0:
		rs.report.failf(at, path, "%s: %s is not executable", path, name)
	}
}

func (rs *resolver) checkService(v *value, s Service) {
	rs.checkDirectory(v.at("directory"))
	if s.External != nil || v.given("external") {
		rs.checkExternal(v)
		return
	}
	rs.checkUser(v, s)
	if s.Port > 0 && v.sound("port") {
		at := v.at("port")
		if s.Replicas > 1 && v.sound("replicas") {
			rs.report.failf(at.node, at.path, "port %d is for one replica, and %s has %d; leave port out to give each its own", s.Port, v.path, s.Replicas)
		} else if s.Update.Order == StartFirst && v.sound("update") {
			rs.report.failf(at.node, at.path, "port %d is for one instance at a time; write update: {order: stop-first}, or leave port out", s.Port)
		}
		rs.warnPort(at, int(s.Port))
	}
	if s.Port == PortNone && v.sound("port") {
		rs.checkWorker(v)
	}
	rs.checkJob(v, s)
	rs.checkSocket(v, s)
	rs.checkCanary(v, s)
	for _, name := range []string{"startup", "liveness"} {
		if at := v.at("probes", name, "success_threshold"); get[int](at) > 1 {
			rs.report.failf(at.node, at.path, "%s: one success is enough for a %s probe", at.path, name)
		}
	}
	if b := s.Restart.Backoff; b.Initial > b.Max && v.sound("restart") {
		at := v.at("restart", "backoff", "initial")
		if at.node == nil {
			at = v.at("restart", "backoff", "max")
		}
		rs.report.failf(at.node, at.path, "%s: initial (%s) is more than max (%s)", v.at("restart", "backoff").path, shortDuration(b.Initial), shortDuration(b.Max))
	}
}

// checkUser reports a user that is only a number, if no group is said for it.
func (rs *resolver) checkUser(v *value, s Service) {
	if s.User == "" || s.Group != "" || !v.sound("user") || !v.sound("group") {
		return
	}
	if _, err := user.Lookup(s.User); err == nil {
		return
	}
	if _, err := user.LookupId(s.User); err != nil {
		at := v.at("user")
		rs.report.failf(at.node, at.path, "%s: this machine has no user %s, so its group is not known; write group, too", at.path, s.User)
	}
}

// checkExternal reports what means nothing for instances that are not launched.
func (rs *resolver) checkExternal(v *value) {
	rs.checkNotEmpty(v.at("external"))
	for _, mapping := range []*value{v, v.at("probes")} {
		for _, name := range mapping.order {
			if field := mapping.fields[name]; !field.key.external && !field.broken && v.sound("external") {
				rs.report.failf(field.name, field.path, "%s means nothing for external instances, which Mainstay does not launch", field.path)
			}
		}
	}
	seen := map[string]*node{}
	for i, up := range upstreams(v.at("external")) {
		item := v.at("external").items[i]
		if first := seen[up.Address]; first != nil && up.Address != "" {
			rs.report.failf(item.node, item.path, "%s is listed already in %s; give it a weight instead", up.Address, wherefrom(first, item.node))
			continue
		}
		seen[up.Address] = item.node
	}
}

// checkWorker reports placeholders that have no value because the service has no port.
func (rs *resolver) checkWorker(v *value) {
	rs.checkNoAddress(v, v.at("command"))
	for _, name := range v.at("environment").order {
		rs.checkNoAddress(v, v.at("environment", name))
	}
	for _, kind := range []string{"startup", "readiness", "liveness"} {
		probe := v.at("probes", kind)
		rs.checkNoAddress(v, probe.at("exec"))
		for _, how := range []string{"http_get", "tcp", "grpc"} {
			f := probe.at(how)
			if f.node == nil || f.broken {
				continue
			}
			var address string
			switch how {
			case "http_get":
				address = get[string](f, "address")
			case "grpc":
				address = grpcOf(f).Address
			default:
				address = get[string](f)
			}
			if placeholderForm.MatchString(address) {
				rs.report.failf(f.node, f.path, "%s has port: none, so the probe needs an address of its own", v.path)
			}
		}
	}
}

func (rs *resolver) checkNoAddress(service, v *value) {
	for _, t := range textsOf(v) {
		if t.IsSecret() {
			continue
		}
		for _, name := range []string{"address", "host", "port"} {
			if strings.Contains(t.Reveal(), "{"+name+"}") {
				rs.report.failf(v.node, v.path, "%s has port: none, so {%s} has no value", service.path, name)
			}
		}
	}
}

// textsOf returns the texts of a command or an argument.
func textsOf(v *value) []Text {
	switch t := v.scalar.(type) {
	case Text:
		return []Text{t}
	case []Text:
		return t
	}
	if v.fields != nil {
		return textsOf(v.at("shell"))
	}
	return items[Text](v)
}

// maxSuggestions bounds how many names are looked for among all others.
const maxSuggestions = 100

// unknownService reports that there is no service called name. Services that are there but broken count as there.
func (rs *resolver) unknownService(at *node, path, name string) {
	f := fault{message: fmt.Sprintf("the service %q is not defined", name)}
	if rs.unknowns++; rs.unknowns <= maxSuggestions {
		names := slices.Sorted(maps.Keys(rs.root.at("services").fields))
		f.suggestion = nearest(name, names)
		if len(names) > 0 {
			f.message += "; defined: " + firstFew(names)
		}
	}
	rs.report.fail(at, path, f)
}

func (rs *resolver) checkDependencies(t *Topology) {
	services := rs.root.at("services")
	for _, name := range services.order {
		for _, d := range dependencyValues(services.at(name, "depends_on")) {
			rs.checkDependency(t, services, d)
		}
	}
	rs.checkCycles(services)
}

func (rs *resolver) checkDependency(t *Topology, services *value, d dependency) {
	path := d.value.path
	other, ok := t.Services[d.service]
	if !ok {
		rs.unknownService(d.at, path, d.service)
		return
	}
	v := services.fields[d.service]
	switch {
	case other.External != nil && d.condition != ConditionReady:
		rs.report.failf(d.value.node, path, "%s is external, so it can only be waited for until it is ready", d.service)
	case d.condition != ConditionCompleted:
	case other.Restart.Policy == RestartAlways && v.sound("restart", "policy"):
		rs.report.failf(d.value.node, path, "%s never completes: its restart.policy is always; make that on-failure or never", d.service)
	case other.Port != PortNone && v.sound("port"):
		rs.report.failf(d.value.node, path, "%s never completes: it listens on a port; give it port: none", d.service)
	}
}

// checkCycles reports each dependency that leads back to where it came from.
func (rs *resolver) checkCycles(services *value) {
	const (
		onPath = 1
		done   = 2
	)
	state := map[string]int{}
	position := map[string]int{} // on the path
	var path []string
	var visit func(name string)
	visit = func(name string) {
		state[name], position[name] = onPath, len(path)
		path = append(path, name)
		for _, d := range dependencyValues(services.at(name, "depends_on")) {
			switch {
			case services.fields[d.service] == nil:
			case state[d.service] == onPath:
				rs.report.failf(d.at, d.value.path, "services wait for each other: %s → %s", arrows(path[position[d.service]:]), d.service)
			case state[d.service] != done:
				visit(d.service)
			}
		}
		path = path[:len(path)-1]
		state[name] = done
	}
	for _, name := range services.order {
		if state[name] != done {
			visit(name)
		}
	}
}

// arrows joins the names of a path, the first and last of a long one.
func arrows(path []string) string {
	if len(path) > 10 {
		path = slices.Concat(path[:5], []string{"…"}, path[len(path)-4:])
	}
	return strings.Join(path, " → ")
}

func (rs *resolver) checkListeners(t *Topology) {
	listeners := rs.root.at("proxy", "listeners")
	https := false
	for _, name := range listeners.order {
		https = https || listeners.at(name, "tls").node != nil
	}
	for _, name := range listeners.order {
		redirect := listeners.at(name, "redirect")
		switch {
		case redirect.scalar == nil:
		case listeners.at(name, "tls").node != nil:
			rs.report.failf(redirect.node, redirect.path, "%s serves https already; redirect is for a listener without tls", listeners.at(name).path)
		case !https:
			rs.report.failf(redirect.node, redirect.path, "there is no listener with tls to redirect to")
		}
	}
}

func (rs *resolver) checkBackups(t *Topology) {
	backups := rs.root.at("backups")
	for _, name := range backups.order {
		v := backups.at(name, "service")
		service := get[string](v)
		if service == "" {
			continue
		}
		s, ok := t.Services[service]
		switch {
		case !ok:
			rs.unknownService(v.node, v.path, service)
		case s.External != nil:
			rs.report.failf(v.node, v.path, "%s is external: its data is not on this machine", service)
		case s.Replicas > 1:
			rs.report.warnf(v.node, v.path, "%s has %d replicas; if more than one of them writes these paths, a snapshot may hold half of each", service, s.Replicas)
		}
	}
}
