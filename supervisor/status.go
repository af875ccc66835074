package supervisor

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"
)

// A State is where an instance is in its life.
type State string

const (
	StatePending  State = "pending"  // waits for its dependencies
	StateStarting State = "starting" // runs, not ready
	StateReady    State = "ready"
	StateDraining State = "draining" // gets no new requests
	StateStopping State = "stopping" // was sent its stop signal
	StateStopped  State = "stopped"
	StateWaiting  State = "waiting" // waits out its back-off
	StateFailed   State = "failed"  // ended and is not restarted
)

// mayBecome reports whether an instance in state s can be in state next after it.
func (s State) mayBecome(next State) bool {
	switch s {
	case StatePending:
		return next == StateStarting || next == StateWaiting || next == StateStopped || next == StateFailed
	case StateStarting, StateReady:
		return next != StatePending
	case StateDraining:
		return next == StateStopping
	case StateStopping:
		return next == StateStopped || next == StateWaiting || next == StateFailed
	case StateWaiting:
		return next == StateStarting || next == StateStopped || next == StateWaiting || next == StatePending
	}
	return false
}

// running reports whether an instance in state s has a process.
func (s State) running() bool {
	return s == StateStarting || s == StateReady || s == StateDraining || s == StateStopping
}

// A ServiceStatus is how one service is doing.
type ServiceStatus struct {
	Name      string           `json:"name"`
	Desired   int              `json:"desired"`
	Ready     int              `json:"ready"`
	State     string           `json:"state"`            // ready, starting, updating, degraded, failed, stopped, removed, completed; of a job: scheduled, running, stopped
	Reason    string           `json:"reason,omitempty"` // why it is not ready: last probe answer, exit cause, last lines of output
	Instances []InstanceStatus `json:"instances"`
	Update    *UpdateStatus    `json:"update,omitempty"` // nil: none is under way or paused
	Job       *JobStatus       `json:"job,omitempty"`    // nil: it has no schedule
}

// The values of ServiceStatus.State.
const (
	ServiceReady     = "ready"     // every desired instance is ready
	ServiceStarting  = "starting"  // on its way for the first time
	ServiceUpdating  = "updating"  // instances are being replaced
	ServiceDegraded  = "degraded"  // an instance that should be ready is not, or an update was given up
	ServiceFailed    = "failed"    // no instance runs, and none will be started
	ServiceStopped   = "stopped"   // no instance is wanted
	ServiceRemoved   = "removed"   // it is in the topology no more, and its instances have yet to end
	ServiceCompleted = "completed" // a one-shot that ended with exit status 0
	ServiceScheduled = "scheduled" // a job between two runs; the reason is why the last one failed
	ServiceRunning   = "running"   // a job in the middle of a run
)

// An UpdateStatus is how far the replacement of a service's instances has come.
type UpdateStatus struct {
	Generation int           `json:"generation"` // of the topology that asked for it
	Replaced   int           `json:"replaced"`   // instances
	Of         int           `json:"of"`
	Phase      string        `json:"phase"`
	Since      time.Time     `json:"since"`            // of the phase
	Reason     string        `json:"reason,omitempty"` // why it is not further, or why it has failed
	Canary     *CanaryStatus `json:"canary,omitempty"` // nil: there is none now
}

// The values of UpdateStatus.Phase.
const (
	PhaseStarting  = "starting"  // a new instance is not ready yet
	PhaseProving   = "proving"   // it has to stay ready
	PhaseCanary    = "canary"    // it is judged by its share of the requests
	PhaseDraining  = "draining"  // an old one finishes its requests and stops
	PhaseReturning = "returning" // it has failed, and what was replaced goes back
	PhasePaused    = "paused"    // it has failed, and waits for the service to be changed or restarted
	PhaseWaiting   = "waiting"   // it is done but for where it has failed, and waits for the next try there
)

// A CanaryStatus is what is seen of the first new instance of an update and, over the same time, of the old ones.
type CanaryStatus struct {
	Instance string        `json:"instance"`
	Weight   float64       `json:"weight"` // percent of the requests
	Ends     time.Time     `json:"ends"`   // unless it fails
	New      CanaryFigures `json:"new"`
	Old      CanaryFigures `json:"old"`
}

// CanaryFigures are what was seen of some requests.
type CanaryFigures struct {
	Requests   uint64  `json:"requests"`
	ErrorRatio float64 `json:"error_ratio"` // of them that ended with 5xx, not at their end, or without an answer
	P95        float64 `json:"p95_seconds"` // until the response's header, interpolated
}

// An InstanceStatus is how one instance is doing.
type InstanceStatus struct {
	ID         string    `json:"id"` // "web/2"; while it is being replaced, two instances have one id and differ in generation or pid
	Replica    int       `json:"replica"`
	PID        int       `json:"pid,omitempty"`
	Address    string    `json:"address,omitempty"`
	State      State     `json:"state"`
	Reason     string    `json:"reason,omitempty"`
	Status     string    `json:"status,omitempty"` // what its process says of itself (sd_notify(3), STATUS=)
	Restarts   int       `json:"restarts"`
	CrashLoop  bool      `json:"crash_loop,omitempty"` // its processes end again and again
	Generation int       `json:"generation"`           // of the topology that gave the instance its specification
	Since      time.Time `json:"since"`                // when it entered its state
}

// Status returns every service by name's order. It does not block.
func (s *Supervisor) Status() []ServiceStatus {
	s.mu.Lock()
	services := slices.Collect(maps.Values(s.services))
	s.mu.Unlock()

	all := make([]ServiceStatus, 0, len(services))
	for _, svc := range services {
		all = append(all, svc.status())
	}
	slices.SortFunc(all, func(a, b ServiceStatus) int { return cmp.Compare(a.Name, b.Name) })
	return all
}

// A view is what a service shows of itself beside its instances.
type view struct {
	seen     int // specifications that it takes into account
	desired  int
	lapsed   bool   // an instance that was ready is not
	updating bool   // instances are being replaced
	trouble  string // how the last update has failed
	removed  bool   // it is to end
	update   *UpdateStatus
	job      *JobStatus // nil: it is none
	holding  []*instance
	leaving  []*instance
}

// summarize says how a service with v is doing when its instances, by place, are doing as holding and leaving say.
func summarize(name string, v view, holding, leaving []InstanceStatus) ServiceStatus {
	st := ServiceStatus{Name: name, Desired: v.desired, Update: v.update, Job: v.job}
	count := map[State]int{}
	for _, i := range holding {
		count[i.State]++
		if i.Reason != "" && st.Reason == "" && i.State != StateReady && i.State != StateStopped {
			st.Reason = fmt.Sprintf("%s: %s", i.ID, i.Reason)
		}
	}
	st.Ready = min(count[StateReady], v.desired)
	crashed := slices.ContainsFunc(holding, func(i InstanceStatus) bool {
		return i.State == StateWaiting || i.Restarts > 0 && i.State != StateReady
	})
	switch {
	case v.removed:
		st.State, st.Reason, st.Desired, st.Ready, st.Update = ServiceRemoved, "", 0, 0, nil
	case v.job != nil && !v.updating:
		st.State, st.Reason = v.job.state(st.Reason)
	case v.desired == 0:
		st.State, st.Reason, st.Update = ServiceStopped, "", nil
	case v.trouble != "":
		st.State, st.Reason = ServiceDegraded, v.trouble
	case v.updating:
		st.State = ServiceUpdating
	case count[StateReady] >= v.desired:
		st.State, st.Reason = ServiceReady, ""
	case count[StateStopped] >= v.desired:
		st.State, st.Reason = ServiceCompleted, ""
	case count[StateFailed] >= v.desired:
		st.State = ServiceFailed
	case v.lapsed, crashed, count[StateFailed] > 0:
		st.State = ServiceDegraded
	default:
		st.State = ServiceStarting
	}
	st.Instances = append(holding, leaving...)
	slices.SortStableFunc(st.Instances, func(a, b InstanceStatus) int {
		return cmp.Or(cmp.Compare(a.Replica, b.Replica), cmp.Compare(a.Generation, b.Generation))
	})
	return st
}
