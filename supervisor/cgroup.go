package supervisor

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"mainstay/topology"
)

// cgroups is where Mainstay makes a control group for each process (cgroup v2, Documentation/admin-guide/cgroup-v2.rst): a
// directory of its own below the control group that it runs in.
//
// It uses that only if it may: where systemd rules, a part of the tree is a service's own only with Delegate=
// (systemd, CGROUP_DELEGATION).
type cgroups struct {
	mount hierarchy
	own   string // the directory of the control group that Mainstay was started in
	base  string // ours below it

	mu      sync.Mutex
	enabled map[string]bool // controllers of the groups below base
	moved   bool            // Mainstay is in a group below base itself
}

// leafName is the group that Mainstay moves to when its own has to be empty of processes.
const leafName = "mainstay"

// A hierarchy is where the cgroup2 file system is mounted, and which part of it.
type hierarchy struct{ point, root string }

// path returns the directory of a group by the name that /proc/PID/cgroup has for it.
func (h hierarchy) path(name string) string {
	if h.root != "/" {
		name = strings.TrimPrefix(name, h.root)
	}
	return filepath.Join(h.point, name)
}

// findCgroups returns the control groups that Mainstay may use. The error says why there are none.
func findCgroups() (*cgroups, error) {
	mount, err := findHierarchy()
	if err != nil {
		return nil, err
	}
	name, err := groupOf("self")
	if err != nil {
		return nil, err
	}
	g := &cgroups{mount: mount, own: mount.path(name), enabled: map[string]bool{}}
	if parent := filepath.Dir(g.own); filepath.Base(g.own) == leafName && strings.HasPrefix(filepath.Base(parent), baseName("")) {
		g.own, g.moved = filepath.Dir(parent), true // this program has replaced another that had moved
	}
	if _, err := os.Stat("/run/systemd/system"); err == nil && !delegated(g.own) {
		return nil, fmt.Errorf("systemd has not delegated the control group %s to Mainstay (Delegate=yes in its unit)", name)
	}
	removeOld(g.own)
	g.base = filepath.Join(g.own, baseName(strconv.Itoa(os.Getpid())))
	if err := g.makeBase(); err != nil {
		return nil, err
	}
	if _, err := os.Stat(filepath.Join(g.base, "cgroup.kill")); err != nil {
		os.Remove(g.base)
		return nil, errors.New("this kernel's cgroup v2 has no cgroup.kill (Linux 5.14 has)")
	}
	return g, nil
}

// makeBase makes base unless it is there.
func (g *cgroups) makeBase() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	err := os.Mkdir(g.base, 0o755)
	if err == nil {
		clear(g.enabled)
		return nil
	}
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return fmt.Errorf("make a control group: %w", err)
}

// removeOld removes what Mainstays that have ended left in a control group, as far as it is empty, and ends their probes, whose
// answer nobody waits for any more.
func removeOld(own string) {
	old, _ := filepath.Glob(filepath.Join(own, baseName("*")))
	for _, base := range old {
		pid := strings.TrimPrefix(filepath.Base(base), baseName(""))
		if _, err := os.Stat("/proc/" + pid); !errors.Is(err, fs.ErrNotExist) {
			continue
		}
		probes, _ := filepath.Glob(filepath.Join(base, groupName("", "*")))
		for _, dir := range probes {
			if !strings.Contains(filepath.Base(dir), ".") { // as there is in a run's name
				(&cgroup{dir: dir}).kill()
			}
		}
		removeBase(base)
	}
}

// groupName returns the name of the control group of a process that is started in run, a directory; empty: in none, as a probe.
func groupName(run, mark string) string {
	if run == "" {
		return "probe-" + mark
	}
	return filepath.Base(run) + "-" + mark
}

// removeBase removes the base of another Mainstay as far as nothing lives in it.
func removeBase(base string) {
	entries, _ := os.ReadDir(base)
	for _, e := range entries {
		if c := (&cgroup{dir: filepath.Join(base, e.Name())}); e.IsDir() && !c.populated() {
			c.remove()
		}
	}
	os.Remove(base)
}

func baseName(pid string) string { return "mainstay." + pid }

func findHierarchy() (hierarchy, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return hierarchy{}, err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		before, after, _ := strings.Cut(lines.Text(), " - ")
		fields := strings.Fields(before)
		if kind, _, _ := strings.Cut(after, " "); kind == "cgroup2" && len(fields) >= 5 {
			return hierarchy{point: fields[4], root: fields[3]}, nil
		}
	}
	return hierarchy{}, errors.New("no cgroup v2 is mounted on this machine")
}

// groupOf returns the name of the control group (v2) of a process.
func groupOf(pid string) (string, error) {
	b, err := os.ReadFile("/proc/" + pid + "/cgroup")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(b)) {
		if name, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "0::"); ok {
			return name, nil
		}
	}
	return "", errors.New("this kernel has no cgroup v2")
}

// delegated reports whether systemd left a control group to who runs in it.
func delegated(dir string) bool {
	value := make([]byte, 8)
	for _, attribute := range []string{"trusted.delegate", "user.delegate"} {
		if n, err := unix.Getxattr(dir, attribute, value); err == nil && string(value[:n]) == "1" {
			return true
		}
	}
	return false
}

// create makes a control group of that name with limits, in which others of all may be set later.
func (g *cgroups) create(name string, limits, all topology.Limits) (*cgroup, error) {
	c := &cgroup{mount: g.mount, dir: filepath.Join(g.base, name)}
	for range 2 { // another Supervisor of this program may remove base as it is empty
		if err := g.makeBase(); err != nil {
			return nil, err
		}
		for _, l := range limitFiles(all) {
			if err := g.enable(l.controller); err != nil {
				return nil, fmt.Errorf("limits.%s: %w", l.key, err)
			}
		}
		err := os.Mkdir(c.dir, 0o755)
		if err == nil {
			break
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("make a control group: %w", err)
		}
	}
	if err := c.limit(limits); err != nil {
		c.remove()
		return nil, err
	}
	return c, nil
}

// limit limits what the group may use.
func (c *cgroup) limit(limits topology.Limits) error {
	for _, l := range limitFiles(limits) {
		err := c.write(l.file, l.value)
		if err != nil && !(l.optional && errors.Is(err, fs.ErrNotExist)) {
			return fmt.Errorf("limits.%s: %w", l.key, err)
		}
	}
	return nil
}

// A limitFile is what is written to a file of a control group for the sake of a limit.
type limitFile struct {
	key, controller, file, value string
	optional                     bool // not all kernels have the file
}

// cpuPeriod is that of cpu.max, in microseconds.
const cpuPeriod = 100_000

func limitFiles(l topology.Limits) []limitFile {
	var list []limitFile
	if l.Memory > 0 {
		list = append(list,
			limitFile{"memory", "memory", "memory.max", strconv.FormatInt(l.Memory, 10), false},
			limitFile{"memory", "memory", "memory.swap.max", "0", true},
			limitFile{"memory", "memory", "memory.oom.group", "1", true}, // half of a service is of no use
		)
	}
	if l.CPUs > 0 {
		quota := max(1000, int(l.CPUs*cpuPeriod)) // the kernel takes no less
		list = append(list, limitFile{"cpus", "cpu", "cpu.max", fmt.Sprintf("%d %d", quota, cpuPeriod), false})
	}
	if l.Processes > 0 {
		list = append(list, limitFile{"processes", "pids", "pids.max", strconv.Itoa(l.Processes), false})
	}
	return list
}

// enable makes a controller work in the groups below base.
func (g *cgroups) enable(controller string) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.enabled[controller] {
		return nil
	}
	have, err := words(filepath.Join(g.own, "cgroup.controllers"))
	if err != nil {
		return err
	}
	if !slices.Contains(have, controller) {
		return fmt.Errorf("this machine's cgroup v2 has no %s controller for %s%s", controller, g.own, whyMissing(controller))
	}
	if err = g.moveAside(); err == nil {
		err = enableIn(g.own, controller)
	}
	if err == nil {
		err = enableIn(g.base, controller)
	}
	if err == nil {
		g.enabled[controller] = true
	}
	return err
}

func whyMissing(controller string) string {
	if b, err := os.ReadFile("/proc/self/mountinfo"); err == nil {
		for line := range strings.Lines(string(b)) {
			_, after, _ := strings.Cut(strings.TrimSpace(line), " - ")
			fields := strings.Fields(after)
			if len(fields) == 3 && fields[0] == "cgroup" && slices.Contains(strings.Split(fields[2], ","), controller) {
				return ": cgroup v1 has it (boot with cgroup_no_v1=all, or systemd.unified_cgroup_hierarchy=1)"
			}
		}
	}
	return ": it is not delegated (Delegate=yes in Mainstay's unit), or this kernel has none"
}

func enableIn(dir, controller string) error {
	return os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+controller), 0o644)
}

func words(file string) ([]string, error) {
	b, err := os.ReadFile(file)
	return strings.Fields(string(b)), err
}

// moveAside moves Mainstay to a group of its own below base, unless it is in the root: with controllers, only leaves may have
// processes.
func (g *cgroups) moveAside() error {
	if _, err := os.Stat(filepath.Join(g.own, "cgroup.type")); errors.Is(err, fs.ErrNotExist) || g.moved {
		return nil
	}
	self := strconv.Itoa(os.Getpid())
	here, err := words(filepath.Join(g.own, "cgroup.procs"))
	if err != nil {
		return err
	}
	if others := slices.DeleteFunc(here, func(pid string) bool { return pid == self }); len(others) > 0 {
		return fmt.Errorf("other processes than Mainstay are in its control group %s (pid %s): start it in one of its own, as a unit with Delegate=yes or with systemd-run --scope -p Delegate=yes", g.own, strings.Join(others, ", "))
	}
	leaf := filepath.Join(g.base, leafName)
	if err := os.Mkdir(leaf, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make a control group for Mainstay itself: %w", err)
	}
	if err := os.WriteFile(filepath.Join(leaf, "cgroup.procs"), []byte(self), 0o644); err != nil {
		return fmt.Errorf("move to the control group %s: %w", leaf, err)
	}
	g.moved = true
	return nil
}

// close removes what is not in use any more.
func (g *cgroups) close() {
	if os.Remove(g.base) == nil || !g.moved {
		return
	}
	entries, err := os.ReadDir(g.base)
	if err != nil || slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return e.IsDir() && e.Name() != leafName }) {
		return
	}
	for controller := range g.enabled {
		for _, dir := range []string{g.base, g.own} {
			os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("-"+controller), 0o644)
		}
	}
	if os.WriteFile(filepath.Join(g.own, "cgroup.procs"), []byte(strconv.Itoa(os.Getpid())), 0o644) == nil {
		os.Remove(filepath.Join(g.base, leafName))
		os.Remove(g.base)
	}
}

// A cgroup is the control group of one process and all that it starts.
type cgroup struct {
	mount hierarchy
	dir   string
}

func (c *cgroup) write(file, value string) error {
	f, err := os.OpenFile(filepath.Join(c.dir, file), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}

// open returns a descriptor for a process to be started in the group.
func (c *cgroup) open() (int, error) {
	fd, err := unix.Open(c.dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: c.dir, Err: err}
	}
	return fd, nil
}

// value returns a number of one of the group's files, that after key or, without, the first.
func (c *cgroup) value(file, key string) (int64, bool) {
	b, err := os.ReadFile(filepath.Join(c.dir, file))
	if err != nil {
		return 0, false
	}
	for line := range bytes.Lines(b) {
		fields := strings.Fields(string(line))
		if key == "" {
			fields = append([]string{""}, fields...)
		}
		if len(fields) == 2 && fields[0] == key {
			n, err := strconv.ParseInt(fields[1], 10, 64)
			return n, err == nil
		}
	}
	return 0, false
}

// populated reports whether a process lives in the group or below.
func (c *cgroup) populated() bool {
	n, ok := c.value("cgroup.events", "populated")
	return ok && n != 0
}

// groups returns the directories of the group and of those below, the deepest first.
func (c *cgroup) groups() []string {
	var dirs []string
	filepath.WalkDir(c.dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			dirs = append(dirs, path)
		}
		return nil
	})
	slices.Reverse(dirs)
	return dirs
}

// members returns the processes in the group and below.
func (c *cgroup) members() []stat {
	var list []stat
	for _, dir := range c.groups() {
		pids, _ := words(filepath.Join(dir, "cgroup.procs"))
		for _, text := range pids {
			pid, err := strconv.Atoi(text)
			if s, ok := readStat(pid); err == nil && ok {
				list = append(list, s)
			}
		}
	}
	return list
}

// contains reports whether a process is in the group or below.
func (c *cgroup) contains(pid int) bool {
	name, err := groupOf(strconv.Itoa(pid))
	if err != nil {
		return false
	}
	path := c.mount.path(name)
	return path == c.dir || strings.HasPrefix(path, c.dir+"/")
}

// kill kills all in the group and below, also what is being started at the moment.
func (c *cgroup) kill() { c.write("cgroup.kill", "1") }

// remove removes the group, which is empty.
func (c *cgroup) remove() {
	for _, dir := range c.groups() {
		for range 10 { // a process that has just ended may still count
			if err := os.Remove(dir); !errors.Is(err, unix.EBUSY) {
				break
			}
			time.Sleep(time.Millisecond)
		}
	}
}
