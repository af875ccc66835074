// Package restic reads and writes repositories of the restic backup program
// (https://restic.readthedocs.io/en/stable/100_references.html, "Design"), format
// version 2, and 1 as well, such that restic and this package can take turns on
// one repository: same cuts, same trees, same locks.
//
// A file is cut into chunks, a directory is a JSON document; both are blobs, named by the hash of
// their content, and stored once: compressed, sealed, many in a pack. An index says which pack
// has which blob. A snapshot names the tree at its root. So everything is written in the order
// packs, index, snapshot, and removed in the opposite one, and what is interrupted in between
// leaves a sound repository with some objects that nobody needs.
//
//	Backup    walk ▸ read ▸ cut ▸ hash ▸ known? skip : compress ▸ seal ▸ pack ▸ store
//	Restore   read tree ▸ make directories ▸ by pack: fetch ▸ open ▸ verify hash ▸ write
//	Forget    remove snapshots;  Prune  mark what the others need ▸ repack ▸ new index ▸ delete
//
// A Repository has no goroutines between calls; each call waits for those it starts. Whatever is read from
// the store is taken for hostile until its seal was found whole, and bounded before it is allocated.
package restic

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/user"
	"path"
	"runtime"
	"time"

	"github.com/klauspost/compress/zstd"

	"mainstay/backup/store"
)

var (
	// ErrNoRepository is in the error of Open when there is none.
	ErrNoRepository = errors.New("no repository there")
	// ErrWrongPassword is in the error of Open when no key of the repository has this password.
	ErrWrongPassword = errors.New("wrong password, or no key of this repository is for it")
	// ErrDamaged is in the error of a call that has read something other than was once stored.
	ErrDamaged = errors.New("damaged")
)

// Limits of what is read whole.
const (
	maxConfig   = 64 << 10
	maxKeyFile  = 64 << 10
	maxKeys     = 64
	maxLock     = 64 << 10
	maxSnapshot = 64 << 20
	maxIndex    = 128 << 20
	maxUnpacked = 512 << 20 // any of them, decompressed
)

// A Repository is a place for snapshots in a store. It is safe for concurrent use.
type Repository struct {
	store  store.Store
	log    *slog.Logger
	key    *sealKey
	config config
	// sealedConfig is config as it is stored.
	sealedConfig []byte

	who    identity
	settle time.Duration // see lockSettle
	zip    *zstd.Encoder
	unzip  *zstd.Decoder
}

// A config is the repository's sealed object of that name.
type config struct {
	Version    int        `json:"version"`
	ID         string     `json:"id"`
	Polynomial polynomial `json:"chunker_polynomial"`
}

// An identity is who writes: it stands in keys, locks and snapshots.
type identity struct {
	hostname, username string
	uid, gid           uint32
}

func whoAmI() identity {
	who := identity{uid: uint32(os.Getuid()), gid: uint32(os.Getgid())}
	who.hostname, _ = os.Hostname()
	if u, err := user.Current(); err == nil {
		who.username = u.Username
	}
	return who
}

// Exists tells whether there is a repository in s.
func Exists(ctx context.Context, s store.Store) (bool, error) {
	for _, err := range s.List(ctx, "keys") { // a missing bucket is told by a listing only
		if err != nil {
			return false, fmt.Errorf("look for repository %s: %w", s, err)
		}
		break
	}
	_, err := s.Stat(ctx, "config")
	if errors.Is(err, store.ErrNotExist) {
		return false, orphaned(ctx, s)
	}
	if err != nil {
		return false, fmt.Errorf("look for repository %s: %w", s, err)
	}
	return true, nil
}

// orphaned returns an error if s, which has no config, has what only a repository has. A key alone may be what is left of an interrupted Create.
func orphaned(ctx context.Context, s store.Store) error {
	for _, dir := range []string{"snapshots", "index", "data"} {
		for o, err := range s.List(ctx, dir) {
			if err != nil {
				return fmt.Errorf("look for repository %s: %w", s, err)
			}
			return fmt.Errorf("repository %s has lost its config, though it has %s: %w; bring the object config back from a copy or a mirror of it, or name an empty place", s, o.Name, ErrDamaged)
		}
	}
	return nil
}

// Create makes a repository in s and opens it. The error is store.ErrExist if there is one, made by another meanwhile. The store remains the caller's to close.
func Create(ctx context.Context, log *slog.Logger, s store.Store, password string) (*Repository, error) {
	if password == "" {
		return nil, errors.New("create repository: the password is empty")
	}
	r := newRepository(log, s)
	r.config = config{Version: 2, Polynomial: randomPolynomial()}
	var id ID
	rand.Read(id[:])
	r.config.ID = id.String()

	// An attempt that was interrupted may have left its key; it must be the only one with this password.
	created := ""
	keys, err := r.openKeys(ctx, password)
	switch {
	case err == nil:
		r.key = keys[0]
	case errors.Is(err, ErrNoRepository):
		created, err = r.createKey(ctx, password)
	}
	if err == nil {
		err = r.createConfig(ctx)
	}
	if err != nil {
		if created != "" && errors.Is(err, store.ErrExist) {
			err = errors.Join(err, s.Delete(ctx, created)) // it opens nothing
		}
		return nil, fmt.Errorf("create repository %s: %w", s, err)
	}
	log.Info("repository created", "repository", s.String(), "id", r.config.ID[:10])
	return r, nil
}

// createKey makes a master key and returns the name of its key file.
func (r *Repository) createKey(ctx context.Context, password string) (string, error) {
	master := newMasterKey()
	key, err := master.sealKey()
	if err != nil {
		return "", err
	}
	data, err := sealKeyFile(master, password, r.who)
	if err != nil {
		return "", err
	}
	id := ID(sha256.Sum256(data))
	r.key = key
	return "keys/" + id.String(), r.putNamed(ctx, "keys/"+id.String(), data, id)
}

func (r *Repository) createConfig(ctx context.Context) error {
	plain, err := json.Marshal(r.config)
	if err != nil {
		return err
	}
	r.sealedConfig = r.key.seal(nil, plain)
	return r.store.Put(ctx, "config", r.sealedConfig, sha256.Sum256(r.sealedConfig))
}

// Open opens the repository in s. The error is ErrNoRepository or ErrWrongPassword where that is what is wrong.
// The store remains the caller's to close.
func Open(ctx context.Context, log *slog.Logger, s store.Store, password string) (*Repository, error) {
	r := newRepository(log, s)
	if err := r.open(ctx, password); err != nil {
		return nil, fmt.Errorf("open repository %s: %w", s, err)
	}
	return r, nil
}

func newRepository(log *slog.Logger, s store.Store) *Repository {
	r := &Repository{store: s, log: log, who: whoAmI(), settle: lockSettle}
	// The constructors' only errors are wrong options.
	r.zip, _ = zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(runtime.GOMAXPROCS(0)),
		zstd.WithEncoderCRC(false), zstd.WithWindowSize(512<<10))
	r.unzip, _ = zstd.NewReader(nil, zstd.WithDecoderConcurrency(runtime.GOMAXPROCS(0)), zstd.WithDecoderMaxMemory(maxUnpacked))
	return r
}

func (r *Repository) open(ctx context.Context, password string) error {
	keys, keyErr := r.openKeys(ctx, password)
	if keyErr != nil && !errors.Is(keyErr, ErrWrongPassword) && !errors.Is(keyErr, ErrNoRepository) {
		return keyErr
	}
	_, err := r.store.Stat(ctx, "config")
	switch {
	case errors.Is(err, store.ErrNotExist):
		return cmp.Or(orphaned(ctx, r.store), ErrNoRepository)
	case err != nil:
		return err
	case errors.Is(keyErr, ErrNoRepository):
		return fmt.Errorf("%w: it has lost its keys; bring the objects in keys back from a copy or a mirror of it", ErrDamaged)
	case keyErr != nil:
		return keyErr
	}
	err = r.readConfig(ctx, r.store, keys)
	if err != nil {
		err = r.rescue(ctx, "config", err, func(s store.Store) error { return r.readConfig(ctx, s, keys) })
	}
	if err != nil {
		return fmt.Errorf("read config: %w", err)
	}
	return nil
}

// readConfig reads the config in s, which one of the keys opens.
func (r *Repository) readConfig(ctx context.Context, s store.Store, keys []*sealKey) error {
	size, err := s.Stat(ctx, "config")
	if err != nil {
		return err
	}
	if size > maxConfig {
		return fmt.Errorf("%w: it has %d bytes", ErrDamaged, size)
	}
	sealed, err := s.Get(ctx, "config", 0, size)
	if err != nil {
		return err
	}
	for _, key := range keys {
		c, openErr := openConfig(key, sealed)
		if openErr == nil {
			r.key, r.config, r.sealedConfig = key, *c, sealed
			return r.config.check()
		}
		err = openErr
	}
	return err
}

func openConfig(key *sealKey, sealed []byte) (*config, error) {
	plain, err := key.open(bytes.Clone(sealed))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	var c config
	return &c, json.Unmarshal(plain, &c)
}

// Config returns the object config as it is to be in every mirror of the repository.
func (r *Repository) Config() []byte { return r.sealedConfig }

// Owns tells whether sealed is the config of a repository with the same id: one that this one's key opens.
func (r *Repository) Owns(sealed []byte) bool {
	c, err := openConfig(r.key, sealed)
	return err == nil && c.ID == r.config.ID
}

func (c *config) check() error {
	switch {
	case c.Version != 1 && c.Version != 2:
		return fmt.Errorf("format version %d is not known here", c.Version)
	case c.Polynomial == 0:
		return errors.New("config without chunker_polynomial")
	case len(c.ID) != 64:
		return fmt.Errorf("repository id %.80q is not one", c.ID)
	}
	return nil
}

// openKeys returns the master keys to which the password opens the way: one, unless the creation of the repository was interrupted.
func (r *Repository) openKeys(ctx context.Context, password string) ([]*sealKey, error) {
	var keys []*sealKey
	var damaged error
	tried := 0
	for object, err := range r.store.List(ctx, "keys") {
		if err != nil {
			return nil, err
		}
		if _, err := ParseID(path.Base(object.Name)); err != nil {
			continue
		}
		if tried++; tried > maxKeys {
			break
		}
		data, err := r.get(ctx, object, maxKeyFile)
		if errors.Is(err, ErrDamaged) {
			r.log.Error("key file damaged, going on without it", "error", err)
			damaged = err
			continue
		}
		if err != nil {
			return nil, err
		}
		key, err := openKeyFile(data, password)
		if err == nil {
			keys = append(keys, key)
		} else if !errors.Is(err, errPassword) {
			r.log.Warn("key file skipped", "name", object.Name, "error", err)
		}
	}
	switch {
	case len(keys) > 0:
		return keys, nil
	case damaged != nil: // it may have been the one
		return nil, damaged
	case tried > 0:
		return nil, ErrWrongPassword
	}
	return nil, ErrNoRepository
}

// Close releases the memory that the repository holds on to. The store stays open.
func (r *Repository) Close() {
	r.unzip.Close() // which otherwise keeps its goroutines
	r.zip.Close()
}

func packName(id ID) string {
	name := id.String()
	return "data/" + name[:2] + "/" + name
}

// get reads an object whole, of at most limit bytes, and compares it with its name. The error is ErrDamaged if no copy matches.
func (r *Repository) get(ctx context.Context, object store.Object, limit int64) ([]byte, error) {
	data, err := getWhole(ctx, r.store, object, limit)
	if err != nil && !errors.Is(err, store.ErrNotExist) {
		err = r.rescue(ctx, object.Name, err, func(s store.Store) error {
			size, err := s.Stat(ctx, object.Name)
			if err == nil {
				data, err = getWhole(ctx, s, store.Object{Name: object.Name, Size: size}, limit)
			}
			return err
		})
	}
	return data, err
}

func getWhole(ctx context.Context, s store.Store, object store.Object, limit int64) ([]byte, error) {
	if object.Size > limit {
		return nil, fmt.Errorf("%s is %w: its %d bytes are over the limit of %d", object.Name, ErrDamaged, object.Size, limit)
	}
	data, err := s.Get(ctx, object.Name, 0, object.Size)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if err != nil {
		return nil, err
	}
	if ID(sha256.Sum256(data)).String() != path.Base(object.Name) {
		return nil, fmt.Errorf("%s is %w: its content does not match its name", object.Name, ErrDamaged)
	}
	return data, nil
}

// rescue calls read with each store that has a copy of what is in the repository's, until one has what is wanted. err is what was wrong
// with the first, and returned if it is wrong with all.
func (r *Repository) rescue(ctx context.Context, name string, err error, read func(s store.Store) error) error {
	redundant, ok := r.store.(store.Redundant)
	if !ok {
		return err
	}
	for _, s := range redundant.Copies() {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if read(s) == nil {
			r.log.Warn("object damaged or lost, read from a mirror", "object", name, "mirror", s.String(), "error", err)
			return nil
		}
	}
	return err
}

// putNamed stores an object that may be there already, as its name is its hash.
func (r *Repository) putNamed(ctx context.Context, name string, data []byte, id ID) error {
	if err := r.store.Put(ctx, name, data, id); !errors.Is(err, store.ErrExist) {
		return err
	}
	return nil
}

// putJSON seals a document into dir.
func (r *Repository) putJSON(ctx context.Context, dir string, document any) (ID, error) {
	plain, err := json.Marshal(document)
	if err != nil {
		return ID{}, err
	}
	if r.config.Version >= 2 {
		plain = r.zip.EncodeAll(plain, []byte{unpackedZstd})
	}
	sealed := r.key.seal(nil, plain)
	id := ID(sha256.Sum256(sealed))
	return id, r.putNamed(ctx, dir+"/"+id.String(), sealed, id)
}

// unpackedZstd begins a document that is compressed; one that is not begins as JSON does.
const unpackedZstd = 2

// getJSON reads a document that putJSON, or restic, has stored.
func (r *Repository) getJSON(ctx context.Context, object store.Object, limit int64, document any) error {
	sealed, err := r.get(ctx, object, limit)
	if err != nil {
		return err
	}
	plain, err := r.openDocument(sealed)
	if err == nil {
		err = json.Unmarshal(plain, document)
	}
	if err != nil { // though it is what was stored
		return fmt.Errorf("read %s: %w: %w", object.Name, ErrDamaged, err)
	}
	return nil
}

func (r *Repository) openDocument(sealed []byte) ([]byte, error) {
	plain, err := r.key.open(sealed)
	if err != nil {
		return nil, err
	}
	switch {
	case len(plain) == 0:
		return nil, errors.New("empty document")
	case plain[0] == '{' || plain[0] == '[':
		return plain, nil
	case plain[0] == unpackedZstd:
		return r.unzip.DecodeAll(plain[1:], nil)
	}
	return nil, fmt.Errorf("unknown encoding %d of a document", plain[0])
}
