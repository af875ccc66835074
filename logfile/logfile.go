// Package logfile is a file for lines that stays within a bound. It knows nothing of what is written.
package logfile

// A File is appended to and rotated by rename: path, then path.1, path.2 and so on. It is safe for concurrent use.
type File struct{}

// Open opens path for appending, creating it and its directory. A Write that would take the file past
// limit bytes goes to a new one; keep old ones are kept beside it.
func Open(path string, limit int64, keep int) (*File, error) { return nil, nil }

// Write appends p whole to one file. On an error (a full disk) p is lost and the next Write tries again.
func (f *File) Write(p []byte) (int, error) { return 0, nil }

// Close closes the file.
func (f *File) Close() error { return nil }
