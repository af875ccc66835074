package backup

import (
	"testing"
	"time"
)

func TestScheduleKeepsLocalTime(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Skip(err)
	}
	for _, c := range []struct{ cron, from, want string }{
		{"17 */6 * * *", "2026-11-23T05:00:00+01:00", "2026-11-23T06:17:00+01:00"},
		{"0 3 * * 0", "2026-11-23T05:00:00+01:00", "2026-11-29T03:00:00+01:00"},
		{"0 0 29 2 *", "2026-11-23T05:00:00+01:00", "2028-02-29T00:00:00+01:00"},
		{"0 12 * * *", "2026-03-28T13:00:00+01:00", "2026-03-29T12:00:00+02:00"}, // summer time begins
		{"0 12 * * *", "2026-10-24T13:00:00+02:00", "2026-10-25T12:00:00+01:00"}, // and ends
		{"30 1 * * *", "2026-10-24T13:00:00+02:00", "2026-10-25T01:30:00+02:00"},
	} {
		s, err := parseSchedule(c.cron)
		if err != nil {
			t.Error(err)
			continue
		}
		from, err := time.Parse(time.RFC3339, c.from)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.after(from.In(berlin)).Format(time.RFC3339); got != c.want {
			t.Errorf("%s after %s: %s, want %s", c.cron, c.from, got, c.want)
		}
	}
}

func TestTickerWhateverTheClockDoes(t *testing.T) {
	start := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	type look struct {
		after       time.Duration // since start, as the wall clock says
		due, missed bool
	}
	for name, looks := range map[string][]look{
		"on time":          {{59 * time.Minute, false, false}, {time.Hour, true, false}, {time.Hour + time.Second, false, false}, {2 * time.Hour, true, false}},
		"a little late":    {{time.Hour + 50*time.Second, true, false}, {2 * time.Hour, true, false}},
		"after a sleep":    {{5*time.Hour + 30*time.Minute, false, true}, {5*time.Hour + 31*time.Minute, false, false}, {6 * time.Hour, true, false}},
		"a day forward":    {{24*time.Hour + 30*time.Minute, false, true}, {25 * time.Hour, true, false}},
		"an hour back":     {{time.Hour, true, false}, {5 * time.Minute, false, false}, {time.Hour, false, false}, {2 * time.Hour, true, false}},
		"a day back":       {{time.Hour, true, false}, {-23*time.Hour + time.Minute, false, false}, {-22 * time.Hour, true, false}},
		"back and forth":   {{time.Hour, true, false}, {-23 * time.Hour, false, false}, {90 * time.Minute, false, true}, {2 * time.Hour, true, false}},
		"late, but not so": {{time.Hour + 2*time.Minute, false, true}, {2 * time.Hour, true, false}},
	} {
		s, err := parseSchedule("0 * * * *")
		if err != nil {
			t.Fatal(err)
		}
		ticker := newTicker(s, start)
		for i, l := range looks {
			if due, missed := ticker.look(start.Add(l.after)); due != l.due || missed != l.missed {
				t.Errorf("%s, look %d: due %v, missed %v", name, i, due, missed)
			}
		}
	}
}
