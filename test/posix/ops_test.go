package posix

import (
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// op is one call of a script. What it returns is compared.
type op struct {
	args int // at least
	run  func(w *worker, a []string) (string, error)
}

// errBadScript is a mistake in a script, not an answer of a file system.
type errBadScript string

func (e errBadScript) Error() string { return string(e) }

func bad(format string, a ...any) { panic(errBadScript(fmt.Sprintf(format, a...))) }

func plain(f func(a []string) error) func(*worker, []string) (string, error) {
	return func(_ *worker, a []string) (string, error) { return "", f(a) }
}

// ops are the calls by name: of names here, of open files in opsdata_test.go,
// of attributes in opsattr_test.go.
var ops = map[string]op{}

func init() {
	for name, o := range map[string]op{
		"mkdir":  {2, plain(func(a []string) error { return unix.Mkdir(a[0], octal(a[1])) })},
		"rmdir":  {1, plain(func(a []string) error { return unix.Rmdir(a[0]) })},
		"unlink": {1, plain(func(a []string) error { return unix.Unlink(a[0]) })},
		"link":   {2, plain(func(a []string) error { return unix.Link(a[0], a[1]) })},
		"linkat": {3, plain(func(a []string) error {
			return unix.Linkat(unix.AT_FDCWD, a[0], unix.AT_FDCWD, a[1], flags(a[2], linkFlags))
		})},
		"symlink":  {2, plain(func(a []string) error { return unix.Symlink(a[0], a[1]) })},
		"rename":   {2, plain(rename)},
		"mkfifo":   {2, plain(func(a []string) error { return unix.Mkfifo(a[0], octal(a[1])) })},
		"mknod":    {3, plain(mknod)},
		"create":   {2, plain(create)},
		"readlink": {1, readlink},
		"readdir":  {1, readdir},
		"umask":    {1, plain(func(a []string) error { unix.Umask(int(octal(a[0]))); return nil })},
		"linkfd":   {2, linkfd},
		"chdir":    {1, plain(func(a []string) error { return unix.Chdir(a[0]) })},
		"home":     {0, func(w *worker, _ []string) (string, error) { return "", unix.Chdir(w.dir) }},
		"many":     {3, plain(many)},
		"remove":   {3, plain(removeMany)},
	} {
		ops[name] = o
	}
}

func octal(s string) uint32 {
	n, err := strconv.ParseUint(s, 8, 32)
	if err != nil {
		bad("mode %q", s)
	}
	return uint32(n)
}

// number reads a count of bytes: 4096, 16M, 1G+5, 4T-1.
func number(s string) int64 {
	rest := s
	total, sign := int64(0), int64(1)
	for rest != "" {
		i := 0
		for i < len(rest) && rest[i] >= '0' && rest[i] <= '9' {
			i++
		}
		n, err := strconv.ParseInt(rest[:i], 10, 64)
		if err != nil {
			if i == 0 && rest[0] == '-' && total == 0 {
				sign, rest = -1, rest[1:]
				continue
			}
			bad("number %q", s)
		}
		rest = rest[i:]
		if rest != "" {
			if k := strings.IndexByte("KMGT", rest[0]); k >= 0 {
				n <<= 10 * (k + 1)
				rest = rest[1:]
			}
		}
		total += sign * n
		if rest == "" {
			break
		}
		switch rest[0] {
		case '+':
			sign = 1
		case '-':
			sign = -1
		default:
			bad("number %q", s)
		}
		rest = rest[1:]
	}
	return total
}

// flags reads words separated by commas.
func flags(s string, words map[string]int) int {
	out := 0
	for _, w := range strings.Split(s, ",") {
		v, ok := words[w]
		if !ok {
			bad("flag %q", w)
		}
		out |= v
	}
	return out
}

var linkFlags = map[string]int{"0": 0, "follow": unix.AT_SYMLINK_FOLLOW, "empty": unix.AT_EMPTY_PATH, "1": 1}

var renameFlags = map[string]int{
	"0": 0, "noreplace": unix.RENAME_NOREPLACE, "exchange": unix.RENAME_EXCHANGE, "whiteout": unix.RENAME_WHITEOUT, "8": 8,
}

func rename(a []string) error {
	if len(a) < 3 {
		return unix.Rename(a[0], a[1])
	}
	return unix.Renameat2(unix.AT_FDCWD, a[0], unix.AT_FDCWD, a[1], uint(flags(a[2], renameFlags)))
}

// mknod NAME TYPE MODE [MAJOR MINOR].
func mknod(a []string) error {
	t, ok := map[string]uint32{
		"reg": unix.S_IFREG, "none": 0, "fifo": unix.S_IFIFO, "sock": unix.S_IFSOCK, "chr": unix.S_IFCHR, "blk": unix.S_IFBLK,
		"dir": unix.S_IFDIR, "lnk": unix.S_IFLNK,
	}[a[1]]
	if !ok {
		bad("type %q", a[1])
	}
	dev := uint64(0)
	if len(a) > 4 {
		dev = unix.Mkdev(uint32(number(a[3])), uint32(number(a[4])))
	}
	return unix.Mknod(a[0], t|octal(a[2]), int(dev))
}

// create makes a file that must not be there.
func create(a []string) error {
	fd, err := unix.Open(a[0], unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, octal(a[1]))
	if err == nil {
		err = unix.Close(fd)
	}
	return err
}

func readlink(_ *worker, a []string) (string, error) {
	b := make([]byte, 5000)
	n, err := unix.Readlink(a[0], b)
	return fmt.Sprintf("%q", b[:max(n, 0)]), err
}

func readdir(_ *worker, a []string) (string, error) {
	fd, err := unix.Open(a[0], unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	names := 0
	b := make([]byte, 65536)
	for {
		n, err := unix.Getdents(fd, b)
		if err != nil || n == 0 {
			return strconv.Itoa(names), err
		}
		_, k, _ := unix.ParseDirent(b[:n], -1, nil)
		names += k
	}
}

// linkfd gives an open file a name, through /proc as programs do.
func linkfd(w *worker, a []string) (string, error) {
	return "", unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", w.fd(a[0])), unix.AT_FDCWD, a[1], unix.AT_SYMLINK_FOLLOW)
}

// many DIR FROM TO makes empty files named by number.
func many(a []string) error {
	for n := number(a[1]); n < number(a[2]); n++ {
		if err := create([]string{fmt.Sprintf("%s/%d", a[0], n), "0644"}); err != nil {
			return err
		}
	}
	return nil
}

func removeMany(a []string) error {
	for n := number(a[1]); n < number(a[2]); n++ {
		if err := unix.Unlink(fmt.Sprintf("%s/%d", a[0], n)); err != nil {
			return err
		}
	}
	return nil
}
