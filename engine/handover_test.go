package engine

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"mainstay/topology"
)

func (p *plant) withSurvivor() *plant {
	p.Engine = New(p.log.logger(), nil, &p.desk,
		append(p.crew.stages("bus", "proxy"), Stage{Name: "supervisor", Subsystem: survivor{hand{&p.crew, "supervisor"}}})...)
	return p
}

// A heir is a Successor that does as it is told.
type heir struct {
	prepare   error
	abandoned int
	follow    func(lock *os.File) error // nil: it does not come to that
}

func (h *heir) Prepare(context.Context) error { return h.prepare }
func (h *heir) Abandon(context.Context)       { h.abandoned++ }

func (h *heir) Follow(lock *os.File) error {
	if h.follow == nil {
		return errors.New("nobody was to follow")
	}
	return h.follow(lock)
}

// handOver has p hand over to the plant that it returns, in another goroutine's place of the same process.
func (p *plant) handOver(t *testing.T) *plant {
	t.Helper()
	next := newPlant(t, p.stateDir, web2).withSurvivor()
	next.desk.file = p.desk.file
	follow := func(lock *os.File) error {
		fd, err := syscall.Dup(int(lock.Fd()))
		if err != nil {
			return err
		}
		next.lock = os.NewFile(uintptr(fd), lock.Name())
		return errors.New("the test goes on")
	}
	if err := p.HandOver(t.Context(), time.Minute, &heir{follow: follow}); err == nil || next.lock == nil {
		t.Fatalf("HandOver: %v", err)
	}
	return next
}

func TestHandOver(t *testing.T) {
	stateDir := filepath.Join(t.TempDir(), "state")
	synctest.Test(t, func(t *testing.T) {
		p := newPlant(t, stateDir, web2).withSurvivor()
		p.mustRun()
		p.override("web", replicas(5))
		p.crew.took()
		if err := os.Remove(filepath.Join(stateDir, "running.json")); err != nil { // whoever did that
			t.Fatal(err)
		}
		next := p.handOver(t)
		p.wantApplied("bus: 1 quiet web×5", "proxy: 1 quiet web×5", "supervisor: 1 quiet web×5",
			"proxy: empty", "bus: empty", "supervisor: suspended")

		next.desk.err = errors.New("read topology.yaml: no such file") // it is not needed
		next.mustRun()
		next.wantApplied("bus: 1 quiet web×5", "proxy: 1 quiet web×5", "supervisor: 1 quiet web×5",
			"bus: 1 web×5", "proxy: 1 web×5", "supervisor: 1 web×5")
		next.wantRunning("1 web×5", map[string]string{"web": "replicas 5 (file: 2)"})
		next.wantResult(next.Status().LastReload, ResultInvalid, 1)
		if err := newPlant(t, stateDir, web2).run(); !errors.Is(err, ErrHeld) {
			t.Errorf("another Mainstay: %v, want that the state directory is held", err)
		}
		next.stop()
		p.turn <- struct{}{} // it has no process to end with
		p.stop()
	})
}

func TestHandOverThatIsNotPrepared(t *testing.T) {
	working(t, web2, func(t *testing.T, p *plant) {
		no := errors.New("no")
		next := &heir{prepare: no}
		if err := p.HandOver(t.Context(), time.Minute, next); err != no || next.abandoned != 0 {
			t.Errorf("HandOver: %v, abandoned %d times", err, next.abandoned)
		}
		p.wantApplied()
		p.save(web3) // everything goes on
		p.wantApplied("bus: 2 web×3", "proxy: 2 web×3", "supervisor: 2 web×3")
	})
}

// What the next program would go on with cannot be written down.
func TestHandOverOnAFullDisk(t *testing.T) {
	working(t, web2, func(t *testing.T, p *plant) {
		if err := os.MkdirAll(filepath.Join(p.stateDir, "running.json.new", "full"), 0o700); err != nil {
			t.Fatal(err)
		}
		no := errors.New("no")
		if err := p.HandOver(t.Context(), time.Minute, &heir{prepare: no}); err != no {
			t.Errorf("with all written down already: %v", err)
		}
		p.override("web", replicas(5))
		p.crew.took()
		if err := p.HandOver(t.Context(), time.Minute, new(heir)); !errors.Is(err, syscall.EISDIR) {
			t.Errorf("with an override that is not: %v", err)
		}
		p.wantApplied()
		p.wantRunning("1 web×5", map[string]string{"web": "replicas 5 (file: 2)"})
	})
}

// A signal in the middle: what was to be stopped is.
func TestStopDuringHandOver(t *testing.T) {
	stateDir := filepath.Join(t.TempDir(), "state")
	synctest.Test(t, func(t *testing.T) {
		p := newPlant(t, stateDir, web2).withSurvivor()
		p.mustRun()
		ctx, cancel := context.WithCancel(t.Context())
		p.crew.apply = func(_ context.Context, stage string, _ *topology.Topology) error {
			if stage == "proxy" {
				cancel()
			}
			return nil
		}
		next := new(heir)
		if err := p.HandOver(ctx, time.Minute, next); err != ErrStopped || next.abandoned != 1 {
			t.Errorf("HandOver: %v, abandoned %d times, want ErrStopped and once", err, next.abandoned)
		}
		p.crew.took()
		p.crew.apply = nil
		p.stop()
		p.wantApplied("bus: 1 quiet web×2", "proxy: 1 quiet web×2", "supervisor: 1 quiet web×2",
			"supervisor: empty", "proxy: empty", "bus: empty")
	})
}

func TestGoOnWithoutANote(t *testing.T) {
	stateDir := filepath.Join(t.TempDir(), "state")
	synctest.Test(t, func(t *testing.T) {
		p := newPlant(t, stateDir, web2).withSurvivor()
		p.mustRun()
		next := p.handOver(t)
		if err := os.Remove(filepath.Join(stateDir, "running.json")); err != nil {
			t.Fatal(err)
		}
		if err := next.run(); err == nil || err.Error() != "go on with what runs: what runs is not written down" {
			t.Errorf("Run: %v", err)
		}
		next.wantApplied("proxy: empty", "bus: empty", "supervisor: suspended") // the processes live for who comes next
		p.turn <- struct{}{}
		p.stop()
		next.lock.Close()
	})
}

func TestCheckGeneration(t *testing.T) {
	stateDir := filepath.Join(t.TempDir(), "state")
	runOnce(t, stateDir, nil)
	if err := CheckGeneration(stateDir, 1); err != nil {
		t.Errorf("CheckGeneration: %v", err)
	}
	if err := CheckGeneration(stateDir, 2); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("CheckGeneration of none: %v", err)
	}
}
