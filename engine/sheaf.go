package engine

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"mainstay/topology"
)

// A sheaf is the paths of files that are watched together.
type sheaf []string

// directories returns where the files are, both by the names they are given and, where those are
// symlinks, in truth.
func (s sheaf) directories() []string {
	var dirs []string
	for _, path := range s {
		dirs = append(dirs, filepath.Dir(path))
		if target, err := filepath.EvalSymlinks(path); err == nil {
			dirs = append(dirs, filepath.Dir(target))
		}
	}
	slices.Sort(dirs)
	return slices.Compact(dirs)
}

// stamp returns what a stat shows of the files.
func (s sheaf) stamp() string {
	var stamp strings.Builder
	for _, path := range s {
		info, err := os.Stat(path)
		if err != nil {
			fmt.Fprintln(&stamp, err)
			continue
		}
		fmt.Fprintln(&stamp, info.Size(), info.ModTime().UnixNano())
		if stat, ok := info.Sys().(*syscall.Stat_t); ok {
			fmt.Fprintln(&stamp, stat.Dev, stat.Ino)
		}
	}
	return stamp.String()
}

// content returns the digest of the files' contents, and whether all of them are there and none is empty. One that
// cannot be read does not hide the others.
func (s sheaf) content() (sum string, whole bool) {
	whole = true
	var all []topology.File
	for _, path := range s {
		read, err := topology.Read([]string{path})
		if err != nil {
			whole = false
			read = []topology.File{{Path: path, Content: []byte(err.Error())}}
		}
		whole = whole && len(bytes.TrimSpace(read[0].Content)) > 0
		all = append(all, read...)
	}
	return digest(all), whole
}

// digest returns a digest of what was read.
func digest(read []topology.File) string {
	hash := sha256.New()
	for _, f := range read {
		fmt.Fprintf(hash, "%d %s %d %s", len(f.Path), f.Path, len(f.Content), f.Content)
	}
	return string(hash.Sum(nil))
}
