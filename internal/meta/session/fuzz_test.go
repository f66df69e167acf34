package session

import (
	"bytes"
	"testing"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/meta/key"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// FuzzRecords feeds arbitrary values to every record of the package: one that
// is accepted encodes to what was read.
func FuzzRecords(f *testing.F) {
	for n, r := range []key.Record{
		&Session{Name: "a", State: Open, Floor: 1}, &fenceRecord{Session: 1, Done: true}, &end{NotBefore: 2},
		&result{Reply: &wire.Empty{}}, &result{Reply: &wire.ErrorMessage{What: ashlar.Exist, Op: "make"}},
	} {
		f.Add(uint8(n), key.Encode(r))
	}
	f.Fuzz(func(t *testing.T, n uint8, b []byte) {
		r := []key.Record{&Session{}, &fenceRecord{}, &end{}, &result{}}[n%4]
		if key.Decode(b, r) != nil {
			return
		}
		if got := key.Encode(r); !bytes.Equal(got, b) {
			t.Errorf("%T: read %x, wrote %x", r, b, got)
		}
	})
}
