package restic

import (
	"slices"
	"time"
)

// A Retention says which snapshots to keep: the newest of each of the last so many hours, days, weeks, months and years
// that have any, and the last so many. All zero keeps every snapshot.
type Retention struct {
	Last, Hourly, Daily, Weekly, Monthly, Yearly int
}

// Forgettable returns those of the snapshots that r does not keep. It is restic's policy
// (doc/060_forget.rst): natural hours, days and so on in each snapshot's own time zone, and as long as a
// rule has not found its number, it keeps the oldest snapshot too, as restic does since 0.16.
func (r Retention) Forgettable(snapshots []*Snapshot) []*Snapshot {
	if r == (Retention{}) {
		return nil
	}
	snapshots = slices.Clone(snapshots)
	slices.SortStableFunc(snapshots, func(a, b *Snapshot) int { return b.Time.Compare(a.Time) }) // newest first

	rules := []struct {
		left int
		of   func(time.Time) int
		last int
	}{
		{r.Hourly, func(t time.Time) int { return t.Year()*1_000_000 + int(t.Month())*10_000 + t.Day()*100 + t.Hour() }, -1},
		{r.Daily, func(t time.Time) int { return t.Year()*10_000 + int(t.Month())*100 + t.Day() }, -1},
		{r.Weekly, func(t time.Time) int { year, week := t.ISOWeek(); return year*100 + week }, -1},
		{r.Monthly, func(t time.Time) int { return t.Year()*100 + int(t.Month()) }, -1},
		{r.Yearly, func(t time.Time) int { return t.Year() }, -1},
	}
	var forgettable []*Snapshot
	for i, s := range snapshots {
		keep := i < r.Last
		oldest := i == len(snapshots)-1
		for n := range rules {
			rule := &rules[n]
			if rule.left <= 0 {
				continue
			}
			if period := rule.of(s.Time); period != rule.last || oldest {
				keep = true
				rule.last = period
				rule.left--
			}
		}
		if !keep {
			forgettable = append(forgettable, s)
		}
	}
	return forgettable
}
