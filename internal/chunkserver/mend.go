package chunkserver

import (
	"context"
	"errors"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/chunkstore"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// errNoCopy says that no member has a good copy of a block.
var errNoCopy = errors.New("no member has a good copy")

// mended does what may find damage here, mends that from another in-sync
// member, and does it again. First the header of the chunk is mended, if it is
// that, and then the blocks which do looks at: the caller holds a span over
// them that keeps writes out, or does not mind them.
func (t *seat) mended(ctx context.Context, k chunkstore.Key, e ashlar.Epoch, do func() error) error {
	err := do()
	if chunkstore.HeaderDamaged(err) {
		if err := t.mendHeader(ctx, k, e); err != nil {
			return err
		}
		err = do()
	}
	if bad := damage(err); bad != nil {
		if err := t.mend(ctx, k, bad, e); err != nil {
			return err
		}
		err = do()
	}
	return err
}

// mend replaces damaged ranges of a chunk by another in-sync member's.
func (t *seat) mend(ctx context.Context, k chunkstore.Key, bad []chunkstore.Region, e ashlar.Epoch) error {
	for _, r := range bad {
		for off := r.Off; off < r.Off+r.Len; off += ashlar.IOMax {
			n := min(r.Off+r.Len-off, ashlar.IOMax)
			err := t.fromPeers(ctx, k, off, n, e, func(rep *wire.FetchReply) error {
				c := &wire.Copy{
					ChunkSize: rep.ChunkSize, Origin: rep.Origin,
					Off: off, End: rep.End, States: rep.States, Sums: rep.Sums, Data: rep.Data,
				}
				if c.ChunkSize == 0 { // it has none: absent blocks of the size here
					if err := t.describe(k, c); err != nil {
						return err
					}
				}
				return t.d.store.Import(k, c, e)
			})
			if err != nil {
				return err
			}
			t.d.repaired.Add(t.d.store.Mended(k, int(off/ashlar.BlockSize), int(n/ashlar.BlockSize)))
			t.l.s.log.Warn("damaged blocks mended", "chunk", k.String(), "off", off, "bytes", n, "disk", t.d.path)
		}
	}
	return nil
}

// mendHeader writes a damaged header of a chunk anew by what another in-sync
// member says of the chunk. No write is kept out for it: none can be made to
// the chunk before, and it changes no block.
func (t *seat) mendHeader(ctx context.Context, k chunkstore.Key, e ashlar.Epoch) error {
	err := t.fromPeers(ctx, k, 0, ashlar.BlockSize, e, func(rep *wire.FetchReply) error {
		if rep.ChunkSize == 0 {
			return errNoCopy
		}
		return t.d.store.RestoreHeader(k, rep.ChunkSize, rep.Origin, e)
	})
	if err == nil {
		t.d.repaired.Add(1)
		t.l.s.log.Warn("header of a chunk mended", "chunk", k.String(), "disk", t.d.path)
	}
	return err
}

// fromPeers fetches blocks from one in-sync member after the other until use
// takes what came. The error is NotReady if one that could not be asked now
// may have them, and Corrupt if nobody has.
func (t *seat) fromPeers(ctx context.Context, k chunkstore.Key, off, n uint32, e ashlar.Epoch, use func(*wire.FetchReply) error) error {
	last := errNoCopy
	for _, m := range t.peers(e) {
		var rep wire.FetchReply
		req := &wire.Fetch{Disk: m, Group: t.group, Epoch: e, Layer: k.Layer, Chunk: k.Index, Off: off, Len: n}
		fctx, cancel := context.WithTimeout(ctx, memberSlow)
		err := t.l.s.cfg.RPC.Call(fctx, t.addr(m), req, &rep)
		cancel()
		if err == nil {
			err = use(&rep)
		}
		if err == nil {
			return nil
		}
		last = err
	}
	if kind := ashlar.KindOf(last); ctx.Err() != nil || kind.Retryable() {
		return ashlar.E("mend", ashlar.NotReady, k.String(), last)
	}
	return ashlar.E("mend", ashlar.Corrupt, k.String(), last)
}

// describe fills in what the header of a chunk says.
func (t *seat) describe(k chunkstore.Key, c *wire.Copy) error {
	info, ok, err := t.d.store.Info(k)
	if err != nil {
		return err
	}
	if !ok || info.Damaged {
		return ashlar.E("mend", ashlar.Corrupt, k.String(), errors.New("its header is damaged"))
	}
	c.ChunkSize, c.Origin = info.ChunkSize, info.Origin
	return nil
}
