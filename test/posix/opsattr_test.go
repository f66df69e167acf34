package posix

import (
	"encoding/binary"
	"fmt"
	"sort"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

func init() {
	for name, o := range map[string]op{
		"chmod":  {2, plain(func(a []string) error { return unix.Chmod(a[0], octal(a[1])) })},
		"fchmod": {2, func(w *worker, a []string) (string, error) { return "", unix.Fchmod(w.fd(a[0]), octal(a[1])) }},
		"chown":  {3, plain(func(a []string) error { return unix.Chown(a[0], int(number(a[1])), int(number(a[2]))) })},
		"lchown": {3, plain(func(a []string) error { return unix.Lchown(a[0], int(number(a[1])), int(number(a[2]))) })},
		"fchown": {3, func(w *worker, a []string) (string, error) {
			return "", unix.Fchown(w.fd(a[0]), int(number(a[1])), int(number(a[2])))
		}},
		"utimens":     {3, plain(func(a []string) error { return utimens(a, 0) })},
		"lutimens":    {3, plain(func(a []string) error { return utimens(a, unix.AT_SYMLINK_NOFOLLOW) })},
		"access":      {2, plain(func(a []string) error { return unix.Access(a[0], access(a[1])) })},
		"eaccess":     {2, plain(func(a []string) error { return unix.Faccessat(unix.AT_FDCWD, a[0], access(a[1]), unix.AT_EACCESS) })},
		"stat":        {1, stat},
		"fstat":       {1, fstat},
		"btime":       {1, btime},
		"setxattr":    {3, plain(setxattr)},
		"getxattr":    {1, getxattr},
		"listxattr":   {1, listxattr},
		"removexattr": {2, plain(func(a []string) error { return unix.Lremovexattr(a[0], a[1]) })},
		"setfacl":     {2, plain(setfacl)},
		"getfacl":     {1, getfacl},
		"statfs":      {1, statfs},
	} {
		ops[name] = o
	}
}

func access(s string) uint32 {
	m := 0
	for _, c := range s {
		m |= map[rune]int{'r': 4, 'w': 2, 'x': 1, 'f': 0}[c]
	}
	return uint32(m)
}

// utimens PATH ATIME MTIME: seconds, seconds.nanoseconds, now or omit.
func utimens(a []string, flags int) error {
	var ts [2]unix.Timespec
	for i, s := range a[1:3] {
		switch s {
		case "now":
			ts[i].Nsec = unix.UTIME_NOW
		case "omit":
			ts[i].Nsec = unix.UTIME_OMIT
		default:
			sec, ns, _ := strings.Cut(s, ".")
			ts[i].Sec = number(sec)
			if ns != "" {
				ts[i].Nsec = number(ns)
			}
		}
	}
	return unix.UtimesNanoAt(unix.AT_FDCWD, a[0], ts[:], flags)
}

func shown(st *unix.Stat_t) string {
	return fmt.Sprintf("%06o %d %d:%d %d", st.Mode, st.Nlink, st.Uid, st.Gid, map[bool]int64{true: st.Size}[st.Mode&unix.S_IFMT == unix.S_IFREG])
}

func stat(_ *worker, a []string) (string, error) {
	var st unix.Stat_t
	err := unix.Stat(a[0], &st)
	return shown(&st), err
}

func fstat(w *worker, a []string) (string, error) {
	var st unix.Stat_t
	err := unix.Fstat(w.fd(a[0]), &st)
	return shown(&st), err
}

// btime tells whether a birth time is known and not after the other times.
func btime(_ *worker, a []string) (string, error) {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, a[0], unix.AT_SYMLINK_NOFOLLOW, unix.STATX_BTIME|unix.STATX_BASIC_STATS, &st)
	if err != nil {
		return "", err
	}
	at := func(t unix.StatxTimestamp) int64 { return t.Sec*1e9 + int64(t.Nsec) }
	return fmt.Sprint(st.Mask&unix.STATX_BTIME != 0, at(st.Btime) <= at(st.Ctime), at(st.Btime) > 0), nil
}

func setxattr(a []string) error {
	fl := 0
	if len(a) > 3 {
		fl = flags(a[3], map[string]int{"create": unix.XATTR_CREATE, "replace": unix.XATTR_REPLACE})
	}
	return unix.Lsetxattr(a[0], a[1], content(a[2]), fl)
}

// getxattr PATH NAME [SIZE of the buffer].
func getxattr(_ *worker, a []string) (string, error) {
	size := int64(65536)
	if len(a) > 2 {
		size = number(a[2])
	}
	b := make([]byte, size)
	n, err := unix.Lgetxattr(a[0], a[1], b)
	if size == 0 {
		return strconv.Itoa(n), err
	}
	return told(b[:max(n, 0)]), err
}

func listxattr(_ *worker, a []string) (string, error) {
	b := make([]byte, 65536)
	n, err := unix.Llistxattr(a[0], b)
	names := strings.Split(string(b[:max(n, 0)]), "\x00")
	sort.Strings(names)
	return strings.Join(names, " "), err
}

// The binary form of an access control list: a version, then entries of tag,
// permissions and id (linux/posix_acl_xattr.h).
const aclVersion = 2

var aclTags = map[string]uint16{"u": 0x01, "U": 0x02, "g": 0x04, "G": 0x08, "m": 0x10, "o": 0x20}

// setfacl PATH ENTRY,…: as setfacl(1) has them, u::rwx,u:1001:r-x,g::r-x,m::rwx,o::---;
// with "default" as a third word the default list. "none" removes it.
func setfacl(a []string) error {
	name := "system.posix_acl_access"
	if len(a) > 2 {
		name = "system.posix_acl_default"
	}
	if a[1] == "none" {
		return unix.Lremovexattr(a[0], name)
	}
	b := binary.LittleEndian.AppendUint32(nil, aclVersion)
	for _, e := range strings.Split(a[1], ",") {
		f := strings.Split(e, ":")
		if len(f) != 3 {
			bad("entry %q", e)
		}
		tag, id := f[0], uint32(0xffffffff)
		if f[1] != "" {
			tag, id = strings.ToUpper(tag), uint32(number(f[1]))
		}
		perm := uint16(0)
		for _, c := range f[2] {
			perm |= map[rune]uint16{'r': 4, 'w': 2, 'x': 1}[c]
		}
		b = binary.LittleEndian.AppendUint16(b, aclTags[tag])
		b = binary.LittleEndian.AppendUint16(b, perm)
		b = binary.LittleEndian.AppendUint32(b, id)
	}
	return unix.Lsetxattr(a[0], name, b, 0)
}

// getfacl PATH [default].
func getfacl(_ *worker, a []string) (string, error) {
	name := "system.posix_acl_access"
	if len(a) > 1 {
		name = "system.posix_acl_default"
	}
	b := make([]byte, 4096)
	n, err := unix.Lgetxattr(a[0], name, b)
	if err != nil {
		return "", err
	}
	var out []string
	for b = b[4:n]; len(b) >= 8; b = b[8:] {
		tag := binary.LittleEndian.Uint16(b)
		for name, t := range aclTags {
			if t == tag {
				id := ""
				if name == "U" || name == "G" {
					id = strconv.Itoa(int(binary.LittleEndian.Uint32(b[4:])))
				}
				out = append(out, fmt.Sprintf("%s:%s:%o", strings.ToLower(name), id, binary.LittleEndian.Uint16(b[2:])))
			}
		}
	}
	return strings.Join(out, ","), nil
}

// statfs tells whether the numbers make sense.
func statfs(_ *worker, a []string) (string, error) {
	var st unix.Statfs_t
	err := unix.Statfs(a[0], &st)
	return fmt.Sprint(st.Blocks > 0, st.Bfree <= st.Blocks, st.Bavail <= st.Bfree, st.Files > 0, st.Ffree <= st.Files, st.Namelen), err
}
