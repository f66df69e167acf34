package main

import (
	"fmt"
	"time"

	"github.com/tidwall/btree"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/kv"
	"github.com/ashlarfs/ashlar/internal/meta"
	"github.com/ashlarfs/ashlar/internal/meta/key"
	"github.com/ashlarfs/ashlar/internal/meta/session"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// batchMax is the most operations of one batch, and window how many a session
// has unanswered: what 64 clients at once keep a leader busy with.
const (
	batchMax = 256
	window   = 64
)

// leader evaluates operations into batches and applies them to a store, as a
// leading master does, without a log. It is used by one goroutine.
type leader struct {
	store   *kv.Store
	env     meta.Env
	session ashlar.SessionID
	root    ashlar.Inode
	seq     uint64
	over    btree.Map[string, kv.Op]
	ops     []kv.Op
	err     error
}

// openStore opens the store at dir with the defaults of a master.
func openStore(dir string) (*kv.Store, error) {
	return kv.Open(kv.Options{Dir: dir, Cluster: ashlar.ClusterID{1}})
}

// newLeader makes a cluster with one session and one volume in an empty store.
func newLeader(store *kv.Store) (*leader, error) {
	l := &leader{store: store}
	l.env = meta.Env{Now: time.Now().UnixNano(), Opens: nobody{}, Placer: groups(48), Space: space{}}
	meta.InitCluster(l, &meta.Cluster{ID: ashlar.ClusterID{1}, History: 1, Created: l.env.Now})
	key.StoreNumber(l, key.PoolName("default"), uint32(1))
	s, _, err := session.Make(l, l.env.Now, &session.Request{Name: "scale", Incarnation: 1, Nonce: 1})
	if err != nil {
		return nil, err
	}
	l.session = s.ID
	if err := l.apply(); err != nil {
		return nil, err
	}
	reply, err := l.change(&wire.SetVolume{Name: "main"})
	if err != nil {
		return nil, err
	}
	l.root = reply.(*wire.VolumeReply).Root
	return l, l.apply()
}

// change evaluates an operation into the current batch.
func (l *leader) change(body wire.Message) (wire.Message, error) {
	l.seq++
	l.env.Now++
	o := &wire.Operation{Session: l.session, Seq: l.seq, Lowest: 1, Cred: ashlar.Cred{UID: 1000, GID: 1000, Checked: true}, Body: body}
	if l.seq > window {
		o.Lowest = l.seq - window
	}
	reply, _, err := meta.Evaluate(l, &l.env, o)
	if l.err != nil {
		return nil, l.err
	}
	return reply, err
}

// apply applies the current batch.
func (l *leader) apply() error {
	err := l.store.Apply(l.ops, l.store.Applied()+1)
	l.ops = l.ops[:0]
	l.over.Clear()
	return err
}

// mkdir makes a directory.
func (l *leader) mkdir(parent ashlar.Inode, name string) (ashlar.Inode, error) {
	return l.makeOf(&wire.Make{Parent: parent, Name: name, Type: ashlar.TypeDir, Mode: 0o755})
}

// create makes a file.
func (l *leader) create(parent ashlar.Inode, name string) (ashlar.Inode, error) {
	return l.makeOf(&wire.Make{Parent: parent, Name: name, Type: ashlar.TypeFile, Mode: 0o644, Exclusive: true})
}

func (l *leader) makeOf(m *wire.Make) (ashlar.Inode, error) {
	reply, err := l.change(m)
	if err != nil {
		return 0, fmt.Errorf("make %s: %w", m.Name, err)
	}
	return reply.(*wire.Entry).Attr.Inode, nil
}

// Get implements meta.Tx.
func (l *leader) Get(k []byte) ([]byte, bool) {
	if op, ok := l.over.Get(string(k)); ok {
		return op.Value, !op.Delete
	}
	v, ok, err := l.store.Get(k)
	if err != nil {
		l.err = err
	}
	return v, ok
}

// Set implements meta.Tx.
func (l *leader) Set(k, v []byte) { l.write(kv.Op{Key: k, Value: v}) }

// Delete implements meta.Tx.
func (l *leader) Delete(k []byte) { l.write(kv.Op{Key: k, Delete: true}) }

func (l *leader) write(op kv.Op) {
	l.over.Set(string(op.Key), op)
	l.ops = append(l.ops, op)
}

// Scan implements meta.Tx; what is measured scans only applied state.
func (l *leader) Scan(lo, hi []byte, fn func(k, v []byte) bool) {
	if len(l.ops) > 0 {
		panic("scale: a scan within a batch")
	}
	if err := l.store.Scan(lo, hi, false, fn); err != nil {
		l.err = err
	}
}

// view is the meta.Tx of a read: one state of the store.
type view struct {
	snap *kv.Snap
	err  error
}

// read evaluates a read as a leader does, on a view of the applied state. It
// may be called by several goroutines, beside change.
func read(store *kv.Store, env *meta.Env, s ashlar.SessionID, body wire.Message) (wire.Message, error) {
	snap, err := store.Snapshot()
	if err != nil {
		return nil, err
	}
	v := &view{snap: snap}
	o := &wire.Operation{Session: s, Cred: ashlar.Cred{UID: 1000, GID: 1000, Checked: true}, Body: body}
	reply, _, err := meta.Evaluate(v, env, o)
	if cerr := snap.Close(); cerr != nil && v.err == nil {
		v.err = cerr
	}
	if v.err != nil {
		return nil, v.err
	}
	return reply, err
}

// Get implements meta.Tx.
func (v *view) Get(k []byte) ([]byte, bool) {
	b, ok, err := v.snap.Get(k)
	if err != nil {
		v.err = err
	}
	return b, ok
}

// Scan implements meta.Tx.
func (v *view) Scan(lo, hi []byte, fn func(k, v []byte) bool) {
	if err := v.snap.Scan(lo, hi, false, fn); err != nil {
		v.err = err
	}
}

// Set implements meta.Tx.
func (*view) Set(_, _ []byte) { panic("scale: a read writes") }

// Delete implements meta.Tx.
func (*view) Delete(_ []byte) { panic("scale: a read writes") }

// nobody is an open table without entries.
type nobody struct{}

func (nobody) IsOpen(ashlar.Inode) bool                          { return false }
func (nobody) OpenElsewhere(ashlar.Inode, ashlar.SessionID) bool { return false }

// groups places data in groups 1 to n in turn.
type groups int

// Choose implements meta.Placer.
func (g groups) Choose(_ uint32, n int, seed uint64) ([]ashlar.PGID, error) {
	out := make([]ashlar.PGID, min(n, int(g)))
	for i := range out {
		out[i] = ashlar.PGID((seed+uint64(i))%uint64(g) + 1)
	}
	return out, nil
}

// space is an empty pool.
type space struct{}

// Space implements meta.Space.
func (space) Space(uint32) (total, free uint64) { return 1 << 40, 1 << 40 }
