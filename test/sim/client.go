package sim

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/masterconn"
	"github.com/ashlarfs/ashlar/internal/object"
	"github.com/ashlarfs/ashlar/internal/rpc"
	"github.com/ashlarfs/ashlar/internal/wire"
	"github.com/ashlarfs/ashlar/test/history"
	"github.com/ashlarfs/ashlar/test/names"
)

// What clients do.
const (
	objects      = 2               // files that blocks are in
	blocksEach   = 4               // blocks used of each, a chunk apart
	trees        = 3               // of names
	askTimeout   = 4 * time.Second // of one operation
	thinkMax     = 40 * time.Millisecond
	unansweredIn = 12 // operations without an answer, by part of the history: above it nobody asks any more
)

// client is a process that reads and writes blocks and names, and notes what
// it was told.
type client struct {
	c     *Cluster
	id    int
	name  string
	clock *hostClock
	rng   *rand.Rand
	trees []names.Tree
	refs  []*object.Ref

	node   uint32
	rpc    *rpc.Client
	conn   *masterconn.Conn
	store  *object.Store
	stop   chan struct{}
	done   sync.WaitGroup
	paused bool
}

// newClient makes a client; open connects it.
func (c *Cluster) newClient(id int) *client {
	k := &client{c: c, id: id, name: fmt.Sprintf("c%d", id), rng: rand.New(rand.NewPCG(c.conf.Seed, uint64(1000+id)))}
	k.clock = newHostClock(time.Hour, 0.97+0.06*k.rng.Float64())
	return k
}

// open opens a session. The caller's goroutine counts as the client's until
// it returns.
func (k *client) open(ctx context.Context) error {
	c := k.c
	k.node = c.newNode()
	defer setNode(setNode(k.node))
	log := c.logger(k.name)
	k.rpc = rpc.NewClient(rpc.Identity{
		Cluster: c.id, Role: wire.RoleClient, Name: k.name, Incarnation: ashlar.Incarnation(c.random()), Secret: c.secret,
	}, rpc.ClientOptions{Clock: k.clock, Logger: log, Dial: c.net.Dialer(k.name)})
	conn, err := masterconn.Dial(ctx, masterconn.Config{RPC: k.rpc, Masters: c.masterAddrs(), Name: k.name, Clock: k.clock, Logger: log})
	if err != nil {
		k.rpc.Close()
		return err
	}
	k.conn = conn
	k.store = object.New(conn, k.rpc, object.Options{Clock: k.clock, Logger: log})
	k.stop = make(chan struct{})
	return nil
}

// close ends the session in order.
func (k *client) close() error {
	defer setNode(setNode(k.node))
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	k.store.Close()
	err := k.conn.Close(ctx)
	k.rpc.Close()
	return err
}

// run starts the client's workers: one on blocks, one that changes names, one
// that reads them and one that takes locks.
func (k *client) run(rec *history.Recorder) {
	defer setNode(setNode(k.node))
	for i, work := range []func(*worker){(*worker).blocks, (*worker).changeNames, (*worker).readNames, (*worker).locks} {
		w := &worker{client: k, rec: rec, id: 10*k.id + i, rng: rand.New(rand.NewPCG(k.c.conf.Seed, uint64(2000+10*k.id+i)))}
		k.done.Go(func() {
			for {
				select {
				case <-k.stop:
					return
				case <-time.After(time.Duration(w.rng.Int64N(int64(thinkMax)))):
				}
				work(w)
			}
		})
	}
}

// finish stops the workers; they end what they are asking.
func (k *client) finish() {
	close(k.stop)
	k.done.Wait()
}

// pause stops the client as SIGSTOP does, or lets it go on.
func (k *client) pause(on bool) {
	if k.paused == on {
		return
	}
	k.c.trace.add("pause %s %v", k.name, on)
	k.paused = on
	hold(k.node, on)
}

// worker asks one thing at a time.
type worker struct {
	*client
	rec   *history.Recorder
	id    int
	rng   *rand.Rand
	count uint64

	owed   []*asked // locks that are to be given up
	names  *names.Worker
	leader string // that the client followed when names were last looked at
}

// value returns an identity that no other operation has.
func (w *worker) value() uint64 {
	w.count++
	return uint64(w.id)<<20 | w.count
}

func (w *worker) now() int64 { return int64(w.c.trace.Now()) }

// answer fills in how an operation ended. What is not an answer leaves open
// what happened.
func (w *worker) answer(o *history.Op, err error) {
	o.Return, o.Process = w.now(), w.client.id
	word, ok := history.Errno(err)
	if ok && (err == nil || o.Kind != history.BlockWrite && o.Kind != history.BlockSync) {
		o.Errno = word
	} else {
		o.Return, o.GaveUp = history.Never, o.Return
	}
	w.c.trace.add("answer %s %v", o, err)
}

// blocks reads or writes one block.
func (w *worker) blocks() {
	ref := w.refs[w.rng.IntN(len(w.refs))]
	block := w.rng.IntN(blocksEach)
	o := history.Op{Client: w.id, Key: fmt.Sprintf("%x/%d", uint64(ref.Owner), block), Kind: history.BlockRead, Call: w.now()}
	off := uint64(block) * uint64(ref.Layout.ChunkSize)
	ctx, cancel := context.WithTimeout(context.Background(), askTimeout)
	defer cancel()
	b := make([]byte, history.BlockSize)
	if w.rng.IntN(2) == 0 || w.c.unanswered.full(o.Key) {
		w.answerRead(&o, b, w.store.ReadAt(ctx, ref, b, off))
		return
	}
	if w.c.conf.Mixed && w.rng.IntN(8) == 0 {
		w.sync(ctx, ref)
		return
	}
	o.Kind, o.Value = history.BlockWrite, w.value()
	history.Fill(b, o.Value)
	o.Sync = w.c.conf.Durable || w.c.conf.Mixed && w.rng.IntN(3) == 0
	var flags uint32
	if o.Sync {
		flags = wire.WriteSync
	}
	w.answer(&o, w.store.WriteAt(ctx, ref, b, off, flags))
	w.c.unanswered.add(&o)
	w.rec.Add(o)
}

// sync makes a whole object durable: every block of it, for the history.
func (w *worker) sync(ctx context.Context, ref *object.Ref) {
	o := history.Op{Client: w.id, Kind: history.BlockSync, Call: w.now()}
	w.answer(&o, w.store.Sync(ctx, ref, blocksEach*uint64(ref.Layout.ChunkSize)))
	for block := range blocksEach {
		o.Key = fmt.Sprintf("%x/%d", uint64(ref.Owner), block)
		w.rec.Add(o)
	}
}

// answerRead notes a read. A block that nobody wrote whole is looked at when
// all is known.
func (w *worker) answerRead(o *history.Op, b []byte, err error) {
	if err == nil {
		if o.Value, err = history.Value(b); err != nil {
			w.c.mu.Lock()
			w.c.torn = append(w.c.torn, torn{key: o.Key, values: history.Values(b), err: fmt.Errorf("%s: %w", o, err)})
			w.c.mu.Unlock()
		}
	}
	if err != nil {
		w.c.trace.add("answer %s %v", o, err)
		return
	}
	w.answer(o, nil)
	w.rec.Add(*o)
}

// unanswered counts changes without an answer, by part of the history, which
// make checking it slow.
type unanswered struct {
	mu     sync.Mutex
	counts map[string]int
}

func (u *unanswered) full(key string) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.counts[key] >= unansweredIn
}

func (u *unanswered) add(o *history.Op) {
	if !o.Unknown() || !o.Kind.Changes() {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.counts == nil {
		u.counts = map[string]int{}
	}
	u.counts[o.Key]++
}

// torn is a block as it was read that is of more than one write.
type torn struct {
	key    string
	values []uint64
	err    error
}

// judge returns what is wrong with a torn block. One write may be torn where
// the power of all machines failed before it was answered, or synced: every copy
// may have some sectors of it, and then one of them is taken, as of a plain disk
// (I-8). Of writes that are never synced several may be.
func (x *torn) judge(ops []history.Op, dark bool) error {
	known, unanswered := map[uint64]bool{0: true}, 0
	for i := range ops {
		o := &ops[i]
		if o.Kind != history.BlockWrite || o.Key != x.key || !slices.Contains(x.values, o.Value) {
			continue
		}
		known[o.Value] = true
		if o.Unknown() || !o.Sync {
			unanswered++
		}
	}
	for _, v := range x.values {
		if !known[v] {
			return fmt.Errorf("%w: nobody wrote value %d", x.err, v)
		}
	}
	switch {
	case !dark:
		return fmt.Errorf("%w: power never failed where that may be", x.err)
	case len(x.values)-unanswered > 1:
		return fmt.Errorf("%w: more than one of these writes was synced", x.err)
	}
	return nil
}
