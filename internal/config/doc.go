// Package config turns files, environment and command-line flags into one
// validated struct per role: Serve for a node, Client for whoever uses a
// cluster. Every error is a *Error that names where the wrong value stands
// (file:line:column, an environment variable or a flag), what is wrong and
// what would be right.
//
// It reads the files a configuration names for their content (the secret),
// never looks at data directories or the network, and fills in every default
// so that nothing after it has to.
//
// Nothing here is locked and nothing survives a crash that was not there
// before: Write replaces files by rename.
package config

import (
	"errors"
	"fmt"
	"strings"

	"github.com/ashlarfs/ashlar"
)

// Error is one wrong value. It is of kind ashlar.Invalid.
type Error struct {
	Where string // file:line:column, "flag --name", "environment ASHLAR_NAME" or a file
	Key   string // the setting, "" if the error is about the whole
	What  string // what is wrong
	Want  string // what would be right, "" if What says it
}

// Error formats as "where: key: what (want ...)".
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Where)
	if e.Key != "" {
		b.WriteString(": " + e.Key)
	}
	b.WriteString(": " + e.What)
	if e.Want != "" {
		b.WriteString("; " + e.Want)
	}
	return b.String()
}

// Is matches ashlar.Invalid.
func (e *Error) Is(target error) bool { return target == ashlar.Invalid }

// all joins errors, so that a user sees everything that is wrong at once.
type all struct{ errs []error }

func (a *all) add(err error) {
	if err != nil {
		a.errs = append(a.errs, err)
	}
}

func (a *all) addf(where, key, want, format string, args ...any) {
	a.add(&Error{Where: where, Key: key, What: fmt.Sprintf(format, args...), Want: want})
}

func (a *all) err() error { return errors.Join(a.errs...) }
