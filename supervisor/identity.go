package supervisor

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// markVariable is in the environment of every process that Mainstay starts, and so in that of its descendants. It tells whose
// they are when they have left their group and their session.
const markVariable = "MAINSTAY_PROCESS"

// An identity is which process of all times this is: a pid alone will be another's one day.
type identity struct {
	PID    int    `json:"pid"`     // 0: it was about to be started
	Start  uint64 `json:"start"`   // in clock ticks since the machine started (proc_pid_stat(5), starttime)
	Boot   string `json:"boot_id"` // of the machine's run (proc_sys_kernel(5), boot_id)
	Mark   string `json:"mark"`    // the value of markVariable
	Cgroup string `json:"cgroup"`  // its directory; empty: none
	// Output are the descriptors on which a Mainstay that has released the process read its streams; -1: that one had ended.
	Output []int `json:"output,omitempty"`
}

func newMark() string {
	var b [8]byte
	rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

func bootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

func identityPath(run string) string { return filepath.Join(run, "process.json") }

// A note is the file that keeps an identity for the next Mainstay. It may be lost when the machine goes down, as the process is too.
type note struct{ file *os.File }

func newNote(run string) (note, error) {
	f, err := os.OpenFile(identityPath(run), os.O_WRONLY|os.O_CREATE, 0o600)
	return note{f}, err
}

// write notes id with one system call, in the middle of which nobody is killed.
func (n note) write(id identity) error {
	b, err := json.Marshal(id)
	if err != nil {
		return err
	}
	_, err = n.file.WriteAt(append(b, '\n'), 0)
	return err
}

// errTorn says that the file which tells who a process is cannot be read as such.
var errTorn = errors.New("it is no identity of a process")

// maxNote bounds what is read of a file that Mainstay has written about a process.
const maxNote = 1 << 20

// readNote reads such a file, and nothing at which that would wait or have no end.
func readNote(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(fmt.Errorf("%s is no regular file", path), err)
	}
	return io.ReadAll(io.LimitReader(f, maxNote))
}

func readIdentity(run string) (identity, error) {
	b, err := readNote(identityPath(run))
	if err != nil {
		return identity{}, err
	}
	var id identity
	if len(b) == 0 { // killed before it was written, which is before the process is started
		return identity{}, fmt.Errorf("read %s: %w", identityPath(run), errGone)
	}
	err = json.NewDecoder(bytes.NewReader(b)).Decode(&id) // what follows is of a longer one, written before
	switch {
	case err != nil:
	case id.Mark == "": // then everything without a mark would be its
		err = errors.New("it names no mark")
	case id.Cgroup != "" && !strings.HasSuffix(filepath.Base(id.Cgroup), "-"+id.Mark): // which may hold anything
		err = fmt.Errorf("%s is no control group of its own", id.Cgroup)
	}
	if err != nil {
		return identity{}, fmt.Errorf("read %s: %w: %w", identityPath(run), errTorn, err)
	}
	return id, nil
}

// stat is what proc_pid_stat(5) tells of a process.
type stat struct {
	pid, parent, group int
	state              byte
	start              uint64
	exit               syscall.WaitStatus // of the dead
	told               bool               // exit is; not everyone may know
}

// dead reports whether the process has ended and only waits for its parent to ask how.
func (s stat) dead() bool { return s.state == 'Z' || s.state == 'X' }

// readStat reads the stat of a process. The name in it may hold anything, so the fields are looked for after its last
// parenthesis.
func readStat(pid int) (stat, bool) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return stat{}, false
	}
	fields := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	if len(fields) < 20 {
		return stat{}, false
	}
	s := stat{pid: pid, state: fields[0][0]}
	var errs [3]error
	s.parent, errs[0] = strconv.Atoi(string(fields[1]))
	s.group, errs[1] = strconv.Atoi(string(fields[2]))
	s.start, errs[2] = strconv.ParseUint(string(fields[19]), 10, 64)
	if s.dead() && len(fields) >= 50 {
		code, err := strconv.ParseUint(string(fields[49]), 10, 32)
		s.exit = syscall.WaitStatus(code)
		s.told = err == nil && (code != 0 || ownedByUs(pid)) // to others it is shown as 0
	}
	return s, errors.Join(errs[:]...) == nil
}

// ownedByUs reports whether everything of a process may be known here.
func ownedByUs(pid int) bool {
	var info unix.Stat_t
	return os.Geteuid() == 0 || unix.Stat("/proc/"+strconv.Itoa(pid), &info) == nil && int(info.Uid) == os.Geteuid()
}

// readMark returns the mark in the environment of a process; empty if there is none or it may not be read.
func readMark(pid int) string {
	env, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/environ")
	if err != nil {
		return ""
	}
	for len(env) > 0 {
		var kv []byte
		kv, env, _ = bytes.Cut(env, []byte{0})
		if mark, ok := bytes.CutPrefix(kv, []byte(markVariable+"=")); ok {
			return string(mark)
		}
	}
	return ""
}

// signalProcess sends sig to the process that s is of, and to no other that has its pid now.
func signalProcess(s stat, sig unix.Signal) {
	fd, err := unix.PidfdOpen(s.pid, 0)
	if errors.Is(err, unix.ENOSYS) {
		if now, ok := readStat(s.pid); ok && now.start == s.start {
			unix.Kill(s.pid, sig)
		}
		return
	}
	if err != nil {
		return
	}
	defer unix.Close(fd)
	if now, ok := readStat(s.pid); ok && now.start == s.start {
		unix.PidfdSendSignal(fd, sig, nil, 0)
	}
}
