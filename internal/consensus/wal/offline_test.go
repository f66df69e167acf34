package wal

import (
	"testing"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/ashlarfs/ashlar/internal/vfs"
	"github.com/ashlarfs/ashlar/internal/vfs/crashtest"
)

func TestReadTellsWhatOpenWould(t *testing.T) {
	m := newDisk(t)
	l, _ := open(t, m)
	for i := uint64(1); i <= 60; i++ {
		ok(t, l.Append(Batch{Hard: &Hard{Term: 1, Commit: i}, Entries: []*raftpb.Entry{entry(i, 1, 300)}}))
	}
	ok(t, l.Close())
	got, err := Read(m, "/log")
	ok(t, err)
	again, want := open(t, m)
	if len(got.Entries) != 60 || len(want.Entries) != 60 || got.Hard != want.Hard {
		t.Fatalf("%d and %d entries, %+v and %+v", len(got.Entries), len(want.Entries), got.Hard, want.Hard)
	}
	ok(t, again.Close())
}

// A batch that takes several frames, in place of entries of an older term: no
// power loss finds the new commit index over the old entries.
func TestACommitIndexIsNotFoundBeforeItsEntries(t *testing.T) {
	for seed := range crashtest.Seeds(t, 2) {
		m := newDisk(t)
		fs := crashtest.New(m, seed, func(clone *vfs.Mem, at string) {
			l, st := open(t, clone)
			for _, e := range st.Entries {
				if e.GetIndex() > 10 && e.GetIndex() <= st.Hard.Commit && e.GetTerm() == 1 {
					t.Errorf("%s: commit %d covers entry %d of term 1", at, st.Hard.Commit, e.GetIndex())
				}
			}
			if last := uint64(len(st.Entries)); last < st.Hard.Commit {
				t.Errorf("%s: commit %d, %d entries", at, st.Hard.Commit, last)
			}
			ok(t, l.Close())
		})
		l, _, err := Open(Options{Dir: "/log", FS: fs, Cluster: cluster, SegmentBytes: 8 << 10})
		ok(t, err)
		var old, replacing []*raftpb.Entry
		for i := uint64(1); i <= 14; i++ {
			old = append(old, entry(i, 1, 100))
		}
		ok(t, l.Append(Batch{Hard: &Hard{Term: 1, Commit: 10}, Entries: old}))
		for i := uint64(11); i <= 14; i++ {
			replacing = append(replacing, entry(i, 2, frameTarget/3))
		}
		ok(t, l.Append(Batch{Hard: &Hard{Term: 2, Commit: 14}, Entries: replacing}))
		ok(t, l.Close())
	}
}

func FuzzReadSegment(f *testing.F) {
	m := newDisk(f)
	l, _ := open(f, m)
	ok(f, l.Append(Batch{Hard: &Hard{Term: 1}, Mark: &Mark{Index: 1, Term: 1}, Entries: []*raftpb.Entry{entry(2, 1, 30)}}))
	ok(f, l.Close())
	b, err := readAll(m, "/log/"+segmentName(1))
	ok(f, err)
	f.Add(b[:4096])
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, newest := range []bool{true, false} {
			if s, err := ReadSegment(b, "f", newest); err == nil && s.End > max(len(b), sector) {
				t.Fatalf("ends at %d of %d", s.End, len(b))
			}
		}
	})
}
