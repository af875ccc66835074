package schedule

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func place(t *testing.T, name string) *time.Location {
	t.Helper()
	p, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func parse(t *testing.T, text, where string) Cron {
	t.Helper()
	c, err := Parse(text, place(t, where))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func at(t *testing.T, text string) time.Time {
	t.Helper()
	moment, err := time.Parse("2006-01-02T15:04:05Z07:00", text)
	if err != nil {
		t.Fatal(err)
	}
	return moment
}

func TestNext(t *testing.T) {
	for _, c := range []struct {
		name, cron, place, from string
		want                    string // the times that follow, in the place's time
	}{
		{"each minute", "* * * * *", "UTC", "2026-11-23T05:00:30Z", "2026-11-23T05:01:00Z 2026-11-23T05:02:00Z"},
		{"steps and lists", "5,10-20/5 */6 * * *", "UTC", "2026-11-23T05:00:00Z", "2026-11-23T06:05:00Z 2026-11-23T06:10:00Z 2026-11-23T06:15:00Z 2026-11-23T06:20:00Z 2026-11-23T12:05:00Z"},
		{"at that moment is not after it", "0 5 * * *", "UTC", "2026-11-23T05:00:00Z", "2026-11-24T05:00:00Z"},
		{"weekdays by name", "0 3 * * mon-FRI", "UTC", "2026-11-27T12:00:00Z", "2026-11-30T03:00:00Z 2026-12-01T03:00:00Z"},
		{"Sunday is 0 and 7", "0 3 * * 7", "UTC", "2026-11-23T12:00:00Z", "2026-11-29T03:00:00Z 2026-12-06T03:00:00Z"},
		{"months by name", "0 0 1 Jan,jul *", "UTC", "2026-11-23T12:00:00Z", "2027-01-01T00:00:00Z 2027-07-01T00:00:00Z"},
		{"either day", "0 0 13 * 5", "UTC", "2026-11-23T12:00:00Z", "2026-11-27T00:00:00Z 2026-12-04T00:00:00Z 2026-12-11T00:00:00Z 2026-12-13T00:00:00Z"},
		{"both days after a *", "0 0 */2 * 5", "UTC", "2026-11-23T12:00:00Z", "2026-11-27T00:00:00Z 2026-12-11T00:00:00Z"},
		{"leap years", "0 0 29 2 *", "UTC", "2096-03-01T00:00:00Z", "2104-02-29T00:00:00Z"},
		{"a leap day on one day of the week", "0 0 29 2 */7", "UTC", "2072-03-01T00:00:00Z", "2088-02-29T00:00:00Z 2128-02-29T00:00:00Z"},
		{"the end of short months", "0 0 31 * *", "UTC", "2026-08-31T12:00:00Z", "2026-10-31T00:00:00Z 2026-12-31T00:00:00Z"},

		{"across a change of the clocks", "0 12 * * *", "Europe/Berlin", "2026-03-28T13:00:00+01:00", "2026-03-29T12:00:00+02:00"},
		{"and back", "0 12 * * *", "Europe/Berlin", "2026-10-24T13:00:00+02:00", "2026-10-25T12:00:00+01:00"},
		{"a time that does not exist", "30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00+01:00", "2026-03-29T03:00:00+02:00 2026-03-30T02:30:00+02:00"},
		{"several that do not exist are one", "0,15,30 2,3 * * *", "Europe/Berlin", "2026-03-29T00:00:00+01:00", "2026-03-29T03:00:00+02:00 2026-03-29T03:15:00+02:00 2026-03-29T03:30:00+02:00"},
		{"each second hour loses none", "30 */2 * * *", "Europe/Berlin", "2026-03-29T00:30:00+01:00", "2026-03-29T03:00:00+02:00 2026-03-29T04:30:00+02:00"},
		{"a time that comes twice", "30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00+02:00", "2026-10-25T02:30:00+02:00 2026-10-26T02:30:00+01:00"},
		{"asked for between the two", "30 2 * * *", "Europe/Berlin", "2026-10-25T02:10:00+01:00", "2026-10-26T02:30:00+01:00"},
		{"each hour passes twice", "30 * * * *", "Europe/Berlin", "2026-10-25T01:30:00+02:00", "2026-10-25T02:30:00+02:00 2026-10-25T02:30:00+01:00 2026-10-25T03:30:00+01:00"},
		{"each hour over a gap", "30 * * * *", "Europe/Berlin", "2026-03-29T01:00:00+01:00", "2026-03-29T01:30:00+01:00 2026-03-29T03:30:00+02:00"},
		{"each quarter in the hour that comes twice", "*/15 0-23 * * *", "Europe/Berlin", "2026-10-25T02:40:00+02:00", "2026-10-25T02:45:00+02:00 2026-10-25T02:00:00+01:00 2026-10-25T02:15:00+01:00"},
		{"half an hour's change", "45 1 * * *", "Australia/Lord_Howe", "2026-04-04T12:00:00+11:00", "2026-04-05T01:45:00+11:00 2026-04-06T01:45:00+10:30"},
		{"half an hour's gap", "15 2 * * *", "Australia/Lord_Howe", "2026-10-03T12:00:00+10:30", "2026-10-04T02:30:00+11:00 2026-10-05T02:15:00+11:00"},
		{"a gap at midnight", "0 0 * * *", "America/Santiago", "2026-09-05T12:00:00-04:00", "2026-09-06T01:00:00-03:00 2026-09-07T00:00:00-03:00"},
		{"a day that does not exist", "0 12 * * *", "Pacific/Apia", "2011-12-29T13:00:00-10:00", "2011-12-31T00:00:00+14:00 2011-12-31T12:00:00+14:00"},
		{"midnight comes twice", "0 0 * * *", "America/St_Johns", "2006-10-28T12:00:00-02:30", "2006-10-29T00:00:00-02:30 2006-10-30T00:00:00-03:30"},
		{"each minute around a midnight that comes twice", "0 * 28 10 *", "America/St_Johns", "2006-10-28T22:30:00-02:30", "2006-10-28T23:00:00-02:30 2007-10-28T00:00:00-02:30"},
	} {
		cron, next := parse(t, c.cron, c.place), at(t, c.from)
		for _, want := range strings.Fields(c.want) {
			next = cron.Next(next)
			if got := next.Format(time.RFC3339); got != want {
				t.Errorf("%s: %s, want %s", c.name, got, want)
				break
			}
		}
	}
}

// Whatever the place and its clocks, times go forward, and those of an ordinary day are what the fields say.
func TestNextGoesForward(t *testing.T) {
	crons := []string{"* * * * *", "0 * * * *", "17 2 * * *", "*/20 */2 * * *", "30 23 * * 0", "0 0 1 * *"}
	for _, where := range []string{"UTC", "Europe/Berlin", "America/New_York", "America/St_Johns", "Australia/Lord_Howe", "Africa/Casablanca", "Asia/Gaza", "Antarctica/Troll"} {
		for _, text := range crons {
			cron := parse(t, text, where)
			next := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
			for range 500 {
				after := cron.Next(next)
				if !after.After(next) {
					t.Fatalf("%s in %s: after %s comes %s", text, where, next, after)
				}
				begin, _ := after.ZoneBounds()
				if !cron.minutes.has(after.Minute()) && !begin.Equal(after) {
					t.Fatalf("%s in %s: %s is none of its times", text, where, after)
				}
				next = after
			}
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"":                    "has 0 fields, not five",
		"0 3 * *":             "has 4 fields, not five",
		"0 0 3 * * *":         "has 6 fields, not five",
		"@daily":              "has 1 fields, not five",
		"60 * * * *":          `"60" is no minute (0 to 59`,
		"* 24 * * *":          `"24" is no hour`,
		"* * 0 * *":           `"0" is no day of the month`,
		"* * * 13 *":          `"13" is no month`,
		"* * * * 8":           `"8" is no day of the week`,
		"* * * * monday":      `"monday" is no day of the week`,
		"5/10 * * * *":        `"5/10" is no minute`,
		"*/0 * * * *":         "the step is a number from 1 to 59",
		"*/99 * * * *":        "the step is a number from 1 to 59",
		"30-10 * * * *":       "the range ends before it begins",
		"1,,2 * * * *":        `"" is no minute`,
		"+1 * * * *":          `"+1" is no minute`,
		"-1 * * * *":          `"-1" is no minute`,
		"0 0 30 2 *":          "never comes",
		"0 0 31 2,4,6,9 *":    "never comes",
		"* * L * *":           `"L" is no day of the month`,
		"* * * * fri#2":       `"fri#2" is no day of the week`,
		"? * * * *":           `"?" is no minute`,
		"99999999999 * * * *": "is no minute",
	} {
		if _, err := Parse(text, time.UTC); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, text := range []string{"* * * * *", "5,10-20/5 */6 1-7 jan,3 mon-fri", "0 0 29 2 */7", "59 23 31 12 7"} {
		f.Add(text, int64(1_800_000_000))
	}
	f.Fuzz(func(t *testing.T, text string, from int64) {
		c, err := Parse(text, time.UTC)
		if err != nil {
			return
		}
		start := time.Unix(from%4_000_000_000, 0)
		next := c.Next(start)
		if !next.After(start) || !c.minutes.has(next.Minute()) || !c.hours.has(next.Hour()) || !c.onDay(next) || next.Second() != 0 {
			t.Errorf("%q after %s: %s", text, start, next)
		}
		if slices.Contains(strings.Fields(text), "") {
			t.Errorf("%q was read", text)
		}
	})
}
