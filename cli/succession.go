package cli

import (
	"context"
	"crypto/rand"
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"mainstay/admin"
	"mainstay/engine"
	"mainstay/sockets"
	"mainstay/topology"
)

// A succession lets another program go on in this one's place, and knows which it has followed itself.
type succession struct {
	log     *slog.Logger
	sockets *sockets.Set
	begun   chan *successor
	crossed chan struct{} // closed when the upgrade that has led to this program is over

	mu   sync.Mutex     // guards the field below
	last *admin.Upgrade // newest; nil: none
}

// A successor is a program that was found able to go on.
type successor struct {
	path    string
	info    fs.FileInfo // as it was checked
	drain   time.Duration
	upgrade admin.Upgrade
}

// newSuccession returns that of a program which h has led to, or nil has.
func newSuccession(log *slog.Logger, set *sockets.Set, h *handoff) *succession {
	s := &succession{log: log, sockets: set, begun: make(chan *successor, 1), crossed: make(chan struct{})}
	if h == nil {
		close(s.crossed)
	} else {
		s.last = &h.Upgrade
	}
	return s
}

// Last implements admin.Upgrader.
func (s *succession) Last() *admin.Upgrade {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last
}

// set makes u the newest, unless another one is under way.
func (s *succession) set(u admin.Upgrade) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last != nil && s.last.State == admin.UpgradeRunning && s.last.ID != u.ID {
		return false
	}
	s.last = &u
	return true
}

// begin checks whether the program that q names can go on with what eng runs, and lets it begin.
func (s *succession) begin(ctx context.Context, eng *engine.Engine, q admin.UpgradeRequest) (admin.Upgrade, error) {
	path := q.Binary
	if path == "" {
		var err error
		if path, err = os.Executable(); err != nil {
			return admin.Upgrade{}, fmt.Errorf("find the file that Mainstay was started from: %w", err)
		}
	}
	if !filepath.IsAbs(path) {
		return admin.Upgrade{}, fmt.Errorf("upgrade to %s: want an absolute path", path)
	}
	info, err := checkExecutable(path)
	if err != nil {
		return admin.Upgrade{}, fmt.Errorf("upgrade to %s: %w", path, err)
	}
	t := eng.Topology()
	report, err := checkSuccessor(ctx, path, t)
	if err != nil {
		return admin.Upgrade{}, fmt.Errorf("upgrade to %s: %w", path, err)
	}
	next := &successor{path: path, info: info, drain: time.Duration(q.DrainSeconds * float64(time.Second))}
	next.upgrade = admin.Upgrade{
		ID: rand.Text(), State: admin.UpgradeRunning, From: build(), To: report.Build, Binary: path, Time: time.Now().Round(0),
	}
	if !s.set(next.upgrade) {
		return admin.Upgrade{}, errors.New("upgrade: another one is under way")
	}
	s.begun <- next
	return next.upgrade, nil
}

// checkExecutable returns why the file at path cannot be executed here, or what it is.
func checkExecutable(path string) (fs.FileInfo, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("it is no file")
	}
	if err := unix.Access(path, unix.X_OK); err != nil {
		return nil, errors.New("it is not executable; chmod +x")
	}
	if info.Mode().Perm()&0o002 != 0 {
		return nil, errors.New("everybody can write it; chmod o-w")
	}
	next, err := machineOf(path)
	if err != nil {
		return nil, errors.New("it is no program of this system (no ELF file)")
	}
	if mine, err := machineOf("/proc/self/exe"); err == nil && mine != next {
		return nil, fmt.Errorf("it is for another machine: %s, this one is %s", next, mine)
	}
	return info, nil
}

func machineOf(path string) (elf.Machine, error) {
	f, err := elf.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	return f.Machine, nil
}

// checkSuccessor asks the program at path whether it can go on with t.
func checkSuccessor(ctx context.Context, path string, t *topology.Topology) (upgradeReport, error) {
	ctx, cancel := context.WithTimeout(ctx, checkPatience)
	defer cancel()
	command := exec.CommandContext(ctx, path, "upgrade-check", "--state-dir", t.StateDir, "--generation", strconv.Itoa(t.Generation))
	command.Args[0] = os.Args[0] // as it will be
	command.WaitDelay = time.Second
	var said, complained excerpt
	command.Stdout, command.Stderr = &said, &complained
	err := command.Run()
	if ctx.Err() != nil {
		return upgradeReport{}, fmt.Errorf("it did not say within %s whether it can go on", checkPatience)
	}
	var report upgradeReport
	if err == nil {
		err = json.Unmarshal(said.text, &report)
	}
	switch {
	case err != nil:
		return upgradeReport{}, fmt.Errorf("it did not say whether it can go on: is it a Mainstay? %w", explain(err, complained))
	case report.Protocol != upgradeProtocol:
		return upgradeReport{}, fmt.Errorf("%s takes over in another way (protocol %d) than %s hands over (%d): stop the one and start the other",
			report.Build.Version, report.Protocol, build().Version, upgradeProtocol)
	case report.Problem != "":
		return upgradeReport{}, fmt.Errorf("%s cannot run what runs: %s", report.Build.Version, report.Problem)
	}
	return report, nil
}

// An excerpt is as much of what a program says as a report may be long. The program's next word is its last.
type excerpt struct{ text []byte }

// Write implements io.Writer.
func (x *excerpt) Write(p []byte) (int, error) {
	if len(x.text)+len(p) > 64<<10 {
		return 0, errors.New("it says too much")
	}
	x.text = append(x.text, p...)
	return len(p), nil
}

// A transfer is an upgrade being carried out; it is the engine's Successor.
type transfer struct {
	*successor
	fleet   *fleet
	handoff *handoff
	bridge  *bridge     // nil: there is none
	stopped func() bool // a signal has come
}

// carryOut lets next go on in this program's place. It returns if that could not be, and then everything goes on here.
func (s *succession) carryOut(ctx context.Context, f *fleet, next *successor) {
	u := next.upgrade
	s.log.Info("upgrade begun", "binary", next.path, "from", describeBuild(u.From), "to", describeBuild(u.To))
	h := &handoff{Protocol: upgradeProtocol, Upgrade: u, environment: f.manager.given, Drain: next.drain}
	s.await(ctx, f, next.drain)
	err := f.engine.HandOver(ctx, next.drain, &transfer{
		successor: next, fleet: f, handoff: h, stopped: func() bool { return ctx.Err() != nil },
	})
	s.sockets.Release()
	if h.Former != 0 {
		unix.Close(h.Former)
	}
	u.State, u.Error = admin.UpgradeFailed, err.Error()
	s.set(u)
	s.log.Error("not upgraded", "to", describeBuild(u.To), "err", err)
}

// await waits until the upgrade before is over and no backup is under way; each may take as long as limit.
func (s *succession) await(ctx context.Context, f *fleet, limit time.Duration) {
	over, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	select {
	case <-s.crossed:
	case <-over.Done():
	}
	idle, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	f.awaitBackups(idle)
}

// Prepare implements engine.Successor: it puts all that the next program needs into the handoff, and has the bridge carry the
// requests.
func (t *transfer) Prepare(ctx context.Context) error {
	f, h := t.fleet, t.handoff
	select {
	case <-f.succession.crossed:
	default:
		return errors.New("requests that the upgrade before had found under way still are: wait for them, or give them less time with --drain")
	}
	h.PIDs = f.pids()
	h.Backups = f.runningBackups()
	if now, err := os.Stat(t.path); err != nil || !os.SameFile(now, t.info) || !now.ModTime().Equal(t.info.ModTime()) {
		return errors.Join(fmt.Errorf("%s is not any more what was checked", t.path), err)
	}
	former, err := unix.Open("/proc/self/exe", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("keep the way back: %w", err)
	}
	h.Former = former
	if err := f.succession.sockets.Hold(); err != nil {
		return err
	}
	held := f.succession.sockets.Held()
	for _, s := range held {
		h.Sockets = append(h.Sockets, handedOn{s.Network, s.Address, int(s.File.Fd())})
	}
	return t.cross(ctx, held)
}

// cross has a bridge of the next program carry the requests, if there are any to carry.
func (t *transfer) cross(ctx context.Context, held []sockets.Held) error {
	f := t.fleet
	running := f.engine.Topology()
	if len(running.Proxy.Listeners) == 0 {
		return nil
	}
	starting, cancel := context.WithTimeout(context.WithoutCancel(ctx), checkPatience)
	defer cancel()
	b, err := startBridge(starting, t.path, newCrossing(running, f.proxy.Instances()), held, f.logs)
	if err != nil {
		return err
	}
	t.bridge = b
	if err := b.carry(ctx, f.proxy); err != nil {
		t.Abandon(ctx)
		return err
	}
	t.handoff.BridgeFD, t.handoff.BridgePID = b.handles()
	return nil
}

// Abandon implements engine.Successor.
func (t *transfer) Abandon(ctx context.Context) {
	if t.bridge == nil {
		return
	}
	t.fleet.proxy.Resume()
	if err := t.bridge.release(ctx, t.fleet.proxy); err != nil {
		t.fleet.succession.log.Warn("requests were cut", "err", err)
	}
}

// Follow implements engine.Successor. If the next program cannot be executed the former one is, anew.
func (t *transfer) Follow(lock *os.File) error {
	t.handoff.Lock, t.handoff.LockPath = int(lock.Fd()), lock.Name()
	t.handoff.Stop = t.stopped() // too late for this program
	log := t.fleet.succession.log
	err := t.handoff.become(t.path)
	log.Error("upgrade could not be, going back", "err", err)
	err = t.handoff.goBack(err)
	// Nothing runs here any more. The services do, and the next start takes them over.
	log.Error("no way back", "err", err)
	os.Exit(ExitFailed)
	return err
}

// arrive tells how h went, which has led to this program, and takes the requests back from the bridge.
func (s *succession) arrive(ctx context.Context, f *fleet, h *handoff) {
	s.sockets.Release()
	unix.Close(h.Former)
	u := h.Upgrade
	u.State, u.TookSeconds, u.Generation = admin.UpgradeDone, time.Since(u.Time).Seconds(), f.engine.Status().Generation
	running := f.pids()
	for _, pid := range h.PIDs {
		if slices.Contains(running, pid) {
			u.Kept++
		} else {
			u.Lost++
		}
	}
	if h.Back != "" {
		u.State, u.Error = admin.UpgradeFailed, h.Back
		s.log.Error("not upgraded, the former program runs again", "to", describeBuild(u.To), "err", h.Back)
	} else {
		s.log.Info("upgraded", "from", describeBuild(u.From), "to", describeBuild(u.To),
			"kept", u.Kept, "lost", u.Lost, "took", time.Since(u.Time))
	}
	s.set(u)
	if h.Stop {
		syscall.Kill(os.Getpid(), syscall.SIGTERM)
	}
	if h.BridgePID != 0 {
		s.takeBack(ctx, f, h)
	}
	close(s.crossed)
}

// takeBack takes the requests back from the bridge and waits for its end.
func (s *succession) takeBack(ctx context.Context, f *fleet, h *handoff) {
	b, err := findBridge(h.BridgeFD, h.BridgePID)
	if err == nil {
		ctx, cancel := context.WithTimeout(ctx, h.Drain)
		defer cancel()
		err = b.release(ctx, f.proxy)
	}
	if err != nil {
		s.log.Warn("requests were cut that the upgrade had found under way", "err", err)
	}
}
