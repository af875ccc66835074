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
	"go.uber.org/goleak"

	"mainstay/topology"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

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
	go func() { p.ended <- p.Engine.Run(ctx) }()
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

// stop ends Run and returns its error.
func (p *plant) stop() error {
	p.cancel()
	return <-p.ended
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

func TestRunStartsInOrderAndStopsInReverse(t *testing.T) {
	stateDir := filepath.Join(t.TempDir(), "state")
	synctest.Test(t, func(t *testing.T) {
		p := newPlant(t, stateDir, web2)
		if got := p.Topology(); got != topology.Empty {
			t.Errorf("before Run, Topology: %v, want Empty", got)
		}
		p.mustRun()
		p.wantApplied("bus: 1 web×2", "proxy: 1 web×2", "supervisor: 1 web×2")
		if got := sketch(p.Topology()); got != "1 web×2" {
			t.Errorf("Topology: %s", got)
		}
		p.wantResult(p.Status().LastReload, ResultApplied, 1)

		if err := p.stop(); err != nil {
			t.Errorf("Run: %v", err)
		}
		p.wantApplied("bus: 1 quiet web×2", "proxy: 1 quiet web×2", "supervisor: 1 quiet web×2",
			"supervisor: empty", "proxy: empty", "bus: empty")
		if got := p.Topology(); got != topology.Empty {
			t.Errorf("after Run, Topology: %v, want Empty", got)
		}
		if _, err := p.Reload(t.Context(), OriginAPI); !errors.Is(err, ErrStopped) {
			t.Errorf("Reload after Run: %v, want ErrStopped", err)
		}
	})
}

func TestRunUndoesWhatAStageRefuses(t *testing.T) {
	stateDir := filepath.Join(t.TempDir(), "state")
	synctest.Test(t, func(t *testing.T) {
		p := newPlant(t, stateDir, web2)
		inUse := errors.New("bind 127.0.0.1:80: address already in use")
		p.crew.apply = func(_ context.Context, stage string, _ *topology.Topology) error {
			if stage == "supervisor" {
				return inUse
			}
			return nil
		}
		if err := p.run(); !errors.Is(err, inUse) || !strings.HasPrefix(err.Error(), "supervisor: ") {
			t.Errorf("Run: %v, want the supervisor's refusal", err)
		}
		p.wantApplied("bus: 1 web×2", "proxy: 1 web×2", "proxy: empty", "bus: empty")
		if _, err := p.Reload(t.Context(), OriginAPI); !errors.Is(err, ErrStopped) {
			t.Errorf("Reload: %v, want ErrStopped", err)
		}
		// Nothing was kept or is held: the next try starts at generation 1.
		p = newPlant(t, stateDir, web2)
		p.mustRun()
		p.wantResult(p.Status().LastReload, ResultApplied, 1)
		p.stop()
	})
}

func TestReload(t *testing.T) {
	working(t, web2, func(t *testing.T, p *plant) {
		p.write(web3)
		o, err := p.Reload(t.Context(), OriginAPI)
		if err != nil {
			t.Fatalf("Reload: %v", err)
		}
		p.wantResult(o, ResultApplied, 2)
		if o.Origin != OriginAPI || len(o.Changes) != 1 || o.Changes[0].Path != "services.web.replicas" {
			t.Errorf("outcome: %+v", o)
		}
		p.wantApplied("bus: 2 web×3", "proxy: 2 web×3", "supervisor: 2 web×3")
	})
}

func TestReloadFollowsSource(t *testing.T) {
	working(t, web2, func(t *testing.T, p *plant) {
		p.save(web3)
		p.wantApplied("bus: 2 web×3", "proxy: 2 web×3", "supervisor: 2 web×3")
		if got := p.Status().LastReload.Origin; got != OriginWatch {
			t.Errorf("origin: %s", got)
		}
	})
}

func TestReloadOfCommentIsNone(t *testing.T) {
	working(t, web2, func(t *testing.T, p *plant) {
		before := p.log.String()
		p.save(web2 + " # two are enough")
		p.wantResult(p.Status().LastReload, ResultUnchanged, 1)
		p.wantApplied()
		if after := p.log.String(); after != before {
			t.Errorf("it was logged: %s", strings.TrimPrefix(after, before))
		}
	})
}

func TestReloadOfBrokenFileChangesNothing(t *testing.T) {
	working(t, web2, func(t *testing.T, p *plant) {
		p.writeRaw("version: 1\nservices: [\n")
		o, err := p.Reload(t.Context(), OriginSIGHUP)
		if problems := (topology.Problems{}); !errors.As(err, &problems) || !problems.Failed() {
			t.Errorf("Reload: %v, want problems", err)
		}
		p.wantResult(o, ResultInvalid, 1)
		if !o.Problems.Failed() || o.Error != "" {
			t.Errorf("outcome: %+v, want the problems and nothing else", o)
		}
		p.log.want(t, "problem in topology")
		p.log.want(t, p.desk.file.Path)

		gone := errors.New("read topology.yaml: no such file")
		p.desk.err = gone
		if o, err = p.Reload(t.Context(), OriginSIGHUP); !errors.Is(err, gone) {
			t.Errorf("Reload: %v, want the source's error", err)
		}
		p.wantResult(o, ResultInvalid, 1)
		if o.Error != gone.Error() {
			t.Errorf("outcome: %+v, want the error", o)
		}
		p.wantApplied()
		p.desk.err = nil
	})
}

func TestReloadRefusedIsUndone(t *testing.T) {
	working(t, web2, func(t *testing.T, p *plant) {
		inUse := errors.New("address already in use")
		p.crew.apply = func(_ context.Context, stage string, t *topology.Topology) error {
			if stage == "supervisor" && t.Generation == 2 {
				return inUse
			}
			return nil
		}
		p.write(web3)
		o, err := p.Reload(t.Context(), OriginAPI)
		if !errors.Is(err, inUse) {
			t.Errorf("Reload: %v, want the refusal", err)
		}
		p.wantResult(o, ResultRefused, 1)
		if o.Error != "supervisor: address already in use" {
			t.Errorf("error: %q", o.Error)
		}
		p.wantApplied("bus: 2 web×3", "proxy: 2 web×3", "proxy: 1 web×2", "bus: 1 web×2")
		if got := sketch(p.Topology()); got != "1 web×2" {
			t.Errorf("Topology: %s", got)
		}
		p.log.want(t, "address already in use")

		p.crew.apply = nil
		o, err = p.Reload(t.Context(), OriginAPI)
		if err != nil {
			t.Errorf("Reload: %v", err)
		}
		p.wantResult(o, ResultApplied, 2)
	})
}

func TestReloadTellsFailedRollBack(t *testing.T) {
	working(t, web2, func(t *testing.T, p *plant) {
		p.crew.apply = func(_ context.Context, stage string, t *topology.Topology) error {
			switch {
			case stage == "proxy" && t.Generation == 2:
				return errors.New("address already in use")
			case stage == "bus" && t.Generation == 1 && t.Proxy.Listeners != nil:
				return errors.New("broken rule")
			}
			return nil
		}
		p.write(web3)
		_, err := p.Reload(t.Context(), OriginAPI)
		if err == nil || err.Error() != "proxy: address already in use\nroll back: bus: broken rule" {
			t.Errorf("Reload: %v", err)
		}
	})
}

func TestReloadRefusesManualChange(t *testing.T) {
	working(t, web2, func(t *testing.T, p *plant) {
		stateDir := p.stateDir
		p.stateDir += "-other"
		p.write(web2)
		p.stateDir = stateDir
		o, err := p.Reload(t.Context(), OriginAPI)
		if err == nil || !strings.HasPrefix(err.Error(), "change state_dir: needs a restart of mainstay: ") {
			t.Errorf("Reload: %v", err)
		}
		p.wantResult(o, ResultRefused, 1)
		p.wantApplied()
	})
}

func TestReloadsWaitForEachOther(t *testing.T) {
	working(t, web2, func(t *testing.T, p *plant) {
		var busy, most int
		p.crew.apply = func(context.Context, string, *topology.Topology) error {
			busy++ // unguarded: the race detector would see two at once
			most = max(most, busy)
			time.Sleep(time.Second)
			busy--
			return nil
		}
		p.write(web3)
		var calls sync.WaitGroup
		for range 10 {
			calls.Go(func() {
				if _, err := p.Reload(t.Context(), OriginAPI); err != nil {
					t.Errorf("Reload: %v", err)
				}
			})
		}
		calls.Wait()
		if most != 1 {
			t.Errorf("%d calls of Apply at once", most)
		}
		p.wantApplied("bus: 2 web×3", "proxy: 2 web×3", "supervisor: 2 web×3")
		p.crew.apply = nil
	})
}

func TestChangesDuringReloadAreOneMore(t *testing.T) {
	working(t, web2, func(t *testing.T, p *plant) {
		p.crew.apply = func(context.Context, string, *topology.Topology) error {
			time.Sleep(time.Second)
			return nil
		}
		for i := range 100 {
			p.save(fmt.Sprintf("web: {command: sleep 60, replicas: %d}", i+3))
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(time.Minute)
		if got := p.Status().Generation; got != 3 {
			t.Errorf("generation: %d, want 3: the first save and the last", got)
		}
		if got := sketch(p.Topology()); got != "3 web×102" {
			t.Errorf("Topology: %s", got)
		}
		p.crew.apply = nil
	})
}

func TestNobodyWaitsToRead(t *testing.T) {
	working(t, web2, func(t *testing.T, p *plant) {
		release := make(chan struct{})
		p.crew.apply = func(context.Context, string, *topology.Topology) error {
			<-release
			return nil
		}
		p.save(web3) // is under way now
		if got := p.Status(); got.Generation != 1 {
			t.Errorf("generation: %d", got.Generation)
		}
		if got := sketch(p.Topology()); got != "1 web×2" {
			t.Errorf("Topology: %s", got)
		}
		if changes, _, err := p.Plan(t.Context()); err != nil || len(changes) == 0 {
			t.Errorf("Plan: %v, %v", changes, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := p.Reload(ctx, OriginAPI); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Reload of an impatient caller: %v", err)
		}
		close(release)
		synctest.Wait()
		if got := sketch(p.Topology()); got != "2 web×3" {
			t.Errorf("Topology: %s", got)
		}
	})
}

func TestApplyIsNotCutShort(t *testing.T) {
	working(t, web2, func(t *testing.T, p *plant) {
		ctx, cancel := context.WithCancel(t.Context())
		p.crew.apply = func(ctx context.Context, _ string, _ *topology.Topology) error {
			cancel()
			synctest.Wait()
			return ctx.Err()
		}
		p.write(web3)
		o, err := p.Reload(ctx, OriginAPI)
		if err != nil {
			t.Errorf("Reload: %v", err)
		}
		p.wantResult(o, ResultApplied, 2)
		p.crew.apply = nil
	})
}

func TestStopWaitsForReload(t *testing.T) {
	stateDir := filepath.Join(t.TempDir(), "state")
	synctest.Test(t, func(t *testing.T) {
		p := newPlant(t, stateDir, web2)
		p.mustRun()
		p.crew.took()
		p.crew.apply = func(context.Context, string, *topology.Topology) error {
			time.Sleep(time.Second)
			return nil
		}
		p.save(web3)
		waiting := make(chan error, 1)
		go func() {
			_, err := p.Reload(context.Background(), OriginAPI)
			waiting <- err
		}()
		synctest.Wait()
		if err := p.stop(); err != nil {
			t.Errorf("Run: %v", err)
		}
		p.wantApplied("bus: 2 web×3", "proxy: 2 web×3", "supervisor: 2 web×3",
			"bus: 2 quiet web×3", "proxy: 2 quiet web×3", "supervisor: 2 quiet web×3",
			"supervisor: empty", "proxy: empty", "bus: empty")
		if err := <-waiting; err != nil && !errors.Is(err, ErrStopped) {
			t.Errorf("Reload: %v", err)
		}
	})
}

// Each step of a stop is given the time that the services ask for, on a context that the signal has not ended.
func TestStopIsBounded(t *testing.T) {
	stateDir := filepath.Join(t.TempDir(), "state")
	synctest.Test(t, func(t *testing.T) {
		p := newPlant(t, stateDir, `
web: {command: sleep 60, stop_grace_period: 20s, depends_on: [orders]}
orders: {command: sleep 60, stop_grace_period: 30s}
other: {command: sleep 60, stop_grace_period: 40s}`)
		p.mustRun()
		var took []time.Duration
		p.crew.apply = func(ctx context.Context, _ string, _ *topology.Topology) error {
			begin := time.Now()
			<-ctx.Done()
			took = append(took, time.Since(begin))
			return ctx.Err() // taking away must not fail; if it does, the rest is stopped all the same
		}
		if err := p.stop(); err != nil {
			t.Errorf("Run: %v", err)
		}
		grace, all := 40*time.Second, 2*(20+30)*time.Second+margin
		if diff := gocmp.Diff([]time.Duration{grace, grace, grace, all, all, all}, took); diff != "" {
			t.Errorf("time given (-want +got):\n%s", diff)
		}
		p.log.want(t, "stage still busy")
		p.log.want(t, "stage=supervisor")
		p.log.want(t, "stage refused to stop")
	})
}

func TestPlanHasNoEffect(t *testing.T) {
	working(t, web2, func(t *testing.T, p *plant) {
		p.write(web3)
		before := p.Status()
		changes, _, err := p.Plan(t.Context())
		if err != nil || len(changes) != 1 || changes[0].Path != "services.web.replicas" {
			t.Errorf("Plan: %v, %v", changes, err)
		}
		if diff := gocmp.Diff(before, p.Status()); diff != "" {
			t.Errorf("the status changed:\n%s", diff)
		}
		p.wantApplied()

		p.writeRaw("version: 1\nservices: [\n")
		_, _, err = p.Plan(t.Context())
		if problems := (topology.Problems{}); !errors.As(err, &problems) {
			t.Errorf("Plan: %v, want problems", err)
		}
		p.write(web2)
	})
}

func TestLostSourceIsTold(t *testing.T) {
	stateDir := filepath.Join(t.TempDir(), "state")
	synctest.Test(t, func(t *testing.T) {
		p := newPlant(t, stateDir, web2)
		p.Engine = New(p.log.logger(), nil, lostSource{&p.desk}, p.crew.stages("bus")...)
		p.mustRun()
		p.log.want(t, "source lost")
		p.write(web3)
		if _, err := p.Reload(t.Context(), OriginAPI); err != nil {
			t.Errorf("Reload: %v", err)
		}
		p.stop()
	})
}

type lostSource struct{ *desk }

func (lostSource) Watch(context.Context, func()) error { return errors.New("connection refused") }

func TestStaticNeverChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := Static(topology.File{Path: "topology.yaml", Content: []byte("version: 1")})
		files, err := source.Load(t.Context())
		if err != nil || len(files) != 1 || string(files[0].Content) != "version: 1" {
			t.Errorf("Load: %v, %v", files, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if err := source.Watch(ctx, func() { t.Error("changed was called") }); err != nil {
			t.Errorf("Watch: %v", err)
		}
	})
}

func TestStateDirIsHeldByOne(t *testing.T) {
	stateDir := filepath.Join(t.TempDir(), "state")
	synctest.Test(t, func(t *testing.T) {
		first := newPlant(t, stateDir, web2)
		first.mustRun()
		err := newPlant(t, stateDir, web2).run()
		want := fmt.Sprintf("lock state directory %s: another Mainstay holds it (pid %d)", stateDir, os.Getpid())
		if err == nil || err.Error() != want {
			t.Errorf("Run of the second: %v, want %s", err, want)
		}
		first.stop()

		second := newPlant(t, stateDir, web2)
		second.mustRun()
		second.stop()
	})
}

func TestStateDirMustBeWritable(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	write(t, file, "")
	synctest.Test(t, func(t *testing.T) {
		err := newPlant(t, filepath.Join(file, "state"), web2).run()
		if err == nil || !strings.HasPrefix(err.Error(), "create state directory: ") {
			t.Errorf("Run: %v", err)
		}
	})
}
