package namespace

import (
	"bytes"
	"slices"
	"testing"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/meta/key"
	"github.com/ashlarfs/ashlar/internal/wire"
)

func records() []key.Record {
	return []key.Record{
		&Inode{}, &Dentry{}, &Listed{}, &Xattr{}, &Volume{}, &Usage{}, &Deletion{}, &cutRecord{},
	}
}

// FuzzRecords feeds arbitrary values to every record of the package: one that
// is accepted encodes to what was read.
func FuzzRecords(f *testing.F) {
	layout := ashlar.Layout{ChunkSize: ashlar.ChunkSizeFile, Limit: 1}
	layout.Segments = []ashlar.Segment{{StripeUnit: ashlar.ChunkSizeFile, Groups: []ashlar.PGID{1}}}
	for n, r := range []key.Record{
		&Inode{Attr: ashlar.Attr{Type: ashlar.TypeFile, Nlink: 1, Size: 5}, Object: wire.Object{Layer: 3, Gen: 1, Layout: layout}},
		&Dentry{Inode: 1, Type: ashlar.TypeDir, Cookie: 3}, &Listed{Inode: 1, Type: ashlar.TypeDir, Name: "x"},
		&Xattr{Value: []byte("v")}, &Volume{Name: "main", Policy: ashlar.DefaultPolicy}, &Usage{Inodes: 1},
		&Deletion{Groups: []ashlar.PGID{1, 2}}, &cutRecord{Inode: 1, Gen: 2, Size: 3},
		&Inode{Attr: ashlar.Attr{Type: ashlar.TypeDir}, Entries: 1, NextCookie: 4},
		&Inode{Attr: ashlar.Attr{Type: ashlar.TypeSymlink}, Target: "t"},
	} {
		f.Add(uint8(n), key.Encode(r))
	}
	f.Fuzz(func(t *testing.T, n uint8, b []byte) {
		r := records()[int(n)%len(records())]
		if key.Decode(b, r) != nil {
			return
		}
		if got := key.Encode(r); got[0] == b[0] && !bytes.Equal(got, b) {
			t.Errorf("%T: read %x, wrote %x", r, b, got)
		}
	})
}

func TestAnInodeWithoutFlagsIsRead(t *testing.T) {
	i := &Inode{Attr: ashlar.Attr{Type: ashlar.TypeDir, Mode: 0o755, Nlink: 2, UID: 7}, Entries: 1, NextCookie: 4}
	b := key.Encode(i)
	old := append([]byte{1}, b[1:4]...) // version, type and mode, then the flags
	old = append(old, b[5:]...)
	got := new(Inode)
	if err := key.Decode(old, got); err != nil || !bytes.Equal(key.Encode(got), b) {
		t.Errorf("%+v, %v", got, err)
	}
}

// FuzzACL: a list that is taken can be kept, read again, and asked.
func FuzzACL(f *testing.F) {
	f.Add([]byte{2, 0, 0, 0})
	f.Add(acl{{tagOwner, 7, aclNoID}, {tagUser, 6, 5}, {tagGroup, 5, aclNoID}, {tagMask, 7, aclNoID}, {tagOther, 0, aclNoID}}.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := parseACL(b)
		if err != nil || len(l) == 0 {
			return
		}
		again, err := parseACL(l.encode())
		if err != nil || !slices.Equal(l, again) {
			t.Fatalf("%v becomes %v, %v", l, again, err)
		}
		if l.allows(&ashlar.Cred{UID: 5, GID: 5}, 5, 8) {
			t.Fatal("more than there is is allowed")
		}
		mode := l.inherit(0o640)
		if mode&^0o640 != 0 || l.mode() != mode {
			t.Fatalf("%o granted of 640, the list says %o", mode, l.mode())
		}
	})
}
