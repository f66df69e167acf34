package client

import (
	"io/fs"

	"github.com/ashlarfs/ashlar"
)

// fsError is a cluster's error that also answers to the errors of io/fs.
type fsError struct{ error }

// Unwrap returns the cluster's error, an *ashlar.Error.
func (e fsError) Unwrap() error { return e.error }

// Is matches fs.ErrNotExist and its like.
func (e fsError) Is(target error) bool {
	switch ashlar.KindOf(e.error) {
	case ashlar.NotExist, ashlar.Stale:
		return target == fs.ErrNotExist
	case ashlar.Exist, ashlar.NotEmpty:
		return target == fs.ErrExist
	case ashlar.Permission, ashlar.NotOwner:
		return target == fs.ErrPermission
	case ashlar.Invalid:
		return target == fs.ErrInvalid
	}
	return false
}

// pathError says what failed on what; nil stays nil.
func pathError(op, name string, err error) error {
	if err == nil {
		return nil
	}
	if _, ok := err.(*fs.PathError); ok {
		return err
	}
	return &fs.PathError{Op: op, Path: name, Err: fsError{err}}
}

func refuse(kind ashlar.Kind) error { return ashlar.E("", kind, "", nil) }
