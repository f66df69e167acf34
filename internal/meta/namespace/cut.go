package namespace

import (
	"fmt"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/meta/key"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// NeedCut is the error of an operation that makes a file with data shorter:
// it can be answered only after every group of the layout has recorded the
// raised generation and cut (I-10). The master
//
//  1. logs BeginCut, unless Pending: then somebody has, and drives it;
//  2. sends Cuts to the primaries, each with its group's epoch filled in, and
//     again until every one has answered;
//  3. evaluates the operation that was logged with it once more with Env.CutDone true for Layer and
//     Gen, which sets size and generation, and then, in the same batch,
//     FinishCut, which does so if the evaluation has not.
//
// Until then the inode shows its old size and generation. A new leader goes
// on with what Cuts lists.
type NeedCut struct {
	Inode   ashlar.Inode
	Layer   ashlar.LayerID
	Gen     ashlar.Generation // that the cut raises the layer to
	Size    uint64            // that the file will have
	Pending bool
	Cuts    []wire.Cut // one for each group of the layout
	// Op is the operation that needs the cut; BeginCut logs it, Cuts tells it
	// to the next leader. It may be nil.
	Op *wire.Operation
}

// Error implements error.
func (n *NeedCut) Error() string {
	return fmt.Sprintf("layer %d: to be cut to %d bytes at generation %d", n.Layer, n.Size, n.Gen)
}

// Unwrap makes a NeedCut that reaches a client a refusal to be retried.
func (n *NeedCut) Unwrap() error { return ashlar.NotReady }

func newNeedCut(i *Inode, size uint64, gen ashlar.Generation, pending bool) *NeedCut {
	n := &NeedCut{Inode: i.Attr.Inode, Layer: i.Object.Layer, Gen: gen, Size: size, Pending: pending}
	l := &i.Object.Layout
	from := l.Chunks(size)
	for _, g := range l.AllGroups() {
		cut := wire.Cut{Group: g, Layer: n.Layer, Gen: gen, Truncate: true, From: from}
		// Only the last stripe set can have chunks that stay in part.
		for c := from - min(from, ashlar.StripeWidthMax); c < from; c++ {
			keep := l.ChunkLen(c, size)
			if own, _ := l.Group(c); own == g && keep < l.ChunkSize {
				cut.Cuts = append(cut.Cuts, wire.ChunkCut{Chunk: c, Len: keep})
			}
		}
		n.Cuts = append(n.Cuts, cut)
	}
	return n
}

// resize makes a file size bytes long, or fails with a NeedCut. It changes
// the record only; the caller writes it.
func (o *op) resize(i *Inode, size uint64) error {
	if i.Cutting {
		if err := o.joinCut(i, size); err != nil {
			return err
		}
	} else if size < i.Attr.Size {
		if err := o.shrink(i, size); err != nil {
			return err
		}
	}
	o.dropPrivileges(i)
	o.setSize(i, size)
	o.touch(i)
	return nil
}

// joinCut ends a cut that is done and was for this size; any other has to end
// first.
func (o *op) joinCut(i *Inode, size uint64) error {
	var r cutRecord
	if err := o.loadCut(i, &r); err != nil {
		return err
	}
	done := o.env.CutDone != nil && o.env.CutDone(i.Object.Layer, r.Gen)
	if !done || size != r.Size {
		return newNeedCut(i, r.Size, r.Gen, true)
	}
	o.endCut(i, &r)
	return nil
}

func (o *op) loadCut(i *Inode, r *cutRecord) error {
	ok, err := key.Load(o.tx, key.Cut(i.Object.Layer), r)
	if err == nil && !ok {
		err = ashlar.E(o.name, ashlar.Corrupt, key.String(key.Cut(i.Object.Layer)), nil)
	}
	return err
}

func (o *op) endCut(i *Inode, r *cutRecord) {
	o.tx.Delete(key.Cut(i.Object.Layer))
	i.Object.Gen, i.Cutting = r.Gen, false
}

// shrink prepares for a smaller size. A file that becomes empty and that no
// other session has open gets a fresh layer, and the old one is deleted in the
// background: no chunkserver has to be asked, because nobody writes to the
// old layer any more.
func (o *op) shrink(i *Inode, size uint64) error {
	switch {
	case len(i.Object.Layout.Segments) == 0:
		return nil // holes only
	case size > 0 || o.env.Opens.OpenElsewhere(i.Attr.Inode, o.session):
		return newNeedCut(i, size, i.Object.Gen+1, false)
	}
	vol, err := o.volumeOf(i)
	if err != nil {
		return err
	}
	p := ashlar.PartitionOf(i.Attr.Inode)
	id, err := key.Next(o.tx, p, key.CounterID)
	if err != nil {
		return err
	}
	o.discard(i)
	i.Object = o.freshObject(ashlar.InPartition[ashlar.LayerID](p, id), vol)
	return nil
}

// BeginCut logs that a cut is under way. It fails if the file is not any more
// what it was when n was made; the operation is then evaluated again.
func BeginCut(tx key.Tx, n *NeedCut) error {
	o := &op{tx: tx, name: "begin cut"}
	i, err := o.file(n.Inode)
	switch {
	case err != nil:
		return err
	case i.Object.Layer != n.Layer || i.Object.Gen+1 != n.Gen:
		return o.fail(ashlar.WrongGeneration, "")
	case i.Cutting:
		return o.fail(ashlar.Busy, "")
	}
	i.Cutting = true
	o.put(i)
	r := &cutRecord{Inode: n.Inode, Gen: n.Gen, Size: n.Size}
	if n.Op != nil {
		if b, err := wire.Encode(nil, n.Op); err == nil && len(b) <= cutOpMax {
			r.Op = b
		}
	}
	key.Store(tx, key.Cut(n.Layer), r)
	return nil
}

// FinishCut sets the size and generation of a cut that every group has
// recorded. It does nothing if none of that layer is pending.
func FinishCut(tx key.Tx, now int64, layer ashlar.LayerID) error {
	o := &op{tx: tx, env: &Env{Now: now}, cred: &ashlar.Cred{}, name: "finish cut"}
	var r cutRecord
	if ok, err := key.Load(tx, key.Cut(layer), &r); !ok || err != nil {
		return err
	}
	i, err := o.file(r.Inode)
	if err != nil {
		return err
	}
	o.endCut(i, &r)
	o.setSize(i, min(i.Attr.Size, r.Size))
	o.touch(i)
	o.put(i)
	return o.settle()
}

// Cuts returns every pending cut of a partition, in order of layer, for a new
// leader to go on with.
func Cuts(tx key.Tx, p ashlar.Partition) ([]*NeedCut, error) {
	o := &op{tx: tx, name: "list cuts"}
	var records []cutRecord
	var failed error
	lo, hi := key.Range(p, key.KindCut)
	tx.Scan(lo, hi, func(k, v []byte) bool {
		var r cutRecord
		failed = key.Decode(v, &r)
		records = append(records, r)
		return failed == nil
	})
	if failed != nil {
		return nil, failed
	}
	var out []*NeedCut
	for _, r := range records {
		i, err := o.file(r.Inode)
		if err != nil {
			return nil, err
		}
		n := newNeedCut(i, r.Size, r.Gen, true)
		n.Op = r.operation()
		out = append(out, n)
	}
	return out, nil
}
