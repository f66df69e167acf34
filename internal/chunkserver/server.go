package chunkserver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/clock"
	"github.com/ashlarfs/ashlar/internal/rpc"
	"github.com/ashlarfs/ashlar/internal/vfs"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// Times and limits.
const (
	// memberTimeout is how long a member may take to answer before it is
	// asked whether it is alive, and then reported.
	memberTimeout = time.Second
	// memberSlow is how long a member that is alive may take for one request.
	memberSlow = 15 * time.Second
	// admitWait is how long a request waits for a group that is not ready.
	admitWait = 2 * time.Second
	// retryMin and retryMax bound the pauses between attempts.
	retryMin = 20 * time.Millisecond
	retryMax = time.Second
	// reopenEvery is how often a disk that did not open is tried again.
	reopenEvery = 2 * time.Second
	// commitIdle is how long after the last write members are told that it
	// is committed.
	commitIdle = time.Second
	// catchupParallel is how many groups are caught up at a time.
	catchupParallel = 4
	// equaliseParallel is how many ranges of a group are made equal at a time.
	equaliseParallel = 8
	// budgetDefault is how many bytes a second catch-ups may send.
	budgetDefault = 200 << 20
	// stopWait is how long a stopping server waits for its requests.
	stopWait = 10 * time.Second
)

// Leader is the masters' leader, wherever it is.
type Leader interface {
	// Call makes a request of the leader and retries until ctx ends.
	Call(ctx context.Context, req, reply wire.Message) error
}

// Caller makes requests of other chunkservers.
type Caller interface {
	Call(ctx context.Context, addr string, req, reply wire.Message) error
	// Begin is the first half of a Call; nil if only Call can make it.
	Begin(addr string, req, reply wire.Message) *rpc.Pending
}

// Handlers is where requests come from.
type Handlers interface {
	Handle(k wire.Kind, h rpc.Handler)
}

// DiskConfig is one disk of a chunkserver.
type DiskConfig struct {
	Path    string
	Labels  []string
	Reserve uint64 // bytes that new data leaves free on it, 0 for Config.Reserve
}

// Config is a chunkserver's configuration.
type Config struct {
	Name    string // of the node
	Addr    string // where others reach it
	Rack    string
	DataDir string // its identity, and which disks it had
	Disks   []DiskConfig
	Cluster ashlar.ClusterID
	Secret  []byte // that tickets are signed with
	// Process is the incarnation by which the masters' witness connections
	// know this process; 0 if there are none.
	Process ashlar.Incarnation
	// BootID changes when the machine loses its memory; "" assumes it did.
	BootID  string
	Reserve uint64 // bytes that new data leaves free on each disk, 0 for the default
	Budget  uint64 // bytes a second for catch-ups, 0 for the default

	Server Handlers
	RPC    Caller
	Leader Leader
	FS     vfs.FS
	Clock  clock.Clock
	Logger *slog.Logger
}

// Server is a running chunkserver.
type Server struct {
	cfg    Config
	clk    clock.Clock
	log    *slog.Logger
	id     *identity
	known  *known
	disks  []*disk
	openMu sync.Mutex // guards disk.opened and disk.broken
	budget *budget
	ctx    context.Context
	cancel context.CancelFunc
	tasks  sync.WaitGroup

	// life is the incarnation that serves, nil while there is none.
	life atomic.Pointer[life]
	// firstSession is the first this process held: sessions below it may have
	// written before power was lost.
	firstSession atomic.Uint64
	// term is the latest of a leader that this process has heard of.
	term   atomic.Uint64
	synced atomic.Uint64 // bytes sent to syncing members
	// serving counts the reads and writes of clients that are being served.
	serving atomic.Int64

	scrub scrubber
}

// Start opens the identity and the disks, sets the handlers on the server and
// begins to register with the masters, for ever. It refuses a data directory
// or disk that is in use, of another cluster or of a newer format; a disk
// that does not open for another reason is left out and tried again.
func Start(ctx context.Context, c Config) (*Server, error) {
	if c.Clock == nil {
		c.Clock = clock.Real
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Budget == 0 {
		c.Budget = budgetDefault
	}
	if len(c.Disks) == 0 || len(c.Disks) > wire.DisksMax {
		return nil, ashlar.E("start chunkserver", ashlar.Invalid, c.Name, fmt.Errorf("%d disks: want 1 to %d", len(c.Disks), wire.DisksMax))
	}
	id, err := openIdentity(c.FS, c.DataDir, c.Cluster)
	if err != nil {
		return nil, err
	}
	known, err := openKnown(c.FS, c.DataDir)
	if err != nil {
		return nil, errors.Join(err, id.lock.Close())
	}
	s := &Server{cfg: c, clk: c.Clock, log: c.Logger, id: id, known: known, budget: newBudget(c.Clock, c.Budget)}
	s.ctx, s.cancel = context.WithCancel(context.WithoutCancel(ctx))
	for _, dc := range c.Disks {
		d, err := s.openDisk(dc)
		if err != nil {
			return nil, errors.Join(err, s.closeDisks(), id.lock.Close())
		}
		s.disks = append(s.disks, d)
	}
	s.handlers()
	s.tasks.Go(s.run)
	return s, nil
}

// Stop ends service, makes everything durable and closes the disks.
func (s *Server) Stop(ctx context.Context) error {
	s.cancel()
	done := make(chan struct{})
	go func() {
		s.tasks.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
		return ashlar.E("stop chunkserver", ashlar.Timeout, s.cfg.Name, ctx.Err())
	}
	return errors.Join(s.closeDisks(), s.id.lock.Close())
}

func (s *Server) closeDisks() error {
	var errs []error
	for _, d := range s.disks {
		errs = append(errs, d.close())
	}
	return errors.Join(errs...)
}

// run is one life after the other: register, serve until the session is lost.
func (s *Server) run() {
	pause := retryMin
	for s.ctx.Err() == nil {
		l, err := s.register()
		if err != nil {
			if s.ctx.Err() == nil {
				s.log.Warn("registration failed, trying again", "err", err)
			}
			s.sleep(s.ctx, pause)
			pause = min(2*pause, retryMax)
			continue
		}
		pause = retryMin
		s.log.Info("registered", "node", l.node, "session", uint64(l.session), "groups", len(l.seats))
		err = l.serve()
		s.life.Store(nil)
		l.end()
		if s.ctx.Err() == nil {
			s.log.Warn("registering again", "err", err)
		}
	}
}

// sleep waits for d or the end of ctx.
func (s *Server) sleep(ctx context.Context, d time.Duration) {
	done := make(chan struct{})
	stop := s.clk.AfterFunc(d, func() { close(done) })
	select {
	case <-done:
	case <-ctx.Done():
		stop()
	}
}

// errStopped is what requests get that come before or after a life.
var errStopped = ashlar.E("chunkserver", ashlar.NotReady, "", errors.New("not registered with the masters"))

// current returns the life that serves and counts the caller in it; the
// caller calls leave.
func (s *Server) current() (*life, error) {
	if l := s.life.Load(); l != nil && l.enter() {
		return l, nil
	}
	return nil, errStopped
}
