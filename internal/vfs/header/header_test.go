package header

import (
	"errors"
	"testing"

	"github.com/ashlarfs/ashlar"
)

var sample = Header{Magic: Magic{'A', 'S', 'H', 'L', 'T', 'E', 'S', 'T'}, Version: 2, Cluster: ashlar.ClusterID{1, 2}, Compat: 8, ROCompat: 1, Incompat: 2}

func TestHeaderReadsBack(t *testing.T) {
	got, err := Decode(sample.Encode(), sample, "f")
	if err != nil || got != sample {
		t.Fatalf("%+v, %v", got, err)
	}
}

func TestHeaderRefusesWhatItMust(t *testing.T) {
	change := func(f func(*Header)) Header { h := sample; f(&h); return h }
	for _, c := range []struct {
		name string
		file Header
		want ashlar.Kind
	}{
		{"another kind of file", change(func(h *Header) { h.Magic[0] = 'X' }), ashlar.Corrupt},
		{"a newer format", change(func(h *Header) { h.Version = 3 }), ashlar.Version},
		{"version zero", change(func(h *Header) { h.Version = 0 }), ashlar.Version},
		{"another cluster", change(func(h *Header) { h.Cluster[0] = 9 }), ashlar.WrongCluster},
		{"an unknown incompatible feature", change(func(h *Header) { h.Incompat |= 64 }), ashlar.Version},
		{"an unknown read-only compatible feature", change(func(h *Header) { h.ROCompat |= 64 }), ashlar.Version},
	} {
		if _, err := Decode(c.file.Encode(), sample, "f"); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	unknownCompat := change(func(h *Header) { h.Compat |= 64 })
	if _, err := Decode(unknownCompat.Encode(), sample, "f"); err != nil {
		t.Errorf("an unknown compatible feature: %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(sample.Encode())
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		if h, err := Decode(b, sample, "f"); err == nil && h.Magic != sample.Magic {
			t.Fatal("accepted another magic")
		}
	})
}
