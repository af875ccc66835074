package engine

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"mainstay/topology"
)

// keptGenerations is how many are kept.
const keptGenerations = 50

// A generation is a topology that was once accepted, as the source gave it.
type generation struct {
	Number int        `json:"generation"`
	Time   time.Time  `json:"time"`             // when it was accepted
	Origin string     `json:"origin,omitempty"` // who asked for it, as Outcome.Origin
	Again  int        `json:"again,omitempty"`  // the generation that was rolled back to; 0: none
	Files  []keptFile `json:"files"`
	SHA256 string     `json:"sha256"` // of the files' paths and contents, in hex
}

type keptFile struct {
	Path    string `json:"path"` // absolute
	Content string `json:"content"`
}

// newGeneration returns files as a generation. Their paths are made absolute, since the working
// directory may be another one when they are needed.
func newGeneration(number int, files []topology.File) (generation, error) {
	g := generation{Number: number, Time: time.Now()}
	for _, f := range files {
		path, err := filepath.Abs(f.Path)
		if err != nil {
			return generation{}, fmt.Errorf("find %s: %w", f.Path, err)
		}
		if !utf8.Valid(f.Content) {
			return generation{}, fmt.Errorf("keep %s: it is not UTF-8", f.Path)
		}
		g.Files = append(g.Files, keptFile{Path: path, Content: string(f.Content)})
	}
	g.SHA256 = g.sum()
	return g, nil
}

func (g generation) sum() string {
	hash := sha256.New()
	for _, f := range g.Files {
		fmt.Fprintf(hash, "%d %s %d %s", len(f.Path), f.Path, len(f.Content), f.Content)
	}
	return hex.EncodeToString(hash.Sum(nil))
}

func (g generation) files() []topology.File {
	var files []topology.File
	for _, f := range g.Files {
		files = append(files, topology.File{Path: f.Path, Content: []byte(f.Content)})
	}
	return files
}

// generations are those kept in a state directory, one file each: generations/000042.json.
type generations struct {
	log  *slog.Logger
	dir  string
	last int // the highest number ever given here
}

// generationsIn returns those in stateDir for reading. The directory need not exist.
func generationsIn(log *slog.Logger, stateDir string) *generations {
	return &generations{log: log, dir: filepath.Join(stateDir, "generations")}
}

// open makes the generations ready for add.
func (g *generations) open() error {
	if err := os.MkdirAll(g.dir, 0o700); err != nil {
		return fmt.Errorf("create generations' directory: %w", err)
	}
	numbers, err := g.numbers()
	if err != nil {
		return err
	}
	if len(numbers) > 0 {
		g.last = numbers[0]
	}
	return nil
}

// newest returns the newest generation that can still be read and parsed, and its topology; nil if there is
// none. Those that cannot are skipped and named in the log.
func (g *generations) newest() (generation, *topology.Topology) {
	numbers, err := g.numbers()
	if err != nil {
		g.log.Warn("generations unreadable", "err", err)
	}
	for _, number := range numbers {
		kept, err := g.read(number)
		if err != nil {
			g.log.Warn("generation skipped", "generation", number, "err", err)
			continue
		}
		t, problems := topology.Parse(kept.files())
		if problems.Failed() {
			g.log.Warn("generation skipped", "generation", number, "err", firstError(problems))
			continue
		}
		t.Generation = number
		return kept, t
	}
	return generation{}, nil
}

// numbers returns the numbers of the generations that there are files for, newest first.
func (g *generations) numbers() ([]int, error) {
	entries, err := os.ReadDir(g.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list generations: %w", err)
	}
	var numbers []int
	for _, entry := range entries {
		digits, ok := strings.CutSuffix(entry.Name(), ".json")
		if number, err := strconv.Atoi(digits); ok && err == nil && g.path(number) == filepath.Join(g.dir, entry.Name()) {
			numbers = append(numbers, number)
		}
	}
	slices.SortFunc(numbers, func(a, b int) int { return cmp.Compare(b, a) })
	return numbers, nil
}

func (g *generations) path(number int) string {
	return filepath.Join(g.dir, fmt.Sprintf("%06d.json", number))
}

func (g *generations) read(number int) (generation, error) {
	content, err := os.ReadFile(g.path(number))
	if err != nil {
		return generation{}, fmt.Errorf("read generation: %w", err)
	}
	kept, err := decodeGeneration(content)
	if err == nil && kept.Number != number {
		err = fmt.Errorf("it says that it is generation %d", kept.Number)
	}
	if err != nil {
		return generation{}, fmt.Errorf("read %s: %w", g.path(number), err)
	}
	return kept, nil
}

// decodeGeneration returns the generation that was encoded as content, if that is still whole.
func decodeGeneration(content []byte) (generation, error) {
	var kept generation
	if err := json.Unmarshal(content, &kept); err != nil {
		return generation{}, err
	}
	if kept.SHA256 != kept.sum() {
		return generation{}, errors.New("the files are not those that were written")
	}
	return kept, nil
}

// add keeps files as the generation number and lets go of the oldest. After a crash at any moment the
// generation is either there whole or not at all.
func (g *generations) add(number int, files []topology.File, origin string, again int) error {
	g.last = max(g.last, number)
	kept, err := newGeneration(number, files)
	if err != nil {
		return err
	}
	kept.Origin, kept.Again = origin, again
	content, err := json.MarshalIndent(kept, "", "  ")
	if err != nil {
		return fmt.Errorf("encode generation: %w", err)
	}
	// Somebody may have removed the state directory while Mainstay runs.
	if err := os.MkdirAll(g.dir, 0o700); err != nil {
		return fmt.Errorf("create generations' directory: %w", err)
	}
	if err := replaceFile(g.path(number), append(content, '\n')); err != nil {
		return fmt.Errorf("write generation: %w", err)
	}
	numbers, err := g.numbers()
	if err != nil {
		return err
	}
	for _, old := range numbers[min(keptGenerations, len(numbers)):] {
		if err := os.Remove(g.path(old)); err != nil {
			return fmt.Errorf("remove old generation: %w", err)
		}
	}
	return nil
}

// replaceFile puts content, readable by the owner only, in the place of the file at path, in one step that lasts.
func replaceFile(path string, content []byte) error {
	draft := path + ".new"
	if err := writeSynced(draft, content); err != nil {
		os.Remove(draft) // it may not even be there
		return err
	}
	if err := os.Rename(draft, path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

func writeSynced(path string, content []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	return errors.Join(err, f.Sync(), f.Close())
}
