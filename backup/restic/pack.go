package restic

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// A BlobType tells what a blob is: a part of a file, or a directory.
type BlobType uint8

const (
	DataBlob BlobType = iota
	TreeBlob
)

func (t BlobType) String() string {
	if t == TreeBlob {
		return "tree"
	}
	return "data"
}

// MarshalText implements encoding.TextMarshaler.
func (t BlobType) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (t *BlobType) UnmarshalText(text []byte) error {
	switch string(text) {
	case "data":
		*t = DataBlob
	case "tree":
		*t = TreeBlob
	default:
		return fmt.Errorf("unknown blob type %.20q", text)
	}
	return nil
}

// What is refused before anything is allocated for it.
const (
	maxBlob   = 256 << 20 // plain or sealed; a directory of a million files has a tree of about this size
	maxHeader = 16 << 20
	maxPack   = math.MaxUint32
)

// A packedBlob is the place of one blob in a pack. Its JSON is an index's entry.
type packedBlob struct {
	ID     ID       `json:"id"`
	Type   BlobType `json:"type"`
	Offset uint32   `json:"offset"`
	Length uint32   `json:"length"`                        // sealed
	Plain  uint32   `json:"uncompressed_length,omitempty"` // 0: not compressed
}

// plainLength returns how long the blob is.
func (b packedBlob) plainLength() uint32 {
	if b.Plain != 0 {
		return b.Plain
	}
	return b.Length - sealOverhead
}

// check tells what is impossible about b, in a pack of any size.
func (b packedBlob) check() error {
	switch {
	case b.Length < sealOverhead:
		return fmt.Errorf("blob %s of %d bytes is shorter than its seal", b.ID.Short(), b.Length)
	case b.Length > maxBlob || b.Plain > maxBlob:
		return fmt.Errorf("blob %s of %d bytes (%d plain) is over the limit of %d", b.ID.Short(), b.Length, b.Plain, maxBlob)
	case b.Offset > maxPack-b.Length:
		return fmt.Errorf("blob %s at offset %d is beyond the largest pack", b.ID.Short(), b.Offset)
	}
	return nil
}

// An entry of a pack's header is a byte for the type, the sealed length, the plain length
// if the blob is compressed, and the id. Bit 1 of the type says compressed, bit 0 says tree.
const (
	plainEntry      = 1 + 4 + len(ID{})
	compressedEntry = plainEntry + 4
	compressedBit   = 2
)

// appendHeader appends the plain header of a pack of blobs.
func appendHeader(dst []byte, blobs []packedBlob) []byte {
	for _, b := range blobs {
		kind := byte(b.Type)
		if b.Plain != 0 {
			kind |= compressedBit
		}
		dst = append(dst, kind)
		dst = binary.LittleEndian.AppendUint32(dst, b.Length)
		if b.Plain != 0 {
			dst = binary.LittleEndian.AppendUint32(dst, b.Plain)
		}
		dst = append(dst, b.ID[:]...)
	}
	return dst
}

// parseHeader reads a pack's plain header. The blobs fill the first size bytes of the pack exactly.
func parseHeader(header []byte, size int64) ([]packedBlob, error) {
	blobs := make([]packedBlob, 0, len(header)/compressedEntry+1)
	var offset int64
	for len(header) > 0 {
		kind := header[0]
		if kind > compressedBit|byte(TreeBlob) {
			return nil, fmt.Errorf("unknown kind of blob %d in pack header", kind)
		}
		length := plainEntry
		if kind&compressedBit != 0 {
			length = compressedEntry
		}
		if len(header) < length {
			return nil, errors.New("pack header is cut short")
		}
		b := packedBlob{Type: BlobType(kind &^ compressedBit), Offset: uint32(offset), Length: binary.LittleEndian.Uint32(header[1:])}
		if kind&compressedBit != 0 {
			if b.Plain = binary.LittleEndian.Uint32(header[5:]); b.Plain == 0 {
				return nil, errors.New("empty compressed blob in pack header")
			}
		}
		b.ID = ID(header[length-len(ID{}) : length])
		if err := b.check(); err != nil {
			return nil, err
		}
		if offset += int64(b.Length); offset > size {
			return nil, fmt.Errorf("pack header tells of %d bytes of blobs, there are %d", offset, size)
		}
		blobs = append(blobs, b)
		header = header[length:]
	}
	if offset != size {
		return nil, fmt.Errorf("pack header tells of %d bytes of blobs, there are %d", offset, size)
	}
	return blobs, nil
}

// A pack collects sealed blobs until it is big enough to be stored.
type pack struct {
	data  []byte
	blobs []packedBlob
}

// add appends a sealed blob.
func (p *pack) add(id ID, t BlobType, sealed []byte, plain int) {
	p.blobs = append(p.blobs, packedBlob{ID: id, Type: t, Offset: uint32(len(p.data)), Length: uint32(len(sealed)), Plain: uint32(plain)})
	p.data = append(p.data, sealed...)
}

// full tells whether a sealed blob of the given length should go to the next pack.
func (p *pack) full(length int) bool {
	header := (len(p.blobs)+1)*compressedEntry + sealOverhead + 4
	return len(p.data)+length+header > packSize
}

// finish appends the header and returns the pack's id.
func (p *pack) finish(k *sealKey) ID {
	start := len(p.data)
	p.data = k.seal(p.data, appendHeader(nil, p.blobs))
	p.data = binary.LittleEndian.AppendUint32(p.data, uint32(len(p.data)-start))
	return sha256.Sum256(p.data)
}

// packHeader reads what a pack holds from the pack itself.
func (r *Repository) packHeader(ctx context.Context, id ID, size int64) ([]packedBlob, error) {
	const guess = 16 << 10 // one request for most
	tail, err := r.store.Get(ctx, packName(id), max(0, size-guess), min(size, guess))
	if err != nil {
		return nil, err
	}
	length, err := headerLength(tail, size)
	if err != nil {
		return nil, fmt.Errorf("pack %s: %w", id.Short(), err)
	}
	if length+4 > len(tail) {
		if tail, err = r.store.Get(ctx, packName(id), size-int64(length)-4, int64(length)+4); err != nil {
			return nil, err
		}
	}
	blobs, err := openHeader(r.key, tail[len(tail)-4-length:len(tail)-4], size-4-int64(length))
	if err != nil {
		return nil, fmt.Errorf("pack %s: %w", id.Short(), err)
	}
	return blobs, nil
}

// headerLength reads the last four bytes of a pack of the given size: the length of its sealed header.
func headerLength(tail []byte, size int64) (int, error) {
	if len(tail) < 4 || size > maxPack {
		return 0, fmt.Errorf("a pack cannot have %d bytes", size)
	}
	length := int64(binary.LittleEndian.Uint32(tail[len(tail)-4:]))
	if length < sealOverhead || length > maxHeader || length > size-4 {
		return 0, fmt.Errorf("a header of %d bytes in a pack of %d", length, size)
	}
	return int(length), nil
}

func openHeader(k *sealKey, sealed []byte, size int64) ([]packedBlob, error) {
	header, err := k.open(sealed)
	if err != nil {
		return nil, fmt.Errorf("open header: %w", err)
	}
	return parseHeader(header, size)
}
