package backup

import (
	"fmt"
	"time"

	"mainstay/schedule"
)

// newTicker returns what goes along the five fields of cron, in local time, from now on; nil if cron is empty.
func newTicker(cron string, now schedule.Moment) (*schedule.Ticker, error) {
	if cron == "" {
		return nil, nil
	}
	c, err := schedule.Parse(cron, time.Local)
	if err != nil {
		return nil, fmt.Errorf("schedule %q: %w", cron, err)
	}
	return schedule.NewTicker(c, time.Time{}, now), nil
}
