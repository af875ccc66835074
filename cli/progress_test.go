package cli

import (
	"bytes"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"mainstay/supervisor"
)

func TestJourney(t *testing.T) {
	var out bytes.Buffer
	j := newJourney(&out)
	now := time.Date(2030, 1, 2, 3, 4, 5, 0, time.Local)
	tell := func(after time.Duration, services ...supervisor.ServiceStatus) {
		now = now.Add(after)
		j.tell(now, services, func(s supervisor.ServiceStatus) bool { return s.State != supervisor.ServiceReady })
	}
	web := supervisor.ServiceStatus{Name: "web", State: supervisor.ServiceReady, Ready: 2, Desired: 2}
	api := supervisor.ServiceStatus{Name: "api", State: supervisor.ServiceStarting, Desired: 1}
	updating := func(phase string, replaced int) supervisor.ServiceStatus {
		s := web
		s.State, s.Update = supervisor.ServiceUpdating, &supervisor.UpdateStatus{Generation: 4, Phase: phase, Replaced: replaced, Of: 2}
		return s
	}
	tell(0, api, web)
	api.Reason = "api/1: readiness probe failed: connection refused\nlast \x1b[2Jwords"
	tell(time.Second, api, updating(supervisor.PhaseStarting, 0)) // another reason alone is no step
	canary := updating(supervisor.PhaseCanary, 0)
	canary.Update.Canary = &supervisor.CanaryStatus{Instance: "web/1", Weight: 10, Ends: time.Now().Add(20*time.Second + 500*time.Millisecond),
		New: supervisor.CanaryFigures{Requests: 200, ErrorRatio: 0.025, P95: 0.0123456}, Old: supervisor.CanaryFigures{}}
	for range 6 {
		tell(time.Second, api, canary)
	}
	api.State, api.Ready, api.Reason = supervisor.ServiceReady, 1, ""
	tell(time.Second, api, updating(supervisor.PhaseDraining, 1))
	tell(time.Second, api, web)
	tell(time.Second, api, web)
	want := `03:04:05  api: starting, 0 of 1 ready
03:04:06  web: update to generation 4: 0 of 2 replaced, starting
03:04:07  web: update to generation 4: 0 of 2 replaced, canary: web/1 with 10 % for 20s more: 200 requests, 2.5 % failed, 95 % within 12.35ms; the old ones: 0 requests, 0 % failed
03:04:12  web: update to generation 4: 0 of 2 replaced, canary: web/1 with 10 % for 20s more: 200 requests, 2.5 % failed, 95 % within 12.35ms; the old ones: 0 requests, 0 % failed
03:04:13  api: ready, 1 of 1 ready
03:04:13  web: update to generation 4: 1 of 2 replaced, draining
03:04:14  web: ready, 2 of 2 ready
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Error(diff)
	}
}

func TestSpan(t *testing.T) {
	for want, names := range map[string][]string{
		"-":                         nil,
		"web/1":                     {"web/1"},
		"web/1…3":                   {"web/1", "web/2", "web/3"},
		"web/1…2 web/4 10.0.0.5:80": {"web/1", "web/2", "web/4", "10.0.0.5:80"},
		"web/9…11":                  {"web/9", "web/10", "web/11"},
	} {
		if got := span(names); got != want {
			t.Errorf("%q: %s, want %s", names, got, want)
		}
	}
}
