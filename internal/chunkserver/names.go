package chunkserver

import (
	"context"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/chunkstore"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// names asks the masters for the present names of the files that chunks are of.
// What can not be had now is left as it is: chunks note names only for the day
// when no master is left.
func (t *seat) names(keys []wire.ChunkKey) map[ashlar.Inode]*wire.Origin {
	out := map[ashlar.Inode]*wire.Origin{}
	var ask []ashlar.Inode
	for _, ck := range keys {
		info, ok, err := t.d.store.Info(chunkstore.Key{Group: t.group, Layer: ck.Layer, Index: ck.Index})
		if err != nil || !ok || info.Damaged || info.Owner == 0 {
			continue
		}
		if _, known := out[info.Owner]; !known {
			out[info.Owner] = nil
			ask = append(ask, info.Owner)
		}
	}
	for len(ask) > 0 {
		n := min(len(ask), wire.OriginsMax)
		var rep wire.OriginsReply
		err := t.l.s.cfg.Leader.Call(t.l.ctx, &wire.Origins{Session: t.l.session, Inodes: ask[:n]}, &rep)
		if err != nil {
			t.l.s.log.Warn("names of files are not refreshed on the disks", "group", t.group, "err", err)
			return nil
		}
		for i := range rep.Origins {
			if o := &rep.Origins[i]; o.Owner != 0 {
				out[o.Owner] = o
			}
		}
		ask = ask[n:]
	}
	return out
}

// nameHere has the chunk here note the present name of its file.
func (t *seat) nameHere(k chunkstore.Key, names map[ashlar.Inode]*wire.Origin) {
	info, ok, err := t.d.store.Info(k)
	if err != nil || !ok || names[info.Owner] == nil {
		return
	}
	if err := t.d.store.SetOrigin(k, names[info.Owner]); err != nil {
		t.l.s.log.Warn("name not noted", "chunk", k.String(), "err", err)
	}
}

// nameOn has a member's chunk note it, which noted origin until now.
func (t *seat) nameOn(ctx context.Context, k chunkstore.Key, m ashlar.DiskID, e ashlar.Epoch, origin *wire.Origin, names map[ashlar.Inode]*wire.Origin) {
	name := names[origin.Owner]
	if name == nil || origin.Restated(name) == *origin {
		return
	}
	c := &wire.Copy{Disk: m, Group: t.group, Epoch: e, Layer: k.Layer, Chunk: k.Index, Origin: *name}
	if err := t.call(ctx, m, e, c, nil); err != nil && ctx.Err() == nil {
		t.l.s.log.Warn("name not noted", "chunk", k.String(), "disk", m, "err", err)
	}
}
