package restic

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// A plan is all that a restore will make, and where it finds it.
type plan struct {
	repo  *Repository
	index *index
	trees *treeReader

	entries  []restoredEntry // all but files with content; directories before what is in them
	packs    [][]use         // by pack, in the order in which files need them
	numbers  map[ID]int      // of packs
	onto     uint64          // the device that what is planned now is restored to
	links    map[inode]firstName
	zero     ID // of a chunk of zeros
	restored Restored
}

// A use is a place that needs a blob.
type use struct {
	place
	file *restoredFile
	at   int64 // in the file
}

// An inode tells what has several names from the rest. Names can be shared only within the file system that they are restored to.
type inode struct{ onto, device, number uint64 }

// A firstName is what the other names of an inode are linked to.
type firstName struct {
	path string
	node *Node
}

// A restoredEntry is anything but a file with content.
type restoredEntry struct {
	path string
	node *Node
	same string // what this is another name of; may be empty
	hole int64  // length of a file of zeros
}

// A restoredFile is a file with content. Its parts are written in any order.
type restoredFile struct {
	path    string
	node    *Node
	size    int64        // of all parts
	pending atomic.Int64 // parts

	mu      sync.Mutex
	created bool
}

func newPlan(r *Repository, x *index) *plan {
	return &plan{
		repo: r, index: x, trees: &treeReader{repo: r, index: x},
		numbers: map[ID]int{}, links: map[inode]firstName{}, zero: sha256.Sum256(make([]byte, minChunk)),
	}
}

// add plans what p asks for of the snapshot with the given tree, and returns how many bytes it needs on the disk.
func (p *plan) add(ctx context.Context, tree ID, where Placement) (need uint64, err error) {
	filter := newFilter(where.Include)
	var st unix.Stat_t
	if err := unix.Stat(filepath.Dir(where.To), &st); err != nil {
		return 0, fmt.Errorf("look at %s: %w", filepath.Dir(where.To), err)
	}
	p.onto = st.Dev
	var found *Node
	if path.Clean(where.From) == "/" {
		now := time.Now()
		found = &Node{Type: Dir, Mode: os.ModeDir | 0o700, UID: p.repo.who.uid, GID: p.repo.who.gid, ModTime: now, AccessTime: now, Subtree: &tree}
	} else if found, err = p.find(ctx, tree, where.From); err != nil {
		return 0, err
	}
	if err := p.node(ctx, path.Clean(where.From), where.To, found, filter, &need); err != nil {
		return 0, err
	}
	if missing := filter.unseen(); missing != "" {
		return 0, fmt.Errorf("%s is not in the snapshot", missing)
	}
	return need, nil
}

// find returns what is at name in a tree.
func (p *plan) find(ctx context.Context, tree ID, name string) (*Node, error) {
	var found *Node
	at := &tree
	for element := range strings.SplitSeq(strings.Trim(path.Clean(name), "/"), "/") {
		if at == nil {
			return nil, fmt.Errorf("%s is not in the snapshot", name)
		}
		nodes, err := p.trees.read(ctx, *at)
		if err != nil {
			return nil, err
		}
		found, at = nil, nil
		for _, n := range nodes {
			if n.Name == element {
				found, at = n, n.Subtree
			}
		}
		if found == nil {
			return nil, fmt.Errorf("%s is not in the snapshot", name)
		}
	}
	return found, nil
}

// maxDepth is deeper than any path that a system call takes.
const maxDepth = unix.PathMax

// node plans n, which is at from in the snapshot, to become to, and what is below it.
func (p *plan) node(ctx context.Context, from, to string, n *Node, filter *filter, need *uint64) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	switch n.Type {
	case Dir:
		if len(to) > maxDepth {
			return fmt.Errorf("path of %d bytes is too long: %.100s…", len(to), to)
		}
		nodes, err := p.trees.read(ctx, *n.Subtree)
		if err != nil {
			return err
		}
		p.entries = append(p.entries, restoredEntry{path: to, node: n})
		for _, below := range nodes {
			name := path.Join(from, below.Name)
			if !filter.wants(name) {
				continue
			}
			if err := p.node(ctx, name, filepath.Join(to, below.Name), below, filter, need); err != nil {
				return err
			}
		}
	case File:
		return p.file(to, n, need)
	case Symlink, Device, CharDevice, Fifo:
		p.entries = append(p.entries, restoredEntry{path: to, node: n, same: p.firstName(to, n)})
	case Socket: // means nothing without its process
	default:
		p.repo.log.Warn("left out, as it is of an unknown type", "path", to, "type", string(n.Type))
	}
	return nil
}

// firstName returns the path of which to is another name. The first of them has none, and is noted.
func (p *plan) firstName(to string, n *Node) string {
	several := n.Links > 1 || n.Type == Fifo && n.DeviceID != 0 // restic counts no names of a fifo
	if !several || n.Inode == 0 {
		return ""
	}
	id := inode{p.onto, n.DeviceID, n.Inode}
	first, ok := p.links[id]
	if !ok {
		p.links[id] = firstName{to, n}
		return ""
	}
	// A number that was given to another file while the snapshot was taken says nothing.
	if first.node.Type != n.Type || first.node.LinkTarget != n.LinkTarget || first.node.Device != n.Device || !slices.Equal(first.node.Content, n.Content) {
		return ""
	}
	return first.path
}

// file plans a file: which of its parts come from where.
func (p *plan) file(to string, n *Node, need *uint64) error {
	p.restored.Files++
	if first := p.firstName(to, n); first != "" {
		p.entries = append(p.entries, restoredEntry{path: to, node: n, same: first})
		return nil
	}
	f := &restoredFile{path: to, node: n}
	for _, blob := range n.Content {
		found, ok := p.index.find(DataBlob, blob)
		if !ok {
			return fmt.Errorf("%s: its part %s is not in the index", to, blob.Short())
		}
		if blob != p.zero {
			p.use(use{place: found, file: f, at: f.size})
			f.pending.Add(1)
			*need += uint64(found.plainLength())
		}
		f.size += int64(found.plainLength())
	}
	p.restored.Bytes += uint64(f.size)
	if f.pending.Load() == 0 {
		p.entries = append(p.entries, restoredEntry{path: to, node: n, hole: f.size})
	}
	return nil
}

func (p *plan) use(u use) {
	number, ok := p.numbers[u.pack]
	if !ok {
		number = len(p.packs)
		p.numbers[u.pack] = number
		p.packs = append(p.packs, nil)
	}
	p.packs[number] = append(p.packs[number], u)
}

// open opens the file for writing; the first time it makes it, in its full length, so that what is not written is a hole.
func (f *restoredFile) open() (*os.File, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	flags := os.O_WRONLY | unix.O_NOFOLLOW
	if !f.created {
		flags |= os.O_CREATE | os.O_EXCL
	}
	file, err := os.OpenFile(f.path, flags, 0o600)
	if err == nil && !f.created {
		f.created = true
		if len(f.node.Content) > 1 {
			err = file.Truncate(f.size)
		}
	}
	return file, err
}

// A filter chooses paths of a snapshot.
type filter struct {
	paths []string
	seen  []bool
}

func newFilter(include []string) *filter {
	f := &filter{seen: make([]bool, len(include))}
	for i, p := range include {
		f.paths = append(f.paths, path.Clean("/"+p))
		f.seen[i] = f.paths[i] == "/"
	}
	return f
}

// wants tells whether something at name is chosen, or below something chosen, or on the way to it.
func (f *filter) wants(name string) bool {
	wanted := len(f.paths) == 0
	for i, p := range f.paths {
		switch {
		case name == p:
			f.seen[i], wanted = true, true
		case isBelow(name, p), isBelow(p, name):
			wanted = true
		}
	}
	return wanted
}

// unseen returns a chosen path that wants was never asked about, or nothing.
func (f *filter) unseen() string {
	for i, p := range f.paths {
		if !f.seen[i] {
			return p
		}
	}
	return ""
}

// isBelow tells whether name is somewhere in the directory dir.
func isBelow(name, dir string) bool {
	return dir == "/" || strings.HasPrefix(name, dir+"/")
}
