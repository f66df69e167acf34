package namespace

import (
	"bytes"
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
		if got := key.Encode(r); !bytes.Equal(got, b) {
			t.Errorf("%T: read %x, wrote %x", r, b, got)
		}
	})
}
