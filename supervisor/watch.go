package supervisor

import (
	"context"
	"errors"
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
	// limit is running while the process says that it stops: it has so long to do it.
	limit *time.Timer
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
	pr := prober{name: name, spec: *spec, since: w.tenant.started, healthy: healthy, told: w.tenant.told, slots: w.site.slots, note: w.record}
	switch {
	case spec.Notify && w.tenant.told == nil:
		pr.ask = func(context.Context) error { return errDeaf }
	case spec.Notify && name == "liveness":
		var asked time.Time
		pr.ask = func(context.Context) error {
			defer func() { asked = time.Now() }()
			return w.tenant.told.pulse(pr.period(), asked)
		}
		pr.since = time.Now() // it is held to it from now on
	case spec.Notify:
		pr.spec.FailureThreshold = max(1, spec.FailureThreshold)
		pr.ask = func(context.Context) error { return w.tenant.told.readiness() }
	default:
		check := w.tenant.seat.checkOf(*w.spec, spec)
		pr.ask = func(ctx context.Context) error { return w.site.host.check(ctx, check) }
		if w.tenant.port != 0 && check.at(w.tenant.seat) {
			pr.verify = func() error {
				if err := w.site.host.owns(w.tenant.process, w.tenant.port); err != nil {
					return foreign{err}
				}
				return nil
			}
		}
	}
	return pr
}

// foreign says that another program has answered.
type foreign struct{ error }

// errDeaf says that a process was started before its probes were by notification.
var errDeaf = errors.New("it was not given a notification socket")

// heed acts on what the process has told. It returns why the process is to be given up, if it is.
func (w *watch) heed() string {
	if w.tenant.told == nil || w.told.Err() != nil {
		return ""
	}
	phase, status, trigger := w.tenant.told.says()
	if excused := w.tenant.told.excused(); w.now().status != status || w.now().excused != excused {
		w.update(func(l *life) { l.status, l.excused = status, excused })
	}
	if run := w.tenant.run; run != nil && run.Said != phase {
		run.note(func(r *record) { r.Said = phase })
	}
	if trigger {
		return "it says that it is not well (WATCHDOG=trigger)"
	}
	if phase == stopping && w.limit == nil {
		w.probes.stop()
		w.withdraw(w.tenant)
		w.move(StateStarting, "it says that it stops (STOPPING=1)")
		w.log.Info("instance stops by itself", "pid", w.tenant.pid())
		w.limit = time.NewTimer(w.spec.StopGracePeriod)
	}
	return ""
}

// late is when the process, which says that it stops, should have ended.
func (w *watch) late() <-chan time.Time {
	if w.limit == nil {
		return nil
	}
	return w.limit.C
}

// overdue returns why the process is to be given up when it is late, or nothing if it has asked for more time.
func (w *watch) overdue() string {
	if rest := time.Until(w.tenant.told.excused()); rest > 0 {
		w.limit.Reset(rest)
		return ""
	}
	return fmt.Sprintf("it says that it stops, but has not ended after %s", w.spec.StopGracePeriod)
}

// reconsider goes on with other probes if the specification has others now.
func (w *watch) reconsider() {
	before := w.spec.Probes
	w.spec = w.instance.spec()
	if reflect.DeepEqual(before, w.spec.Probes) || w.limit != nil {
		return
	}
	w.probes.stop()
	w.begin()
}

// hear acts on a verdict. It returns why the process is to be given up, if it is.
//
// A process whose port another program has taken cannot serve there. If the port was ours to choose, the next process is given another.
func (w *watch) hear(v verdict) string {
	if v.answer != nil {
		w.site.metrics.probeFailures.WithLabelValues(w.service, v.probe).Inc()
	}
	failed := func() string { return fmt.Sprintf("%s probe failed: %v", v.probe, v.answer) }
	var other foreign
	if errors.As(v.answer, &other) && w.spec.Port == topology.PortAuto && v.failures >= max(w.patience(v.probe), 1) {
		return failed()
	}
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

// record keeps v for a post-mortem.
func (w *watch) record(v verdict) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.probed = w.probed.add(v)
}

// patience returns how many failures in a row count of a probe.
func (w *watch) patience(probe string) int {
	p := w.spec.Probes.Readiness
	if probe == "startup" {
		p = w.spec.Probes.Startup
	}
	if p == nil {
		return 1
	}
	return p.FailureThreshold
}

// ready lets requests go to the process.
func (w *watch) ready() {
	w.admit(w.tenant)
	w.tenant.run.note(func(r *record) { r.Up, r.Ready = true, time.Now() })
	w.log.Info("instance ready", "pid", w.tenant.pid())
	w.move(StateReady, "")
}
