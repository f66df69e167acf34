package chunkstore_test

import (
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/ashlarfs/ashlar/internal/checksum"
	"github.com/ashlarfs/ashlar/internal/chunkstore"
	"github.com/ashlarfs/ashlar/internal/chunkstore/chunkstoretest"
	"github.com/ashlarfs/ashlar/internal/vfs"
)

// backFS counts what is given to Writeback.
type backFS struct {
	vfs.FS
	mu    sync.Mutex
	bytes int64
	calls int
}

type backFile struct {
	vfs.File
	fs *backFS
}

func (b *backFS) wrap(f vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return &backFile{f, b}, nil
}

func (b *backFS) Create(name string) (vfs.File, error) { return b.wrap(b.FS.Create(name)) }
func (b *backFS) Open(name string) (vfs.File, error)   { return b.wrap(b.FS.Open(name)) }

func (b *backFS) OpenOrCreate(name string) (vfs.File, bool, error) {
	f, created, err := b.FS.OpenOrCreate(name)
	f, err = b.wrap(f, err)
	return f, created, err
}

func (f *backFile) Writeback(off, n int64) error {
	f.fs.mu.Lock()
	f.fs.bytes += n
	f.fs.calls++
	f.fs.mu.Unlock()
	return f.File.Writeback(off, n)
}

// The pieces of a stream arrive side by side, not in order. What they fill is
// written back while the stream goes on, and not all at its fsync.
func TestAStreamIsWrittenBackWhileItGoesOn(t *testing.T) {
	const size, unit = 64 << 20, 1 << 20
	fs := &backFS{FS: vfs.NewMem()}
	d := chunkstoretest.Place{FS: fs, Dir: "/disk"}.Format(t)
	k := chunkstore.Key{Group: 1, Layer: 9}
	b := make([]byte, unit)
	order := rand.New(rand.NewPCG(1, 2))
	var near []uint32 // up to eight pieces are under way at a time
	for next := uint32(0); next < size || len(near) > 0; {
		for next < size && len(near) < 8 {
			near, next = append(near, next), next+unit
		}
		i := order.IntN(len(near))
		off := near[i]
		near = append(near[:i], near[i+1:]...)
		if err := d.Write(k, &chunkstore.Write{Off: off, Len: unit, Data: b, Sums: checksum.Append(nil, uint64(off), b), ChunkSize: size, Epoch: 1}); err != nil {
			t.Fatal(err)
		}
	}
	if fs.bytes != size || fs.calls > size>>22 {
		t.Errorf("%d bytes were given to Writeback in %d calls, want %d in few", fs.bytes, fs.calls, int64(size))
	}
}
