package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"mainstay/topology"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

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
		if err == nil || !strings.Contains(err.Error(), "change state_dir: needs a restart of mainstay: ") {
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
		p.write(web3)
		results := make(chan error, 2)
		for range 2 { // one is under way, the other waits for it
			go func() {
				_, err := p.Reload(context.Background(), OriginAPI)
				results <- err
			}()
			synctest.Wait()
		}
		if err := p.stop(); err != nil {
			t.Errorf("Run: %v", err)
		}
		p.wantApplied("bus: 2 web×3", "proxy: 2 web×3", "supervisor: 2 web×3",
			"bus: 2 quiet web×3", "proxy: 2 quiet web×3", "supervisor: 2 quiet web×3",
			"supervisor: empty", "proxy: empty", "bus: empty")
		if first, second := <-results, <-results; first != ErrStopped && second != ErrStopped || first != nil && second != nil {
			t.Errorf("Reload: %v and %v, want one applied and one ErrStopped", first, second)
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
		if !errors.Is(err, ErrHeld) || err.Error() != want {
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

func TestPatienceWithTheLongestGracePeriods(t *testing.T) {
	long := topology.Service{StopGracePeriod: 99999 * 24 * time.Hour}
	after := long
	after.DependsOn = map[string]topology.Condition{"a": topology.ConditionReady}
	if got := patience(&topology.Topology{Services: map[string]topology.Service{"a": long, "b": after}}); got < forEver {
		t.Errorf("patience is %s", got)
	}
}
