package topology

import (
	"maps"
	"time"
)

// environment returns what a service's environment says, over what its env_file does.
func (rs *resolver) environment(v *value) map[string]Text {
	out := map[string]Text{}
	for _, f := range environmentFiles(v.at("env_file")) {
		maps.Copy(out, rs.environmentFile(f))
	}
	for name, field := range v.at("environment").fields {
		out[name], _ = field.scalar.(Text)
	}
	if len(out) == 0 {
		return nil
	}
	return out
}

func limitsOf(v *value) Limits {
	return Limits{
		Memory:    get[int64](v, "memory"),
		CPUs:      get[float64](v, "cpus"),
		Processes: get[int](v, "processes"),
		OpenFiles: get[int](v, "open_files"),
	}
}

func updateOf(v *value) Update {
	u := Update{
		Order:         UpdateOrder(get[string](v, "order")),
		Parallelism:   get[int](v, "parallelism"),
		MinReady:      get[time.Duration](v, "min_ready"),
		Deadline:      get[time.Duration](v, "deadline"),
		FailureAction: FailureAction(get[string](v, "failure_action")),
	}
	if v.given("canary") {
		u.Canary = &Canary{
			Weight:          get[float64](v, "canary", "weight"),
			Duration:        get[time.Duration](v, "canary", "duration"),
			MaxErrorRatio:   get[float64](v, "canary", "max_error_ratio"),
			MaxLatencyRatio: get[float64](v, "canary", "max_latency_ratio"),
		}
	}
	return u
}

func scheduleOf(v *value) *Schedule {
	if v.node == nil || v.broken {
		return nil
	}
	s := &Schedule{
		Cron:     get[string](v, "cron"),
		TimeZone: get[string](v, "time_zone"),
		Overlap:  Overlap(get[string](v, "overlap")),
		Missed:   Missed(get[string](v, "missed")),
		Timeout:  get[time.Duration](v, "timeout"),
	}
	if v.scalar != nil {
		s.Cron = v.scalar.(string)
	}
	return s
}

// jobDefaults gives a job those defaults that differ from other services'.
func jobDefaults(v *value, s *Service) {
	if !v.given("port") {
		s.Port = PortNone
	}
	if !v.given("restart", "policy") {
		s.Restart.Policy = RestartNever
	}
}

func grpcOf(v *value) *GRPC {
	if g, ok := v.scalar.(GRPC); ok {
		return &g
	}
	return &GRPC{Address: get[string](v, "address"), Service: get[string](v, "service")}
}

func whenUnavailableOf(v *value) WhenUnavailable {
	w := WhenUnavailable{Fallback: get[string](v, "fallback")}
	switch hold := v.at("hold"); {
	case hold.fields != nil:
		w.Hold.For = get[time.Duration](hold, "for")
	case hold.node != nil:
		w.Hold.For = get[time.Duration](hold)
	}
	if w.Hold.For > 0 {
		w.Hold.Requests = get[int](v, "hold", "requests")
		w.Hold.Bytes = get[int64](v, "hold", "bytes")
	}
	if v.given("response") {
		w.Response = &Response{
			Status:      get[int](v, "response", "status"),
			ContentType: get[string](v, "response", "content_type"),
			Body:        get[string](v, "response", "body"),
		}
	}
	return w
}
