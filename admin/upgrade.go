package admin

import (
	"context"
	"net/http"
	"time"
)

// An UpgradeRequest asks for another program to go on in the running one's place.
type UpgradeRequest struct {
	Binary string `json:"binary,omitempty"` // absolute path; empty: the file that the running one was started from, as it is now
	// DrainSeconds is how long requests, messages and backups that are under way may take.
	DrainSeconds float64 `json:"drain_seconds,omitempty"`
}

// How far an Upgrade has come.
const (
	UpgradeRunning = "running"
	UpgradeDone    = "done"   // the new program runs
	UpgradeFailed  = "failed" // the former one runs; Error says why
)

// An Upgrade is how one program took another's place.
type Upgrade struct {
	ID          string    `json:"id"`
	State       string    `json:"state"`
	From        Build     `json:"from"`
	To          Build     `json:"to"`
	Binary      string    `json:"binary"`
	Time        time.Time `json:"time"` // when it began
	TookSeconds float64   `json:"took_seconds,omitempty"`
	Generation  int       `json:"generation,omitempty"` // that runs after it
	Kept        int       `json:"kept"`                 // processes that run on
	Lost        int       `json:"lost,omitempty"`       // processes that do not
	Error       string    `json:"error,omitempty"`
}

// An Upgrader makes another program go on in the running one's place.
type Upgrader interface {
	// Begin checks that it can be and lets it begin; what follows is seen in the Status of whichever program runs.
	Begin(ctx context.Context, q UpgradeRequest) (Upgrade, error)
	// Last returns the newest upgrade that this program knows of, or nil.
	Last() *Upgrade
}

// upgrade answers when the upgrade has begun: the answer cannot outlive the program.
func (a *api) upgrade(w http.ResponseWriter, r *http.Request) (any, error) {
	var q UpgradeRequest
	if err := decode(w, r, &q); err != nil {
		return nil, err
	}
	if q.DrainSeconds < 0 {
		return nil, newError(CodeUsage, "drain_seconds: want 0 or more")
	}
	if q.Binary != "" && !isOwner(r.Context()) {
		return nil, newError(CodeRefused, "upgrade to %s: only root and the user that Mainstay runs as may name a binary; without one it is the file that Mainstay was started from", q.Binary)
	}
	if a.admin.rooms.Upgrader == nil {
		return nil, newError(CodeRefused, "this Mainstay cannot be upgraded")
	}
	begun, err := a.admin.rooms.Upgrader.Begin(r.Context(), q)
	if err != nil {
		return nil, asError(err, CodeRefused)
	}
	return begun, nil
}
