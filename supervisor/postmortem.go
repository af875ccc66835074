package supervisor

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A Postmortem is what is known of a process that ended otherwise than because it was told to, or that could not be started.
type Postmortem struct {
	Instance   string        `json:"instance"` // "web/2"
	Cause      string        `json:"cause"`    // one of the Cause constants
	Why        string        `json:"why"`      // with the last lines of output
	Started    time.Time     `json:"started"`
	Ended      time.Time     `json:"ended"`
	Ran        float64       `json:"ran_seconds"`
	PID        int           `json:"pid,omitempty"`    // 0: it could not be started
	Exit       string        `json:"exit,omitempty"`   // how the process ended: "exited with status 3"
	Status     *int          `json:"status,omitempty"` // of its exit; nil: it did not exit by itself
	Signal     string        `json:"signal,omitempty"` // that killed it
	Memory     int64         `json:"memory_bytes,omitempty"`
	InFlight   int           `json:"requests_in_flight"` // that were lost or had to be finished
	Told       string        `json:"told,omitempty"`     // its status as it told it last (sd_notify(3), STATUS=)
	Generation int           `json:"generation"`
	Restarts   int           `json:"restarts"` // of the instance before
	Probes     []ProbeResult `json:"probes"`   // the last answers, oldest first
	Output     []LogLine     `json:"output"`   // the last lines, oldest first
}

// The values of Postmortem.Cause, which are those of a restart's reason as well.
const (
	CauseExit     = "exit"     // it ended by itself or was killed
	CauseOOM      = "oom"      // the kernel killed it for want of memory
	CauseSpawn    = "spawn"    // it could not be started
	CauseStartup  = "startup"  // its startup probe gave it up
	CauseLiveness = "liveness" // its liveness probe did
	CausePort     = "port"     // another program listens on its port
)

// A ProbeResult is the answer to one try of a probe.
type ProbeResult struct {
	Time   time.Time `json:"time"`
	Probe  string    `json:"probe"`           // startup, readiness or liveness
	Answer string    `json:"error,omitempty"` // empty: good
	Took   float64   `json:"took_seconds"`
}

const (
	postmortemsKept = 10      // of each place
	resultsKept     = 20      // of the probes of one process
	postmortemLimit = 1 << 20 // bytes of a file
	// queuedPostmortems is how many wait for a disk.
	queuedPostmortems = 100
)

// answers are the last results of one process's probes.
type answers []ProbeResult

func (a answers) add(v verdict) answers {
	r := ProbeResult{Time: v.at, Probe: v.probe, Took: v.took.Seconds()}
	if v.answer != nil {
		r.Answer = v.answer.Error()
	}
	if len(a) >= resultsKept {
		a = slices.Delete(a, 0, len(a)-resultsKept+1)
	}
	return append(a, r)
}

// postmortem looks into how p ended; p is nil if it could not be started.
func (i *instance) postmortem(p *tenancy, end ending) Postmortem {
	v := i.current()
	pm := Postmortem{
		Instance: instanceID(i.service, i.replica), Cause: end.cause, Why: end.why, Ended: time.Now(), Ran: end.ran.Seconds(),
		InFlight: end.inFlight, Generation: v.generation, Restarts: i.now().restarts, Probes: []ProbeResult{}, Output: []LogLine{},
	}
	pm.Started = pm.Ended.Add(-end.ran)
	if p == nil {
		return pm
	}
	pm.PID, pm.Output = p.pid(), p.words.last()
	for n := range pm.Output {
		pm.Output[n].Instance = pm.Instance
	}
	if p.told != nil {
		_, pm.Told, _ = p.told.says()
	}
	i.mu.Lock()
	pm.Probes = append(pm.Probes, i.probed...)
	i.mu.Unlock()
	if isClosed(p.exited()) {
		e := p.exit()
		pm.Exit, pm.Memory = e.String(), e.memory
		switch {
		case e.unknown:
		case e.signal != 0:
			pm.Signal = unix.SignalName(e.signal)
		default:
			pm.Status = &e.status
		}
	}
	return pm
}

// causeOf returns why a process that ended by itself did.
func causeOf(e exit) string {
	if e.oom {
		return CauseOOM
	}
	return CauseExit
}

// inFlight returns how many requests are at p's instance.
func (i *instance) inFlight(p *tenancy) int {
	if !p.routable {
		return 0
	}
	return i.site.router.Traffic(i.now().routed).InFlight
}

// A morgue keeps post-mortems, the last ones of each place, in memory and on disk: in StateDir/postmortems/SERVICE.N, a file each. A disk that
// fails or is slow delays nobody.
type morgue struct {
	log     *slog.Logger
	writers sync.WaitGroup

	mu      sync.Mutex
	dir     string                  // empty: nothing is written to a disk
	kept    map[string][]Postmortem // of this run, by instance, oldest first
	queue   []Postmortem            // to be written
	writing bool
}

func newMorgue(log *slog.Logger) *morgue { return &morgue{log: log, kept: map[string][]Postmortem{}} }

// open makes the morgue write below stateDir.
func (m *morgue) open(stateDir string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.dir = ""; stateDir != "" {
		m.dir = filepath.Join(stateDir, "postmortems")
	}
}

// add keeps pm.
func (m *morgue) add(pm Postmortem) {
	m.mu.Lock()
	defer m.mu.Unlock()
	list := append(m.kept[pm.Instance], pm)
	m.kept[pm.Instance] = slices.Clone(list[max(0, len(list)-postmortemsKept):])
	if m.dir == "" {
		return
	}
	m.queue = append(m.queue, pm)
	m.queue = slices.Delete(m.queue, 0, max(0, len(m.queue)-queuedPostmortems)) // the disk is too slow: what is oldest is lost
	if !m.writing {
		m.writing = true
		m.writers.Go(m.write)
	}
}

// forget lets go of what is in memory of a service that is no more. Its files stay.
func (m *morgue) forget(service string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	maps.DeleteFunc(m.kept, func(id string, _ []Postmortem) bool { return strings.HasPrefix(id, service+"/") })
}

// flush waits until what was added is written.
func (m *morgue) flush() { m.writers.Wait() }

// write writes what waits for it.
func (m *morgue) write() {
	for {
		m.mu.Lock()
		if len(m.queue) == 0 {
			m.writing = false
			m.mu.Unlock()
			return
		}
		pm := m.queue[0]
		dir := m.placeLocked(pm.Instance)
		m.queue = slices.Delete(m.queue, 0, 1)
		m.mu.Unlock()
		if err := pm.write(dir); err != nil {
			m.log.Warn("post-mortem not written", "instance", pm.Instance, "err", err)
		}
	}
}

// placeLocked returns the directory of a place.
func (m *morgue) placeLocked(id string) string {
	return filepath.Join(m.dir, strings.ReplaceAll(id, "/", "."))
}

const postmortemName = "20060102T150405.000000000Z.json" // so that names are in the order of time

// write writes pm to a file in dir and removes those that are too old.
func (pm Postmortem) write(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	b, err := json.MarshalIndent(pm, "", "  ")
	if err != nil {
		return err
	}
	if err := replaceFile(filepath.Join(dir, pm.Ended.UTC().Format(postmortemName)), append(b, '\n')); err != nil {
		return err
	}
	names, err := postmortemFiles(dir)
	for _, name := range names[:max(0, len(names)-postmortemsKept)] {
		err = errors.Join(err, os.Remove(name))
	}
	return err
}

// postmortemFiles returns the paths of those in dir, oldest first.
func postmortemFiles(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if _, err := time.Parse(postmortemName, e.Name()); err == nil && e.Type().IsRegular() {
			names = append(names, filepath.Join(dir, e.Name()))
		}
	}
	return names, nil
}

// of returns what is kept of an instance, newest first: that of this run and, from the disk, of those before.
func (m *morgue) of(id string) []Postmortem {
	m.mu.Lock()
	list, dir := append([]Postmortem{}, m.kept[id]...), m.placeLocked(id)
	if m.dir == "" || len(list) == postmortemsKept {
		dir = ""
	}
	m.mu.Unlock()
	var names []string
	if dir != "" {
		var err error
		if names, err = postmortemFiles(dir); err != nil {
			m.log.Warn("post-mortems not read", "err", err)
		}
	}
	for _, name := range names {
		pm, err := readPostmortem(name)
		if err != nil {
			m.log.Warn("post-mortem not usable", "path", name, "err", err)
		} else if !slices.ContainsFunc(list, func(other Postmortem) bool { return other.Ended.Equal(pm.Ended) }) {
			list = append(list, pm)
		}
	}
	slices.SortStableFunc(list, func(a, b Postmortem) int { return b.Ended.Compare(a.Ended) })
	return list[:min(len(list), postmortemsKept)]
}

func readPostmortem(path string) (pm Postmortem, err error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return pm, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, postmortemLimit))
	if err != nil {
		return pm, err
	}
	return pm, json.Unmarshal(b, &pm)
}
