package cli

import (
	"fmt"
	"testing"

	"mainstay/backup"
	"mainstay/engine"
)

// Programs can tell a place that is taken from a failure.
func TestTakenPlacesAreRefusals(t *testing.T) {
	for _, err := range []error{engine.ErrHeld, backup.ErrOccupied} {
		if got := exitCode(fmt.Errorf("do it: %w", err)); got != ExitRefused {
			t.Errorf("exitCode(%v) = %d, want %d", err, got, ExitRefused)
		}
	}
}
