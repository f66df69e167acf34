package checksum

import (
	"bytes"
	"testing"
)

func TestChecksumIsCRC32C(t *testing.T) {
	// RFC 3720 appendix B.4: 32 bytes of zeros, and of ones.
	if got := Of(make([]byte, 32)); got != 0x8a9136aa {
		t.Errorf("zeros: %08x", got)
	}
	if got := Of(bytes.Repeat([]byte{0xff}, 32)); got != 0x62a8ab43 {
		t.Errorf("ones: %08x", got)
	}
	if Zero != Of(make([]byte, Block)) {
		t.Error("Zero is not the checksum of a block of zeros")
	}
}

func TestPaddedEqualsTheSumOfThePaddedBlock(t *testing.T) {
	for _, n := range []int{0, 1, 511, 4095, 4096} {
		b := bytes.Repeat([]byte{7}, n)
		whole := make([]byte, Block)
		copy(whole, b)
		if Padded(b) != Of(whole) {
			t.Errorf("%d bytes: differs", n)
		}
	}
}

func TestFragmentsFollowBlockBoundaries(t *testing.T) {
	for _, c := range []struct{ off, n, want int }{
		{0, 0, 0}, {0, 1, 1}, {0, 4096, 1}, {0, 4097, 2}, {4095, 1, 1}, {4095, 2, 2}, {100, 8192, 3}, {8192, 1 << 20, 256},
	} {
		data := bytes.Repeat([]byte{1, 2, 3}, c.n/3+1)[:c.n]
		sums := Append(nil, uint64(c.off), data)
		if len(sums) != c.want || Count(uint64(c.off), c.n) != c.want {
			t.Errorf("%+v: %d sums, Count %d", c, len(sums), Count(uint64(c.off), c.n))
		}
		if bad := Verify(sums, uint64(c.off), data); bad != -1 {
			t.Errorf("%+v: fragment %d differs", c, bad)
		}
		for i := range sums {
			sums[i] ^= 1
			if bad := Verify(sums, uint64(c.off), data); bad != i {
				t.Errorf("%+v: found %d, want %d", c, bad, i)
			}
			sums[i] ^= 1
		}
		if Verify(append(sums, 0), uint64(c.off), data) == -1 {
			t.Errorf("%+v: one sum too many passed", c)
		}
	}
}

func TestMissingSumsDoNotPass(t *testing.T) {
	if Verify(nil, 0, []byte{1}) != 0 {
		t.Error("data without a checksum passed")
	}
}

func BenchmarkVerifyMiB(b *testing.B) {
	data := make([]byte, 1<<20)
	sums := Append(nil, 0, data)
	b.SetBytes(1 << 20)
	for b.Loop() {
		if Verify(sums, 0, data) != -1 {
			b.Fatal("differs")
		}
	}
}
