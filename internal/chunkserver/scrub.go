package chunkserver

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/chunkstore"
	"github.com/ashlarfs/ashlar/internal/replication"
	"github.com/ashlarfs/ashlar/internal/rpc"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// scrubParallel is how many chunks a pass looks at together, so that one does
// not wait for another's members.
const scrubParallel = 4

// scrubber runs one pass at a time over the chunks of the groups led here.
// Each group is scrubbed by its primary, on all its members.
type scrubber struct {
	mu      sync.Mutex
	running bool

	passes, chunks, total, bytes, damaged, repaired atomic.Uint64
}

// handleScrub starts a pass if asked to, and tells how far it is.
func (s *Server) handleScrub(_ context.Context, r *rpc.Request) (wire.Message, error) {
	m := r.Msg.(*wire.Scrub)
	l, err := s.current()
	if err != nil {
		return nil, err
	}
	defer l.leave()
	b := &s.scrub
	b.mu.Lock()
	defer b.mu.Unlock()
	if m.Start && !b.running {
		b.running = true
		for _, c := range []*atomic.Uint64{&b.chunks, &b.total, &b.bytes, &b.damaged, &b.repaired} {
			c.Store(0)
		}
		started := l.spawn(func() {
			l.scrub(m.Disk)
			b.mu.Lock()
			b.running = false
			b.mu.Unlock()
		})
		if !started {
			b.running = false
		}
	}
	return &wire.ScrubReply{
		Running: b.running, Passes: b.passes.Load(), Chunks: b.chunks.Load(), Total: b.total.Load(),
		Bytes: b.bytes.Load(), Damaged: b.damaged.Load(), Repaired: b.repaired.Load(),
	}, nil
}

// scrub is one pass, over one disk if it is not 0.
func (l *life) scrub(only ashlar.DiskID) {
	var seats []*seat
	for _, t := range l.all() {
		if only != 0 && t.d.number() != only || t.d.failed() != nil {
			continue
		}
		t.mu.Lock()
		led := t.sm.Phase() == replication.Serving && t.vetted
		t.mu.Unlock()
		if led {
			seats = append(seats, t)
			l.s.scrub.total.Add(t.countChunks())
		}
	}
	for _, t := range seats {
		e := t.epoch()
		from := wire.ChunkKey{}
		for l.ctx.Err() == nil {
			keys, err := t.d.store.Keys(t.group, from, listPage)
			if err != nil || len(keys) == 0 {
				break
			}
			names := t.names(keys)
			var wg sync.WaitGroup
			room := make(chan struct{}, scrubParallel)
			for _, k := range keys {
				room <- struct{}{}
				wg.Go(func() {
					defer func() { <-room }()
					t.scrubChunk(chunkstore.Key{Group: t.group, Layer: k.Layer, Index: k.Index}, e, names)
				})
			}
			wg.Wait()
			from = keys[len(keys)-1]
			from.Index++
		}
	}
	if l.ctx.Err() == nil {
		l.s.scrub.passes.Add(1)
	}
}

func (t *seat) countChunks() (n uint64) {
	from := wire.ChunkKey{}
	for {
		keys, err := t.d.store.Keys(t.group, from, 1<<20)
		n += uint64(len(keys))
		if err != nil || len(keys) < 1<<20 {
			return n
		}
		from = keys[len(keys)-1]
		from.Index++
	}
}

// scrubChunk verifies a chunk here and compares it with the in-sync members;
// what looks bad is looked at again with writes kept out, and then repaired.
// The members' headers are told the present name of the file.
func (t *seat) scrubChunk(k chunkstore.Key, e ashlar.Epoch, names map[ashlar.Inode]*wire.Origin) {
	b := &t.l.s.scrub
	defer b.chunks.Add(1)
	ctx := t.job(t.d.number(), e)
	n, bad, err := t.d.store.Verify(k)
	b.bytes.Add(n)
	if err == nil && len(bad) == 0 {
		var differs []chunkstore.Region
		for _, m := range t.peers(e) {
			d, origin, header, derr := t.differences(ctx, k, m, e)
			if derr == nil && !header {
				t.nameOn(ctx, k, m, e, origin, names)
			}
			differs, err = append(differs, d...), errors.Join(err, derr)
			if header {
				differs = append(differs, chunkstore.Region{})
			}
		}
		t.nameHere(k, names)
		if err == nil && len(differs) == 0 {
			return
		}
	}
	s := &replication.Span{Layer: k.Layer, Chunk: k.Index, End: ashlar.ChunkSizeMax}
	if err := t.lock(ctx, e, s); err != nil {
		return // the next pass, under another primary perhaps
	}
	defer t.unlock(s)
	if err := t.guarded(e, func() error { return t.repair(ctx, k, e) }); err != nil && ctx.Err() == nil {
		t.l.s.log.Error("chunk not repaired", "chunk", k.String(), "err", err)
	}
}

// repair mends a chunk here from a member and then every member from here. The
// caller keeps writes out.
func (t *seat) repair(ctx context.Context, k chunkstore.Key, e ashlar.Epoch) error {
	b := &t.l.s.scrub
	_, bad, err := t.d.store.Verify(k)
	if chunkstore.HeaderDamaged(err) {
		b.damaged.Add(1)
		if err := t.mendHeader(ctx, k, e); err != nil {
			return err
		}
		b.repaired.Add(1)
		_, bad, err = t.d.store.Verify(k)
	}
	if err != nil {
		return err
	}
	b.damaged.Add(size(bad) / ashlar.BlockSize)
	for _, r := range bad {
		if err := t.mend(ctx, k, []chunkstore.Region{r}, e); err != nil {
			return err
		}
		b.repaired.Add(uint64(r.Len / ashlar.BlockSize))
	}
	for _, m := range t.peers(e) {
		differs, _, header, err := t.differences(ctx, k, m, e)
		if header { // any copy writes it anew
			b.damaged.Add(1)
			if err := t.push(k, m, chunkstore.Region{Len: ashlar.BlockSize}, e); err != nil {
				return err
			}
			b.repaired.Add(1)
			t.l.s.log.Warn("header of a chunk mended", "chunk", k.String(), "disk", m)
			differs, _, _, err = t.differences(ctx, k, m, e)
		}
		if err != nil {
			return err
		}
		for _, r := range differs {
			n := uint64(r.Len / ashlar.BlockSize)
			b.damaged.Add(n)
			t.d.differed.Add(n)
			t.l.s.log.Warn("blocks differ between members", "chunk", k.String(), "off", r.Off, "bytes", r.Len, "disk", m)
			if err := t.push(k, m, r, e); err != nil {
				return err
			}
			b.repaired.Add(n)
			t.d.repaired.Add(n)
		}
	}
	return nil
}

// push overwrites a range of a chunk on a member with what is here.
func (t *seat) push(k chunkstore.Key, m ashlar.DiskID, r chunkstore.Region, e ashlar.Epoch) error {
	for off := r.Off; off < r.Off+r.Len; off += ashlar.IOMax {
		c, err := t.export(k.Layer, k.Index, off, min(r.Off+r.Len-off, ashlar.IOMax), e)
		if err != nil {
			return err
		}
		c.Disk = m
		if c.ChunkSize == 0 {
			c.ChunkSize, c.Replace = ashlar.ChunkSizeMin, true
		}
		if err := t.surely(m, e, c); err != nil {
			return err
		}
	}
	return nil
}

// differences returns where a member's stored checksums are not ours, and what
// its chunk notes of its file, or that its header of the chunk is damaged.
// Absent and zero blocks are the same to a reader of one layer, but not to a
// stack, so states count too.
func (t *seat) differences(ctx context.Context, k chunkstore.Key, m ashlar.DiskID, e ashlar.Epoch) (out []chunkstore.Region, origin *wire.Origin, header bool, err error) {
	states, sums, err := t.d.store.Sums(k)
	if err != nil {
		return nil, nil, false, err
	}
	var rep wire.ChunkSumsReply
	req := &wire.ChunkSums{Disk: m, Group: t.group, Epoch: e, Layer: k.Layer, Chunk: k.Index}
	if err := t.call(ctx, m, e, req, &rep); err != nil || rep.Header {
		return nil, nil, rep.Header, err
	}
	at := func(states []byte, sums []uint32, i int) (byte, uint32) {
		if i < len(states) && i < len(sums) && states[i] == chunkstore.Data {
			return states[i], sums[i]
		}
		if i < len(states) {
			return states[i], 0
		}
		return chunkstore.Absent, 0
	}
	for i := range max(len(states), len(rep.States)) {
		s1, c1 := at(states, sums, i)
		s2, c2 := at(rep.States, rep.Sums, i)
		if s1 == s2 && c1 == c2 {
			continue
		}
		off := uint32(i) * ashlar.BlockSize
		if n := len(out); n > 0 && out[n-1].Off+out[n-1].Len == off {
			out[n-1].Len += ashlar.BlockSize
		} else {
			out = append(out, chunkstore.Region{Off: off, Len: ashlar.BlockSize})
		}
	}
	return out, &rep.Origin, false, nil
}
