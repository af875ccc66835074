package engine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"

	"mainstay/topology"
)

// ErrNoService is returned for an override of a service that does not exist.
var ErrNoService = errors.New("no such service")

// An Override changes a service at run time, over what the file says, until Mainstay is stopped or the
// service's own replicas change in the file.
type Override struct {
	Replicas *int  // nil: no opinion
	Stopped  *bool // nil: no opinion
	Restart  bool  // replace every instance once
}

// Override lays o over the named service, in addition to what was laid over it before. It waits for reloads and other
// overrides, and for what it stops; the instances that it starts are told by the supervisor's Status.
// The error is [ErrNoService], why o cannot be for this service, a stage's refusal, or [ErrStopped].
func (e *Engine) Override(ctx context.Context, service string, o Override) error {
	if err := e.take(ctx); err != nil {
		return err
	}
	defer e.give()
	v := *e.view.Load()
	s, ok := v.file.Services[service]
	if !ok {
		return fmt.Errorf("%w: %s", ErrNoService, service)
	}
	wanted, err := v.overrides[service].with(o, s)
	if err != nil {
		return fmt.Errorf("service %s: %w", service, err)
	}
	laid := maps.Clone(v.overrides)
	if laid == nil {
		laid = overrides{}
	}
	laid[service] = wanted
	next := laid.over(v.file)
	if same(v.topology, next) {
		return nil
	}
	if err := e.apply(ctx, v.topology, next); err != nil {
		return err
	}
	v.topology, v.overrides = next, laid
	v.status.Overrides = laid.describe(v.file)
	e.view.Store(&v)
	e.remember(v)
	e.log.Info("override laid", "service", service, "override", wanted.describe(s), "restart", o.Restart)
	return nil
}

// overrides are those laid over a topology, by service. They are never modified, only replaced.
type overrides map[string]override

// An override is all that was laid over one service.
type override struct {
	Replicas *int `json:"replicas,omitempty"` // nil: as the file says
	Stopped  bool `json:"stopped,omitempty"`
	Epoch    int  `json:"epoch,omitempty"` // how often it was restarted; kept for as long as the service exists, for going back would be a restart too
}

// with returns v with o laid over it too, or why s cannot have that.
func (v override) with(o Override, s topology.Service) (override, error) {
	if o.Replicas != nil {
		v.Replicas = o.Replicas
		if *o.Replicas == s.Replicas {
			v.Replicas = nil
		}
	}
	if o.Stopped != nil {
		v.Stopped = *o.Stopped
	}
	if o.Restart {
		v.Epoch++
	}
	if o.Restart && s.Schedule != nil {
		return override{}, errors.New("it is a job, which runs when it is due; trigger runs it now")
	}
	if o.Restart && v.Stopped {
		return override{}, errors.New("it is stopped, there is nothing to restart; start it")
	}
	return v, v.check(s)
}

// maxReplicas is the most that a file can ask for, too.
const maxReplicas = 1000

// check returns why s cannot be run with v.
func (v override) check(s topology.Service) error {
	switch {
	case len(s.External) > 0:
		return errors.New("it is external: its instances run elsewhere and cannot be scaled, stopped or restarted from here")
	case v.Replicas == nil:
		return nil
	case *v.Replicas < 0:
		return fmt.Errorf("%d replicas: there cannot be fewer than none", *v.Replicas)
	case *v.Replicas > maxReplicas:
		return fmt.Errorf("%d replicas: the most is %d", *v.Replicas, maxReplicas)
	case *v.Replicas != 1 && s.Schedule != nil:
		return fmt.Errorf("%d replicas: it is a job, of which there is one run at a time", *v.Replicas)
	case *v.Replicas > 1 && s.Port > 0:
		return fmt.Errorf("%d replicas: only one instance can listen on its fixed port %d; with port: auto each is given its own",
			*v.Replicas, s.Port)
	}
	return nil
}

// describe returns v for people, empty if it is as the file says.
func (v override) describe(s topology.Service) string {
	var words []string
	if v.Stopped {
		words = append(words, "stopped")
	}
	if v.Replicas != nil {
		words = append(words, fmt.Sprintf("replicas %d (file: %d)", *v.Replicas, s.Replicas))
	}
	return strings.Join(words, ", ")
}

// over returns t with the overrides laid over it.
func (o overrides) over(t *topology.Topology) *topology.Topology {
	if len(o) == 0 {
		return t
	}
	laid := *t
	laid.Services = maps.Clone(t.Services)
	for name, v := range o {
		s := laid.Services[name]
		s.Stopped, s.Epoch = v.Stopped, v.Epoch
		if v.Replicas != nil {
			s.Replicas = *v.Replicas
		}
		laid.Services[name] = s
	}
	return &laid
}

// carry returns what remains of the overrides when next follows have: the opinion of the file, once it changes or
// forbids the override, is newer and wins.
func (o overrides) carry(have, next *topology.Topology) overrides {
	carried := overrides{}
	for name, v := range o {
		s, ok := next.Services[name]
		if !ok {
			continue
		}
		if s.Replicas != have.Services[name].Replicas || v.check(s) != nil {
			v = override{Epoch: v.Epoch}
		}
		carried[name] = v
	}
	return carried
}

// describe returns the overrides of t for people; nil if all is as the file says.
func (o overrides) describe(t *topology.Topology) map[string]string {
	var described map[string]string
	for name, v := range o {
		words := v.describe(t.Services[name])
		if words == "" {
			continue
		}
		if described == nil {
			described = make(map[string]string)
		}
		described[name] = words
	}
	return described
}
