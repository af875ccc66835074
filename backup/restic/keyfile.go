package restic

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"golang.org/x/crypto/scrypt"
)

// A keyFile holds the repository's master key, sealed with a key that scrypt derives from a password.
// A repository may have several: one for each password.
type keyFile struct {
	Created  time.Time `json:"created"`
	Username string    `json:"username"`
	Hostname string    `json:"hostname"`
	KDF      string    `json:"kdf"`
	N        int       `json:"N"`
	R        int       `json:"r"`
	P        int       `json:"p"`
	Salt     []byte    `json:"salt"`
	Data     []byte    `json:"data"`
}

// A masterKey is the plain content of a keyFile's data.
type masterKey struct {
	MAC struct {
		K []byte `json:"k"`
		R []byte `json:"r"`
	} `json:"mac"`
	Encrypt []byte `json:"encrypt"`
}

const (
	scryptN, scryptR, scryptP = 1 << 15, 8, 1
	// What a key file may ask of scrypt, which needs 128·N·r bytes and N·r·p steps.
	maxScryptMemory = 1 << 30
	maxScryptSteps  = 1 << 28
)

var errPassword = errors.New("wrong password")

func (m *masterKey) sealKey() (*sealKey, error) { return newSealKey(m.Encrypt, m.MAC.K, m.MAC.R) }

func newMasterKey() *masterKey {
	var m masterKey
	m.Encrypt, m.MAC.K, m.MAC.R = make([]byte, 32), make([]byte, 16), make([]byte, 16)
	rand.Read(m.Encrypt)
	rand.Read(m.MAC.K)
	rand.Read(m.MAC.R)
	return &m
}

// derive returns the key that seals f's data.
func (f *keyFile) derive(password string) (*sealKey, error) {
	switch {
	case f.KDF != "scrypt":
		return nil, fmt.Errorf("unknown key derivation %q", f.KDF)
	case f.N < 2 || f.R < 1 || f.P < 1 || f.N > maxScryptMemory/128 || f.R > maxScryptMemory/128/f.N || f.P > maxScryptSteps/(f.N*f.R):
		return nil, fmt.Errorf("unreasonable scrypt parameters N=%d r=%d p=%d", f.N, f.R, f.P)
	}
	derived, err := scrypt.Key([]byte(password), f.Salt, f.N, f.R, f.P, 64)
	if err != nil {
		return nil, err
	}
	return newSealKey(derived[:32], derived[32:48], derived[48:])
}

// sealKeyFile returns the key file that gives m to whoever has the password.
func sealKeyFile(m *masterKey, password string, who identity) ([]byte, error) {
	f := keyFile{Created: time.Now(), Username: who.username, Hostname: who.hostname, KDF: "scrypt", N: scryptN, R: scryptR, P: scryptP, Salt: make([]byte, 64)}
	rand.Read(f.Salt)
	k, err := f.derive(password)
	if err != nil {
		return nil, err
	}
	plain, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	f.Data = k.seal(nil, plain)
	return json.Marshal(f)
}

// openKeyFile returns the master key in the key file. The error is errPassword if the password is for another.
func openKeyFile(data []byte, password string) (*sealKey, error) {
	var f keyFile
	if err := json.Unmarshal(data, &f); err != nil {
		return nil, err
	}
	k, err := f.derive(password)
	if err != nil {
		return nil, err
	}
	plain, err := k.open(f.Data)
	if err != nil {
		return nil, errPassword
	}
	var m masterKey
	if err := json.Unmarshal(plain, &m); err != nil {
		return nil, err
	}
	return m.sealKey()
}
