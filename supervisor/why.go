package supervisor

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"mainstay/topology"
)

// An Explanation says why a service is as it is.
type Explanation struct {
	Service      string                `json:"service"`
	Sentence     string                `json:"sentence"` // all of it in one
	State        string                `json:"state"`
	Ready        int                   `json:"ready"`
	Desired      int                   `json:"desired"`
	Dependencies []Dependency          `json:"dependencies"`
	Instances    []InstanceExplanation `json:"instances"` // by place; of those that were asked for
}

// A Dependency is what a service waits for before its first start.
type Dependency struct {
	Service   string `json:"service"`
	Condition string `json:"condition"` // started, ready or completed
	Met       bool   `json:"met"`
	Why       string `json:"why,omitempty"` // it is not
}

// An InstanceExplanation says why an instance is as it is.
type InstanceExplanation struct {
	InstanceStatus
	Sentence    string        `json:"sentence"`
	Probes      []ProbeResult `json:"probes"`      // the last answers of the process that it has or had last, oldest first
	Output      []LogLine     `json:"output"`      // the last lines of that process, oldest first
	Postmortems []Postmortem  `json:"postmortems"` // of its place, newest first
}

// Why explains a service, or one of its instances if replica is not 0. The error is that there is none.
func (s *Supervisor) Why(service string, replica int) (Explanation, error) {
	s.mu.Lock()
	svc, ok := s.services[service]
	s.mu.Unlock()
	if !ok {
		return Explanation{}, fmt.Errorf("there is no service %q", service)
	}
	return svc.explain(replica)
}

func (s *service) explain(replica int) (Explanation, error) {
	st := s.status()
	s.mu.Lock()
	instances := slices.Concat(s.view.holding, s.view.leaving)
	needs := s.last.DependsOn
	s.mu.Unlock()
	e := Explanation{
		Service: s.name, State: st.State, Ready: st.Ready, Desired: st.Desired,
		Dependencies: s.dependencies(needs), Instances: []InstanceExplanation{},
	}
	slices.SortStableFunc(instances, func(a, b *instance) int { return a.replica - b.replica })
	for _, i := range instances {
		if replica == 0 || i.replica == replica {
			e.Instances = append(e.Instances, i.explain(s.site.morgue.of(instanceID(s.name, i.replica))))
		}
	}
	if len(e.Instances) == 0 && replica != 0 {
		id := instanceID(s.name, replica)
		past := s.site.morgue.of(id)
		if len(past) == 0 {
			return e, fmt.Errorf("there is no instance %s", id)
		}
		e.Instances = append(e.Instances, InstanceExplanation{
			InstanceStatus: InstanceStatus{ID: id, Replica: replica, State: StateStopped, Since: past[0].Ended},
			Sentence:       id + " is not there any more", Probes: []ProbeResult{}, Output: []LogLine{}, Postmortems: past,
		})
	}
	e.Sentence = sentenceOf(st)
	if len(e.Instances) == 1 && (replica != 0 || st.Desired == 1 && st.Job == nil) {
		e.Sentence = e.Instances[0].Sentence
	}
	return e, nil
}

// dependencies tells which conditions of needs hold.
func (s *service) dependencies(needs map[string]topology.Condition) []Dependency {
	list := []Dependency{}
	for _, name := range slices.Sorted(maps.Keys(needs)) {
		why, _ := s.site.board.unmet(map[string]topology.Condition{name: needs[name]})
		list = append(list, Dependency{Service: name, Condition: string(needs[name]), Met: why == "", Why: why})
	}
	return list
}

// sentenceOf says how a service is doing.
func sentenceOf(st ServiceStatus) string {
	s := fmt.Sprintf("%s is %s: %d of %d ready", st.Name, st.State, st.Ready, st.Desired)
	if st.Job != nil {
		s = st.Name + " is " + st.State
		if !st.Job.Next.IsZero() {
			s += ", and its next run is due in " + roughly(time.Until(st.Job.Next))
		}
		if last := st.Job.Last; last != nil && st.Reason == "" {
			s += fmt.Sprintf("; the last run %s %s ago", last.Result, roughly(time.Since(last.Ended)))
		}
	}
	if st.Reason != "" {
		s += "; " + st.Reason
	}
	return s
}

func (i *instance) explain(past []Postmortem) InstanceExplanation {
	e := InstanceExplanation{InstanceStatus: i.status(), Probes: []ProbeResult{}, Output: []LogLine{}, Postmortems: past}
	i.mu.Lock()
	e.Probes = append(e.Probes, i.probed...)
	words := i.words
	i.mu.Unlock()
	if words != nil {
		e.Output = append(e.Output, words.last()...)
	}
	e.Sentence = e.say()
	return e
}

// say says how the instance is doing.
func (e InstanceExplanation) say() string {
	because := func(s string) string {
		if e.Reason == "" {
			return s
		}
		return s + ": " + e.Reason
	}
	for_ := roughly(time.Since(e.Since))
	switch e.State {
	case StatePending:
		return because(e.ID + " has not been started")
	case StateStarting:
		return because(fmt.Sprintf("%s runs, but has not been ready for %s", e.ID, for_))
	case StateReady:
		s := fmt.Sprintf("%s has been ready for %s", e.ID, for_)
		if len(e.Postmortems) > 0 && e.Restarts > 0 {
			last := e.Postmortems[0]
			s += fmt.Sprintf("; the process before it ended %s ago: %s", roughly(time.Since(last.Ended)), last.Why)
		}
		return s
	case StateDraining, StateStopping:
		return because(e.ID + " is being stopped")
	case StateWaiting:
		return because(e.ID + " waits for its next start")
	case StateFailed:
		return because(e.ID + " has failed and is not started again")
	}
	return because(e.ID + " is stopped")
}

// roughly shows d as a person would say it.
func roughly(d time.Duration) string {
	switch d = max(d, 0); {
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < time.Minute:
		return d.Round(time.Second).String()
	case d < time.Hour:
		return strings.TrimSuffix(d.Round(time.Second).String(), "0s")
	case d < 48*time.Hour:
		return strings.TrimSuffix(d.Round(time.Minute).String(), "0s")
	default:
		return fmt.Sprintf("%d days", d/(24*time.Hour))
	}
}
