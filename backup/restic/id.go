package restic

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
)

// An ID is the SHA-256 of what it names: of a blob's plain content, or of a stored file.
type ID [sha256.Size]byte

// ParseID reads 64 hex digits.
func ParseID(s string) (ID, error) {
	var id ID
	if err := id.UnmarshalText([]byte(s)); err != nil {
		return ID{}, err
	}
	return id, nil
}

func (id ID) String() string { return hex.EncodeToString(id[:]) }

// Short returns the beginning that people are shown.
func (id ID) Short() string { return hex.EncodeToString(id[:4]) }

// MarshalText implements encoding.TextMarshaler.
func (id ID) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, id[:]), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (id *ID) UnmarshalText(text []byte) error {
	if len(text) != hex.EncodedLen(len(id)) {
		return fmt.Errorf("id %.80q has %d characters, not %d", text, len(text), hex.EncodedLen(len(id)))
	}
	if _, err := hex.Decode(id[:], text); err != nil {
		return fmt.Errorf("id %q: %w", text, err)
	}
	return nil
}
