package masterconn

import (
	"context"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/clock"
)

// session is one session of a Conn, with the sequences of its operations
// (I-3). Its fields are guarded by Conn.mu.
type session struct {
	id          ashlar.SessionID
	incarnation ashlar.Incarnation
	generation  uint64 // of the last hello
	helloAt     uint64 // number of the view it was said to, 0 for none
	needHello   bool
	doubted     bool          // renew now: an operation was refused
	asked       clock.Time    // when it was last
	lost        chan struct{} // closed when the masters know it no more

	next    uint64          // sequence of the next operation
	lowest  uint64          // every one below is answered or given up
	settled map[uint64]bool // those at or above lowest that are too
	room    chan struct{}   // closed when lowest rises
}

func newSession(id ashlar.SessionID, inc ashlar.Incarnation) *session {
	return &session{
		id: id, incarnation: inc, lost: make(chan struct{}),
		next: 1, lowest: 1, settled: map[uint64]bool{}, room: make(chan struct{}),
	}
}

// begin gives out a sequence, waiting while too many are unanswered. It
// returns 0 without an error if the session was lost meanwhile.
func (c *Conn) begin(ctx context.Context, s *session) (uint64, error) {
	for {
		c.mu.Lock()
		if s.next-s.lowest < ashlar.SessionWindow {
			s.next++
			seq := s.next - 1
			c.mu.Unlock()
			return seq, nil
		}
		room := s.room
		c.mu.Unlock()
		select {
		case <-room:
		case <-s.lost:
			return 0, nil
		case <-ctx.Done():
			return 0, endOf(ctx, ashlar.E("operation", ashlar.Overloaded, "", nil))
		}
	}
}

// settle notes that a sequence is answered, or will not be asked again. From
// then on the masters may be told to refuse it for good.
func (c *Conn) settle(s *session, seq uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s.settled[seq] = true
	if seq != s.lowest {
		return
	}
	for s.settled[s.lowest] {
		delete(s.settled, s.lowest)
		s.lowest++
	}
	close(s.room)
	s.room = make(chan struct{})
}
