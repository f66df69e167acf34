package ashlar_test

import (
	"errors"
	"fmt"
	"io/fs"
	"testing"

	"github.com/ashlarfs/ashlar"
)

func TestClusterIDParsesWhatItPrints(t *testing.T) {
	var id ashlar.ClusterID
	for i := range id {
		id[i] = byte(i * 17)
	}
	got, err := ashlar.ParseClusterID(id.String())
	if err != nil || got != id {
		t.Errorf("%v, %v", got, err)
	}
	for _, bad := range []string{"", "x", "00112233-4455-6677-8899-aabbccddeeg0", "0011223304455-6677-8899-aabbccddeeff0"} {
		if _, err := ashlar.ParseClusterID(bad); err == nil {
			t.Errorf("accepted %q", bad)
		}
	}
}

func TestIDsCarryTheirPartition(t *testing.T) {
	id := ashlar.InPartition[ashlar.Inode](5, 77)
	if ashlar.PartitionOf(id) != 5 || uint64(id)&(1<<52-1) != 77 {
		t.Errorf("%x", uint64(id))
	}
}

func TestErrorsMatchTheirKindThroughWrapping(t *testing.T) {
	err := fmt.Errorf("mount: %w", ashlar.E("lookup", ashlar.NotExist, "/a", fs.ErrNotExist))
	if !errors.Is(err, ashlar.NotExist) || errors.Is(err, ashlar.Exist) || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v does not match as it should", err)
	}
	if k := ashlar.KindOf(err); k != ashlar.NotExist {
		t.Errorf("KindOf: %v", k)
	}
	if want := "mount: lookup /a: does not exist: file does not exist"; err.Error() != want {
		t.Errorf("%q, want %q", err, want)
	}
}

func TestEveryKindHasWords(t *testing.T) {
	seen := map[string]bool{}
	for k := ashlar.Other; k <= ashlar.NoLocks; k++ {
		s := k.String()
		if seen[s] || len(s) > 10 && s[:10] == "error kind" {
			t.Errorf("kind %d: %q", k, s)
		}
		seen[s] = true
	}
}

func TestThePrimaryIsTheFirstInSyncMember(t *testing.T) {
	g := ashlar.Group{Members: []ashlar.Member{
		{Disk: 1, State: ashlar.Syncing}, {Disk: 2, State: ashlar.InSync}, {Disk: 3, State: ashlar.InSync},
	}}
	if p := g.Primary(); p != 1 {
		t.Errorf("primary %d", p)
	}
	if g.Index(3) != 2 || g.Index(9) != -1 || g.Count(ashlar.InSync) != 2 {
		t.Error("Index or Count is wrong")
	}
}
