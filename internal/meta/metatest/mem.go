// Package metatest holds what tests of meta and its parts run on: a state in
// memory that checks the rules of a transaction, and simple answers to what
// an evaluation asks of the leader.
package metatest

import (
	"errors"
	"sort"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/meta/key"
	"github.com/tidwall/btree"
)

// Mem is a key.Tx in memory. Writes go into a batch that Commit applies and
// Discard forgets; reads see it. A call from within Scan panics.
type Mem struct {
	state    btree.Map[string, []byte]
	batch    btree.Map[string, []byte] // nil value: deleted
	scanning bool
}

var _ key.Tx = (*Mem)(nil)

func (m *Mem) check() {
	if m.scanning {
		panic("metatest: a call on the Tx from within Scan")
	}
}

// Get implements key.Tx.
func (m *Mem) Get(k []byte) ([]byte, bool) {
	m.check()
	if v, ok := m.batch.Get(string(k)); ok {
		return v, v != nil
	}
	return m.state.Get(string(k))
}

// Set implements key.Tx.
func (m *Mem) Set(k, v []byte) {
	m.check()
	if v == nil {
		v = []byte{}
	}
	m.batch.Set(string(k), v)
}

// Delete implements key.Tx.
func (m *Mem) Delete(k []byte) {
	m.check()
	m.batch.Set(string(k), nil)
}

// Scan implements key.Tx.
func (m *Mem) Scan(lo, hi []byte, fn func(k, v []byte) bool) {
	m.check()
	m.scanning = true
	defer func() { m.scanning = false }()
	end, on := string(hi), true
	a, b := m.state.Iter(), m.batch.Iter()
	for moreA, moreB := a.Seek(string(lo)), b.Seek(string(lo)); on && (moreA || moreB); {
		switch {
		case moreA && (!moreB || a.Key() < b.Key()):
			on = a.Key() < end && fn([]byte(a.Key()), a.Value())
			moreA = a.Next()
		default:
			if b.Key() >= end {
				on = false
			} else if b.Value() != nil {
				on = fn([]byte(b.Key()), b.Value())
			}
			if moreA && a.Key() == b.Key() {
				moreA = a.Next()
			}
			moreB = b.Next()
		}
	}
}

// Write is one write of a batch; Value is nil for a deletion.
type Write struct{ Key, Value []byte }

// Batch returns what was written since the last Commit or Discard, in key
// order.
func (m *Mem) Batch() []Write {
	var out []Write
	m.batch.Scan(func(k string, v []byte) bool {
		out = append(out, Write{[]byte(k), v})
		return true
	})
	return out
}

// Commit applies the batch.
func (m *Mem) Commit() {
	m.batch.Scan(func(k string, v []byte) bool {
		if v == nil {
			m.state.Delete(k)
		} else {
			m.state.Set(k, v)
		}
		return true
	})
	m.batch.Clear()
}

// Discard forgets the batch.
func (m *Mem) Discard() { m.batch.Clear() }

// Len returns how many keys the committed state has.
func (m *Mem) Len() int { return m.state.Len() }

// Opens is an open table.
type Opens map[ashlar.Inode]map[ashlar.SessionID]bool

// Open registers a file as open by a session.
func (o Opens) Open(ino ashlar.Inode, s ashlar.SessionID) {
	if o[ino] == nil {
		o[ino] = map[ashlar.SessionID]bool{}
	}
	o[ino][s] = true
}

// Close is the inverse of Open.
func (o Opens) Close(ino ashlar.Inode, s ashlar.SessionID) {
	if delete(o[ino], s); len(o[ino]) == 0 {
		delete(o, ino)
	}
}

// IsOpen tells whether any session has a file open.
func (o Opens) IsOpen(ino ashlar.Inode) bool { return len(o[ino]) > 0 }

// OpenElsewhere tells whether a session other than by has a file open.
func (o Opens) OpenElsewhere(ino ashlar.Inode, by ashlar.SessionID) bool {
	n := len(o[ino])
	return n > 1 || n == 1 && !o[ino][by]
}

// Groups is a placer that hands out groups 1 to n in turn.
type Groups int

// Choose returns n groups beginning where seed says.
func (g Groups) Choose(_ uint32, n int, seed uint64) ([]ashlar.PGID, error) {
	if g == 0 {
		return nil, ashlar.E("choose", ashlar.NoSpace, "", errors.New("no groups"))
	}
	var out []ashlar.PGID
	for i := range min(n, int(g)) {
		out = append(out, ashlar.PGID((seed+uint64(i))%uint64(g)+1))
	}
	sort.Slice(out, func(i, j int) bool { return out[i] < out[j] })
	return out, nil
}

// Free is a fixed amount of space.
type Free struct{ Total, Left uint64 }

// Space returns it.
func (f Free) Space(uint32) (total, free uint64) { return f.Total, f.Left }
