package vfs

import (
	"errors"
	"io/fs"
	"path"
)

// MakeDir makes a directory and its parents, durably: the names of all that
// were missing are synced before it returns.
func MakeDir(fsys FS, name string) error {
	name = path.Clean(name)
	var parents []string // of what is missing, deepest first
	for at := name; ; at = path.Dir(at) {
		_, err := fsys.Stat(at)
		if err == nil {
			break
		}
		if !errors.Is(err, fs.ErrNotExist) || path.Dir(at) == at {
			return err
		}
		parents = append(parents, path.Dir(at))
	}
	if err := fsys.MkdirAll(name); err != nil {
		return err
	}
	if len(parents) == 0 { // it may have been made by who did not live to sync it
		return fsys.SyncDir(path.Dir(name))
	}
	for i := len(parents) - 1; i >= 0; i-- {
		if err := fsys.SyncDir(parents[i]); err != nil {
			return err
		}
	}
	return nil
}
