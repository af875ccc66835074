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
	s := &succession{log: log, sockets: set, begun: make(chan *successor, 1)}
	if h != nil {
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
	output, err := command.Output()
	if ctx.Err() != nil {
		return upgradeReport{}, fmt.Errorf("it did not say within %s whether it can go on", checkPatience)
	}
	var report upgradeReport
	if err == nil {
		err = json.Unmarshal(output, &report)
	}
	switch {
	case err != nil:
		return upgradeReport{}, fmt.Errorf("it did not say whether it can go on: is it a Mainstay? %w", explain(err))
	case report.Protocol != upgradeProtocol:
		return upgradeReport{}, fmt.Errorf("%s takes over in another way (protocol %d) than %s hands over (%d): stop the one and start the other",
			report.Build.Version, report.Protocol, build().Version, upgradeProtocol)
	case report.Problem != "":
		return upgradeReport{}, fmt.Errorf("%s cannot run what runs: %s", report.Build.Version, report.Problem)
	}
	return report, nil
}

// carryOut lets next go on in this program's place. It returns if that could not be, and then everything goes on here.
func (s *succession) carryOut(ctx context.Context, f *fleet, next *successor) {
	u := next.upgrade
	s.log.Info("upgrade begun", "binary", next.path, "from", describeBuild(u.From), "to", describeBuild(u.To))
	h := &handoff{Protocol: upgradeProtocol, Upgrade: u, environment: f.manager.given}
	err := f.engine.HandOver(ctx, next.drain,
		func(ctx context.Context) error { return s.prepare(ctx, f, next, h) },
		func(lock *os.File) error {
			h.Lock, h.LockPath = int(lock.Fd()), lock.Name()
			err := h.become(next.path)
			s.log.Error("upgrade could not be, going back", "err", err)
			err = h.goBack(err)
			// Nothing runs here any more. The services do, and the next start takes them over.
			s.log.Error("no way back", "err", err)
			os.Exit(ExitFailed)
			return err
		})
	s.sockets.Release()
	if h.Former != 0 {
		unix.Close(h.Former)
	}
	u.State, u.Error = admin.UpgradeFailed, err.Error()
	s.set(u)
	s.log.Error("not upgraded", "to", describeBuild(u.To), "err", err)
}

// prepare puts all that next needs into h. Its error says why next cannot go on after all.
func (s *succession) prepare(ctx context.Context, f *fleet, next *successor, h *handoff) error {
	h.PIDs = f.pids()
	h.Backups = f.awaitBackups(ctx)
	if now, err := os.Stat(next.path); err != nil || !os.SameFile(now, next.info) || !now.ModTime().Equal(next.info.ModTime()) {
		return errors.Join(fmt.Errorf("%s is not any more what was checked", next.path), err)
	}
	former, err := unix.Open("/proc/self/exe", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("keep the way back: %w", err)
	}
	h.Former = former
	if err := s.sockets.Hold(); err != nil {
		return err
	}
	for _, held := range s.sockets.Held() {
		h.Sockets = append(h.Sockets, handedOn{held.Network, held.Address, int(held.File.Fd())})
	}
	return nil
}

// arrive tells how h went, which has led to this program.
func (s *succession) arrive(f *fleet, h *handoff) {
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
}
