package master

import (
	"sync"
	"unsafe"

	"github.com/tidwall/btree"

	"github.com/ashlarfs/ashlar/internal/kv"
)

// reader is the committed state, or a view of it.
type reader interface {
	Get(key []byte) (value []byte, ok bool, err error)
	Scan(lo, hi []byte, reverse bool, fn func(k, v []byte) bool) error
}

// overlay is what is proposed and not yet applied, over the committed state.
// A key is found here first; it leaves only after the store has it.
type overlay struct {
	mu      sync.RWMutex
	items   btree.Map[string, item]
	settled uint64 // everything up to this index is in the store
}

type item struct {
	value   []byte
	deleted bool
	index   uint64 // of the log entry that carries it
}

func (o *overlay) get(key []byte) (item, bool) {
	o.mu.RLock()
	defer o.mu.RUnlock()
	return o.items.Get(unsafe.String(unsafe.SliceData(key), len(key))) // only compared during the call
}

func (o *overlay) set(key string, it item) (old item, had bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.items.Set(key, it)
}

func (o *overlay) undo(key string, old item, had bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if had && old.index > o.settled {
		o.items.Set(key, old)
	} else {
		o.items.Delete(key)
	}
}

// settle forgets the writes of an entry that was applied.
func (o *overlay) settle(index uint64, ops []kv.Op) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.settled = max(o.settled, index)
	for i := range ops {
		k := unsafe.String(unsafe.SliceData(ops[i].Key), len(ops[i].Key))
		if it, ok := o.items.Get(k); ok && it.index == index {
			o.items.Delete(k)
		}
	}
}

// restamp moves writes from one entry to another.
func (o *overlay) restamp(from, to uint64, ops []kv.Op) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for i := range ops {
		k := string(ops[i].Key)
		if it, ok := o.items.Get(k); ok && it.index == from {
			it.index = to
			o.items.Set(k, it)
		}
	}
}

func (o *overlay) clear() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.items.Clear()
}

type namedItem struct {
	key string
	item
}

func (o *overlay) within(lo, hi []byte) (out []namedItem) {
	o.mu.RLock()
	defer o.mu.RUnlock()
	o.items.Ascend(string(lo), func(k string, it item) bool {
		if hi != nil && k >= string(hi) {
			return false
		}
		out = append(out, namedItem{k, it})
		return true
	})
	return out
}

// layered is the meta.Tx of the evaluator: writes go to the overlay under the
// index of the entry being built. begin marks an operation, rollback takes
// its writes back. It is used by one goroutine.
type layered struct {
	store reader
	over  *overlay
	index uint64 // that the next proposal will have
	ops   []kv.Op
	bytes int
	// depends is the highest index below index that the operation has read
	// something of: its reply waits for that one (I-1, I-2).
	depends uint64
	undo    []undo
	mark    int // len(ops) at begin
	marked  int // bytes at begin
	err     error
}

type undo struct {
	key string
	old item
	had bool
}

func (t *layered) begin() {
	t.depends, t.undo, t.mark, t.marked, t.err = 0, t.undo[:0], len(t.ops), t.bytes, nil
}

func (t *layered) wrote() bool { return len(t.ops) > t.mark }

func (t *layered) rollback() {
	for i := len(t.undo) - 1; i >= 0; i-- {
		t.over.undo(t.undo[i].key, t.undo[i].old, t.undo[i].had)
	}
	t.undo, t.ops, t.bytes = t.undo[:0], t.ops[:t.mark], t.marked
}

func (t *layered) note(it item) {
	if it.index > t.depends {
		t.depends = it.index
	}
}

// Get implements meta.Tx.
func (t *layered) Get(key []byte) ([]byte, bool) {
	if it, ok := t.over.get(key); ok {
		t.note(it)
		return it.value, !it.deleted
	}
	v, ok, err := t.store.Get(key)
	if err != nil && t.err == nil {
		t.err = err
	}
	return v, ok && err == nil
}

// Set implements meta.Tx.
func (t *layered) Set(key, value []byte) {
	t.write(kv.Op{Key: key, Value: value})
}

// Delete implements meta.Tx.
func (t *layered) Delete(key []byte) {
	t.write(kv.Op{Key: key, Delete: true})
}

func (t *layered) write(op kv.Op) {
	k := string(op.Key)
	old, had := t.over.set(k, item{value: op.Value, deleted: op.Delete, index: t.index})
	t.undo = append(t.undo, undo{k, old, had})
	t.ops = append(t.ops, op)
	t.bytes += len(op.Key) + len(op.Value) + 8
}

// Scan implements meta.Tx.
func (t *layered) Scan(lo, hi []byte, fn func(k, v []byte) bool) {
	over := t.over.within(lo, hi)
	i, more := 0, true
	emit := func(n *namedItem) bool {
		t.note(n.item)
		return n.deleted || fn([]byte(n.key), n.value)
	}
	err := t.store.Scan(lo, hi, false, func(k, v []byte) bool {
		for ; i < len(over) && over[i].key < string(k); i++ {
			if more = emit(&over[i]); !more {
				return false
			}
		}
		if i < len(over) && over[i].key == string(k) {
			more = emit(&over[i])
			i++
			return more
		}
		more = fn(k, v)
		return more
	})
	if err != nil && t.err == nil {
		t.err = err
	}
	for ; more && i < len(over); i++ {
		more = emit(&over[i])
	}
}

// plain is the meta.Tx of reads: committed state only. A write is a broken
// invariant.
type plain struct {
	store reader
	err   error
}

// Get implements meta.Tx.
func (t *plain) Get(key []byte) ([]byte, bool) {
	v, ok, err := t.store.Get(key)
	if err != nil && t.err == nil {
		t.err = err
	}
	return v, ok && err == nil
}

// Set implements meta.Tx.
func (*plain) Set(_, _ []byte) { panic("master: a read writes") }

// Delete implements meta.Tx.
func (*plain) Delete(_ []byte) { panic("master: a read writes") }

// Scan implements meta.Tx.
func (t *plain) Scan(lo, hi []byte, fn func(k, v []byte) bool) {
	if err := t.store.Scan(lo, hi, false, fn); err != nil && t.err == nil {
		t.err = err
	}
}
