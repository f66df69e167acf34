package session

import (
	"errors"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/meta/key"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// FloorStep is how far a session's lowest unanswered sequence runs ahead of
// its floor before results are dropped: the session's record is written, and
// results are deleted, once in so many operations.
const FloorStep = 64

// Kept results of one session are at most this many.
const resultsMax = FloorStep + ashlar.SessionWindow

// result is the record of an operation's result: a reply or an error.
type result struct {
	Reply wire.Message // a wire.ErrorMessage for an error
}

// Fields implements key.Record.
func (r *result) Fields(c *wire.Codec) {
	key.Version(c, 1)
	wire.Any(c, &r.Reply)
}

// Begin admits a change of a session (I-3). If it has been done, done is true
// and reply or failure is what it was answered; otherwise the caller evaluates
// it and calls Keep. err refuses it, and is not a result.
func Begin(tx key.Tx, s *Session, seq, lowest uint64) (reply wire.Message, failure error, done bool, err error) {
	switch {
	case seq == 0:
		err = ashlar.E("session", ashlar.Invalid, "a change without a sequence", nil)
	case seq < s.Floor || seq < lowest:
		err = ashlar.E("session", ashlar.OutcomeUnknown, "", nil)
	case seq-max(lowest, s.Floor) >= ashlar.SessionWindow:
		err = ashlar.E("session", ashlar.Overloaded, "too many unanswered operations", nil)
	}
	if err != nil {
		return nil, nil, false, err
	}
	var r result
	ok, err := key.Load(tx, key.Result(s.ID, seq), &r)
	if err != nil || !ok {
		return nil, nil, false, err
	}
	if e, isError := r.Reply.(*wire.ErrorMessage); isError {
		var detail error
		if e.Detail != "" {
			detail = errors.New(e.Detail)
		}
		return nil, ashlar.E(e.Op, e.What, e.Subject, detail), true, nil
	}
	return r.Reply, nil, true, nil
}

// IsResult tells whether an error is the result of an operation, to be kept
// and answered again, rather than a refusal to try it.
func IsResult(err error) bool {
	switch k := ashlar.KindOf(err); k {
	case ashlar.Other, ashlar.NoSession, ashlar.OutcomeUnknown, ashlar.Corrupt, ashlar.IO, ashlar.Canceled:
		return false
	default:
		return !k.Retryable()
	}
}

// Keep keeps the result of an operation that Begin admitted, and drops those
// that the session does not wait for any more.
func Keep(tx key.Tx, s *Session, seq, lowest uint64, reply wire.Message, failure error) {
	if failure != nil {
		m := &wire.ErrorMessage{What: ashlar.KindOf(failure)}
		var e *ashlar.Error
		if errors.As(failure, &e) {
			m.Op, m.Subject = e.Op, e.Subject
			if e.Err != nil {
				m.Detail = e.Err.Error()
			}
		}
		reply = m
	}
	r := result{Reply: reply}
	tx.Set(key.Result(s.ID, seq), key.EncodeSize(&r, 200))
	raise(tx, s, lowest)
}

// raise raises a session's floor to lowest once it is FloorStep ahead. Begin
// admits nothing SessionWindow above lowest and every Keep leaves the floor
// less than FloorStep below it: no result is at or above floor+resultsMax,
// which bounds the deletions.
func raise(tx key.Tx, s *Session, lowest uint64) {
	if lowest < s.Floor+FloorStep {
		return
	}
	for seq := s.Floor; seq < min(lowest, s.Floor+resultsMax); seq++ {
		tx.Delete(key.Result(s.ID, seq))
	}
	s.Floor = lowest
	key.Store(tx, key.Session(s.ID), s)
}
