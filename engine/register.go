package engine

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
)

// A running says what runs, for the next Mainstay to find if this one ends without stopping it.
type running struct {
	BootID     string    `json:"boot_id"` // of the machine's run in which it was written: processes end with that
	Generation int       `json:"generation"`
	Overrides  overrides `json:"overrides,omitempty"`
	Pin        *Pin      `json:"pinned,omitempty"`
}

// A register is the file running.json in a state directory. It is there from the first Apply until a clean stop.
type register struct {
	log     *slog.Logger
	path    string
	written running // zero: nothing yet
}

// registerIn returns that of stateDir.
func registerIn(log *slog.Logger, stateDir string) *register {
	return &register{log: log, path: filepath.Join(stateDir, "running.json")}
}

// bootID returns what tells one run of the machine from the next (random(4)).
func bootID() (string, error) {
	content, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return string(bytes.TrimSpace(content)), err
}

// read returns what the register says, and whether it says anything of this run of the machine. One that cannot be
// understood is set aside, so that nothing that is in it is lost.
func (r *register) read() (running, bool) {
	info, err := os.Lstat(r.path)
	if errors.Is(err, fs.ErrNotExist) {
		return running{}, false
	}
	var was running
	if err == nil && !info.Mode().IsRegular() { // to read it may take for ever
		err = errors.New("it is no regular file")
	}
	if err == nil {
		var content []byte
		if content, err = os.ReadFile(r.path); err == nil {
			was, err = decodeRunning(content)
		}
	}
	if err != nil {
		aside := r.path + ".unreadable"
		r.log.Warn("what the last run left is not told, starting from the file", "file", r.path, "set_aside_as", aside,
			"err", errors.Join(err, os.Rename(r.path, aside)))
		return running{}, false
	}
	if now, err := bootID(); err != nil || was.BootID != now {
		r.log.Info("last run ended with the machine, starting from the file",
			"generation", was.Generation, "overrides", len(was.Overrides), "pinned", was.Pin != nil)
		return running{}, false
	}
	return was, true
}

// decodeRunning returns what was encoded as content, if that is whole.
func decodeRunning(content []byte) (running, error) {
	var was running
	if err := json.Unmarshal(content, &was); err != nil {
		return running{}, err
	}
	if was.Generation < 1 || was.BootID == "" {
		return running{}, errors.New("it names no generation or no boot")
	}
	return was, nil
}

// write makes the register say now.
func (r *register) write(now running) error {
	if reflect.DeepEqual(now, r.written) {
		return nil
	}
	content, err := encodeRunning(now)
	if err != nil {
		return err
	}
	if err := replaceFile(r.path, content); err != nil {
		return err
	}
	r.written = now
	return nil
}

// ensure is write, whatever has become of the file since.
func (r *register) ensure(now running) error {
	content, err := encodeRunning(now)
	if err != nil {
		return err
	}
	if said, err := os.ReadFile(r.path); err == nil && bytes.Equal(said, content) {
		return nil
	}
	return replaceFile(r.path, content)
}

// encodeRunning returns now, which is of this run of the machine, as decodeRunning understands it.
func encodeRunning(now running) ([]byte, error) {
	var err error
	if now.BootID, err = bootID(); err != nil {
		return nil, fmt.Errorf("tell this run of the machine from the next: %w", err)
	}
	content, err := json.MarshalIndent(now, "", "  ")
	return append(content, '\n'), err
}

// running returns v as it is written down.
func (v *view) running() running {
	return running{Generation: v.status.Generation, Overrides: v.overrides, Pin: v.status.Pin}
}

// remember writes down what runs. That it runs is worth more than the note.
func (e *Engine) remember(v view) {
	err := e.register.write(v.running())
	if err != nil {
		e.log.Error("what runs is not written down, a crash would forget the overrides", "err", err)
	}
}

// forget says that nothing is left running.
func (e *Engine) forget() {
	if err := os.Remove(e.register.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		e.log.Error("what ran is still written down, the next start will resume it", "err", err)
	}
}
