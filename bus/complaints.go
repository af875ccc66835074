package bus

import (
	"log/slog"
	"sync"
	"time"
)

// complaints are warnings about peers, each kind at most once a minute: a misconfigured
// client tries ten times a second. The zero value is ready.
type complaints struct {
	mu   sync.Mutex
	last map[string]complaint // by kind, of which there are few
}

type complaint struct {
	at      time.Time
	unheard int
}

// warn logs err, unless there was a warning of that kind within the last minute. It then says how many were left out.
func (c *complaints) warn(log *slog.Logger, kind, message string, err error) {
	const pause = time.Minute
	c.mu.Lock()
	last := c.last[kind]
	now := time.Now()
	if !last.at.IsZero() && now.Sub(last.at) < pause {
		last.unheard++
		c.last[kind] = last
		c.mu.Unlock()
		return
	}
	if c.last == nil {
		c.last = map[string]complaint{}
	}
	c.last[kind] = complaint{at: now}
	c.mu.Unlock()
	if last.unheard > 0 {
		log = log.With("unlogged_before", last.unheard)
	}
	log.Warn(message, "error", err)
}
