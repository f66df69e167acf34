package rpc

import (
	"context"
	"errors"
	"strings"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// ErrNotSent is in the chain of an Unreachable error if the request surely
// did not reach the server.
var ErrNotSent = errors.New("not sent")

// NotLeaderError is returned by a handler that is not the leader, and found
// with errors.As in what Call returns. Leader is the leader's address, "" if
// not known.
type NotLeaderError struct {
	Leader string
}

// Error implements error.
func (e *NotLeaderError) Error() string {
	if e.Leader == "" {
		return "no leader is known"
	}
	return "the leader is " + e.Leader
}

// Unwrap makes errors.Is(err, ashlar.NotLeader) true.
func (e *NotLeaderError) Unwrap() error { return ashlar.NotLeader }

// errorMessage turns what a handler returned into what is sent.
func errorMessage(err error) *wire.ErrorMessage {
	m := &wire.ErrorMessage{What: kindOf(err)}
	var nl *NotLeaderError
	if errors.As(err, &nl) {
		m.Leader = nl.Leader
	}
	if e, ok := err.(*ashlar.Error); ok { //nolint:errorlint // a wrapped one keeps its wrapping as text
		m.Op, m.Subject = e.Op, e.Subject
		if e.Err != nil {
			m.Detail = e.Err.Error()
		}
	} else if k, ok := err.(ashlar.Kind); !ok || k == ashlar.Other { //nolint:errorlint // a bare kind says all
		m.Detail = err.Error()
	}
	m.Op = cut(m.Op, 4096)
	m.Subject = cut(m.Subject, 4096+ashlar.PathMax)
	m.Detail = cut(m.Detail, 4*4096)
	m.Leader = cut(m.Leader, 4096)
	return m
}

func kindOf(err error) ashlar.Kind {
	if k := ashlar.KindOf(err); k != ashlar.Other {
		return k
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return ashlar.Timeout
	case errors.Is(err, context.Canceled):
		return ashlar.Canceled
	}
	return ashlar.Other
}

func cut(s string, n int) string {
	if len(s) > n {
		return strings.ToValidUTF8(s[:n], "")
	}
	return s
}

// remoteError is the inverse of errorMessage.
func remoteError(m *wire.ErrorMessage) error {
	e := &ashlar.Error{Op: m.Op, Kind: m.What, Subject: m.Subject}
	switch {
	case m.What == ashlar.NotLeader:
		e.Err = &NotLeaderError{Leader: m.Leader}
	case m.Detail != "":
		e.Err = errors.New(m.Detail)
	}
	return e
}

// contextError is what a call returns whose context ended.
func contextError(ctx context.Context, addr string) error {
	err := context.Cause(ctx)
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return ashlar.E("call", ashlar.Timeout, addr, err)
	}
	return ashlar.E("call", ashlar.Canceled, addr, err)
}

func notSent(addr string, err error) error {
	return ashlar.E("call", ashlar.Unreachable, addr, &unsent{err})
}

// unsent adds ErrNotSent to a cause without changing its text.
type unsent struct{ cause error }

func (u *unsent) Error() string   { return u.cause.Error() }
func (u *unsent) Unwrap() []error { return []error{u.cause, ErrNotSent} }
