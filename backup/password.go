package backup

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
)

// readPassword returns the password in the file, without white space around it, as restic reads it.
func readPassword(log *slog.Logger, path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("read password: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", fmt.Errorf("read password: %w", err)
	}
	const limit = 64 << 10
	if !info.Mode().IsRegular() || info.Size() > limit {
		return "", fmt.Errorf("read password: %s is not a file of one line", path)
	}
	if info.Mode().Perm()&0o004 != 0 {
		log.Warn("password file can be read by everyone; chmod 600 it", "file", path)
	}
	data := make([]byte, info.Size())
	n, err := f.Read(data)
	if err != nil && n == 0 && info.Size() > 0 {
		return "", fmt.Errorf("read password: %w", err)
	}
	password := bytes.TrimSpace(bytes.TrimPrefix(data[:n], []byte("\xef\xbb\xbf")))
	if len(password) == 0 {
		return "", fmt.Errorf("read password: %s is empty", path)
	}
	return string(password), nil
}

// createPassword makes the file with a random password in it, and returns that. If another has made it meanwhile, that one counts.
func createPassword(log *slog.Logger, path string) (string, error) {
	password := rand.Text() + rand.Text()
	if err := writeNew(path, []byte(password+"\n")); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return readPassword(log, path)
		}
		return "", fmt.Errorf("create password file: %w", err)
	}
	log.Warn("password file created; keep a copy of it elsewhere, without it no snapshot can be read", "file", path)
	return password, nil
}

// writeNew makes a file that only its owner can read, whole or not at all.
func writeNew(path string, data []byte) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+"-") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Link(f.Name(), path); err != nil {
		return err
	}
	return syncDir(dir)
}

// syncDir makes the names in a directory durable.
func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
