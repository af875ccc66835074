package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"mainstay/topology"
)

// A program that has no end of things to say is no Mainstay, and costs no more memory than one.
func TestSuccessorThatSaysTooMuch(t *testing.T) {
	for _, where := range []string{"", ">&2"} {
		path := filepath.Join(t.TempDir(), "program")
		if err := os.WriteFile(path, []byte("#!/bin/sh\nexec yes "+where), 0o755); err != nil {
			t.Fatal(err)
		}
		_, err := checkSuccessor(t.Context(), path, &topology.Topology{})
		if err == nil || !strings.Contains(err.Error(), "is it a Mainstay?") || len(err.Error()) > 100<<10 {
			t.Errorf("yes %s: %v", where, err)
		}
	}
}
