package wal

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"path"
	"syscall"
	"testing"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/vfs"
	"github.com/ashlarfs/ashlar/internal/vfs/errfs"
)

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

var cluster = ashlar.ClusterID{7}

func open(t testing.TB, fsys vfs.FS) (*Log, *State) {
	t.Helper()
	l, st, err := Open(Options{Dir: "/log", FS: fsys, Cluster: cluster, SegmentBytes: 8 << 10})
	ok(t, err)
	return l, st
}

func entry(index, term uint64, size int) *raftpb.Entry {
	return &raftpb.Entry{Index: &index, Term: &term, Data: bytes.Repeat([]byte{byte(index)}, size)}
}

func newDisk(t testing.TB) *vfs.Mem {
	t.Helper()
	m := vfs.NewMem()
	ok(t, m.MkdirAll("/log"))
	ok(t, m.SyncDir("/"))
	return m
}

// model is what the log must hold.
type model struct {
	hard    Hard
	mark    Mark
	entries []*raftpb.Entry
}

func (m *model) append(b Batch) {
	if b.Hard != nil {
		m.hard = *b.Hard
	}
	if b.Mark != nil {
		m.mark = *b.Mark
		m.entries = m.entries[min(uint64(len(m.entries)), b.Mark.Index-m.base()):]
	}
	if len(b.Entries) > 0 {
		m.entries = append(m.entries[:b.Entries[0].GetIndex()-m.base()-1:b.Entries[0].GetIndex()-m.base()-1], b.Entries...)
	}
}

func (m *model) base() uint64 {
	if len(m.entries) > 0 {
		return m.entries[0].GetIndex() - 1
	}
	return m.mark.Index
}

func (m *model) check(st *State) error {
	if st.Hard != m.hard || st.Mark.Index != m.mark.Index || !bytes.Equal(st.Mark.Data, m.mark.Data) {
		return fmt.Errorf("hard %+v mark %+v, want %+v %+v", st.Hard, st.Mark, m.hard, m.mark)
	}
	if len(st.Entries) != len(m.entries) {
		return fmt.Errorf("%d entries, want %d", len(st.Entries), len(m.entries))
	}
	for i, e := range st.Entries {
		w := m.entries[i]
		if e.GetIndex() != w.GetIndex() || e.GetTerm() != w.GetTerm() || !bytes.Equal(e.Data, w.Data) {
			return fmt.Errorf("entry %d differs", w.GetIndex())
		}
	}
	return nil
}

// step returns a plausible next batch: new entries, sometimes in place of the
// last ones, sometimes a mark.
func step(rng *rand.Rand, m *model) Batch {
	var b Batch
	term := max(m.hard.Term, 1)
	last := m.base() + uint64(len(m.entries))
	if rng.IntN(8) == 0 {
		term++
		b.Hard = &Hard{Term: term, Vote: rng.Uint64N(3), Commit: last}
		last -= rng.Uint64N(uint64(len(m.entries)/4 + 1))
	}
	if rng.IntN(12) == 0 && len(m.entries) > 10 {
		e := m.entries[len(m.entries)/2]
		b.Mark = &Mark{Index: e.GetIndex(), Term: e.GetTerm(), Data: []byte{byte(e.GetIndex())}}
		last = max(last, b.Mark.Index)
	}
	for range 1 + rng.IntN(4) {
		last++
		b.Entries = append(b.Entries, entry(last, term, rng.IntN(700)))
	}
	return b
}

// I-1: whatever power loss finds on the disk, everything that Append returned
// for is there.
func TestEveryAppendedBatchSurvivesPowerLossAtAnyPoint(t *testing.T) {
	for seed := range uint64(30) {
		rng := rand.New(rand.NewPCG(seed, 3))
		disk := newDisk(t)
		l, _ := open(t, disk)
		var m model
		for i := range 120 {
			b := step(rng, &m)
			ok(t, l.Append(b))
			m.append(b)
			if b.Mark != nil {
				ok(t, l.Truncate())
			}
			if rng.IntN(3) != 0 {
				continue
			}
			clone := disk.CrashClone(rng)
			again, st := open(t, clone)
			if err := m.check(st); err != nil {
				t.Fatalf("seed %d step %d: %v", seed, i, err)
			}
			if rng.IntN(4) == 0 { // go on from the crash
				ok(t, l.Close())
				l, disk = again, clone
				continue
			}
			ok(t, again.Close())
		}
		ok(t, l.Close())
	}
}

// A write that is under way when power fails leaves the state before it or a
// part of it in order, never damage.
func TestPowerLossInsideAnAppendTearsOnlyItsTail(t *testing.T) {
	for seed := range uint64(60) {
		rng := rand.New(rand.NewPCG(seed, 4))
		disk := newDisk(t)
		n, at := 0, 5+rng.IntN(30)
		var clone *vfs.Mem
		fsys := errfs.Wrap(disk, func(op errfs.Op) error {
			if op.Kind == errfs.Sync && path.Base(op.Path) != nextName || op.Kind == errfs.Rename || op.Kind == errfs.SyncDir {
				if n++; n == at {
					clone = disk.CrashClone(rng)
				}
			}
			return nil
		})
		l, _, err := Open(Options{Dir: "/log", FS: fsys, Cluster: cluster, SegmentBytes: 8 << 10})
		ok(t, err)
		last, acked := uint64(0), uint64(0)
		for clone == nil {
			var b Batch
			for range 1 + rng.IntN(6) {
				last++
				b.Entries = append(b.Entries, entry(last, 1, rng.IntN(900)))
			}
			before := acked
			ok(t, l.Append(b))
			if clone == nil {
				acked = last
			} else {
				acked = before
			}
		}
		ok(t, l.Close())
		again, st := open(t, clone)
		if got := uint64(len(st.Entries)); got < acked || got > last {
			t.Fatalf("seed %d: %d entries, acknowledged %d, written %d", seed, got, acked, last)
		}
		ok(t, again.Append(Batch{Entries: []*raftpb.Entry{entry(uint64(len(st.Entries))+1, 2, 10)}}))
		ok(t, again.Close())
		final, st2 := open(t, clone)
		if len(st2.Entries) != len(st.Entries)+1 {
			t.Fatalf("seed %d: what was torn came back", seed)
		}
		ok(t, final.Close())
	}
}

// A process is killed between the write and the sync of a batch; the next one
// reads it, and then power is lost.
func TestWhatWasReadAtOpeningIsDurable(t *testing.T) {
	m := newDisk(t)
	l, _ := open(t, m)
	ok(t, l.Append(Batch{Hard: &Hard{Term: 1}, Entries: []*raftpb.Entry{entry(1, 1, 100)}}))
	ok(t, l.Close())
	killed := false
	fsys := errfs.Wrap(m, func(op errfs.Op) error {
		if killed && op.Kind == errfs.Sync {
			return syscall.EIO // it did not get that far
		}
		return nil
	})
	l, _, err := Open(Options{Dir: "/log", FS: fsys, Cluster: cluster, SegmentBytes: 8 << 10})
	ok(t, err)
	ok(t, l.Append(Batch{Entries: []*raftpb.Entry{entry(2, 1, 100)}}))
	killed = true
	if err := l.Append(Batch{Entries: []*raftpb.Entry{entry(3, 1, 100)}}); err == nil {
		t.Fatal("appended without a sync")
	}
	l, st := open(t, m)
	if len(st.Entries) != 3 {
		t.Fatalf("a killed process left %d entries, want 3", len(st.Entries))
	}
	ok(t, l.Append(Batch{Hard: &Hard{Term: 2}})) // in a new segment
	_, st = open(t, m.CrashClone(nil))
	if len(st.Entries) != 3 {
		t.Errorf("after power loss %d entries, want the 3 that were read before", len(st.Entries))
	}
}

func TestDamageBelowTheTailIsRefused(t *testing.T) {
	disk := newDisk(t)
	l, _ := open(t, disk)
	for i := range uint64(5) {
		ok(t, l.Append(Batch{Entries: []*raftpb.Entry{entry(i+1, 1, 100)}}))
	}
	ok(t, l.Close())
	f, err := disk.Open("/log/" + segmentName(1))
	ok(t, err)
	_, err = f.WriteAt([]byte{0xFF}, 3*sector+frameHeader+20)
	ok(t, err)
	if _, _, err := Open(Options{Dir: "/log", FS: disk, Cluster: cluster}); !errors.Is(err, ashlar.Corrupt) {
		t.Fatalf("opened a damaged log: %v", err)
	}
}

func TestDamageInTheLastFrameIsATornTail(t *testing.T) {
	disk := newDisk(t)
	l, _ := open(t, disk)
	for i := range uint64(5) {
		ok(t, l.Append(Batch{Entries: []*raftpb.Entry{entry(i+1, 1, 100)}}))
	}
	end := l.end
	ok(t, l.Close())
	f, err := disk.Open("/log/" + segmentName(1))
	ok(t, err)
	_, err = f.WriteAt([]byte{0xFF}, end-sector+frameHeader+20)
	ok(t, err)
	l, st := open(t, disk)
	if len(st.Entries) != 4 {
		t.Fatalf("%d entries", len(st.Entries))
	}
	ok(t, l.Close())
}

func TestALogOfAnotherClusterIsRefused(t *testing.T) {
	disk := newDisk(t)
	l, _ := open(t, disk)
	ok(t, l.Append(Batch{Hard: &Hard{Term: 1}}))
	ok(t, l.Close())
	if _, _, err := Open(Options{Dir: "/log", FS: disk, Cluster: ashlar.ClusterID{8}}); !errors.Is(err, ashlar.WrongCluster) {
		t.Fatal(err)
	}
}

func TestACheckpointMarkReplacesTheLog(t *testing.T) {
	disk := newDisk(t)
	l, _ := open(t, disk)
	ok(t, l.Append(Batch{Entries: []*raftpb.Entry{entry(1, 1, 10), entry(2, 1, 10), entry(3, 1, 10)}}))
	ok(t, l.Append(Batch{Pending: &Mark{Index: 50, Term: 3, Data: []byte("m")}}))
	ok(t, l.Close())
	l, st := open(t, disk)
	if st.Pending == nil || st.Pending.Index != 50 || len(st.Entries) != 3 {
		t.Fatalf("%+v", st)
	}
	ok(t, l.Append(Batch{Mark: st.Pending}))
	ok(t, l.Append(Batch{Entries: []*raftpb.Entry{entry(51, 3, 10)}}))
	ok(t, l.Close())
	l, st = open(t, disk)
	if st.Pending != nil || st.Mark.Index != 50 || len(st.Entries) != 1 || st.Entries[0].GetIndex() != 51 {
		t.Fatalf("%+v", st)
	}
	ok(t, l.Close())
}

func TestAFailedSyncIsFinal(t *testing.T) {
	fsys := errfs.Wrap(newDisk(t), errfs.ErrnoAt(errfs.Sync, "/log/next.tmp", 3, syscall.EIO))
	l, _, err := Open(Options{Dir: "/log", FS: fsys, Cluster: cluster, SegmentBytes: 8 << 10})
	ok(t, err)
	// The file keeps the name it was made under: its syncs are preparation,
	// header, then appends.
	b := Batch{Entries: []*raftpb.Entry{entry(1, 1, 10)}}
	if err := l.Append(b); !errors.Is(err, syscall.EIO) {
		t.Fatalf("append: %v", err)
	}
	if err := l.Append(b); !errors.Is(err, syscall.EIO) {
		t.Fatalf("append after a failure: %v", err)
	}
	ok(t, l.Close())
}

func TestEntriesLargerThanASegmentFit(t *testing.T) {
	disk := newDisk(t)
	l, _ := open(t, disk)
	ok(t, l.Append(Batch{Entries: []*raftpb.Entry{entry(1, 1, 40<<10), entry(2, 1, 3<<20), entry(3, 1, 5)}}))
	ok(t, l.Append(Batch{Entries: []*raftpb.Entry{entry(4, 1, 5)}}))
	ok(t, l.Close())
	l, st := open(t, disk)
	if len(st.Entries) != 4 || len(st.Entries[1].Data) != 3<<20 {
		t.Fatalf("%d entries", len(st.Entries))
	}
	ok(t, l.Close())
}

func FuzzDecodeFrame(f *testing.F) {
	b := append(make([]byte, frameHeader), appendEntry(nil, entry(1, 1, 20))...)
	b = appendHard(b, Hard{1, 2, 3})
	b = appendMark(b, recMark, &Mark{4, 5, []byte("x")})
	f.Add(sealFrame(b, 0, 9, 512))
	f.Fuzz(func(t *testing.T, b []byte) {
		if payload, size, _, ok := decodeFrame(b, 9); ok && (len(payload) > size || size < frameHeader) {
			t.Fatalf("payload of %d in a frame of %d", len(payload), size)
		}
	})
}

func FuzzDecodeRecords(f *testing.F) {
	b := appendEntry(nil, entry(1, 1, 20))
	b = appendHard(b, Hard{1, 2, 3})
	b = appendMark(b, recMark, &Mark{4, 5, []byte("x")})
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		var r replay
		if err := decodeRecords(b, r.visitor()); err != nil && !errors.Is(err, ashlar.Corrupt) {
			t.Fatal(err)
		}
		_, _ = r.finish()
	})
}

func BenchmarkAppendOne300ByteEntry(b *testing.B) {
	l, _, err := Open(Options{Dir: b.TempDir(), FS: vfs.OS, Cluster: cluster})
	ok(b, err)
	defer l.Close()
	i := uint64(0)
	for b.Loop() {
		i++
		ok(b, l.Append(Batch{Entries: []*raftpb.Entry{entry(i, 1, 300)}}))
	}
}
