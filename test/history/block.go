package history

import (
	"encoding/binary"
	"fmt"
	"slices"
)

// BlockSize is the size of a block that is read and written, in bytes.
const BlockSize = 4096

// Fill makes b the content of a value: the value and where the word stands,
// mixed, in every eight bytes. Zero is all zeros, as a block never written.
func Fill(b []byte, value uint64) {
	if value == 0 {
		clear(b)
		return
	}
	for i := 0; i+8 <= len(b); i += 8 {
		binary.LittleEndian.PutUint64(b[i:], value^uint64(i)*0x9E3779B97F4A7C15)
	}
}

// Value returns the value that b is the content of, an error if it is that of
// none: a torn block.
func Value(b []byte) (uint64, error) {
	if len(b) < 8 {
		return 0, fmt.Errorf("block of %d bytes", len(b))
	}
	v := binary.LittleEndian.Uint64(b)
	if v == 0 {
		for i, x := range b {
			if x != 0 {
				return 0, fmt.Errorf("torn block: zero at the start, %#x at byte %d", x, i)
			}
		}
		return 0, nil
	}
	for i := 0; i+8 <= len(b); i += 8 {
		if got := binary.LittleEndian.Uint64(b[i:]) ^ uint64(i)*0x9E3779B97F4A7C15; got != v {
			return 0, fmt.Errorf("torn block: value %d at the start, word of value %d at byte %d", v, got, i)
		}
	}
	return v, nil
}

// Values returns the different values whose words are in b, in the order in
// which they come: more than one in a torn block.
func Values(b []byte) (out []uint64) {
	for i := 0; i+8 <= len(b); i += 8 {
		v := binary.LittleEndian.Uint64(b[i:])
		if v != 0 {
			v ^= uint64(i) * 0x9E3779B97F4A7C15
		}
		if !slices.Contains(out, v) {
			out = append(out, v)
		}
	}
	return out
}
