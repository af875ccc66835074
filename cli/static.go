package cli

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"

	"mainstay/admin"
	"mainstay/engine"
	"mainstay/topology"
)

// runStatic runs a topology that is made from a command's arguments until a signal ends it. up is called with
// its status once it runs. Its state lies in a temporary directory, and it has no admin socket.
func (c *cli) runStatic(logs logFlags, keys map[string]any, up func(admin.Status)) (err error) {
	log, err := logs.logger(c.Err)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "mainstay-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()

	keys["version"] = 1
	keys["state_dir"] = dir
	content, err := json.Marshal(keys) // which is YAML too
	if err != nil {
		return err
	}
	file := topology.File{Path: filepath.Join(dir, defaultFile), Content: content}
	if _, problems := topology.Parse([]topology.File{file}); problems.Failed() {
		// The file is not the user's: what is wrong with it is wrong with the arguments.
		for _, p := range problems {
			if p.Severity == "error" {
				err = errors.Join(err, errors.New(p.Message))
			}
		}
		return &failure{ExitUsage, err}
	}
	fleet := newFleet(log, logs, engine.Static(file), nil)
	return fleet.hold(nil, func(context.Context, *topology.Topology) error {
		up(fleet.window.Status())
		return nil
	})
}
