package file

import (
	"context"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// kept is the data of a closed file that was not written when its session was
// lost. It is written again under the next if nobody touched the file meanwhile:
// there was no handle to report an error.
type kept struct {
	attr ashlar.Attr // as the leader knew the file
	seq  uint64
	end  uint64  // how far its writes reached
	data []above // what was not in the object yet
	set  wire.Behind
}

// keep keeps what lose is about to drop of a file that waits to be written behind
// its close, and is open no more. alone says that it is. mu must be held.
func (i *inode) keep(alone bool) {
	if !alone || !i.bare || i.attr.Size > 0 || i.localEnd == 0 || i.localEnd > BehindSize {
		return
	}
	data, _ := i.above(0, i.localEnd)
	i.kept = &kept{attr: i.attr, seq: i.writeSeq, end: i.localEnd, data: data, set: i.set}
}

// isClosed tells whether all handles of a file are closed and wait for its data.
func (i *inode) isClosed() bool {
	i.fs.mu.Lock()
	defer i.fs.mu.Unlock()
	return i.closing > 0 && i.closing == i.opens
}

// writeAgain writes what was kept. False says that there was nothing, or that it
// can not be.
func (i *inode) writeAgain(ctx context.Context) bool {
	i.mu.Lock()
	k := i.kept
	i.kept = nil
	i.mu.Unlock()
	if k == nil {
		return false
	}
	t, end, err := i.fs.useIn(ctx, i, demand{mode: ashlar.LeaseExclusive})
	if err != nil {
		return false
	}
	errs, ok := i.restore(ctx, t, k)
	end()
	if !ok || i.flush(ctx, false) != nil || i.failures() != errs || i.commit(ctx) != nil {
		return false
	}
	i.fs.o.Logger.Info("written under the next session", "inode", i.id)
	return i.failures() == errs
}

// restore buffers what was kept, unless the file was touched meanwhile, and
// returns how many failures there were before.
func (i *inode) restore(ctx context.Context, t *term, k *kept) (errs uint64, ok bool) {
	// The present attributes: what was told with the lease may be missing here.
	var e wire.Entry
	if err := i.fs.do(ctx, ashlar.Cred{Checked: true}, &wire.GetAttr{Inode: i.id}, &e); err != nil {
		return 0, false
	}
	i.merge(&e, false)
	i.io.Lock()
	defer i.io.Unlock()
	i.mu.Lock()
	errs = i.errs
	same := i.writeSeq == k.seq && !i.changed && sameButAtime(&e.Attr, &k.attr) && sameButAtime(&i.attr, &k.attr)
	i.mu.Unlock()
	if !same {
		return errs, false
	}
	for _, a := range k.data {
		for off, p := a.off, a.data; len(p) > 0; {
			n := min(len(p), int(PieceSize-off%PieceSize))
			if i.buffer(ctx, t, p[:n], off) != nil {
				return errs, false
			}
			p, off = p[n:], off+uint64(n)
		}
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.fs.term.Load() != t {
		return errs, false
	}
	i.wrote(k.end) // some of it may have been in the object before
	i.set = k.set
	return errs, true
}
