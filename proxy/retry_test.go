package proxy

import (
	"fmt"
	"io"
	"net/http/httptest"
	"testing"
)

// An instance that was to be sent content which is no longer there did nothing wrong.
func TestSpentContentBlamesNobody(t *testing.T) {
	x := &exchange{r: httptest.NewRequest("PUT", "/", nil)}
	for err, want := range map[error]verdict{
		fmt.Errorf("send: %w", errBodySpent): verdictNone,
		io.ErrUnexpectedEOF:                  verdictFailed,
	} {
		if got := x.failure(t.Context(), &tracer{x: x}, err).verdict(); got != want {
			t.Errorf("%v: verdict %d, want %d", err, got, want)
		}
	}
}
