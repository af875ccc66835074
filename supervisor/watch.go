package supervisor

import (
	"context"
	"fmt"
	"reflect"
	"time"

	"mainstay/topology"
)

// A watch is what the probes of one process have said so far, and what follows from it.
type watch struct {
	*instance
	tenant *tenancy
	spec   *topology.Service
	probes *probing
}

func newWatch(i *instance, p *tenancy) *watch {
	return &watch{instance: i, tenant: p, spec: i.spec(), probes: newProbing()}
}

// begin starts the probes that apply now.
func (w *watch) begin() {
	p := w.spec.Probes
	if w.upstream != (topology.Upstream{}) { // nothing of ours to restart
		p.Startup, p.Liveness = nil, nil
	}
	if p.Startup != nil && !w.tenant.up {
		w.probes.start(w.prober("startup", p.Startup, false))
		return
	}
	w.tenant.up = true
	ready := w.now().state == StateReady
	switch {
	case p.Readiness != nil:
		w.probes.start(w.prober("readiness", p.Readiness, ready))
	case !ready:
		w.ready()
	}
	if p.Liveness != nil {
		w.probes.start(w.prober("liveness", p.Liveness, true))
	}
}

func (w *watch) prober(name string, spec *topology.Probe, healthy bool) prober {
	check := w.tenant.seat.checkOf(*w.spec, spec)
	return prober{
		name: name, spec: *spec, since: w.tenant.started, healthy: healthy,
		ask: func(ctx context.Context) error { return w.site.host.check(ctx, check) },
	}
}

// reconsider goes on with other probes if the specification has others now.
func (w *watch) reconsider() {
	before := w.spec.Probes
	w.spec = w.instance.spec()
	if reflect.DeepEqual(before, w.spec.Probes) {
		return
	}
	w.probes.stop()
	w.begin()
}

// hear acts on a verdict. It returns why the process is to be given up, if it is.
func (w *watch) hear(v verdict) string {
	if v.answer != nil {
		w.site.metrics.probeFailures.WithLabelValues(w.service, v.probe).Inc()
	}
	failed := func() string { return fmt.Sprintf("%s probe failed: %v", v.probe, v.answer) }
	switch v.probe {
	case "startup":
		switch {
		case v.healthy:
			w.tenant.up = true
			w.tenant.run.note(func(r *record) { r.Up = true })
			w.probes.stop()
			w.begin()
		case v.failures >= max(w.spec.Probes.Startup.FailureThreshold, 1):
			return failed()
		default:
			w.move(StateStarting, failed())
		}
	case "liveness":
		if !v.healthy {
			return failed()
		}
	case "readiness":
		ready := w.now().state == StateReady
		switch {
		case v.healthy && !ready:
			w.ready()
		case !v.healthy && ready:
			w.withdraw(w.tenant)
			w.tenant.run.note(func(r *record) { r.Ready = time.Time{} })
			w.move(StateStarting, failed())
			w.log.Warn("instance no longer ready", "why", v.answer)
		case !v.healthy && v.answer != nil:
			w.move(StateStarting, failed())
		}
	}
	return ""
}

// ready lets requests go to the process.
func (w *watch) ready() {
	w.admit(w.tenant)
	w.tenant.run.note(func(r *record) { r.Up, r.Ready = true, time.Now() })
	w.log.Info("instance ready", "pid", w.tenant.pid())
	w.move(StateReady, "")
}
