// Package checksum is the CRC-32C that guards data from the writer to the
// reader: of whole 4 KiB blocks, and of the fragments of blocks that a write
// which is not aligned is cut into. It keeps no state and locks nothing.
//
//	offset   0        4096      8192      12288
//	         |---------|---------|---------|
//	write        [-----|---------|---]           3 fragments, 3 checksums
//
// The checksum of a block covers the block padded with zeros to 4 KiB; that
// of a fragment covers exactly its bytes.
package checksum

import (
	"hash/crc32"

	"github.com/ashlarfs/ashlar"
)

// Block is the unit of checksums, in bytes.
const Block = ashlar.BlockSize

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
	zeros      [Block]byte
)

// Zero is the checksum of a block of zeros.
var Zero = Of(zeros[:])

// Of returns the CRC-32C of b.
func Of(b []byte) uint32 { return crc32.Update(0, castagnoli, b) }

// Update returns the CRC-32C of what crc covers followed by b.
func Update(crc uint32, b []byte) uint32 { return crc32.Update(crc, castagnoli, b) }

// Padded returns the CRC-32C of b, at most a block, padded with zeros to a
// whole block.
func Padded(b []byte) uint32 { return crc32.Update(Of(b), castagnoli, zeros[len(b):]) }

// Count returns how many fragments [off, off+n) has.
func Count(off uint64, n int) int {
	if n <= 0 {
		return 0
	}
	return int((off%Block + uint64(n) + Block - 1) / Block)
}

// Append appends to sums the checksum of each fragment of data at off.
func Append(sums []uint32, off uint64, data []byte) []uint32 {
	for len(data) > 0 {
		n := min(len(data), Block-int(off%Block))
		sums = append(sums, Of(data[:n]))
		data, off = data[n:], off+uint64(n)
	}
	return sums
}

// Verify compares data at off with its fragments' checksums and returns the
// index of the first fragment that differs, -1 if none does. If the number of
// sums is wrong, it is the number of those that could be compared.
func Verify(sums []uint32, off uint64, data []byte) int {
	i := 0
	for ; len(data) > 0; i++ {
		n := min(len(data), Block-int(off%Block))
		if i >= len(sums) || Of(data[:n]) != sums[i] {
			return i
		}
		data, off = data[n:], off+uint64(n)
	}
	if i != len(sums) {
		return i
	}
	return -1
}
