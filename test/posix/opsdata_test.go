package posix

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

func init() {
	for name, o := range map[string]op{
		"open":    {2, open},
		"tmpfile": {3, open},
		"close": {1, func(w *worker, a []string) (string, error) {
			fd := w.fd(a[0])
			delete(w.fds, a[0])
			return "", unix.Close(fd)
		}},
		"read":      {3, read},
		"write":     {3, write},
		"append":    {2, appendTo},
		"seek":      {3, seek},
		"truncate":  {2, plain(func(a []string) error { return unix.Truncate(a[0], number(a[1])) })},
		"ftruncate": {2, func(w *worker, a []string) (string, error) { return "", unix.Ftruncate(w.fd(a[0]), number(a[1])) }},
		"fallocate": {4, fallocate},
		"fsync":     {1, func(w *worker, a []string) (string, error) { return "", unix.Fsync(w.fd(a[0])) }},
		"fdatasync": {1, func(w *worker, a []string) (string, error) { return "", unix.Fdatasync(w.fd(a[0])) }},
		"copyrange": {5, copyRange},
		"sendfile":  {4, sendfile},
		"splice":    {5, splice},
		"mmap":      {4, mapped},
		"mapwrite":  {4, mapWrite},
		"sum":       {1, sum},
		"fadvise": {2, func(w *worker, a []string) (string, error) {
			return "", unix.Fadvise(w.fd(a[0]), 0, 0, unix.FADV_DONTNEED)
		}},
		"blocks": {1, blocks},
	} {
		ops[name] = o
	}
}

// fd finds an open file by the name a script gave it.
func (w *worker) fd(name string) int {
	fd, ok := w.fds[name]
	if !ok {
		return -1 // EBADF: the open failed
	}
	return fd
}

var openWords = map[string]int{
	"rdonly": unix.O_RDONLY, "wronly": unix.O_WRONLY, "rdwr": unix.O_RDWR, "creat": unix.O_CREAT, "excl": unix.O_EXCL,
	"trunc": unix.O_TRUNC, "append": unix.O_APPEND, "directory": unix.O_DIRECTORY, "nofollow": unix.O_NOFOLLOW,
	"nonblock": unix.O_NONBLOCK, "path": unix.O_PATH, "direct": unix.O_DIRECT, "sync": unix.O_SYNC, "dsync": unix.O_DSYNC,
	"noatime": unix.O_NOATIME, "tmpfile": unix.O_TMPFILE,
}

// open PATH FLAGS [MODE] [>NAME].
func open(w *worker, a []string) (string, error) {
	name, mode := "", uint32(0)
	for _, x := range a[2:] {
		if strings.HasPrefix(x, ">") {
			name = x[1:]
		} else {
			mode = octal(x)
		}
	}
	fd, err := unix.Open(a[0], flags(a[1], openWords), mode)
	if err != nil {
		return "", err
	}
	if name == "" {
		return "", unix.Close(fd)
	}
	if old, ok := w.fds[name]; ok {
		unix.Close(old)
	}
	w.fds[name] = fd
	return "", nil
}

// content reads data: a text, or N*x for N times x.
func content(s string) []byte {
	if n, text, ok := strings.Cut(s, "*"); ok {
		return bytes.Repeat([]byte(text), int(number(n)))
	}
	return []byte(s)
}

// aligned returns a buffer that O_DIRECT takes.
func aligned(n int) []byte {
	b := make([]byte, n+4096)
	off := int(-uintptr(unsafe.Pointer(&b[0])) & 4095)
	return b[off : off+n : off+n]
}

func read(w *worker, a []string) (string, error) {
	b := aligned(int(number(a[2])))
	n, err := unix.Pread(w.fd(a[0]), b, number(a[1]))
	if n < 0 {
		n = 0
	}
	return told(b[:n]), err
}

// told says what bytes are: short ones as they are, others by their sum.
func told(b []byte) string {
	if len(b) <= 32 {
		return strconv.Quote(string(b))
	}
	return fmt.Sprintf("%d bytes %08x", len(b), crc32.ChecksumIEEE(b))
}

func write(w *worker, a []string) (string, error) {
	c := content(a[2])
	b := aligned(len(c))
	copy(b, c)
	n, err := unix.Pwrite(w.fd(a[0]), b, number(a[1]))
	return strconv.Itoa(n), err
}

func appendTo(w *worker, a []string) (string, error) {
	n, err := unix.Write(w.fd(a[0]), content(a[1]))
	return strconv.Itoa(n), err
}

// seek NAME WHENCE OFFSET.
func seek(w *worker, a []string) (string, error) {
	whence := flags(a[1], map[string]int{"set": 0, "cur": 1, "end": 2, "data": unix.SEEK_DATA, "hole": unix.SEEK_HOLE, "9": 9})
	off, err := unix.Seek(w.fd(a[0]), number(a[2]), whence)
	return strconv.FormatInt(off, 10), err
}

var allocateWords = map[string]int{
	"0": 0, "keep": unix.FALLOC_FL_KEEP_SIZE, "punch": unix.FALLOC_FL_PUNCH_HOLE, "zero": unix.FALLOC_FL_ZERO_RANGE,
	"collapse": unix.FALLOC_FL_COLLAPSE_RANGE, "insert": unix.FALLOC_FL_INSERT_RANGE,
}

// fallocate NAME MODE OFFSET LENGTH.
func fallocate(w *worker, a []string) (string, error) {
	return "", unix.Fallocate(w.fd(a[0]), uint32(flags(a[1], allocateWords)), number(a[2]), number(a[3]))
}

// copyrange FROM OFFSET TO OFFSET LENGTH [FLAGS].
func copyRange(w *worker, a []string) (string, error) {
	from, to := number(a[1]), number(a[3])
	fl := 0
	if len(a) > 5 {
		fl = int(number(a[5]))
	}
	n, err := unix.CopyFileRange(w.fd(a[0]), &from, w.fd(a[2]), &to, int(number(a[4])), fl)
	return fmt.Sprint(n, from, to), err
}

// sendfile FROM OFFSET TO LENGTH.
func sendfile(w *worker, a []string) (string, error) {
	off := number(a[1])
	n, err := unix.Sendfile(w.fd(a[2]), w.fd(a[0]), &off, int(number(a[3])))
	return fmt.Sprint(n, off), err
}

// splice FROM OFFSET TO OFFSET LENGTH, through a pipe.
func splice(w *worker, a []string) (string, error) {
	var p [2]int
	if err := unix.Pipe(p[:]); err != nil {
		return "", err
	}
	defer unix.Close(p[0])
	defer unix.Close(p[1])
	from, to := number(a[1]), number(a[3])
	n, err := unix.Splice(w.fd(a[0]), &from, p[1], nil, int(number(a[4])), 0)
	if err != nil {
		return "", err
	}
	m, err := unix.Splice(p[0], nil, w.fd(a[2]), &to, int(n), 0)
	return fmt.Sprint(n, m), err
}

// mmap NAME OFFSET LENGTH PROT: read what a mapping shows.
func mapped(w *worker, a []string) (string, error) {
	prot := flags(a[3], map[string]int{"r": unix.PROT_READ, "rw": unix.PROT_READ | unix.PROT_WRITE})
	b, err := unix.Mmap(w.fd(a[0]), number(a[1]), int(number(a[2])), prot, unix.MAP_SHARED)
	if err != nil {
		return "", err
	}
	defer unix.Munmap(b)
	return told(append([]byte(nil), b...)), nil
}

// mapwrite NAME OFFSET LENGTH DATA: write through a shared mapping.
func mapWrite(w *worker, a []string) (string, error) {
	b, err := unix.Mmap(w.fd(a[0]), number(a[1]), int(number(a[2])), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return "", err
	}
	copy(b, content(a[3]))
	if err := unix.Msync(b, unix.MS_SYNC); err != nil {
		return "", err
	}
	return "", unix.Munmap(b)
}

// sum PATH: all that is in a file.
func sum(_ *worker, a []string) (string, error) {
	fd, err := unix.Open(a[0], unix.O_RDONLY|unix.O_NOATIME|unix.O_NONBLOCK, 0) // it may be a FIFO
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	var all []byte
	b := make([]byte, 1<<20)
	for {
		n, err := unix.Read(fd, b)
		if err != nil || n == 0 {
			return told(all), err
		}
		all = append(all, b[:n]...)
	}
}

// blocks PATH: whether the file uses space.
func blocks(_ *worker, a []string) (string, error) {
	var st unix.Stat_t
	err := unix.Lstat(a[0], &st)
	return fmt.Sprint(st.Blocks > 0), err
}
