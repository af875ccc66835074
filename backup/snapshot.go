package backup

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"mainstay/backup/restic"
	"mainstay/topology"
)

// A Snapshot is one state of some paths in a repository.
type Snapshot struct {
	ID          string    `json:"id"` // 64 hex digits; commands accept any unambiguous beginning, or "latest"
	Time        time.Time `json:"time"`
	Hostname    string    `json:"hostname"`
	Paths       []string  `json:"paths"`
	Tags        []string  `json:"tags,omitempty"`
	Files       uint64    `json:"files"`       // this and the next two are 0 if the program that took the snapshot did not say
	Bytes       uint64    `json:"bytes"`       // of all files
	AddedBytes  uint64    `json:"added_bytes"` // stored anew for this snapshot
	Partial     bool      `json:"partial,omitempty"`
	Unreadable  []string  `json:"unreadable,omitempty"` // what could not be read, with the reason
	TookSeconds float64   `json:"took_seconds,omitempty"`
	Damaged     string    `json:"damaged,omitempty"` // why nothing but the id can be read
}

func newSnapshot(s *restic.Snapshot) *Snapshot {
	snapshot := &Snapshot{
		ID: s.ID.String(), Time: s.Time, Hostname: s.Hostname, Paths: s.Paths, Tags: s.Tags,
		Partial: s.Partial(), Unreadable: s.Unreadable,
	}
	if sum := s.Summary; sum != nil {
		snapshot.Files, snapshot.Bytes, snapshot.AddedBytes = sum.TotalFilesProcessed, sum.TotalBytesProcessed, sum.DataAddedPacked
		snapshot.TookSeconds = sum.BackupEnd.Sub(sum.BackupStart).Seconds()
	}
	return snapshot
}

// program is what snapshots name as their author.
const program = "mainstay"

// tags returns the tags of spec's snapshots, by which its retention knows them.
func tags(spec topology.Backup) []string {
	var tags []string
	if spec.Name != "" {
		tags = append(tags, nameTag(spec.Name))
	}
	if spec.Service != "" {
		tags = append(tags, "service="+spec.Service)
	}
	return tags
}

func nameTag(name string) string { return "backup=" + name }

// Take takes one snapshot for spec, outside of any schedule, creating the repository if there is none, and the
// password file, with a random password, if both are missing. The retention is not looked at. What could not be read whole is
// told by the Snapshot, not by an error.
func Take(ctx context.Context, log *slog.Logger, spec topology.Backup) (*Snapshot, error) {
	r, err := openOrCreate(ctx, log, spec)
	if err != nil {
		return nil, err
	}
	defer r.close()
	return take(ctx, r, spec)
}

func take(ctx context.Context, r *repository, spec topology.Backup) (*Snapshot, error) {
	s, err := r.Backup(ctx, restic.BackupRequest{Paths: spec.Paths, Tags: tags(spec), Program: program})
	if err != nil {
		return nil, err
	}
	return newSnapshot(s), nil
}

// takeAndForget takes a snapshot and forgets what the retention lets go. That the forgetting failed, though the
// snapshot was taken, is an error of its own.
func takeAndForget(ctx context.Context, log *slog.Logger, spec topology.Backup) (s *Snapshot, forgetting, err error) {
	r, err := openOrCreate(ctx, log, spec)
	if err != nil {
		return nil, nil, err
	}
	defer r.close()
	if s, err = take(ctx, r, spec); err != nil {
		return nil, nil, err
	}
	_, forgetting = r.Forget(ctx, forgettable(spec, s.Hostname))
	switch {
	case errors.Is(forgetting, restic.ErrLocked):
		log.Warn("retention put off until the next run", "reason", forgetting)
		forgetting = fmt.Errorf("retention put off until the next run: %w", forgetting)
	case forgetting != nil:
		log.Error("retention failed", "error", forgetting)
		forgetting = fmt.Errorf("retention: %w", forgetting)
	}
	return s, forgetting, nil
}

// forgettable chooses among the snapshots that the backup has taken on this host, grouped by their paths as
// restic does. It never chooses the newest that is not partial.
func forgettable(spec topology.Backup, hostname string) func([]*restic.Snapshot) []*restic.Snapshot {
	retention := restic.Retention{
		Last: spec.Retention.KeepLast, Hourly: spec.Retention.KeepHourly, Daily: spec.Retention.KeepDaily,
		Weekly: spec.Retention.KeepWeekly, Monthly: spec.Retention.KeepMonthly, Yearly: spec.Retention.KeepYearly,
	}
	mine := nameTag(spec.Name)
	return func(all []*restic.Snapshot) []*restic.Snapshot {
		groups := map[string][]*restic.Snapshot{}
		for _, s := range all {
			if s.Hostname == hostname && slices.Contains(s.Tags, mine) {
				paths := fmt.Sprintf("%q", slices.Sorted(slices.Values(s.Paths)))
				groups[paths] = append(groups[paths], s)
			}
		}
		var chosen []*restic.Snapshot
		for _, group := range groups {
			newest := slices.MaxFunc(group, func(a, b *restic.Snapshot) int {
				if a.Partial() != b.Partial() {
					if a.Partial() {
						return -1
					}
					return 1
				}
				return a.Time.Compare(b.Time)
			})
			chosen = append(chosen, slices.DeleteFunc(retention.Forgettable(group), func(s *restic.Snapshot) bool { return s == newest })...)
		}
		slices.SortFunc(chosen, func(a, b *restic.Snapshot) int {
			return cmp.Or(a.Time.Compare(b.Time), slices.Compare(a.ID[:], b.ID[:]))
		})
		return chosen
	}
}

// List returns the snapshots in spec's repository, oldest first, and behind them those that are damaged.
func List(ctx context.Context, log *slog.Logger, spec topology.Backup) ([]Snapshot, error) {
	r, err := open(ctx, log, spec)
	if err != nil {
		return nil, err
	}
	defer r.close()
	all, damaged, err := r.ReadableSnapshots(ctx)
	if err != nil {
		return nil, err
	}
	snapshots := make([]Snapshot, 0, len(all)+len(damaged))
	for _, s := range all {
		snapshots = append(snapshots, *newSnapshot(s))
	}
	for _, d := range damaged {
		snapshots = append(snapshots, Snapshot{ID: d.ID.String(), Damaged: d.Error()})
	}
	return snapshots, nil
}
