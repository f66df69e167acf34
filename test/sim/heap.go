package sim

import "unsafe"

// settled keeps what settleHeap took.
var settled []unsafe.Pointer

// sizeClasses are the sizes that the runtime's allocator rounds up to
// (runtime/sizeclasses.go), up to those that are spans of their own.
var sizeClasses = []int{
	8, 16, 24, 32, 48, 64, 80, 96, 112, 128, 144, 160, 176, 192, 208, 224, 240, 256, 288, 320, 352, 384, 416, 448, 480, 512,
	576, 640, 704, 768, 896, 1024, 1152, 1280, 1408, 1536, 1792, 2048, 2304, 2688, 3072, 3200, 3456, 4096, 4864, 5120, 5376,
	6144, 6528, 6784, 6912, 8192, 9472, 9728, 10240, 10880, 12288, 13568, 14336, 16384, 18432, 19072, 20480, 21760, 24576,
	27264, 28672, 32768,
}

// settleHeap makes the addresses that a run gets independent of what the
// process did before, which differs a little from start to start: it fills
// every hole below a boundary, and then opens a new span beyond it for every
// size, with pointers and without.
func settleHeap() {
	const page, region = 8 << 10, 64 << 20
	keep := func(p unsafe.Pointer) uintptr {
		settled = append(settled, p)
		return uintptr(p)
	}
	settled = make([]unsafe.Pointer, 0, 4*region/page)
	first := keep(unsafe.Pointer(unsafe.SliceData(make([]byte, page))))
	boundary := (first/region + 2) * region
	for keep(unsafe.Pointer(unsafe.SliceData(make([]byte, page)))) < boundary {
	}
	for _, size := range sizeClasses {
		for keep(unsafe.Pointer(unsafe.SliceData(make([]byte, size)))) < boundary {
		}
		words := size / 8
		if size > 512 {
			words-- // the runtime puts a header before them
		}
		for keep(unsafe.Pointer(unsafe.SliceData(make([]*byte, words)))) < boundary {
		}
	}
}
