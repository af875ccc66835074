package engine

import (
	"time"

	"mainstay/topology"
)

// What an Outcome's Origin says of who asked for a reload. Callers of Reload may name others.
const (
	OriginStart    = "start"
	OriginWatch    = "watch"
	OriginSIGHUP   = "SIGHUP"
	OriginAPI      = "api"
	OriginRollback = "rollback"
)

// What an Outcome's Result says of how a reload ended.
const (
	ResultApplied   = "applied"   // what the source says runs now
	ResultUnchanged = "unchanged" // it ran already
	ResultInvalid   = "invalid"   // the source has problems or could not be read; nothing was changed
	ResultRefused   = "refused"   // a stage could not do it, or it needs a restart; nothing was changed
)

// An Outcome is how one reload ended.
type Outcome struct {
	Time        time.Time         `json:"time"`
	Origin      string            `json:"origin"`     // start, watch, SIGHUP, api, rollback
	Result      string            `json:"result"`     // applied, unchanged, invalid, refused
	Generation  int               `json:"generation"` // that runs after it
	Changes     []topology.Change `json:"changes,omitempty"`
	Problems    topology.Problems `json:"problems,omitempty"` // warnings too
	Error       string            `json:"error,omitempty"`    // what Problems do not say
	TookSeconds float64           `json:"took_seconds"`
}

// good reports whether what the source says is what runs.
func (o Outcome) good() bool {
	return o.Result == ResultApplied || o.Result == ResultUnchanged
}

// A Status is what the engine knows.
type Status struct {
	Name       string            `json:"name"`
	Generation int               `json:"generation"`
	Since      time.Time         `json:"since"` // of the generation: when it was accepted, maybe by an earlier process
	Files      []string          `json:"files"`
	Fallback   string            `json:"fallback,omitempty"` // why an older generation runs instead of the file
	Pin        *Pin              `json:"pinned,omitempty"`   // nil: the file is followed
	LastReload Outcome           `json:"last_reload"`
	LastGood   time.Time         `json:"last_good,omitzero"`  // when a load of the file last ended well
	Overrides  map[string]string `json:"overrides,omitempty"` // service: "replicas 5 (file: 3)"
}

// Topology returns what runs, overrides included; [topology.Empty] before the first and after the last.
func (e *Engine) Topology() *topology.Topology { return e.view.Load().topology }

// Status tells what runs since when, and how the last reload ended. It does not block, and a reload under
// way is not seen in it before it has ended. What it returns must not be modified.
func (e *Engine) Status() Status { return e.view.Load().status }
