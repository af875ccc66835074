package supervisor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// executable finds what c runs as a shell would: a name without a slash in the PATH that the process is given,
// a relative path in its directory. The name mainstay is the running binary.
func executable(c command) (string, error) {
	if len(c.argv) == 0 || c.argv[0] == "" {
		return "", errors.New("exec: the command is empty")
	}
	name := c.argv[0]
	if strings.Contains(name, "/") {
		return inDirectory(c.directory, name), nil
	}
	if name == "mainstay" {
		return os.Executable()
	}
	for _, kv := range c.env {
		list, ok := strings.CutPrefix(kv, "PATH=")
		if !ok {
			continue
		}
		for _, dir := range filepath.SplitList(list) {
			path := inDirectory(c.directory, filepath.Join(dir, name))
			if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
				return path, nil
			}
		}
	}
	return "", fmt.Errorf("exec %s: not found in PATH", name)
}

func inDirectory(directory, path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(directory, path)
}

// explainMissing says of a program at path that could not be started for want of a file that it is not the program that is missing,
// if that is so (execve(2), ENOENT).
func explainMissing(err error, path string) error {
	if _, there := os.Stat(path); !errors.Is(err, fs.ErrNotExist) || there != nil {
		return err
	}
	return fmt.Errorf("%w: it is there, but what it needs to run is not (a script's #! line or a binary's loader names it)", err)
}
