package supervisor

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"mainstay/topology"
)

// recordFormat is the version of a record. It is raised only when to read a record as one of before would be wrong: fields that
// are added are left empty by an older Mainstay and ignored by it.
const recordFormat = 1

// A record is what the next Mainstay must know of a process to go on looking after it. It is the file instance.json in the
// process's directory, and there is no secret in it.
type record struct {
	Format     int       `json:"format"`
	Boot       string    `json:"boot_id"` // of the machine's run (random(4)): with that, everything ends
	Service    string    `json:"service"`
	Replica    int       `json:"replica"`
	Port       int       `json:"port,omitempty"` // that it listens on; 0: none
	Generation int       `json:"generation"`
	Recipe     digest    `json:"recipe"`
	Keep       keep      `json:"keep"`
	Restarts   int       `json:"restarts"`
	Started    time.Time `json:"started"`
	Up         bool      `json:"up"`               // the startup probe has succeeded, or there is none
	Ready      time.Time `json:"ready,omitzero"`   // since when it has been ready; zero: it is not
	Leaving    bool      `json:"leaving"`          // it was told to stop
	Notify     string    `json:"notify,omitempty"` // where it tells of itself; empty: nowhere
	Socket     bool      `json:"socket,omitempty"` // it was given a listening socket
	Said       phase     `json:"said,omitempty"`   // what it has told of its life
	Outcome    outcome   `json:"outcome,omitempty"`
	Why        string    `json:"why,omitempty"` // of a failure
}

// An outcome is how an instance ended that is not started again.
type outcome string

const (
	outcomeCompleted outcome = "completed"
	outcomeFailed    outcome = "failed"
)

// keep is what it takes to look after a process whose specification is known no more.
type keep struct {
	Port            topology.Port   `json:"port"`
	Probes          topology.Probes `json:"probes"`
	StopSignal      syscall.Signal  `json:"stop_signal"`
	StopGracePeriod time.Duration   `json:"stop_grace_period"`
}

// keepOf returns that part of spec. A probe that is a program is left out: its arguments may hold secrets.
func keepOf(spec topology.Service) keep {
	k := keep{Port: spec.Port, Probes: spec.Probes, StopSignal: spec.StopSignal, StopGracePeriod: spec.StopGracePeriod}
	for _, p := range []**topology.Probe{&k.Probes.Startup, &k.Probes.Readiness, &k.Probes.Liveness} {
		if *p != nil && len((*p).Exec) > 0 {
			*p = nil
		}
	}
	return k
}

// laidOver returns spec as it may have been when k was kept.
func (k keep) laidOver(spec topology.Service) topology.Service {
	spec.Port, spec.StopSignal, spec.StopGracePeriod = k.Port, k.StopSignal, k.StopGracePeriod
	for _, p := range []struct{ kept, of **topology.Probe }{
		{&k.Probes.Startup, &spec.Probes.Startup}, {&k.Probes.Readiness, &spec.Probes.Readiness}, {&k.Probes.Liveness, &spec.Probes.Liveness},
	} {
		if *p.kept != nil || *p.of != nil && len((*p.of).Exec) == 0 { // else the best guess is the program of now
			*p.of = *p.kept
		}
	}
	return spec
}

// runs gives each process a directory, StateDir/run/SERVICE.REPLICA.N, in which lies what the next Mainstay needs to find it
// again and to read its output on. N is never used twice.
//
// The files are not synced: what ends the machine ends its processes too.
type runs struct {
	dir  string
	boot string
	log  *slog.Logger

	mu       sync.Mutex
	last     int // the number given out last
	reserved int // numbers up to this one are noted as used
	unsaid   bool
}

// A run is the directory of one process. Methods of a nil run, of a process that has none, do nothing.
type run struct {
	dir string
	log *slog.Logger
	record
	torn bool // the record could not be read
}

// openRuns reads what the Mainstay before this one left in stateDir: runs by service, in the order of their numbers. What cannot be
// used is no reason not to start.
func openRuns(stateDir string, log *slog.Logger) (*runs, map[string][]*run) {
	r := &runs{dir: filepath.Join(stateDir, "run"), boot: bootID(), log: log}
	if b, err := readNote(r.numberFile()); err == nil {
		r.last, _ = strconv.Atoi(strings.TrimSpace(string(b))) // the directories that there are count too
		if r.last < 0 || r.last > maxNumber {
			r.last = 0
		}
	}
	entries, err := os.ReadDir(r.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		log.Error("processes of a former run not looked for", "err", err)
	}
	numbers := map[*run]int{}
	found := map[string][]*run{}
	past := 0
	for _, e := range entries {
		if !e.IsDir() || strings.HasSuffix(e.Name(), unreadable) {
			continue
		}
		service, replica, number, ok := parseRunName(e.Name())
		if !ok {
			log.Warn("directory of no process ignored", "path", filepath.Join(r.dir, e.Name()))
			continue
		}
		r.last = max(r.last, number)
		one := readRun(filepath.Join(r.dir, e.Name()), service, replica, log)
		if !one.torn && one.Boot != r.boot { // a start like the first, also of what is done once
			one.remove()
			past++
			continue
		}
		numbers[one] = number
		found[service] = append(found[service], one)
	}
	if past > 0 {
		log.Info("processes of a former run ended with the machine", "processes", past)
	}
	for _, list := range found {
		slices.SortFunc(list, func(a, b *run) int { return numbers[a] - numbers[b] })
	}
	r.reserved = r.last
	return r, found
}

// parseRunName reads SERVICE.REPLICA.N.
func parseRunName(name string) (service string, replica, number int, ok bool) {
	fields := strings.Split(name, ".")
	if len(fields) < 3 {
		return "", 0, 0, false
	}
	service = strings.Join(fields[:len(fields)-2], ".")
	replica, err1 := strconv.Atoi(fields[len(fields)-2])
	number, err2 := strconv.Atoi(fields[len(fields)-1])
	return service, replica, number, service != "" && err1 == nil && err2 == nil && replica > 0 && number > 0 && number <= maxNumber
}

// readRun reads one record. Of one that is torn or of a Mainstay of the future only the name counts: its process is not wanted, as
// it cannot be known what it is.
func readRun(dir, service string, replica int, log *slog.Logger) *run {
	r := &run{dir: dir, log: log}
	b, err := readNote(filepath.Join(dir, recordFile))
	if err == nil {
		err = json.Unmarshal(b, &r.record)
	}
	switch {
	case err != nil:
	case r.Format < 1 || r.Format > recordFormat:
		err = fmt.Errorf("its format is %d, and this Mainstay knows those up to %d", r.Format, recordFormat)
	case r.Service != service || r.Replica != replica:
		err = fmt.Errorf("it is about %s", instanceID(r.Service, r.Replica))
	case r.Port < 0 || r.Port > 65535:
		err = fmt.Errorf("its port is %d", r.Port)
	}
	if err != nil {
		log.Warn("record of a process not usable", "path", filepath.Join(dir, recordFile), "err", err)
		r.torn = true
		r.record = record{Format: recordFormat, Service: service, Replica: replica, Leaving: true, Keep: keep{
			Port: topology.PortNone, StopSignal: syscall.SIGTERM, StopGracePeriod: strayGrace,
		}}
	}
	return r
}

const (
	recordFile = "instance.json"
	unreadable = ".unreadable"    // ends the name of a directory that was set aside
	strayGrace = 10 * time.Second // for a process whose own grace period is not known
	numbers    = 1000             // that are noted as used at once
	maxNumber  = 1 << 48          // beyond this nobody comes by counting
)

func (r *runs) numberFile() string { return filepath.Join(r.dir, "number") }

// open makes the directory of the next process. It returns nil, and has said why, if there can be none: then the process
// does not outlive this Mainstay.
func (r *runs) open(rec record) *run {
	if r == nil {
		return nil
	}
	one, err := r.make(rec)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil && !r.unsaid { // once for each time that it begins
		r.log.Warn("processes will not outlive Mainstay, as nothing can be noted of them", "err", err)
	}
	r.unsaid = err != nil
	return one
}

func (r *runs) make(rec record) (*run, error) {
	rec.Format, rec.Boot = recordFormat, r.boot
	one := &run{log: r.log.With("instance", instanceID(rec.Service, rec.Replica)), record: rec}
	for {
		number, err := r.number()
		if err != nil {
			return nil, err
		}
		one.dir = filepath.Join(r.dir, fmt.Sprintf("%s.%d.%d", rec.Service, rec.Replica, number))
		if err = os.Mkdir(one.dir, 0o700); err == nil {
			break
		} else if !errors.Is(err, fs.ErrExist) { // somebody else's: it is left alone
			return nil, err
		}
	}
	if err := one.write(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(one.dir))
	}
	return one, nil
}

// number returns the next number. That it is used is noted, for many at once, before it is.
func (r *runs) number() (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := os.MkdirAll(r.dir, 0o700); err != nil { // each time, as somebody may have removed it
		return 0, err
	}
	if r.last == r.reserved {
		if err := replaceFile(r.numberFile(), []byte(strconv.Itoa(r.reserved+numbers)+"\n")); err != nil {
			return 0, err
		}
		r.reserved += numbers
	}
	r.last++
	return r.last, nil
}

// note changes the record.
func (r *run) note(change func(*record)) {
	if r == nil {
		return
	}
	change(&r.record)
	if err := r.write(); err != nil {
		r.log.Warn("record of a process not written", "path", r.dir, "err", err)
	}
}

func (r *run) write() error {
	b, err := json.Marshal(r.record)
	if err != nil {
		return err
	}
	return replaceFile(filepath.Join(r.dir, recordFile), b)
}

// replaceFile writes a file so that who reads it sees the old content or the new.
func replaceFile(path string, content []byte) error {
	if err := os.WriteFile(path+".new", content, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// remove is called when nothing of the process is left.
func (r *run) remove() {
	if r == nil {
		return
	}
	// What is known to be there goes by its name, which takes no descriptor: there may be none.
	for _, path := range []string{identityPath(r.dir), fifoPath(r.dir, streamNames[0]), fifoPath(r.dir, streamNames[1]), filepath.Join(r.dir, recordFile)} {
		os.Remove(path)
	}
	if err := os.RemoveAll(r.dir); err != nil {
		r.log.Warn("directory of a process not removed", "err", err)
	}
}

// setAside keeps the directory for people to look at.
func (r *run) setAside(why error) {
	aside := r.dir + unreadable
	err := errors.Join(os.RemoveAll(aside), os.Rename(r.dir, aside))
	r.log.Error("process of a former run cannot be told any more", "why", why, "path", aside, "err", err)
}

// path returns the directory for the host; empty: none.
func (r *run) path() string {
	if r == nil {
		return ""
	}
	return r.dir
}
