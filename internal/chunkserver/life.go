package chunkserver

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/clock"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// seatKey names a member of a group on a disk of this chunkserver.
type seatKey struct {
	disk  ashlar.DiskID
	group ashlar.PGID
}

// life is one incarnation: from a registration to the loss of its session.
type life struct {
	s       *Server
	inc     ashlar.Incarnation
	session ashlar.SessionID
	node    ashlar.NodeID
	every   time.Duration // between renewals
	long    time.Duration // the lease
	lease   lease
	ctx     context.Context
	cancel  context.CancelCauseFunc
	tasks   sync.WaitGroup
	queue   *catchups
	passes  atomic.Uint64 // attempts at catch-ups
	present []*disk       // those that were open at its beginning

	mu       sync.RWMutex
	ending   bool
	disks    map[ashlar.DiskID]*disk
	seats    map[seatKey]*seat
	byGroup  map[ashlar.PGID][]*seat
	revision uint64
	news     chan struct{} // closed and replaced at every watch answer
	deleting map[seatKey]bool

	// fences are the sessions that are lost; read by gates under a seat's mutex.
	fences atomic.Pointer[map[ashlar.SessionID]bool]

	rules atomic.Pointer[map[uint32]wire.PoolRule] // of the pools that have any

	estimates estimates // of catch-ups of groups led here
	sizes     sizes
}

// errLost ends a life.
var errLost = errors.New("the masters do not know this session any more")

// register announces a new incarnation and returns its life, which has every
// seat and the fence list before it serves anybody (I-7).
func (s *Server) register() (*life, error) {
	var b [8]byte
	if _, err := rand.Read(b[:]); err != nil {
		return nil, err
	}
	l := &life{
		s: s, inc: ashlar.Incarnation(binary.LittleEndian.Uint64(b[:]) | 1), lease: lease{clk: s.clk},
		disks: map[ashlar.DiskID]*disk{}, seats: map[seatKey]*seat{}, byGroup: map[ashlar.PGID][]*seat{},
		news: make(chan struct{}), deleting: map[seatKey]bool{}, present: s.present(),
	}
	l.fences.Store(&map[ashlar.SessionID]bool{})
	l.rules.Store(&map[uint32]wire.PoolRule{})
	req := &wire.Register{
		Name: s.cfg.Name, UUID: s.id.uuid, Addr: s.cfg.Addr, Rack: s.cfg.Rack, Incarnation: l.inc, Process: s.cfg.Process,
		Disks: infos(l.present),
	}
	var rep wire.RegisterReply
	ctx, cancel := context.WithTimeout(s.ctx, 10*time.Second)
	defer cancel()
	sent := s.clk.Now()
	if err := s.cfg.Leader.Call(ctx, req, &rep); err != nil {
		return nil, err
	}
	if len(rep.Disks) != len(l.present) {
		return nil, ashlar.E("register", ashlar.Other, s.cfg.Name, fmt.Errorf("%d disk numbers for %d disks", len(rep.Disks), len(l.present)))
	}
	l.session, l.node = rep.Session, rep.Node
	l.every = time.Duration(rep.RenewMs) * time.Millisecond
	l.long = time.Duration(rep.LeaseMs) * time.Millisecond
	if l.every <= 0 || l.long <= l.every {
		return nil, ashlar.E("register", ashlar.Other, s.cfg.Name, fmt.Errorf("lease of %v renewed every %v", l.long, l.every))
	}
	s.heardTerm(rep.Term)
	s.firstSession.CompareAndSwap(0, uint64(rep.Session))
	for i, d := range l.present {
		d.id.Store(uint32(rep.Disks[i]))
		if err := d.store.SetHistory(rep.History); err != nil {
			return nil, err
		}
		l.disks[rep.Disks[i]] = d
	}
	l.ctx, l.cancel = context.WithCancelCause(s.ctx)
	l.queue = newCatchups(l)
	l.renewed(sent, rep.LeaseMs, rep.Time)
	rep.Watch.Fences = rep.Fences
	l.learn(&rep.Watch, sent)
	s.life.Store(l)
	return l, nil
}

func (l *life) renewed(sent clock.Time, leaseMs uint32, mastersTime int64) {
	l.lease.renew(sent, time.Duration(leaseMs)*time.Millisecond, mastersTime)
}

// enter counts a request in; it is refused once the life is ending.
func (l *life) enter() bool {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.ending {
		return false
	}
	l.tasks.Add(1)
	return true
}

func (l *life) leave() { l.tasks.Done() }

// spawn runs f as part of the life.
func (l *life) spawn(f func()) bool {
	if !l.enter() {
		return false
	}
	go func() {
		defer l.leave()
		f()
	}()
	return true
}

// serve keeps the lease and the watch until the session is lost.
func (l *life) serve() error {
	var loops sync.WaitGroup
	loops.Go(l.renewLoop)
	loops.Go(l.watchLoop)
	loops.Go(l.queue.run)
	loops.Go(l.commitLoop)
	loops.Go(l.sizeLoop)
	loops.Go(l.reopenLoop)
	loops.Wait()
	return context.Cause(l.ctx)
}

// end finishes what was admitted: nothing of this life is written any more
// when it returns.
func (l *life) end() {
	l.cancel(errLost)
	l.mu.Lock()
	l.ending = true
	seats := make([]*seat, 0, len(l.seats))
	for _, t := range l.seats {
		seats = append(seats, t)
	}
	l.mu.Unlock()
	for _, t := range seats {
		t.close(ashlar.NoLease)
	}
	l.tasks.Wait()
	for _, t := range seats {
		t.wait()
	}
}

// lost tells whether an error of the masters ends the life, and ends it.
func (l *life) lost(err error) bool {
	if errors.Is(err, ashlar.NoSession) || errors.Is(err, ashlar.Fenced) {
		l.cancel(err)
		return true
	}
	return l.ctx.Err() != nil
}

func (l *life) renewLoop() {
	tick := l.s.clk.NewTicker(l.every)
	defer tick.Stop()
	for {
		select {
		case <-l.ctx.Done():
			return
		case <-tick.C():
		}
		if l.renew() {
			return
		}
	}
}

// renew sends one heartbeat and tells whether the life is over.
func (l *life) renew() bool {
	ctx, cancel := context.WithTimeout(l.ctx, l.long)
	defer cancel()
	var rep wire.ServerRenewReply
	sent := l.s.clk.Now()
	req := &wire.ServerRenew{
		Session: l.session, Incarnation: l.inc, Disks: infos(l.present), Progress: l.estimates.list(), Sizes: l.sizes.next(), Synced: l.s.synced.Load(),
	}
	if err := l.s.cfg.Leader.Call(ctx, req, &rep); err != nil {
		if l.lost(err) {
			return true
		}
		l.s.log.Warn("renewal failed", "err", err)
		return false
	}
	l.s.heardTerm(rep.Term)
	l.renewed(sent, rep.LeaseMs, rep.Time)
	return false
}

func (l *life) watchLoop() {
	pause := retryMin
	for l.ctx.Err() == nil {
		var rep wire.WatchReply
		sent := l.s.clk.Now()
		ctx, cancel := context.WithTimeout(l.ctx, 2*l.long)
		err := l.s.cfg.Leader.Call(ctx, &wire.Watch{Session: l.session, Revision: l.revision}, &rep)
		cancel()
		if err == nil {
			pause = retryMin
			l.learn(&rep, sent)
			continue
		}
		if l.lost(err) {
			return
		}
		l.s.sleep(l.ctx, pause)
		pause = min(2*pause, retryMax)
	}
}

// learn takes the groups and fences as of a revision. Only watchLoop calls it
// once the life serves.
func (l *life) learn(w *wire.WatchReply, sent clock.Time) {
	if w.Revision < l.revision {
		return
	}
	l.revision = w.Revision
	grown := false
	fences := make(map[ashlar.SessionID]bool, len(w.Fences))
	var last uint64
	for _, f := range w.Fences {
		fences[f.Session] = true
		last = max(last, f.Revision)
		grown = grown || !l.fenced(f.Session)
	}
	l.fences.Store(&fences)
	rules := make(map[uint32]wire.PoolRule, len(w.Rules))
	for _, r := range w.Rules {
		rules[r.Pool] = r
	}
	l.rules.Store(&rules)
	l.s.budget.set(rules)

	listed := map[seatKey]bool{}
	for i := range w.Groups {
		for _, m := range w.Groups[i].Members {
			if d := l.disks[m.Disk]; d != nil {
				k := seatKey{m.Disk, w.Groups[i].ID}
				listed[k] = true
				if t := l.seat(k, true); t != nil {
					t.listed.Store(true)
					t.configure(w.Groups[i])
				}
			}
		}
	}
	l.dropUnlisted(listed, sent)
	l.mu.Lock()
	close(l.news)
	l.news = make(chan struct{})
	l.mu.Unlock()
	if grown && last > 0 {
		l.spawn(func() { l.fence(last) })
	}
}

// find returns the seat of a member, nil if there is none.
func (l *life) find(d ashlar.DiskID, g ashlar.PGID) *seat {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.seats[seatKey{d, g}]
}

// seat returns the seat of a member, made if asked for; nil if its disk is
// not served.
func (l *life) seat(k seatKey, make bool) *seat {
	l.mu.Lock()
	defer l.mu.Unlock()
	if t := l.seats[k]; t != nil || !make {
		return t
	}
	d := l.disks[k.disk]
	if d == nil || d.failed() != nil || l.ending || l.deleting[k] {
		return nil
	}
	t := newSeat(l, d, k)
	l.seats[k] = t
	l.byGroup[k.group] = append(l.byGroup[k.group], t)
	return t
}

// remove takes a seat out.
func (l *life) remove(k seatKey) *seat {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.seats[k]
	if t == nil {
		return nil
	}
	delete(l.seats, k)
	list := l.byGroup[k.group]
	for i := range list {
		if list[i] == t {
			l.byGroup[k.group] = append(list[:i:i], list[i+1:]...)
			break
		}
	}
	if len(l.byGroup[k.group]) == 0 {
		delete(l.byGroup, k.group)
	}
	return t
}

// dropUnlisted gives up seats that the masters do not list, and deletes data
// that has no owner.
func (l *life) dropUnlisted(listed map[seatKey]bool, sent clock.Time) {
	for id, d := range l.disks {
		if d.failed() != nil {
			continue
		}
		for _, r := range d.store.Groups() {
			k := seatKey{id, r.Config.ID}
			l.mu.Lock()
			t := l.seats[k]
			// One that a primary's Adopt made, or put into a newer epoch, after
			// this answer was asked for is not known to be unlisted.
			young := t != nil && !t.unlistedSince(sent)
			busy := l.deleting[k]
			if listed[k] || young || busy {
				l.mu.Unlock()
				continue
			}
			l.deleting[k] = true
			l.mu.Unlock()
			l.remove(k)
			started := l.spawn(func() {
				if t != nil {
					t.close(ashlar.WrongEpoch)
					t.wait()
				}
				l.s.log.Info("deleting a group that has no member here", "group", k.group, "disk", d.path)
				if err := d.store.DeleteGroup(k.group); err != nil {
					l.s.log.Warn("group not deleted", "group", k.group, "err", err)
				}
				l.mu.Lock()
				delete(l.deleting, k)
				l.mu.Unlock()
			})
			if !started {
				return
			}
		}
	}
}

// all returns every seat.
func (l *life) all() []*seat {
	l.mu.RLock()
	defer l.mu.RUnlock()
	out := make([]*seat, 0, len(l.seats))
	for _, t := range l.seats {
		out = append(out, t)
	}
	return out
}

// fenced tells whether a session is lost.
func (l *life) fenced(id ashlar.SessionID) bool {
	return (*l.fences.Load())[id]
}

// fence acknowledges the fences up to a revision once nothing of their
// sessions is in flight in any group led here (I-7).
func (l *life) fence(revision uint64) {
	var ids []ashlar.SessionID
	for id := range *l.fences.Load() {
		ids = append(ids, id)
	}
	for _, t := range l.all() {
		for _, id := range ids {
			if !t.fence(id) {
				return // the life is over
			}
		}
	}
	for l.ctx.Err() == nil {
		err := l.s.cfg.Leader.Call(l.ctx, &wire.Fenced{Session: l.session, Revision: revision}, nil)
		if err == nil || l.lost(err) {
			return
		}
		l.s.sleep(l.ctx, retryMax)
	}
}

// commitLoop tells members lazily what is committed when no write does.
func (l *life) commitLoop() {
	tick := l.s.clk.NewTicker(commitIdle)
	defer tick.Stop()
	for {
		select {
		case <-l.ctx.Done():
			return
		case <-tick.C():
		}
		for _, t := range l.all() {
			t.commitIdle()
		}
	}
}
