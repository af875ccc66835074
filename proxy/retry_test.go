package proxy

import (
	"io"
	"net/http/httptest"
	"testing"
)

// An instance that was to be sent content which is no longer there did nothing wrong.
func TestSpentContentBlamesNobody(t *testing.T) {
	for spent, want := range map[bool]verdict{true: verdictNone, false: verdictFailed} {
		x := &exchange{r: httptest.NewRequest("PUT", "/", nil), sender: new(sender)}
		x.sender.spent.Store(spent)
		if got := x.failure(io.ErrUnexpectedEOF).verdict(); got != want {
			t.Errorf("spent %t: verdict %d, want %d", spent, got, want)
		}
	}
}
