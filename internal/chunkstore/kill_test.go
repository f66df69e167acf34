package chunkstore_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/chunkstore"
	"github.com/ashlarfs/ashlar/internal/chunkstore/chunkstoretest"
	"github.com/ashlarfs/ashlar/internal/vfs"
	"github.com/ashlarfs/ashlar/internal/vfs/errfs"
)

// killAt runs the same operations every time, stops the disk dead before the
// step-th change, and tells whether there were that many.
func killAt(t *testing.T, m *vfs.Mem, step int64, all map[chunkstore.Key]*history) bool {
	t.Helper()
	if err := chunkstore.Format(m, "/disk", chunkstoretest.Cluster); err != nil {
		t.Fatal(err)
	}
	p := chunkstoretest.Place{FS: errfs.Wrap(m, errfs.ErrnoFrom(errfs.Mutation, "/disk/chunks/", step, errors.New("killed"))), Dir: "/disk"}
	d, err := chunkstore.Open(p.Config())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := d.Abandon(); err != nil {
			t.Fatal(err)
		}
		m.ReleaseLocks()
	}()
	rng := rand.New(rand.NewPCG(3, 3))
	keys := []chunkstore.Key{{Group: 1, Layer: 1}, {Group: 1, Layer: 2, Index: 1}}
	for _, k := range keys {
		all[k] = newHistory(8)
	}
	for i := range 16 {
		k := keys[rng.IntN(len(keys))]
		h := all[k]
		off, n := rng.IntN(7*block), 1+rng.IntN(block)
		switch i % 8 {
		case 3:
			h.write(off, make([]byte, n))
			err = chunkstoretest.WriteZero(d, k, uint32(off), uint32(n), 1)
		case 5:
			h.write(off, make([]byte, 8*block-off))
			err = d.Truncate(k, uint32(off), 1)
		case 6:
			h.write(0, make([]byte, 8*block))
			err = d.Delete(k)
		default:
			data := bytes.Repeat([]byte{byte(1 + rng.IntN(255))}, n)
			h.write(off, data)
			err = chunkstoretest.Write(d, k, uint32(off), data, 1)
		}
		if err != nil {
			return true
		}
		h.returned()
	}
	return false
}

// TestWhatReturnedSurvivesKillAtEveryStep kills the process before every
// change of a chunk's files: only blocks of the interrupted operation may be
// old or torn. What is then synced survives power loss.
func TestWhatReturnedSurvivesKillAtEveryStep(t *testing.T) {
	for step := int64(1); ; step++ {
		m := vfs.NewMem()
		all := map[chunkstore.Key]*history{}
		killed := killAt(t, m, step, all)
		d := chunkstoretest.Open(t, chunkstoretest.Place{FS: m, Dir: "/disk"}.Config())
		contents := map[chunkstore.Key][][]byte{}
		for k, h := range all {
			for b := range h.versions {
				got, err := chunkstoretest.Read(d, k, uint32(b*block), block)
				if err != nil {
					if h.begun[b] == 0 || !errors.Is(err, ashlar.Corrupt) {
						t.Fatalf("step %d: %v block %d: %v", step, k, b, err)
					}
				} else if !h.current(b, got) {
					t.Fatalf("step %d: %v block %d lacks an operation that returned", step, k, b)
				}
				contents[k] = append(contents[k], got)
			}
		}
		if err := d.SyncGroup(1); err != nil {
			t.Fatal(err)
		}
		if step%4 != 1 { // a crash of the machine is slow to make
			if !killed {
				break
			}
			continue
		}
		after := chunkstoretest.Open(t, powerLoss(m, uint64(step)))
		for k, blocks := range contents {
			for b, want := range blocks {
				got, err := chunkstoretest.Read(after, k, uint32(b*block), block)
				if want != nil && (err != nil || !bytes.Equal(got, want)) {
					t.Fatalf("step %d: %v block %d changed in a power loss after SyncGroup: %v", step, k, b, err)
				}
			}
		}
		if !killed {
			break
		}
	}
}
