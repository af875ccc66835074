package schedule

import (
	"errors"
	"fmt"
	"math/bits"
	"strconv"
	"strings"
	"time"
)

// A Cron is a schedule: minute, hour, day of the month, month and day of the week, as crontab(5) has them, in the time
// of one place. Days are those that both fields ask for, or if neither begins with *, those that either asks for.
type Cron struct {
	minutes, hours, days, months, weekdays set
	either                                 bool // of days and weekdays
	place                                  *time.Location
}

// A set of small numbers.
type set uint64

func (s set) has(n int) bool { return s&(1<<n) != 0 }

// A field is what one of the five may say.
type field struct {
	name        string
	first, last int
	words       []string // for first and those that follow
}

var fields = [5]field{
	{name: "minute", first: 0, last: 59},
	{name: "hour", first: 0, last: 23},
	{name: "day of the month", first: 1, last: 31},
	{name: "month", first: 1, last: 12, words: []string{"jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"}},
	{name: "day of the week", first: 0, last: 7, words: []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}}, // 7 is Sunday too
}

// Parse reads five fields in the time of place. The error names the field that is wrong; a schedule that never comes
// ("0 0 30 2 *") is an error too.
func Parse(text string, place *time.Location) (Cron, error) {
	words := strings.Fields(text)
	if len(words) != len(fields) {
		return Cron{}, fmt.Errorf("it has %d fields, not five (minute hour day month weekday)", len(words))
	}
	var sets [5]set
	for i, f := range fields {
		var err error
		if sets[i], err = f.parse(words[i]); err != nil {
			return Cron{}, err
		}
	}
	c := Cron{minutes: sets[0], hours: sets[1], days: sets[2], months: sets[3], weekdays: sets[4], place: place}
	if c.weekdays.has(7) {
		c.weekdays |= 1
	}
	c.either = words[2][0] != '*' && words[4][0] != '*'
	if c.Next(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)).IsZero() {
		return Cron{}, errors.New("it never comes: no month that it names has that day")
	}
	return c, nil
}

// parse reads a list of ranges with steps.
func (f field) parse(text string) (set, error) {
	var all set
	for _, part := range strings.Split(text, ",") {
		span, step, stepped := strings.Cut(part, "/")
		low, high, ranged := strings.Cut(span, "-")
		from, ok := f.number(low)
		to := from
		switch {
		case span == "*":
			from, to, ok = f.first, f.last, true
			if f.last == 7 {
				to = 6 // each day once
			}
		case ranged && ok:
			to, ok = f.number(high)
		case stepped:
			ok = false // crontab(5): steps follow a range or *
		}
		if !ok {
			return 0, fmt.Errorf("%q is no %s (%d to %d, as in 1, 1,3, 1-3, */3)", part, f.name, f.first, f.last)
		}
		if from > to {
			return 0, fmt.Errorf("%q is no %s: the range ends before it begins", part, f.name)
		}
		by := 1
		if stepped {
			n, err := strconv.Atoi(step)
			if err != nil || n < 1 || n > f.last || step[0] == '+' {
				return 0, fmt.Errorf("%q is no %s: the step is a number from 1 to %d", part, f.name, f.last)
			}
			by = n
		}
		for n := from; n <= to; n += by {
			all |= 1 << n
		}
	}
	return all, nil
}

func (f field) number(text string) (int, bool) {
	for i, word := range f.words {
		if strings.EqualFold(word, text) {
			return f.first + i, true
		}
	}
	n, err := strconv.Atoi(text)
	return n, err == nil && n >= f.first && n <= f.last && text[0] != '+' && text[0] != '-'
}

// onDay reports whether the day that a time in UTC falls on is one of c's.
func (c Cron) onDay(date time.Time) bool {
	if !c.months.has(int(date.Month())) {
		return false
	}
	day, weekday := c.days.has(date.Day()), c.weekdays.has(int(date.Weekday()))
	return day && weekday || c.either && (day || weekday)
}

// horizon is how many days ahead there is no next time if there is none until then. The rarest is 29 February on one day of the
// week, which is 40 years apart over a century without a leap year.
const horizon = 41 * 366

// Next returns the first time of c after t, in c's place; zero if there is none.
func (c Cron) Next(t time.Time) time.Time {
	if c.minutes == 0 {
		return time.Time{}
	}
	t = t.In(c.place)
	if bits.OnesCount64(uint64(c.hours)) == 24 {
		return c.nextMinute(t)
	}
	// Times as they are on a clock's face are gone through in their order, which is that of the moments that they stand for. It
	// begins the day before: a time in a gap at midnight is due on the next day.
	y, m, d := t.Date()
	date := time.Date(y, m, d-1, 0, 0, 0, 0, time.UTC)
	for range horizon {
		if c.onDay(date) {
			for hour := range 24 {
				if !c.hours.has(hour) {
					continue
				}
				for minute := range 60 {
					if !c.minutes.has(minute) {
						continue
					}
					face := date.Add(time.Duration(hour)*time.Hour + time.Duration(minute)*time.Minute)
					if at := c.moment(face); at.After(t) {
						return at
					}
				}
			}
		}
		date = date.AddDate(0, 0, 1)
	}
	return time.Time{}
}

// nextMinute is Next for each hour that passes.
func (c Cron) nextMinute(t time.Time) time.Time {
	last := t.AddDate(0, 0, horizon)
	t = t.Truncate(time.Minute).Add(time.Minute)
	for t.Before(last) {
		y, m, d := t.Date()
		if date := time.Date(y, m, d, 0, 0, 0, 0, time.UTC); !c.onDay(date) {
			t = later(c.moment(date.AddDate(0, 0, 1)), t.Add(time.Minute))
			continue
		}
		if c.minutes.has(t.Minute()) {
			return t
		}
		t = t.Add(time.Minute)
	}
	return time.Time{}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// moment returns when clocks in c's place show, for the first time, what face shows in UTC; or if they never do, because
// they go forward over it, the moment when they do.
func (c Cron) moment(face time.Time) time.Time {
	y, m, d := face.Date()
	t := time.Date(y, m, d, face.Hour(), face.Minute(), 0, 0, c.place)
	begin, end := t.ZoneBounds()
	_, offset := t.Zone()
	switch shown := t.Add(time.Duration(offset) * time.Second).UTC(); { // as if the clock's face were in UTC
	case shown.After(face): // it went forward at begin; time.Date does not say on which side of a gap it ends up
		return begin
	case shown.Before(face):
		return end
	case begin.IsZero():
		return t
	}
	_, before := begin.Add(-1).Zone()
	if first := t.Add(time.Duration(offset-before) * time.Second); before > offset && first.Before(begin) {
		return first // it comes twice
	}
	return t
}
