//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A process is one that this program has started and ends.
type process struct {
	name string
	cmd  *exec.Cmd
	log  string // where its output goes, unless that is read
	done chan struct{}
	err  error // how it ended, once done
}

// A launcher starts processes.
type launcher struct {
	nice int // of all of them: below zero, they go before what else the machine does
}

// start starts command on the given cores (as taskset reads them). Its output goes to a file in dir, unless there is a writer for it.
// It ends with the thread that started it, so this is called on the main one only.
func (l launcher) start(name, dir, cores string, stdout io.Writer, command ...string) (*process, error) {
	p := &process{name: name, log: filepath.Join(dir, name+".log"), done: make(chan struct{})}
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	defer log.Close()
	p.cmd = exec.Command("taskset", append([]string{"-c", cores}, command...)...)
	p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr = dir, log, log
	if stdout != nil {
		p.cmd.Stdout = stdout
	}
	// A session of its own keeps Ctrl-C from it, as it is this program that ends it, and is what the kernel shares cores out by
	// (sched(7), autogroup).
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGTERM}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	if l.nice != 0 {
		if err := l.prefer(p.cmd.Process.Pid); err != nil {
			p.stop()
			return nil, fmt.Errorf("set the priority of %s: %w", name, err)
		}
	}
	return p, nil
}

// prefer sets the niceness of a process that has just been started, and of its session among the others.
func (l launcher) prefer(pid int) error {
	if err := syscall.Setpriority(syscall.PRIO_PROCESS, pid, l.nice); err != nil {
		return err
	}
	err := os.WriteFile(fmt.Sprintf("/proc/%d/autogroup", pid), []byte(strconv.Itoa(l.nice)), 0)
	if errors.Is(err, os.ErrNotExist) { // a kernel without
		return nil
	}
	return err
}

// stop ends it, and waits until it has ended.
func (p *process) stop() {
	select {
	case <-p.done:
		return
	default:
	}
	p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(5 * time.Second):
		syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
		<-p.done
	}
}

// pids returns it and what it has started.
func (p *process) pids() []int {
	all := []int{p.cmd.Process.Pid}
	for i := 0; i < len(all); i++ {
		lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", all[i]))
		for _, list := range lists {
			text, _ := os.ReadFile(list)
			for _, word := range strings.Fields(string(text)) {
				if pid, err := strconv.Atoi(word); err == nil {
					all = append(all, pid)
				}
			}
		}
	}
	return all
}

// A cpuTime is what a tree of processes has used.
type cpuTime struct {
	exact time.Duration // what the scheduler has counted for the threads that there are
	ticks time.Duration // utime + stime, which the kernel rounds to ticks (10 ms) for each process
}

// cpu returns what the process and its children have used so far. Both figures are the kernel's one sum of a thread's run time.
func (p *process) cpu() (cpuTime, error) {
	var used cpuTime
	for _, pid := range p.pids() {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return cpuTime{}, fmt.Errorf("read CPU time: %w", err)
		}
		ticks, err := statTicks(stat)
		if err != nil {
			return cpuTime{}, err
		}
		const tick = 10 * time.Millisecond // USER_HZ is 100 wherever Go runs
		used.ticks += time.Duration(ticks) * tick
		threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
		for _, thread := range threads {
			text, err := os.ReadFile(thread)
			if err != nil {
				continue // it has ended in this moment
			}
			word, _, _ := strings.Cut(string(text), " ")
			n, _ := strconv.ParseInt(word, 10, 64)
			used.exact += time.Duration(n)
		}
	}
	return used, nil
}

// statTicks returns utime + stime of /proc/PID/stat (proc_pid_stat(5)).
func statTicks(stat []byte) (int64, error) {
	after := bytes.LastIndexByte(stat, ')') // the name may have blanks and parentheses
	fields := bytes.Fields(stat[after+1:])
	if after < 0 || len(fields) < 13 {
		return 0, fmt.Errorf("not /proc/PID/stat: %.60q", stat)
	}
	var sum int64
	for _, field := range fields[11:13] {
		n, err := strconv.ParseInt(string(field), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("not /proc/PID/stat: %w", err)
		}
		sum += n
	}
	return sum, nil
}

// resident returns VmRSS of the process and its children, in bytes.
func (p *process) resident() int64 {
	var sum int64
	for _, pid := range p.pids() {
		text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		sum += statusKiB(text, "VmRSS") << 10
	}
	return sum
}

func statusKiB(status []byte, name string) int64 {
	for line := range strings.Lines(string(status)) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			n, _ := strconv.ParseInt(strings.Fields(value + " 0")[0], 10, 64)
			return n
		}
	}
	return 0
}

// busy returns the time that the given core has not been idle, steal included.
func busy(core string) time.Duration {
	text, _ := os.ReadFile("/proc/stat")
	return busyOf(string(text), core)
}

func busyOf(stat, core string) time.Duration {
	for line := range strings.Lines(stat) {
		fields := strings.Fields(line)
		if len(fields) < 9 || fields[0] != "cpu"+core {
			continue
		}
		var sum int64
		for i, field := range fields[1:9] {
			if n, err := strconv.ParseInt(field, 10, 64); err == nil && i != 3 && i != 4 { // idle, iowait
				sum += n
			}
		}
		return time.Duration(sum) * 10 * time.Millisecond
	}
	return 0
}

// until calls attempt until it succeeds, the process ends or time is up.
func (p *process) until(ctx context.Context, attempt func() error) error {
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	deadline := time.After(30 * time.Second)
	for {
		err := attempt()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-p.done:
			return fmt.Errorf("%s ended: %w\n%s", p.name, errors.Join(p.err, err), p.tail())
		case <-deadline:
			return fmt.Errorf("%s does not answer: %w\n%s", p.name, err, p.tail())
		case <-ticker.C:
		}
	}
}

// tail returns the end of its log.
func (p *process) tail() string {
	text, _ := os.ReadFile(p.log)
	return string(text[max(0, len(text)-2000):])
}
