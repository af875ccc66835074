package topology

import "strconv"

// The parts of a service's tree that have mappings of their own.

func limitsTree(l Limits) tree {
	out := tree{}
	if l.Memory > 0 {
		out["memory"] = shortSize(l.Memory)
	}
	if l.CPUs > 0 {
		out["cpus"] = shortNumber(l.CPUs)
	}
	if l.Processes > 0 {
		out["processes"] = strconv.Itoa(l.Processes)
	}
	if l.OpenFiles > 0 {
		out["open_files"] = strconv.Itoa(l.OpenFiles)
	}
	return out
}

func updateTree(u Update) tree {
	out := tree{
		"order":       string(u.Order),
		"parallelism": strconv.Itoa(u.Parallelism),
		"min_ready":   shortDuration(u.MinReady),
		"deadline":    shortDuration(u.Deadline),
	}
	out.put("failure_action", string(u.FailureAction))
	if c := u.Canary; c != nil {
		canary := tree{
			"weight":          shortNumber(c.Weight) + "%",
			"duration":        shortDuration(c.Duration),
			"max_error_ratio": shortNumber(c.MaxErrorRatio),
		}
		if c.MaxLatencyRatio > 0 {
			canary["max_latency_ratio"] = shortNumber(c.MaxLatencyRatio)
		}
		out["canary"] = canary
	}
	return out
}

func scheduleTree(s Schedule) tree {
	out := tree{"cron": s.Cron, "overlap": string(s.Overlap), "missed": string(s.Missed)}
	out.put("time_zone", s.TimeZone)
	if s.Timeout > 0 {
		out["timeout"] = shortDuration(s.Timeout)
	}
	return out
}

func whenUnavailableTree(w WhenUnavailable) tree {
	out := tree{}
	if w.Hold != (Hold{}) {
		out["hold"] = tree{
			"for":      shortDuration(w.Hold.For),
			"requests": strconv.Itoa(w.Hold.Requests),
			"bytes":    shortSize(w.Hold.Bytes),
		}
	}
	out.put("fallback", w.Fallback)
	if r := w.Response; r != nil {
		response := tree{"status": strconv.Itoa(r.Status), "content_type": r.ContentType}
		response.put("body", r.Body)
		out["response"] = response
	}
	return out
}

func shortNumber(f float64) string { return strconv.FormatFloat(f, 'g', -1, 64) }
