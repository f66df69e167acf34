package replication

import "github.com/ashlarfs/ashlar"

// Scope is how much a Span covers.
type Scope uint8

// The scopes.
const (
	ScopeRange Scope = iota // [Off, End) of one chunk
	ScopeLayer              // every chunk of one layer
	ScopeGroup              // everything
)

// Span is a place in the line for a part of a group. Exclusive spans are held
// by writes from before they are applied anywhere until they are applied
// everywhere; shared ones by whoever reads the disk (I-5). A span is granted
// when no earlier one that conflicts with it is left.
type Span struct {
	Layer  ashlar.LayerID
	Chunk  uint32
	Off    uint32
	End    uint32
	Scope  Scope
	Shared bool
	// Owner is the caller's, to find what the span belongs to.
	Owner any

	blockers   int
	linked     bool
	prev, next *Span
}

// Granted tells whether nothing is before the span.
func (s *Span) Granted() bool { return s.linked && s.blockers == 0 }

func (s *Span) conflicts(t *Span) bool {
	if s.Shared && t.Shared {
		return false
	}
	if s.Scope == ScopeGroup || t.Scope == ScopeGroup {
		return true
	}
	if s.Layer != t.Layer {
		return false
	}
	if s.Scope == ScopeLayer || t.Scope == ScopeLayer {
		return true
	}
	return s.Chunk == t.Chunk && s.Off < t.End && t.Off < s.End
}

// spanList is the line, oldest first.
type spanList struct {
	head, tail *Span
	n          int
}

// add puts s at the end of the line and tells whether it is granted.
func (l *spanList) add(s *Span) bool {
	s.blockers = 0
	for t := l.head; t != nil; t = t.next {
		if t.conflicts(s) {
			s.blockers++
		}
	}
	s.linked, s.prev, s.next = true, l.tail, nil
	if l.tail != nil {
		l.tail.next = s
	} else {
		l.head = s
	}
	l.tail = s
	l.n++
	return s.blockers == 0
}

// remove takes s out of the line and appends to out each span that nothing
// is before any more, in order.
func (l *spanList) remove(s *Span, out []*Span) []*Span {
	if !s.linked {
		return out
	}
	next := s.next
	if s.prev != nil {
		s.prev.next = s.next
	} else {
		l.head = s.next
	}
	if s.next != nil {
		s.next.prev = s.prev
	} else {
		l.tail = s.prev
	}
	s.linked, s.prev, s.next = false, nil, nil
	l.n--
	for t := next; t != nil; t = t.next {
		if s.conflicts(t) {
			if t.blockers--; t.blockers == 0 {
				out = append(out, t)
			}
		}
	}
	return out
}
