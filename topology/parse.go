package topology

// A File is one file of a topology. Relative paths in it are relative to its directory.
type File struct {
	Path    string // as problems name it
	Content []byte
}

// Read reads the files at paths.
func Read(paths []string) ([]File, error) { return nil, nil }

// Parse resolves files, later ones over earlier ones: maps merge, lists replace, null deletes.
// It reads what the files refer to (secret files, certificates, executables' presence) and nothing else.
// The Topology is nil if one of the problems is an error; warnings come beside a Topology.
func Parse(files []File) (*Topology, Problems) { return nil, nil }

// Locate returns the state directory and the admin socket that files ask for, as far as they can be
// read: it is for finding a running supervisor, and the last good generation, when the files have problems.
func Locate(files []File) (stateDir, socket string) { return "", "" }

// Schema returns the JSON Schema (draft-07) of the file, made from the table of keys.
func Schema() []byte { return nil }

// Problems are what is wrong with a file, in the order of their lines. As an error it prints one problem a line.
type Problems []Problem

// Error implements error.
func (p Problems) Error() string { return "" }

// Failed reports whether one of the problems is an error rather than a warning.
func (p Problems) Failed() bool { return false }

// A Problem is one thing that is wrong in one place.
type Problem struct {
	File       string `json:"file"`
	Line       int    `json:"line"`     // from 1; 0 when the problem is the file itself
	Column     int    `json:"column"`   // from 1, in characters
	Path       string `json:"path"`     // services.web.replicas
	Severity   string `json:"severity"` // error or warning
	Message    string `json:"message"`
	Suggestion string `json:"suggestion,omitempty"`
}

// String is the form that editors jump to: topology.yaml:14:5: error: message; did you mean "replicas"?
func (p Problem) String() string { return "" }
