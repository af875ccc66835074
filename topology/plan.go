package topology

// A Class says what a change does to what runs.
type Class string

const (
	ClassHot    Class = "hot"    // applied at once, nothing restarts
	ClassScale  Class = "scale"  // starts or drains exactly the difference
	ClassRoll   Class = "roll"   // new instances, one after the other, old ones drained
	ClassRebind Class = "rebind" // the new address is bound before the old one is let go
	ClassManual Class = "manual" // refused: needs a restart of Mainstay
)

// A Change is one difference between two topologies, for people and programs to read; no code branches on
// it except that a ClassManual change refuses a reload.
type Change struct {
	Path    string `json:"path"`          // services.web.command
	Action  string `json:"action"`        // add, change, remove
	Old     string `json:"old,omitempty"` // *** where secret
	New     string `json:"new,omitempty"`
	Class   Class  `json:"class"`
	Reason  string `json:"reason"`            // why it has this class: "the command is part of the process"
	Service string `json:"service,omitempty"` // whose instances it touches
}

// Plan returns what is different in next, ordered by path. It has no effect.
func Plan(have, next *Topology) []Change { return nil }
