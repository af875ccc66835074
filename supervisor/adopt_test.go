package supervisor

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// noted returns a directory in which id is on record.
func noted(t *testing.T, id identity) string {
	t.Helper()
	run := t.TempDir()
	n, err := newNote(run)
	if err != nil {
		t.Fatal(err)
	}
	defer n.file.Close()
	if err := n.write(id); err != nil {
		t.Fatal(err)
	}
	return run
}

// What a record says is not believed when that would make others' processes ours.
func TestIdentityIsNoMoreThanItsOwn(t *testing.T) {
	m := newTestMachine(t, func(*machine) {})
	for name, id := range map[string]identity{
		"no mark":           {Boot: m.boot},
		"all of a machine":  {Boot: m.boot, Mark: "abc", Cgroup: "/sys/fs/cgroup/unified"},
		"another's of ours": {Boot: m.boot, Mark: "abc", Cgroup: "/sys/fs/cgroup/mainstay.1/web.1.1-abd"},
	} {
		t.Run(name, func(t *testing.T) {
			if id, err := readIdentity(noted(t, id)); err == nil {
				t.Errorf("%+v is believed", id)
			}
		})
	}
	t.Run("no file", func(t *testing.T) {
		run := t.TempDir()
		if err := unix.Mkfifo(identityPath(run), 0o600); err != nil {
			t.Fatal(err)
		}
		if id, err := readIdentity(run); err == nil {
			t.Errorf("%+v is read from a FIFO", id)
		}
	})
}

// A number that was a process's may be that of a thread now, or the first process's, who is nobody's.
func TestThreadIsNotAdopted(t *testing.T) {
	m := newTestMachine(t, func(*machine) {})
	tid, over := make(chan int), make(chan struct{})
	defer close(over)
	go func() {
		runtime.LockOSThread()
		tid <- unix.Gettid()
		<-over
	}()
	first, _ := readStat(1)
	for _, id := range []identity{
		{PID: <-tid, Start: 1, Boot: m.boot, Mark: newMark()},
		{PID: 1, Start: first.start, Boot: m.boot, Mark: newMark()},
	} {
		if _, err := m.adopt(noted(t, id), nil); !errors.Is(err, errGone) {
			t.Errorf("%d: %v", id.PID, err)
		}
	}
}

// A process is only started with its record there: where that is empty, or there can be none, nobody is left behind.
func TestNobodyIsStartedOffTheRecord(t *testing.T) {
	m := newTestMachine(t, func(*machine) {})
	run := t.TempDir()
	write(t, identityPath(run), "", 0o600)
	if _, err := m.adopt(run, nil); !errors.Is(err, errGone) {
		t.Errorf("an empty record: %v", err)
	}
	if err := errors.Join(os.Remove(identityPath(run)), os.Mkdir(identityPath(run), 0o700)); err != nil {
		t.Fatal(err)
	}
	p, _ := started(t, m, "exec sleep 300", in(run))
	defer swept(p, 0)
	if _, err := os.Stat(fifoPath(run, streamNames[0])); err == nil || p.run != "" {
		t.Error("a process that is on no record is to outlive Mainstay")
	}
}

// A file in the place of a FIFO is not read as what the process has written.
func TestOutputOfAnAdoptedProcessIsAFIFO(t *testing.T) {
	m := newTestMachine(t, func(*machine) {})
	run := t.TempDir()
	other := filepath.Join(t.TempDir(), "secret")
	write(t, other, "hush\n", 0o600)
	p, _ := started(t, m, "exec sleep 300", in(run))
	p.release()
	for n, replace := range []func(path string) error{
		func(path string) error { return os.Symlink(other, path) },
		func(path string) error { return os.WriteFile(path, []byte("hush\n"), 0o600) },
	} {
		path := fifoPath(run, streamNames[n])
		if err := errors.Join(os.Remove(path), replace(path)); err != nil {
			t.Fatal(err)
		}
	}
	said := &transcript{}
	again, err := m.adopt(run, said.add)
	if err != nil {
		t.Fatal(err)
	}
	swept(again, 0)
	<-again.silent()
	if text := said.String(); text != "" {
		t.Errorf("it is taken to have said %q", text)
	}
}

// Nobody waits for the answer of a probe when Mainstay is gone.
func TestProbeEndsWithMainstay(t *testing.T) {
	c, out := startMachine(t, func() {}, []string{"UNGROUPED=yes"}, "", "echo $$; exec sleep 300")
	buf := make([]byte, 32)
	n, err := out.Read(buf)
	if err != nil && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	probe := (&transcript{text: []string{"pid " + string(buf[:n])}}).number("pid")
	if probe == 0 || !alive(probe) {
		t.Fatalf("no probe: %q", buf[:n])
	}
	c.Process.Kill()
	c.Wait()
	soon(t, "the probe ends", func() bool { return !alive(probe) })
}

// The next Mainstay ends the probes that a killed one was waiting for, and nothing else.
func TestProbesOfTheDeadAreEnded(t *testing.T) {
	m := newTestMachine(t, func(*machine) {})
	if m.groups == nil {
		t.Skip(m.whyNone)
	}
	dead := exec.Command("true")
	if err := dead.Run(); err != nil {
		t.Fatal(err)
	}
	base := filepath.Join(m.groups.own, baseName(strconv.Itoa(dead.Process.Pid)))
	inside := func(name string) (group *cgroup, pid int) {
		group = &cgroup{mount: m.groups.mount, dir: filepath.Join(base, name)}
		if err := os.MkdirAll(group.dir, 0o755); err != nil {
			t.Fatal(err)
		}
		fd, err := group.open()
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		c := exec.Command("sleep", "300")
		c.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: fd}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			c.Process.Kill()
			c.Wait()
			removeOld(m.groups.own)
		})
		return group, c.Process.Pid
	}
	runs, service := inside("probe-x.1.3-abc")
	_, probe := inside("probe-abd")

	removeOld(m.groups.own)
	soon(t, "the probe is dead", func() bool { s, ok := readStat(probe); return !ok || s.dead() })
	if s, ok := readStat(service); !ok || s.dead() || !runs.populated() {
		t.Error("a service's process was ended")
	}
}
