package backup

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"mainstay/backup/store"
	"mainstay/schedule"
	"mainstay/topology"
)

// check tells what is wrong with a backup, as far as that can be known without its repository.
func check(spec topology.Backup) error {
	if len(spec.Paths) == 0 {
		return errors.New("no paths")
	}
	if err := checkRepository(spec); err != nil {
		return err
	}
	inside, isDir := strings.CutPrefix(spec.Repository, "file://")
	for _, path := range spec.Paths {
		if !filepath.IsAbs(path) {
			return fmt.Errorf("path %q is not absolute", path)
		}
		if isDir && within(inside, path) {
			return fmt.Errorf("repository %s is inside of %s, of which it is to hold copies", inside, path)
		}
	}
	_, err := newTicker(spec.Schedule, schedule.Moment{})
	return err
}

// checkRepository tells what is wrong with where the snapshots are.
func checkRepository(spec topology.Backup) error {
	if spec.PasswordFile == "" {
		return errors.New("no password file")
	}
	return store.Check(spec.Repository)
}

// within tells whether path is dir, or below it.
func within(path, dir string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && filepath.IsLocal(rel)
}
