package restic

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"fmt"

	//lint:ignore SA1019 the format asks for this very construction (doc/design.rst, "Keys, Encryption and MAC")
	"golang.org/x/crypto/poly1305"
)

const (
	ivSize = aes.BlockSize
	// sealOverhead is what sealing adds: the nonce before, the authentication tag after.
	sealOverhead = ivSize + poly1305.TagSize
)

var errSeal = errors.New("seal is broken: the data is damaged or belongs to another key")

// A sealKey encrypts with AES-256 in counter mode and authenticates with Poly1305-AES, both with one random
// nonce (D. J. Bernstein, "The Poly1305-AES message-authentication code", 2005).
// It is safe for concurrent use.
type sealKey struct {
	encrypt cipher.Block
	nonce   cipher.Block // makes Poly1305's second half from the nonce
	r       [16]byte     // Poly1305's first half
}

func newSealKey(encrypt, k, r []byte) (*sealKey, error) {
	if len(encrypt) != 32 || len(k) != 16 || len(r) != 16 {
		return nil, fmt.Errorf("key parts of %d, %d and %d bytes, not 32, 16 and 16", len(encrypt), len(k), len(r))
	}
	e, err := aes.NewCipher(encrypt)
	if err != nil {
		return nil, err
	}
	n, err := aes.NewCipher(k)
	if err != nil {
		return nil, err
	}
	return &sealKey{encrypt: e, nonce: n, r: [16]byte(r)}, nil
}

func (k *sealKey) oneTimeKey(iv []byte) *[32]byte {
	var key [32]byte
	copy(key[:16], k.r[:])
	k.nonce.Encrypt(key[16:], iv)
	return &key
}

// seal appends the sealed plain to dst. They must not overlap.
func (k *sealKey) seal(dst, plain []byte) []byte {
	start := len(dst)
	dst = append(dst, make([]byte, ivSize)...)
	dst = append(dst, plain...)
	return k.sealFrom(dst, start)
}

// sealFrom seals what follows the ivSize bytes at start, in place.
func (k *sealKey) sealFrom(dst []byte, start int) []byte {
	iv, text := dst[start:start+ivSize], dst[start+ivSize:]
	rand.Read(iv) // never fails
	cipher.NewCTR(k.encrypt, iv).XORKeyStream(text, text)
	var tag [poly1305.TagSize]byte
	poly1305.Sum(&tag, text, k.oneTimeKey(iv))
	return append(dst, tag[:]...)
}

// open returns what was sealed. It overwrites sealed, of which the result is a part.
func (k *sealKey) open(sealed []byte) ([]byte, error) {
	if len(sealed) < sealOverhead {
		return nil, fmt.Errorf("sealed data of %d bytes is cut short", len(sealed))
	}
	iv, text := sealed[:ivSize], sealed[ivSize:len(sealed)-poly1305.TagSize]
	tag := [poly1305.TagSize]byte(sealed[len(sealed)-poly1305.TagSize:])
	if !poly1305.Verify(&tag, text, k.oneTimeKey(iv)) {
		return nil, errSeal
	}
	cipher.NewCTR(k.encrypt, iv).XORKeyStream(text, text)
	return text, nil
}
