package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/ashlarfs/ashlar"
)

// The exit statuses. They are part of the interface: none changes meaning.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitNotFound    = 3
	exitUnavailable = 4
	exitAtRisk      = 5
	exitDamaged     = 6
	exitLockLost    = 7
)

var exitText = map[int]string{
	exitOK:          "done",
	exitFailed:      "failed; the message says why",
	exitUsage:       "wrong usage or configuration; nothing was done",
	exitNotFound:    "what was named does not exist",
	exitUnavailable: "the cluster could not be reached, or not in time",
	exitAtRisk:      "status only: data is at risk or unavailable",
	exitDamaged:     "inspect only: damage was found, or not everything was recovered",
	exitLockLost:    "lock only: the lock was lost while it was held",
}

// exits is the help text on exit statuses.
func exits(codes ...int) string {
	var b strings.Builder
	b.WriteString("Exit statuses:\n")
	for _, c := range codes {
		fmt.Fprintf(&b, "  %d  %s\n", c, exitText[c])
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// exitOf is the one table from kinds of error to exit statuses.
func exitOf(err error) int {
	var code exitError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &code):
		return code.code
	case errors.Is(err, context.DeadlineExceeded):
		return exitUnavailable
	case errors.Is(err, context.Canceled):
		return exitFailed
	case errors.Is(err, os.ErrNotExist):
		return exitNotFound
	case errors.Is(err, ashlar.Invalid): // config.Error among them
		return exitUsage
	}
	switch ashlar.KindOf(err) {
	case ashlar.NotExist, ashlar.NoAttr:
		return exitNotFound
	case ashlar.NameTooLong:
		return exitUsage
	case ashlar.Unreachable, ashlar.Timeout, ashlar.NotLeader, ashlar.NotReady, ashlar.NoLease, ashlar.Overloaded:
		return exitUnavailable
	}
	return exitFailed
}

// exitError is an error with its own exit status.
type exitError struct {
	code int
	err  error
}

func (e exitError) Error() string { return e.err.Error() }
func (e exitError) Unwrap() error { return e.err }

// usagef is an error of the command line.
func usagef(format string, a ...any) error {
	return exitError{exitUsage, fmt.Errorf(format, a...)}
}

// hinted is an error with the command that would help.
type hinted struct {
	err  error
	next string
}

func (h hinted) Error() string { return h.err.Error() }
func (h hinted) Unwrap() error { return h.err }

// hintf adds what to do next to an error; nil stays nil.
func hintf(err error, format string, a ...any) error {
	if err == nil {
		return nil
	}
	return hinted{err, fmt.Sprintf(format, a...)}
}

// next says what to do about an error.
func next(err error) string {
	var h hinted
	if errors.As(err, &h) {
		return h.next
	}
	switch ashlar.KindOf(err) {
	case ashlar.Unreachable, ashlar.Timeout, ashlar.NotLeader, ashlar.NotReady:
		return "is a majority of the masters running? `ashlar status` shows which answer. A local cluster: `ashlar dev status --dir DIR`; a service: `systemctl status ashlar` on each"
	case ashlar.Auth:
		return "the secret is not this cluster's: copy secret and client.toml from one of its nodes"
	case ashlar.WrongCluster:
		return "another cluster answers at these addresses: check masters in the client file"
	case ashlar.NoSpace:
		return "see `ashlar status` for what is full; add a disk or delete something"
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return "see `ashlar status` for what is missing, or give it longer with --timeout"
	}
	return ""
}

// report prints the error of a command and returns the exit status.
func report(g *global, err error) int {
	code := exitOf(err)
	if err == nil || err.Error() == "" {
		return code
	}
	if g.json {
		b, jerr := json.Marshal(map[string]any{"error": err.Error(), "kind": ashlar.KindOf(err).String(), "exit": code, "next": next(err)})
		if jerr == nil {
			fmt.Fprintf(g.Err, "%s\n", b)
			return code
		}
	}
	fmt.Fprintf(g.Err, "ashlar: %v\n", err)
	if n := next(err); n != "" {
		fmt.Fprintf(g.Err, "  next: %s\n", n)
	}
	return code
}
