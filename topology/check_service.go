package topology

// checkJob reports what a job cannot have.
func (rs *resolver) checkJob(v *value, s Service) {
	if s.Schedule == nil {
		return
	}
	if at := v.at("replicas"); s.Replicas > 1 && v.sound("replicas") {
		rs.report.failf(at.node, at.path, "%s has a schedule: a job has one replica", v.path)
	}
	if at := v.at("restart", "policy"); s.Restart.Policy == RestartAlways && v.sound("restart") {
		rs.report.failf(at.node, at.path, "%s has a schedule, so its run ends: restart.policy is never or on-failure", v.path)
	}
	if at := v.at("update", "canary"); at.node != nil && !at.broken {
		rs.report.failf(at.node, at.path, "%s has a schedule: a job is not replaced while it runs, so there is no canary", v.path)
	}
}

// checkSocket reports a socket that there is none to open for, and probes by notification where nobody can notify.
func (rs *resolver) checkSocket(v *value, s Service) {
	if at := v.at("listen"); s.Listen == ListenFD && s.Port == PortNone && v.sound("listen") && v.sound("port") {
		rs.report.failf(at.node, at.path, "%s has port: none, so there is no socket to open; leave out listen, or port", v.path)
	}
	for _, name := range []string{"startup", "readiness", "liveness"} {
		if at := v.at("probes", name, "notify"); at.scalar == false {
			rs.report.failf(at.node, at.path, "%s is true; leave the probe out to have none", at.path)
		}
	}
}

// checkCanary reports a canary that old instances cannot run beside.
func (rs *resolver) checkCanary(v *value, s Service) {
	at := v.at("update", "canary")
	if s.Update.Canary == nil || at.broken {
		return
	}
	switch {
	case !s.Routable():
		rs.report.failf(at.node, at.path, "%s has port: none, so there are no requests to judge a canary by", v.path)
	case s.Update.Order == StopFirst && v.sound("update", "order"):
		rs.report.failf(at.node, at.path, "a canary runs beside what it replaces, and %s is replaced stop-first", v.path)
	}
}

// checkFallbacks reports fallbacks that are no service, or none that answers.
func (rs *resolver) checkFallbacks(t *Topology) {
	services := rs.root.at("services")
	for _, name := range services.order {
		at := services.at(name, "when_unavailable", "fallback")
		fallback, ok := at.scalar.(string)
		if !ok {
			continue
		}
		switch other, found := t.Services[fallback]; {
		case !found:
			rs.unknownService(at.node, at.path, fallback)
		case fallback == name:
			rs.report.failf(at.node, at.path, "%s cannot stand in for itself", name)
		case !other.Routable() && services.fields[fallback].sound("port"):
			rs.report.failf(at.node, at.path, "%s has port: none, so it cannot answer requests", fallback)
		}
	}
}
