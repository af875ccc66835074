package schedule

import (
	"testing"
	"testing/synctest"
	"time"
)

// A step is what has happened to the clocks since the step before, and what is then due, missed or skipped, as hours and minutes.
type step struct {
	pass                 time.Duration // real time
	move                 time.Duration // of the clock on the wall, besides
	due, missed, skipped string
}

func TestTickerWhateverTheClockDoes(t *testing.T) {
	start := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	const m, h = time.Minute, time.Hour
	for name, steps := range map[string][]step{
		"on time":                   {{59 * m, 0, "", "", ""}, {m, 0, "13:00", "", ""}, {time.Second, 0, "", "", ""}, {h - time.Second, 0, "14:00", "", ""}},
		"a little late":             {{h + 50*time.Second, 0, "13:00", "", ""}, {h - 50*time.Second, 0, "14:00", "", ""}},
		"after a sleep":             {{5*h + 30*m, 0, "", "17:00", ""}, {m, 0, "", "", ""}, {29 * m, 0, "18:00", "", ""}},
		"a sleep that ends just so": {{5*h + 20*time.Second, 0, "17:00", "16:00", ""}, {m, 0, "", "", ""}},
		"an hour forward":           {{20 * m, h, "", "", "13:00"}, {10 * m, 0, "", "", ""}, {30 * m, 0, "14:00", "", ""}},
		"a day forward":             {{20 * m, 24 * h, "", "", "12:00"}, {40 * m, 0, "13:00", "", ""}},
		"forward to just then":      {{20 * m, 40 * m, "", "", "13:00"}, {h, 0, "14:00", "", ""}},
		"due before the jump":       {{h, 2 * h, "13:00", "", "15:00"}, {h, 0, "16:00", "", ""}},
		"an hour back":              {{h, 0, "13:00", "", ""}, {5 * m, -h, "", "", ""}, {55 * m, 0, "", "", ""}, {h, 0, "14:00", "", ""}},
		"an hour forth and back":    {{30 * m, h, "", "", "13:00"}, {10 * m, -h, "", "", ""}, {20 * m, 0, "", "", ""}, {h, 0, "14:00", "", ""}},
		"an hour back and forth":    {{h, 0, "13:00", "", ""}, {10 * m, -h, "", "", ""}, {10 * m, h, "", "", ""}, {40 * m, 0, "14:00", "", ""}},
		"three hours back":          {{h, 0, "13:00", "", ""}, {m, -3 * h, "", "", ""}, {2*h - m, 0, "", "", ""}, {h, 0, "", "", ""}, {h, 0, "14:00", "", ""}},
		"four hours back":           {{h, 0, "13:00", "", ""}, {m, -4 * h, "", "", ""}, {59 * m, 0, "10:00", "", ""}},
		"back bit by bit":           {{h, 0, "13:00", "", ""}, {m, -2 * h, "", "", ""}, {m, -2 * h, "", "", ""}, {58 * m, 0, "10:00", "", ""}},
		"drift is no move":          {{30 * m, 20 * time.Second, "", "", ""}, {30 * m, -20 * time.Second, "13:00", "", ""}},
	} {
		now := Moment{Wall: start}
		ticker := NewTicker(parse(t, "0 * * * *", "UTC"), time.Time{}, now)
		for i, s := range steps {
			now.Elapsed += s.pass
			now.Wall = now.Wall.Add(s.pass + s.move)
			turn := ticker.Look(now)
			got := step{s.pass, s.move, short(turn.Due), short(turn.Missed), short(turn.Skipped)}
			if got != s {
				t.Errorf("%s, step %d: %+v, want %+v", name, i, got, s)
			}
		}
	}
}

func short(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Format("15:04")
}

func TestTickerGoesOnWhereAnotherWas(t *testing.T) {
	now := Moment{Wall: time.Date(2026, 6, 1, 12, 0, 30, 0, time.UTC)}
	hourly := parse(t, "0 * * * *", "UTC")
	for _, c := range []struct {
		name        string
		since       time.Time
		due, missed string
		next        string
	}{
		{"nothing was before", time.Time{}, "", "", "13:00"},
		{"just now", now.Wall.Add(-10 * time.Second), "", "", "13:00"},
		{"a minute ago", now.Wall.Add(-time.Minute), "12:00", "", "13:00"},
		{"hours ago", now.Wall.Add(-5 * time.Hour), "12:00", "11:00", "13:00"},
		{"before the clock was set back", now.Wall.Add(time.Hour), "", "", "14:00"},
		{"before a wrong clock was set right", now.Wall.Add(30 * 24 * time.Hour), "", "", "13:00"},
		{"never really", time.Unix(0, 0), "", "", "13:00"},
	} {
		ticker := NewTicker(hourly, c.since, now)
		turn := ticker.Look(now)
		if short(turn.Due) != c.due || short(turn.Missed) != c.missed || short(ticker.Next()) != c.next {
			t.Errorf("%s: %+v, then %s", c.name, turn, ticker.Next())
		}
	}
	// Years of minutes are no work.
	minutely := NewTicker(parse(t, "* * * * *", "UTC"), now.Wall.AddDate(-5, 0, 0), Moment{Wall: now.Wall.Add(-30 * time.Second)})
	if turn := minutely.Look(now); short(turn.Due) != "12:00" || short(turn.Missed) != "11:59" {
		t.Errorf("after five years: %+v", turn)
	}
}

func TestTickerInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		clock := System()
		begin := clock()
		ticker := NewTicker(parse(t, "*/10 * * * *", "UTC"), time.Time{}, begin)
		var due []time.Time
		looks := 0
		for len(due) < 3 {
			time.Sleep(ticker.Pause(clock()))
			looks++
			if turn := ticker.Look(clock()); !turn.Due.IsZero() {
				due = append(due, turn.Due)
				if !time.Now().Equal(turn.Due) {
					t.Errorf("due at %s, told at %s", turn.Due, time.Now())
				}
			}
		}
		if due[2].Sub(due[1]) != 10*time.Minute || looks > 100 {
			t.Errorf("due at %s after %d looks", due, looks)
		}
	})
}
