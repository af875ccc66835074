package topology

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

// A File is one file of a topology. Relative paths in it are relative to its directory.
type File struct {
	Path    string // as problems name it
	Content []byte
}

// Read reads the files at paths.
func Read(paths []string) ([]File, error) {
	files := make([]File, len(paths))
	for i, path := range paths {
		content, err := readFile(path)
		if err != nil {
			return nil, err
		}
		files[i] = File{path, content}
	}
	return files, nil
}

// pipePatience is how long to wait for what is written into a pipe.
const pipePatience = 5 * time.Second

// readFile returns what is at path, and no more than it takes for Parse to say that it is too large. A pipe
// may be what a shell's <(…) gives, but one that nobody writes to does not block for ever.
func readFile(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	f.SetReadDeadline(time.Now().Add(pipePatience)) // an error means that reading it does not block
	return io.ReadAll(io.LimitReader(f, maxFileBytes+1))
}

// Parse resolves files, later ones over earlier ones: maps merge, lists replace, null deletes.
// It reads what the files refer to (environment, secret files, certificates, users, executables' presence) and nothing else.
// The Topology is nil if one of the problems is an error; warnings come beside a Topology.
func Parse(files []File) (*Topology, Problems) {
	r := newReport(files)
	tree := readTree(r, files)
	if tree == nil {
		return nil, r.sorted()
	}
	w := &walker{report: r}
	v := w.walk(root, spreadDefaults(tree), nil, "", false)
	t := resolve(r, v, sourceOf(files[0]).Directory)
	problems := r.sorted()
	if problems.Failed() {
		return nil, problems
	}
	return t, problems
}

// readTree returns files as one tree, or nil if one of them is no tree at all.
func readTree(r *report, files []File) *node {
	if len(files) == 0 {
		r.add(Problem{Severity: severityError, Message: "there is no file to read"})
		return nil
	}
	var tree *node
	whole := true
	for _, f := range files {
		n := readYAML(r, sourceOf(f), f.Content)
		if n == nil {
			whole = false
			continue
		}
		tree = merger{nullDeletes: true}.merge(root.typ, tree, n)
	}
	if !whole {
		return nil
	}
	return tree
}

func sourceOf(f File) *source {
	path, err := filepath.Abs(f.Path)
	if err != nil { // the working directory is gone
		path = filepath.Join("/", f.Path)
	}
	return &source{Path: f.Path, Directory: filepath.Dir(path)}
}

// spreadDefaults returns tree with what its defaults say under what each service says, and the defaults first,
// so that a mistake in them is told as theirs.
func spreadDefaults(tree *node) *node {
	defaults, services := tree.find("defaults"), tree.find("services")
	if defaults == nil || defaults.value.shape != shapeMapping {
		return tree
	}
	out := *tree
	out.entries = []entry{*defaults}
	for _, e := range tree.entries {
		switch {
		case e.key == defaults.key:
		case services != nil && e.key == services.key && e.value.shape == shapeMapping:
			spread := *e.value
			spread.entries = slices.Clone(e.value.entries)
			for i, s := range spread.entries {
				under := defaults.value
				if s.value.find("external") != nil {
					under = ofExternal(service, under)
				}
				spread.entries[i].value = merger{}.merge(service, under, s.value)
			}
			out.entries = append(out.entries, entry{e.key, &spread})
		default:
			out.entries = append(out.entries, e)
		}
	}
	return &out
}

// ofExternal returns those of n's keys that mean something for instances that are not launched.
func ofExternal(t *typ, n *node) *node {
	if n.shape != shapeMapping || t == nil || t.keys == nil {
		return n
	}
	out := *n
	out.entries = nil
	for _, e := range n.entries {
		if k := t.child(e.key.text); k != nil && k.external {
			out.entries = append(out.entries, entry{e.key, ofExternal(k.typ, e.value)})
		}
	}
	return &out
}

// Locate returns the state directory and the admin socket that files ask for, as far as they can be
// read: it is for finding a running supervisor, and the last good generation, when the files have problems.
func Locate(files []File) (stateDir, socket string) {
	r := newReport(files) // what is wrong is not asked here
	var tree *node
	for _, f := range files {
		n := readYAML(r, sourceOf(f), f.Content)
		if n == nil {
			blocks := append(topLevelBlock(f.Content, "state_dir"), topLevelBlock(f.Content, "admin")...)
			n = readYAML(r, sourceOf(f), blocks)
		}
		if n != nil {
			tree = merger{nullDeletes: true}.merge(root.typ, tree, n)
		}
	}
	directory := "."
	if len(files) > 0 {
		directory = sourceOf(files[0]).Directory
	}
	w := &walker{report: r}
	only := &node{source: &source{}, shape: shapeMapping}
	for _, name := range []string{"state_dir", "admin"} {
		if e := tree.find(name); e != nil {
			only.entries = append(only.entries, *e)
		}
	}
	v := w.walk(root, only, nil, "", false)
	stateDir = stateDirectory(v, directory)
	return stateDir, adminSocket(v, stateDir)
}

func stateDirectory(root *value, directory string) string {
	if dir := root.at("state_dir"); dir.scalar != nil {
		return dir.scalar.(string)
	}
	return absolute(root.at("state_dir").key.def, directory)
}

func adminSocket(root *value, stateDir string) string {
	if socket := root.at("admin", "socket"); socket.scalar != nil {
		return socket.scalar.(string)
	}
	return filepath.Join(stateDir, "admin.sock")
}

// wherefrom is n's place for a message about a problem at other: its line, with its file if that is another.
func wherefrom(n, other *node) string {
	if n.source.Path != other.source.Path {
		return fmt.Sprintf("%s:%d", n.source.Path, n.line)
	}
	return fmt.Sprintf("line %d", n.line)
}
