package backup

import (
	"fmt"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"mainstay/engine/enginetest"
	"mainstay/schedule"
	"mainstay/topology"
)

func TestConformance(t *testing.T) {
	dir := t.TempDir()
	of := func(specs ...topology.Backup) *topology.Topology {
		t := &topology.Topology{Backups: map[string]topology.Backup{}}
		for _, s := range specs {
			t.Backups[s.Name] = s
		}
		return t
	}
	spec := func(name, schedule string) topology.Backup {
		return topology.Backup{
			Name: name, Schedule: schedule,
			Paths:        []string{filepath.Join(dir, "data", name)},
			Repository:   "file://" + filepath.Join(dir, "repository"),
			PasswordFile: filepath.Join(dir, "key"),
		}
	}
	// The first of a month that is far away: none comes while the test runs.
	far := func(months int) string {
		return fmt.Sprintf("0 0 1 %d *", time.Now().AddDate(0, months, 0).Month())
	}
	inside := spec("inside", "")
	inside.Repository = "file://" + inside.Paths[0]
	unreachable := spec("unreachable", far(3))
	unreachable.Repository = "s3://bucket/prefix?endpoint=http://127.0.0.1:1&region=none"

	enginetest.Run(t, enginetest.Case[*Backup]{
		New:     func(log *slog.Logger) *Backup { return New(log, nil) },
		A:       of(spec("same", far(3)), spec("changed", far(3)), spec("old", "")),
		B:       of(spec("same", far(3)), spec("changed", far(5)), spec("new", far(4))),
		Refused: of(spec("same", far(4)), spec("new", far(3)), inside),
		Doomed:  of(unreachable),
		Observe: func(b *Backup) any {
			picture := map[string]string{}
			for _, s := range b.Status() {
				picture[s.Name] = fmt.Sprint(s.Repository, s.State, s.NextRun, s.Runs, s.Missed)
			}
			return picture
		},
		Identify: func(b *Backup) any {
			things := map[string]string{}
			for name, j := range b.jobs {
				things[name] = fmt.Sprintf("%p", j)
			}
			return things
		},
		Settled: func(b *Backup) bool { // each has seen its schedule
			for _, s := range b.Status() {
				var next time.Time
				ticker, err := newTicker(b.jobs[s.Name].current().Schedule, schedule.System()())
				if ticker != nil {
					next = ticker.Next()
				}
				if err != nil || !s.NextRun.Equal(next) {
					return false
				}
			}
			return true
		},
	})
}
