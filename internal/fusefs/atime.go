package fusefs

import (
	"syscall"
	"time"

	"github.com/ashlarfs/ashlar"
)

// AccessTimes says which reads change access times.
type AccessTimes int

// As the mount options of these names.
const (
	Relatime AccessTimes = iota
	Noatime
	Strictatime
)

// relatimeAge is how old an access time becomes before a read changes it in
// any case.
const relatimeAge = 24 * time.Hour

// accessed notes that something was read through a descriptor with these
// flags. The kernel leaves access times to us, and asks for attributes anew
// when it has read. What it reads from its cache it does not say: a file that was
// open for nothing but reading counts as read when it is closed. It returns
// whether the access time moved.
func (f *filesystem) accessed(a ashlar.Attr, flags uint32) bool {
	if f.o.AccessTimes == Noatime || f.o.ReadOnly || flags&syscall.O_NOATIME != 0 {
		return false
	}
	f.fs.Shown(&a)
	if f.o.AccessTimes != Strictatime && !accessDue(&a, time.Now()) {
		return false
	}
	f.fs.Accessed(&a)
	return true
}

// accessDue tells whether a read changes the access time: if nothing was read
// since the last change, or for a day (relatime of mount(8)).
func accessDue(a *ashlar.Attr, now time.Time) bool {
	return a.Atime <= a.Mtime || a.Atime <= a.Ctime || now.Sub(time.Unix(0, a.Atime)) >= relatimeAge
}
