package supervisor

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"mainstay/topology"
)

// An archive is the output of all services, those who follow it, and what the disk keeps of it.
type archive struct {
	log     *slog.Logger
	removed prometheus.Counter

	mu        sync.Mutex
	journals  map[string]*journal // by service
	followers map[*follower]struct{}
	dir       string // StateDir/logs; empty: nothing is written to a disk
	limit     int64  // bytes of all files; 0: none
	trimming  bool
	tooLarge  bool // even without old files there is too much
}

func newArchive(log *slog.Logger, removed prometheus.Counter) *archive {
	return &archive{log: log, removed: removed, journals: map[string]*journal{}, followers: map[*follower]struct{}{}}
}

// bound keeps the files below stateDir/logs to limit bytes together.
func (a *archive) bound(stateDir string, limit int64) {
	a.mu.Lock()
	before := a.limit
	if stateDir != "" {
		a.dir = filepath.Join(stateDir, "logs")
	}
	a.limit = limit
	a.mu.Unlock()
	if limit != before {
		a.trim()
	}
}

// open returns the journal of a service.
func (a *archive) open(service string, bounds topology.Output, stateDir string, log *slog.Logger, dropped prometheus.Counter) *journal {
	j := &journal{archive: a, service: service, log: log, dropped: dropped, bounds: bounds, outputs: map[int]*output{}}
	if stateDir != "" {
		j.dir = filepath.Join(stateDir, "logs", service)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.journals[service] = j
	return j
}

var (
	rotatedFile = regexp.MustCompile(`^.+\.log\.\d+$`)
	placeFile   = regexp.MustCompile(`^(\d+)\.log(\.\d+)?$`)
)

// trim removes the oldest files until all that are left are within the limit: those that were rotated, and those of services that there
// are no more. What is written to is never removed.
func (a *archive) trim() {
	a.mu.Lock()
	dir, limit := a.dir, a.limit
	if dir == "" || limit <= 0 || a.trimming {
		a.mu.Unlock()
		return
	}
	a.trimming = true
	a.mu.Unlock()

	total, old := a.survey(dir)
	slices.SortFunc(old, func(a, b oldFile) int {
		return cmp.Or(a.written.Compare(b.written), cmp.Compare(b.path, a.path)) // of one place, 1.log.2 is older than 1.log.1
	})
	for _, f := range old {
		if total <= limit {
			break
		}
		if err := os.Remove(f.path); err != nil {
			if !errors.Is(err, fs.ErrNotExist) {
				a.log.Warn("old output not removed", "err", err)
			}
			continue
		}
		total -= f.size
		a.removed.Inc()
	}

	a.mu.Lock()
	defer a.mu.Unlock()
	if a.trimming = false; total > limit && !a.tooLarge { // once for each time that it begins
		a.log.Warn("output exceeds logs.max_total by the files that are written to", "bytes", total, "limit", limit)
	}
	a.tooLarge = total > limit
}

// An oldFile is a file that may be removed.
type oldFile struct {
	path    string
	size    int64
	written time.Time
}

// survey returns how much all files below dir are, and which of them may be removed.
func (a *archive) survey(dir string) (total int64, old []oldFile) {
	_ = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return nil // what cannot be read counts for nothing
		}
		info, err := entry.Info()
		if err != nil {
			return nil
		}
		total += info.Size()
		if rotatedFile.MatchString(entry.Name()) || a.abandoned(dir, path) {
			old = append(old, oldFile{path, info.Size(), info.ModTime()})
		}
		return nil
	})
	return total, old
}

// abandoned reports whether the file at path is of a service that there is no more.
func (a *archive) abandoned(dir, path string) bool {
	service, file := filepath.Split(strings.TrimPrefix(path, dir+string(filepath.Separator)))
	if service = filepath.Clean(service); service == "." || !placeFile.MatchString(file) {
		return false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.journals[service] == nil
}

// A journal is the output of one service: an output for each place that it has ever had.
type journal struct {
	archive *archive
	service string
	dir     string // empty: nothing is written to a disk
	log     *slog.Logger
	dropped prometheus.Counter
	writers sync.WaitGroup

	// Guarded by the archive's mutex.
	bounds  topology.Output
	outputs map[int]*output // by replica
}

// output returns where the lines of a place go.
func (j *journal) output(replica int) *output {
	j.archive.mu.Lock()
	defer j.archive.mu.Unlock()
	return j.outputLocked(replica)
}

func (j *journal) outputLocked(replica int) *output {
	if o, ok := j.outputs[replica]; ok {
		return o
	}
	o := newOutput(j, replica)
	for f := range j.archive.followers {
		if f.wants(j.service, replica) {
			o.followers[f] = 0
			f.outputs[o.instance] = o
		}
	}
	j.outputs[replica] = o
	return o
}

// bound keeps the files of each place within other bounds, from the next line on.
func (j *journal) bound(bounds topology.Output) {
	j.archive.mu.Lock()
	defer j.archive.mu.Unlock()
	j.bounds = bounds
}

func (j *journal) limits() (size int64, keep int) {
	j.archive.mu.Lock()
	defer j.archive.mu.Unlock()
	size, keep = j.bounds.MaxSize, j.bounds.MaxFiles-1
	if size <= 0 {
		size = fileLimit
	}
	if j.bounds.MaxFiles <= 0 {
		keep = filesKept
	}
	return size, keep
}

// kept returns the places of which the disk has something, whether or not there is anything in them now.
func (j *journal) kept() []int {
	if j.dir == "" {
		return nil
	}
	entries, err := os.ReadDir(j.dir)
	if err != nil {
		return nil // nothing was ever written
	}
	var replicas []int
	for _, e := range entries {
		if m := placeFile.FindStringSubmatch(e.Name()); m != nil {
			if n, err := strconv.Atoi(m[1]); err == nil && !slices.Contains(replicas, n) {
				replicas = append(replicas, n)
			}
		}
	}
	return replicas
}

// close ends the journal once what it was given is written. Nothing may be added after it.
func (j *journal) close() {
	j.writers.Wait()
	a := j.archive
	a.mu.Lock()
	outputs := slices.Collect(maps.Values(j.outputs))
	a.mu.Unlock()
	for _, o := range outputs {
		o.close()
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.journals[j.service] == j {
		delete(a.journals, j.service)
	}
	for f := range a.followers {
		if !f.hopesLocked(a) {
			f.end()
		}
	}
}

// enter returns the outputs that f wants, those that it has from before among them although they may be closed, and, if they are to be
// followed, makes it a follower of those that will be.
func (a *archive) enter(f *follower, follow bool) ([]*output, error) {
	a.mu.Lock()
	var journals []*journal
	for _, name := range f.servicesLocked(a) {
		switch j := a.journals[name]; {
		case j != nil:
			journals = append(journals, j)
		case !f.knows(name):
			a.mu.Unlock()
			return nil, fmt.Errorf("read logs: there is no service %q", name)
		}
	}
	a.mu.Unlock()
	kept := map[*journal][]int{}
	for _, j := range journals {
		kept[j] = j.kept()
	}

	a.mu.Lock()
	defer a.mu.Unlock()
	for _, j := range journals {
		for _, replica := range kept[j] {
			j.outputLocked(replica)
		}
		for replica, o := range j.outputs {
			if f.wants(j.service, replica) {
				f.outputs[o.instance] = o
			}
		}
	}
	outputs := slices.Collect(maps.Values(f.outputs))
	for _, source := range f.of {
		if source.Replica != 0 && !slices.ContainsFunc(outputs, func(o *output) bool { return o.instance == source.String() }) {
			return nil, fmt.Errorf("read logs: there is no instance %s", source)
		}
	}
	if follow {
		a.followers[f] = struct{}{}
		if !f.hopesLocked(a) {
			f.end() // they have gone meanwhile
		}
	}
	slices.SortFunc(outputs, func(a, b *output) int {
		return cmp.Or(cmp.Compare(a.journal.service, b.journal.service), cmp.Compare(a.replica, b.replica))
	})
	return outputs, nil
}

func (a *archive) leave(f *follower) {
	a.mu.Lock()
	delete(a.followers, f)
	outputs := slices.Collect(maps.Values(f.outputs))
	a.mu.Unlock()
	for _, o := range outputs {
		o.mu.Lock()
		delete(o.followers, f)
		o.mu.Unlock()
	}
}
