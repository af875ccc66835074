package cli

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"mainstay/admin"
	"mainstay/supervisor"
)

// What a service prints is in reasons, and reaches no terminal as it is.
func TestNothingMovesTheCursor(t *testing.T) {
	evil := "exited with status 1: \x1b[2J\x1b]0;x\a\u009b\u202e\r| größe"
	var out, errs bytes.Buffer
	c := &cli{Streams: Streams{Out: &out, Err: &errs}}
	status := &admin.Status{Services: []supervisor.ServiceStatus{{Name: "web", Reason: evil, Instances: []supervisor.InstanceStatus{
		{ID: "web/1", Reason: evil, State: supervisor.StateWaiting, Since: time.Now()},
	}}}}
	status.LastReload.Result, status.LastReload.Error = "refused", evil
	if err := c.showStatus(&out, status); err != nil {
		t.Fatal(err)
	}
	printWhy(&out, &supervisor.Explanation{Sentence: evil, Instances: []supervisor.InstanceExplanation{{
		Sentence: evil, Postmortems: []supervisor.Postmortem{{Why: evil}, {Why: evil + "\nmore"}},
	}}})
	c.report(fail(ExitFailed, "web: %s", evil))
	for what, text := range map[string]string{"stdout": out.String(), "stderr": errs.String()} {
		if strings.ContainsAny(text, "\x1b\a\u009b\u202e\r") || !strings.Contains(text, "größe") {
			t.Errorf("%s: %q", what, text)
		}
	}
}

func TestParseTime(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 30, 0, 0, time.Local)
	for text, want := range map[string]time.Time{
		"":                     {},
		"90m":                  now.Add(-90 * time.Minute),
		"2d":                   now.Add(-48 * time.Hour),
		"08:15":                time.Date(2026, 11, 23, 8, 15, 0, 0, time.Local),
		"08:15:30":             time.Date(2026, 11, 23, 8, 15, 30, 0, time.Local),
		"2026-11-01":           time.Date(2026, 11, 1, 0, 0, 0, 0, time.Local),
		"2026-11-01 10:00":     time.Date(2026, 11, 1, 10, 0, 0, 0, time.Local),
		"2026-11-01T10:00:00Z": time.Date(2026, 11, 1, 10, 0, 0, 0, time.UTC),
	} {
		if got, err := parseTime(text, now); err != nil || !got.Equal(want) {
			t.Errorf("%q is %s, %v; want %s", text, got, err, want)
		}
	}
	for _, text := range []string{"yesterday", "-1h", "-2d", "d", "99999999d", "25:00", "2026-02-30", "10"} {
		if got, err := parseTime(text, now); err == nil {
			t.Errorf("%q is %s", text, got)
		}
	}
}
