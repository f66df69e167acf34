package config

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// SecretMin is the shortest cluster secret, in bytes; what NewSecret makes is
// longer.
const SecretMin = 16

// NewSecret makes a cluster secret: 32 random bytes in hexadecimal digits.
func NewSecret() []byte {
	b := make([]byte, 32)
	rand.Read(b) // never fails
	return []byte(hex.EncodeToString(b))
}

// ReadSecret reads a secret file, which only its owner may read.
func ReadSecret(file string) ([]byte, error) {
	fi, err := os.Stat(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &Error{Where: file, What: "the secret file does not exist",
			Want: "copy it from a node of the cluster, or make a new cluster with `ashlar install`"}
	}
	if err != nil {
		return nil, err
	}
	if err := private(file, fi); err != nil {
		return nil, err
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	b = bytes.TrimSpace(b)
	if len(b) < SecretMin {
		return nil, &Error{Where: file, What: fmt.Sprintf("the secret is %d bytes long", len(b)),
			Want: fmt.Sprintf("at least %d are needed; `ashlar install` makes a good one", SecretMin)}
	}
	return b, nil
}

// private refuses a file that others may read.
func private(file string, fi fs.FileInfo) error {
	if fi.Mode().Perm()&0o077 != 0 {
		return &Error{Where: file, What: fmt.Sprintf("holds a secret and has mode %04o", fi.Mode().Perm()),
			Want: fmt.Sprintf("run: chmod 0600 %s", file)}
	}
	return nil
}

// WriteFile writes a file by rename, so that it is there whole or not at all.
// mode is exact, whatever the umask.
func WriteFile(file string, b []byte, mode fs.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(file), "."+filepath.Base(file)+".*")
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), file)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}
