// Package object reads and writes the bytes of objects: it cuts a range at
// chunk boundaries, finds the primary of each placement group, sends data with
// checksums and verifies what it receives, and goes on until the request is
// done or its context ends: through changes of epoch, dead and stopped
// primaries, and lost sessions. It does not know what a file is, keeps no data
// and decides nothing about placement.
//
// # Retries
//
// A data write has a sequence that stays the same in every attempt, so that it
// takes effect once and never late (I-7); every attempt names the lowest
// sequence still unanswered. An attempt is left only when its answer arrives,
// its connection is lost, or the masters gave the group another primary: a
// primary that is slow is waited for, and one that is stopped is found out by
// asking the masters.
//
// A write that is given up (its context ended) may or may not take effect, but
// not after a later write of this session was acknowledged.
//
// # Lock order
//
//	place.mu
//	    Store.mu
//
// Nothing survives a crash.
package object

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/clock"
	"github.com/ashlarfs/ashlar/internal/masterconn"
	"github.com/ashlarfs/ashlar/internal/rpc"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// Times and limits.
const (
	// WritesMax is the most unanswered writes of a session.
	WritesMax = 256
	// ParallelMax is the most requests that one call has under way.
	ParallelMax = 16
	// doubtAfter is how long an answer may take before the masters are asked
	// whether the group still has this primary.
	doubtAfter = time.Second
	// fetchTimeout bounds one question for a group; the masters hold it back
	// half a second at most.
	fetchTimeout = 5 * time.Second
	// backoffMin and backoffMax bound the pause before a retry. A pause ends
	// early when the group changes.
	backoffMin = 5 * time.Millisecond
	backoffMax = 100 * time.Millisecond
	// corruptTries and diskTries are how often data that arrives damaged, and
	// a primary whose disk fails, are tried under one epoch.
	corruptTries = 2
	diskTries    = 10
	// reattachEvery is the shortest time between two showings of the ticket
	// because of refusals.
	reattachEvery = 100 * time.Millisecond
	// scratchMax is the largest range that is not aligned and is read through
	// a buffer as a whole; of larger ones only the edges are.
	scratchMax = 128 << 10
)

// Ref names an object: where its data is, and what chunks made by writing it
// note for finding it from the disks alone. It is not changed while in use.
type Ref struct {
	wire.Object
	Owner    ashlar.Inode
	UID, GID uint32
	Mode     uint16
	Hint     string
}

// origin is what a chunk of the object notes.
func (r *Ref) origin(chunk uint32) wire.Origin {
	o := wire.Origin{Owner: r.Owner, UID: r.UID, GID: r.GID, Mode: r.Mode, Hint: r.Hint}
	if s, ok := r.Layout.SegmentOf(chunk); ok {
		o.Width, o.Unit, o.First = uint8(len(s.Groups)), s.StripeUnit, s.First
	}
	return o
}

// Masters is what the store needs of a session. masterconn.Conn is one.
type Masters interface {
	Do(ctx context.Context, cred ashlar.Cred, body, reply wire.Message) error
	WaitSession(ctx context.Context) (ashlar.SessionID, <-chan struct{}, error)
	Ticket() []byte
	NotifyTicket(func([]byte))
}

// Options are a Store's options; the zero value is good.
type Options struct {
	Clock  clock.Clock
	Logger *slog.Logger
}

// Store reads and writes objects under one session.
type Store struct {
	masters Masters
	rpc     *rpc.Client
	clock   clock.Clock
	log     *slog.Logger
	ctx     context.Context
	cancel  context.CancelFunc
	tasks   sync.WaitGroup
	ticket  chan struct{} // buffered 1: show the ticket again

	mu       sync.Mutex
	closed   bool
	places   map[ashlar.PGID]*place
	writes   *writes    // of the present session
	attached clock.Time // when the ticket was last shown because of a refusal
}

// writes is the window of one session's data writes (I-7).
type writes struct {
	session ashlar.SessionID
	lost    <-chan struct{}
	window  *masterconn.Window
}

// New returns a store whose data connections show the session's ticket. There
// is one store to an rpc.Client.
func New(m Masters, c *rpc.Client, o Options) *Store {
	if o.Clock == nil {
		o.Clock = clock.Real
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Store{
		masters: m, rpc: c, clock: o.Clock, log: o.Logger, ticket: make(chan struct{}, 1),
		places: map[ashlar.PGID]*place{},
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	c.OnConnect(func(_ context.Context, _ string, call func(req, reply wire.Message) error) error {
		return call(&wire.Attach{Ticket: m.Ticket()}, nil)
	})
	m.NotifyTicket(func([]byte) { s.showTicket() })
	s.tasks.Go(s.attach)
	return s
}

// Close ends what the store does in the background. Calls under way go on
// until their contexts end, but learn of no changes any more.
func (s *Store) Close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.cancel()
	s.tasks.Wait()
}

func (s *Store) showTicket() {
	select {
	case s.ticket <- struct{}{}:
	default:
	}
}

// attach shows renewed tickets on the connections there are.
func (s *Store) attach() {
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-s.ticket:
		}
		if err := s.rpc.Reattach(s.ctx); err != nil && s.ctx.Err() == nil {
			s.log.Debug("ticket refused", "err", err)
		}
	}
}

// refusedTicket shows the ticket again after a request was refused for it.
func (s *Store) refusedTicket() {
	s.mu.Lock()
	now := s.clock.Now()
	again := now.Sub(s.attached) >= reattachEvery || s.attached == 0
	if again {
		s.attached = now
	}
	s.mu.Unlock()
	if again {
		s.showTicket()
	}
}

// window returns the write window of the present session.
func (s *Store) window(ctx context.Context) (*writes, error) {
	id, lost, err := s.masters.WaitSession(ctx)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.writes == nil || s.writes.session != id {
		s.writes = &writes{session: id, lost: lost, window: masterconn.NewWindow(WritesMax, lost)}
	}
	return s.writes, nil
}
