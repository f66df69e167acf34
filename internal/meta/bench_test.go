package meta_test

import (
	"fmt"
	"testing"

	"github.com/ashlarfs/ashlar/internal/wire"
)

func BenchmarkCreate(b *testing.B) {
	w := newWorld(b)
	b.ReportAllocs()
	for n := range b.N {
		if _, err := w.do(w.file(fmt.Sprintf("file%d", n))); err != nil {
			b.Fatal(err)
		}
	}
}

func (w *world) fill(b *testing.B, n int) {
	for n := range n {
		if _, err := w.do(w.file(fmt.Sprintf("file%d", n))); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	b.ResetTimer()
}

func BenchmarkLookup(b *testing.B) {
	w := newWorld(b)
	w.fill(b, 10000)
	for n := range b.N {
		if _, err := w.do(&wire.Lookup{Parent: w.root, Name: fmt.Sprintf("file%d", n%10000)}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkGetAttr(b *testing.B) {
	w := newWorld(b)
	w.fill(b, 1)
	ino := w.at("/file0")
	for range b.N {
		if _, err := w.do(&wire.GetAttr{Inode: ino}); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkReaddir lists 1000 names with attributes.
func BenchmarkReaddir(b *testing.B) {
	w := newWorld(b)
	w.fill(b, 1000)
	for range b.N {
		if _, err := w.do(&wire.Readdir{Inode: w.root, Plus: true}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCreateAndRemove(b *testing.B) {
	w := newWorld(b)
	b.ReportAllocs()
	for range b.N {
		r, err := w.do(w.file("x"))
		if err != nil {
			b.Fatal(err)
		}
		e := r.(*wire.Entry)
		if _, err := w.do(&wire.Commit{Inode: e.Attr.Inode, Layer: e.Object.Layer, Gen: e.Object.Gen, Size: 16 << 10}); err != nil {
			b.Fatal(err)
		}
		if _, err := w.do(&wire.Remove{Parent: w.root, Name: "x"}); err != nil {
			b.Fatal(err)
		}
	}
}
