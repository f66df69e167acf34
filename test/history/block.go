package history

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/anishathalye/porcupine"
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

// blockState is what a block is, and what it may be after a loss of power: the
// values since the one that was synced last, that one included, eight bytes
// each. Without losses of power kept is "".
type blockState struct {
	now  uint64
	kept string
}

// after returns what the block may be after a loss of power. What is found then
// is perhaps on one disk alone, so what else was possible still is.
func (s blockState) after() (out []any) {
	for at := 0; at < len(s.kept); at += 8 {
		out = append(out, blockState{binary.BigEndian.Uint64([]byte(s.kept[at:])), s.kept})
	}
	return out
}

// The models of one block: a read returns what was written last. A write that
// was not answered may have been one or not. After a loss of power the block is
// what was synced last, or anything that was written after.
var (
	blockModel      = modelOfBlocks(func(v uint64, _ bool, _ string) blockState { return blockState{now: v} })
	powerBlockModel = modelOfBlocks(func(v uint64, synced bool, kept string) blockState {
		b := string(binary.BigEndian.AppendUint64(nil, v))
		if !synced {
			b = kept + b
		}
		return blockState{v, b}
	})
)

func modelOfBlocks(write func(v uint64, synced bool, kept string) blockState) porcupine.Model {
	return (&porcupine.NondeterministicModel{
		Init: func() []any { return []any{write(0, true, "")} },
		Step: func(state, input, _ any) []any {
			o, s := input.(*Op), state.(blockState)
			switch {
			case o.Kind == BlockWrite && (o.Unknown() || o.GaveUp != 0):
				return []any{write(o.Value, false, s.kept), s}
			case o.Kind == BlockWrite:
				return []any{write(o.Value, o.Sync, s.kept)}
			case o.Kind == BlockSync:
				return []any{write(s.now, true, s.kept)}
			case o.Kind == PowerLoss:
				return s.after()
			case o.Value == s.now:
				return []any{s}
			}
			return nil
		},
		DescribeOperation: func(input, _ any) string { return input.(*Op).String() },
	}).ToModel()
}
