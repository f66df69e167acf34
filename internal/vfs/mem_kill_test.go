package vfs

import (
	"math/rand/v2"
	"testing"
)

func TestAKilledProcessLosesNothingUntilPowerFails(t *testing.T) {
	m := NewMem()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check(m.MkdirAll("/d"))
	check(m.SyncDir("/"))
	f, err := m.Create("/d/kept")
	check(err)
	_, err = f.WriteAt([]byte("old"), 0)
	check(err)
	check(f.Sync())
	check(m.SyncDir("/d"))
	_, err = f.WriteAt([]byte("new"), 0)
	check(err)
	_, err = m.Create("/d/fresh")
	check(err)
	if _, err := m.Lock("/d/lock"); err != nil {
		t.Fatal(err)
	}

	k := m.KillClone()
	if _, err := k.Lock("/d/lock"); err != nil {
		t.Errorf("the lock outlives its process: %v", err)
	}
	content := func(m *Mem) string {
		f, err := m.Open("/d/kept")
		check(err)
		b := make([]byte, 3)
		_, err = f.ReadAt(b, 0)
		check(err)
		return string(b)
	}
	// What the killed process goes on to do is not in the clone.
	_, err = f.WriteAt([]byte("xxx"), 0)
	check(err)
	if got := content(k); got != "new" {
		t.Errorf("after a kill %q", got)
	}
	if _, err := k.Stat("/d/fresh"); err != nil {
		t.Error(err)
	}
	seen := map[string]bool{}
	for seed := range uint64(50) {
		c := k.CrashClone(rand.New(rand.NewPCG(seed, 1)))
		_, err := c.Stat("/d/fresh")
		seen[content(c)], seen["no name"] = true, seen["no name"] || err != nil
	}
	if !seen["old"] || !seen["no name"] || seen["xxx"] {
		t.Errorf("after power loss %v", seen)
	}
	if got := content(k.CrashClone(nil)); got != "old" {
		t.Errorf("nothing unsynced kept: %q", got)
	}
	g, err := k.Open("/d/kept")
	check(err)
	check(g.Sync())
	if got := content(k.CrashClone(nil)); got != "new" {
		t.Errorf("synced by the next process: %q", got)
	}
}
