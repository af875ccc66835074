package engine

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"mainstay/topology"
)

// A record is a log that tests can look at.
type record struct {
	mu   sync.Mutex // guards the field below
	text bytes.Buffer
}

func (r *record) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.Write(p)
}

func (r *record) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.String()
}

func (r *record) logger() *slog.Logger { return slog.New(slog.NewTextHandler(r, nil)) }

func (r *record) want(t *testing.T, text string) {
	t.Helper()
	if !strings.Contains(r.String(), text) {
		t.Errorf("the log does not have %q:\n%s", text, r)
	}
}

// A desk is a Source in memory.
type desk struct {
	mu      sync.Mutex // guards the fields below
	file    topology.File
	err     error
	changed func()
	read    []string // as Refer was told last
}

func (d *desk) Refer(paths []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.read = paths
}

func (d *desk) Load(context.Context) ([]topology.File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return []topology.File{d.file}, d.err
}

func (d *desk) Watch(ctx context.Context, changed func()) error {
	d.mu.Lock()
	d.changed = changed
	d.mu.Unlock()
	<-ctx.Done()
	return nil
}

// A crew is stages that write down what is applied to them.
type crew struct {
	mu      sync.Mutex // guards the field below
	applied []string   // "proxy: 2 web×3"

	// apply is called, if set, before an Apply is written down.
	apply func(ctx context.Context, stage string, t *topology.Topology) error
}

func (c *crew) stages(names ...string) []Stage {
	var stages []Stage
	for _, name := range names {
		stages = append(stages, Stage{Name: name, Subsystem: hand{c, name}})
	}
	return stages
}

type hand struct {
	crew *crew
	name string
}

func (h hand) Apply(ctx context.Context, t *topology.Topology) error {
	if h.crew.apply != nil {
		if err := h.crew.apply(ctx, h.name, t); err != nil {
			return err
		}
	}
	h.crew.mu.Lock()
	defer h.crew.mu.Unlock()
	h.crew.applied = append(h.crew.applied, h.name+": "+sketch(t))
	return nil
}

// took returns what was applied since it was last called.
func (c *crew) took() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	applied := c.applied
	c.applied = nil
	return applied
}

// sketch returns the generation, whether there are listeners, and the services of t.
func sketch(t *topology.Topology) string {
	if t == topology.Empty {
		return "empty"
	}
	words := []string{fmt.Sprint(t.Generation)}
	if len(t.Proxy.Listeners) == 0 {
		words = append(words, "quiet")
	}
	for _, name := range slices.Sorted(maps.Keys(t.Services)) {
		s := t.Services[name]
		word := fmt.Sprintf("%s×%d", name, s.Replicas)
		if s.Stopped {
			word += " stopped"
		}
		if s.Epoch > 0 {
			word += fmt.Sprintf(" epoch %d", s.Epoch)
		}
		words = append(words, word)
	}
	return strings.Join(words, " ")
}

// A plant is an engine under test with all that it works with. It is used within a bubble.
type plant struct {
	*Engine
	t        *testing.T
	desk     desk
	crew     crew
	log      record
	stateDir string
	lock     *os.File // that a former program has handed over; nil: none
	reg      *prometheus.Registry
	cancel   context.CancelFunc
	ended    chan error
}

// newPlant returns a plant whose engine's state is in stateDir and whose file has the given services. It does not run yet.
func newPlant(t *testing.T, stateDir, services string) *plant {
	t.Helper()
	p := &plant{t: t, stateDir: stateDir, reg: prometheus.NewRegistry(), ended: make(chan error, 1)}
	p.desk.file.Path = filepath.Join(filepath.Dir(stateDir), "topology.yaml")
	p.write(services)
	p.Engine = New(p.log.logger(), p.reg, &p.desk, p.crew.stages("bus", "proxy", "supervisor")...)
	return p
}

// write writes the file, with the given lines in services.
func (p *plant) write(services string) {
	lines := strings.Split(strings.TrimSpace(services), "\n")
	p.writeRaw(fmt.Sprintf("version: 1\nname: shop\nstate_dir: %s\nservices:\n  %s\nproxy: {routes: [{service: web}]}\n",
		p.stateDir, strings.Join(lines, "\n  ")))
}

func (p *plant) writeRaw(content string) {
	p.desk.mu.Lock()
	defer p.desk.mu.Unlock()
	p.desk.file.Content = []byte(content)
}

// save writes the file as write does and lets the engine follow.
func (p *plant) save(services string) {
	p.write(services)
	p.desk.changed()
	synctest.Wait()
}

// run runs the engine until it has started or ended with the error returned.
func (p *plant) run() error {
	ctx, cancel := context.WithCancel(context.Background())
	p.cancel = cancel
	go func() { p.ended <- p.Engine.Run(ctx, p.lock) }()
	select {
	case <-p.Started():
		synctest.Wait()
		return nil
	case err := <-p.ended:
		cancel()
		return cmp.Or(err, errors.New("Run returned nil before it started"))
	}
}

func (p *plant) mustRun() {
	p.t.Helper()
	if err := p.run(); err != nil {
		p.t.Fatalf("Run: %v\n%s", err, &p.log)
	}
}

// pass lets time pass.
func (p *plant) pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// stop ends Run and returns its error.
func (p *plant) stop() error {
	p.cancel()
	return <-p.ended
}

// crash ends Run and leaves in the state directory what a process that is killed leaves.
func (p *plant) crash() {
	p.t.Helper()
	path := filepath.Join(p.stateDir, "running.json")
	note, err := os.ReadFile(path)
	if err != nil {
		p.t.Fatal(err)
	}
	if err := p.stop(); err != nil {
		p.t.Fatalf("Run: %v", err)
	}
	write(p.t, path, string(note))
}

func (p *plant) wantApplied(want ...string) {
	p.t.Helper()
	if diff := gocmp.Diff(want, p.crew.took()); diff != "" {
		p.t.Errorf("applied (-want +got):\n%s", diff)
	}
}

func (p *plant) wantResult(o Outcome, result string, generation int) {
	p.t.Helper()
	if o.Result != result || o.Generation != generation {
		p.t.Errorf("outcome: %s at generation %d, want %s at %d: %+v", o.Result, o.Generation, result, generation, o)
	}
	if diff := gocmp.Diff(o, p.Status().LastReload); diff != "" {
		p.t.Errorf("the status' last reload is not the outcome:\n%s", diff)
	}
}

const web2, web3 = "web: {command: sleep 60, replicas: 2}", "web: {command: sleep 60, replicas: 3}"

// working runs test in a bubble, on a plant that runs generation 1 of the services.
func working(t *testing.T, services string, test func(t *testing.T, p *plant)) {
	t.Helper()
	stateDir := filepath.Join(t.TempDir(), "state")
	synctest.Test(t, func(t *testing.T) {
		p := newPlant(t, stateDir, services)
		p.mustRun()
		p.crew.took()
		defer func() {
			if err := p.stop(); err != nil {
				t.Errorf("Run: %v", err)
			}
		}()
		test(t, p)
	})
}
