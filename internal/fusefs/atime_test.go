package fusefs

import (
	"testing"
	"time"

	"github.com/ashlarfs/ashlar"
)

// TestAReadIsNotedWhenRelatimeSaysSo: relatime of mount(8).
func TestAReadIsNotedWhenRelatimeSaysSo(t *testing.T) {
	now := time.Unix(2_000_000_000, 0)
	ago := func(d time.Duration) int64 { return now.Add(-d).UnixNano() }
	for _, c := range []struct {
		what                string
		atime, mtime, ctime int64
		due                 bool
	}{
		{"never read since it was made", ago(time.Hour), ago(time.Hour), ago(time.Hour), true},
		{"read since it was written", ago(time.Minute), ago(time.Hour), ago(time.Hour), false},
		{"written since it was read", ago(time.Hour), ago(time.Minute), ago(time.Minute), true},
		{"its mode was changed since", ago(time.Hour), ago(2 * time.Hour), ago(time.Minute), true},
		{"read a day ago", ago(24 * time.Hour), ago(48 * time.Hour), ago(48 * time.Hour), true},
		{"read less than a day ago", ago(24*time.Hour - time.Second), ago(48 * time.Hour), ago(48 * time.Hour), false},
		{"its access time is to come", ago(-time.Hour), ago(time.Minute), ago(time.Minute), false},
	} {
		if got := accessDue(&ashlar.Attr{Atime: c.atime, Mtime: c.mtime, Ctime: c.ctime}, now); got != c.due {
			t.Errorf("%s: due %v", c.what, got)
		}
	}
}
