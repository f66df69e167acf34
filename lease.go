package ashlar

import "fmt"

// LeaseMode is what the holder of a lease on an inode may keep without asking
// the leader. They are wire values.
type LeaseMode uint8

// The modes, each of which includes those before it.
const (
	// LeaseNone is no lease.
	LeaseNone LeaseMode = iota
	// LeaseShared lets its holder cache data, attributes and, of a directory,
	// names. Nobody changes them before it is returned.
	LeaseShared
	// LeaseExclusive lets its holder, of a regular file, also buffer writes,
	// size and times. Nobody reads or changes them before it is returned.
	LeaseExclusive
)

// String is the mode's name.
func (m LeaseMode) String() string {
	switch m {
	case LeaseNone:
		return "none"
	case LeaseShared:
		return "shared"
	case LeaseExclusive:
		return "exclusive"
	}
	return fmt.Sprintf("lease mode %d", uint8(m))
}
