package engine

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"mainstay/topology"
)

// runOnce starts a plant, tells what runs and the status, and stops it.
func runOnce(t *testing.T, stateDir string, prepare func(p *plant)) (running string, status Status, log string) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		p := newPlant(t, stateDir, web2)
		if prepare != nil {
			prepare(p)
		}
		p.mustRun()
		running, status = sketch(p.Topology()), p.Status()
		p.stop()
		log = p.log.String()
	})
	return running, status, log
}

func TestGenerationsGoOnAcrossRestarts(t *testing.T) {
	stateDir := filepath.Join(t.TempDir(), "state")
	_, first, _ := runOnce(t, stateDir, nil)
	running, again, _ := runOnce(t, stateDir, func(p *plant) { p.write(web2 + " # with a comment") })
	if running != "1 web×2" || !again.Since.Equal(first.Since) {
		t.Errorf("the same topology runs as %s since %s, want 1 since %s", running, again.Since, first.Since)
	}
	if running, _, _ := runOnce(t, stateDir, func(p *plant) { p.write(web3) }); running != "2 web×3" {
		t.Errorf("another topology runs as %s, want 2", running)
	}
	// Back to what generation 1 said is a change from 2, and so a new generation.
	if running, _, _ := runOnce(t, stateDir, nil); running != "3 web×2" {
		t.Errorf("the first topology runs as %s, want 3", running)
	}
}

func TestBrokenFileAtStartFallsBack(t *testing.T) {
	stateDir := filepath.Join(t.TempDir(), "state")
	runOnce(t, stateDir, nil)
	runOnce(t, stateDir, func(p *plant) { p.write(web3) })
	synctest.Test(t, func(t *testing.T) {
		p := newPlant(t, stateDir, web2)
		p.writeRaw("version: one\nstate_dir: " + stateDir + "\n")
		p.mustRun()
		p.wantApplied("bus: 2 web×3", "proxy: 2 web×3", "supervisor: 2 web×3")
		status := p.Status()
		p.wantResult(status.LastReload, ResultInvalid, 2)
		if !strings.HasPrefix(status.Fallback, "generation 2, accepted 2") || !strings.Contains(status.Fallback, p.desk.file.Path) {
			t.Errorf("fallback: %q", status.Fallback)
		}
		p.log.want(t, "older generation started instead of the file")
		p.log.want(t, "problem in topology")
		wantMetric(t, p.reg, "config_last_reload_successful", 0)
		wantMetric(t, p.reg, "config_last_reload_success_timestamp_seconds", 0)

		p.save(web3 + " # what runs anyway")
		p.wantResult(p.Status().LastReload, ResultUnchanged, 2)
		if got := p.Status().Fallback; got != "" {
			t.Errorf("with a good file, fallback: %q", got)
		}
		p.save(web2)
		p.wantApplied("bus: 3 web×2", "proxy: 3 web×2", "supervisor: 3 web×2")
		p.stop()
	})
}

func TestBrokenFileWithoutGeneration(t *testing.T) {
	stateDir := filepath.Join(t.TempDir(), "state")
	synctest.Test(t, func(t *testing.T) {
		p := newPlant(t, stateDir, web2)
		p.writeRaw("version: one\nstate_dir: " + stateDir + "\n")
		err := p.run()
		if problems := (topology.Problems{}); !errors.As(err, &problems) {
			t.Errorf("Run: %v, want problems", err)
		}
	})
	if _, err := os.Stat(stateDir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file with problems made a state directory: %v", err)
	}
}

func TestDamagedGenerationsAreSkipped(t *testing.T) {
	damages := map[string]func(content string) string{
		"truncated": func(content string) string { return content[:len(content)/2] },
		"empty":     func(string) string { return "" },
		"altered":   func(content string) string { return strings.Replace(content, "replicas: 3", "replicas: 9", 1) },
		"misnamed":  func(content string) string { return strings.Replace(content, `"generation": 2`, `"generation": 7`, 1) },
	}
	for name, damage := range damages {
		t.Run(name, func(t *testing.T) {
			stateDir := filepath.Join(t.TempDir(), "state")
			runOnce(t, stateDir, nil)
			runOnce(t, stateDir, func(p *plant) { p.write(web3) })
			path := filepath.Join(stateDir, "generations", "000002.json")
			content, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			damaged := damage(string(content))
			if damaged == string(content) {
				t.Fatal("the damage does nothing")
			}
			write(t, path, damaged)

			running, _, log := runOnce(t, stateDir, func(p *plant) {
				p.writeRaw("version: one\nstate_dir: " + stateDir + "\n")
			})
			if running != "1 web×2" {
				t.Errorf("%s runs, want generation 1", running)
			}
			if !strings.Contains(log, "generation skipped") || !strings.Contains(log, "000002.json") {
				t.Errorf("the log does not say that generation 2 was skipped:\n%s", log)
			}
			// Its number is not given again.
			if running, _, _ := runOnce(t, stateDir, func(p *plant) { p.write(web3) }); running != "3 web×3" {
				t.Errorf("%s runs, want generation 3", running)
			}
		})
	}
}

func TestGenerationOfAnotherPlaceIsSkipped(t *testing.T) {
	dir := t.TempDir()
	here, there := filepath.Join(dir, "here"), filepath.Join(dir, "there")
	runOnce(t, here, nil)
	rename(t, here, there)
	synctest.Test(t, func(t *testing.T) {
		p := newPlant(t, there, web2)
		p.writeRaw("version: one\nstate_dir: " + there + "\n")
		if err := p.run(); err == nil {
			t.Errorf("a generation with another state directory was run")
		}
		p.log.want(t, "generation skipped")
	})
}

func TestGenerationsAreKeptAndLetGo(t *testing.T) {
	stateDir := t.TempDir()
	g := generationsIn(slog.New(slog.DiscardHandler), stateDir)
	if err := g.open(); err != nil {
		t.Fatal(err)
	}
	for i := range keptGenerations + 10 {
		if err := g.add(i+1, []topology.File{{Path: "topology.yaml", Content: fmt.Appendf(nil, "# %d: \"é\"\n", i+1)}}, OriginWatch, 0); err != nil {
			t.Fatal(err)
		}
	}
	numbers, err := g.numbers()
	if err != nil || len(numbers) != keptGenerations || numbers[0] != keptGenerations+10 {
		t.Errorf("%d generations from %d, %v", len(numbers), numbers[0], err)
	}
	entries, err := os.ReadDir(g.dir)
	if err != nil || len(entries) != keptGenerations {
		t.Errorf("%d files, %v", len(entries), err)
	}
	info, err := os.Stat(g.path(60))
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("mode: %v, %v", info.Mode(), err)
	}
	kept, err := g.read(60)
	if err != nil {
		t.Fatal(err)
	}
	path, err := filepath.Abs("topology.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if diff := gocmp.Diff([]topology.File{{Path: path, Content: []byte("# 60: \"é\"\n")}}, kept.files()); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	if age := time.Since(kept.Time); age < 0 || age > time.Hour {
		t.Errorf("time: %v", kept.Time)
	}

	if err := g.add(61, []topology.File{{Path: "latin1.yaml", Content: []byte("name: caf\xe9")}}, OriginWatch, 0); err == nil {
		t.Error("a file that JSON cannot hold was kept")
	}
}

func TestGenerationsSurviveTheLossOfTheirDirectory(t *testing.T) {
	working(t, web2, func(t *testing.T, p *plant) {
		if err := os.RemoveAll(p.stateDir); err != nil {
			t.Fatal(err)
		}
		p.save(web3)
		p.wantResult(p.Status().LastReload, ResultApplied, 2)
		if kept, topology := generationsIn(slog.New(slog.DiscardHandler), p.stateDir).newest(); topology == nil || kept.Number != 2 {
			t.Errorf("newest is %d, want 2", kept.Number)
		}
	})
}

// What runs is worth more than its copy.
func TestGenerationNotKeptIsTold(t *testing.T) {
	working(t, web2, func(t *testing.T, p *plant) {
		dir := filepath.Join(p.stateDir, "generations")
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		write(t, dir, "not a directory")
		p.save(web3)
		p.wantResult(p.Status().LastReload, ResultApplied, 2)
		p.log.want(t, "generation not kept")
		p.save(web2)
		p.wantResult(p.Status().LastReload, ResultApplied, 3)
	})
}

func FuzzDecodeGeneration(f *testing.F) {
	kept, err := newGeneration(1, []topology.File{{Path: "topology.yaml", Content: []byte("version: 1\n")}})
	if err != nil {
		f.Fatal(err)
	}
	whole, err := json.Marshal(kept)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add(whole[:len(whole)/2])
	f.Add([]byte(`{"generation": 1, "files": null}`))
	f.Fuzz(func(t *testing.T, content []byte) {
		kept, err := decodeGeneration(content)
		if err != nil {
			return
		}
		again, err := json.Marshal(kept)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := decodeGeneration(again); err != nil {
			t.Errorf("accepted, but not when written again: %v", err)
		}
	})
}
