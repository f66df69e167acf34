package chunkserver

import (
	"maps"
	"strings"
	"testing"

	"github.com/ashlarfs/ashlar/internal/chunkstore"
	"github.com/ashlarfs/ashlar/internal/chunkstore/chunkstoretest"
	"github.com/ashlarfs/ashlar/internal/vfs"
)

// A node that starts before its disk is mounted leaves it out: an empty
// directory in which it had one is not made a new disk, until it is told so.
func TestAMountPointWhoseDiskIsMissingIsNotMadeANewDisk(t *testing.T) {
	c := newTestbed(t, 2)
	c.makeGroup(1, 0, 1)
	c.mustWrite(1, 5, 0, 0, pattern(5000, 1))
	n := c.nodes[1]
	uuid := func() string { return chunkstore.FormatUUID(n.cs.disks[0].store.UUID()) }
	old := uuid()
	leftOut := func() bool {
		l := n.cs.life.Load()
		return l != nil && len(l.present) == 0
	}
	n.stop()
	if err := n.fs.Rename("disk", "away"); err != nil {
		t.Fatal(err)
	}
	n.start()
	c.eventually("registered without its disk", leftOut)
	if err := n.cs.disks[0].failed(); err == nil || !strings.Contains(err.Error(), old) || !strings.Contains(err.Error(), "node/disks") {
		t.Errorf("why: %v", err)
	}
	if _, err := n.fs.Stat("disk"); err == nil {
		t.Fatal("a disk was made where none is mounted")
	}
	if err := n.fs.Rename("away", "disk"); err != nil {
		t.Fatal(err)
	}
	c.eventually("mounted, and open again", func() bool {
		l := n.cs.life.Load()
		return l != nil && len(l.present) == 1
	})
	if got := uuid(); got != old {
		t.Errorf("disk %s, want %s", got, old)
	}
	n.stop()
	if err := n.fs.Rename("disk", "away"); err != nil {
		t.Fatal(err)
	}
	if err := n.fs.Remove("node/disks"); err != nil {
		t.Fatal(err)
	}
	n.start()
	if got := uuid(); got == old {
		t.Error("it is the old disk")
	}
}

func TestTheListOfDisksIsReadAsItWasWritten(t *testing.T) {
	fs := vfs.NewMem()
	if err := vfs.MakeDir(fs, "node"); err != nil {
		t.Fatal(err)
	}
	k, err := openKnown(fs, "node")
	if err != nil {
		t.Fatal(err)
	}
	place := chunkstoretest.Place{FS: fs, Dir: "/disk"}
	d := place.Format(t)
	defer d.Close()
	for _, p := range []string{"/srv/a b", `/srv/"q"\n`, "/srv/z"} {
		if err := k.note(p, d); err != nil {
			t.Fatal(err)
		}
	}
	again, err := openKnown(fs, "node")
	if err != nil || !maps.Equal(again.disks, k.disks) || len(again.disks) != 3 {
		t.Errorf("read %v (%v), wrote %v", again.disks, err, k.disks)
	}
	if k.missing("/srv/a b") == nil || k.missing("/srv") != nil {
		t.Error("what is missing is not what was noted")
	}
}

func TestALineThatIsNoDiskIsNamed(t *testing.T) {
	for _, text := range []string{"# ok\nuuid", "\nuuid /srv/a", "# x\n uuid \"\"", "# x\n\"/srv\""} {
		if _, err := parseKnown(text); err == nil || !strings.Contains(err.Error(), "line 2") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func FuzzKnownDisks(f *testing.F) {
	f.Add(knownIntro + "5c1f0a9e-8d40-4f6e-9d7b-0c9d2b1f4a10 \"/srv/ashlar\"\n")
	f.Add("a \"\\x00\"")
	f.Fuzz(func(t *testing.T, text string) {
		disks, err := parseKnown(text)
		for p, uuid := range disks {
			if p == "" || uuid == "" || err != nil {
				t.Errorf("%q: %q (%v)", p, uuid, err)
			}
		}
	})
}
