package posix

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"

	"golang.org/x/sys/unix"
)

// do does one operation on the file and the model, and compares.
func (f *bytesFile) do(o *byteOp) error {
	if o.kind == "close" {
		return f.close(o.mount, o.slot)
	}
	fd, err := f.fd(o.mount, o.slot)
	if err != nil {
		return err
	}
	size := int64(len(f.model))
	switch o.kind {
	case "mapread", "mapwrite", "copy", "sendfile":
		// As any program does, ask first how long the file is: under a kernel
		// that does not look for itself another mount may have made it longer.
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return err
		}
	}
	switch o.kind {
	case "read":
		return f.read(fd, o)
	case "write":
		return f.write(fd, o)
	case "append":
		b := pattern(o.fill, size, min(o.n, max(windowMax-size, 1)))
		if n, err := unix.Write(fd, b); err != nil || n != len(b) {
			return fmt.Errorf("%d of %d bytes, %w", n, len(b), err)
		}
		f.put(b, size)
	case "mapread", "mapwrite":
		return f.mapped(fd, o)
	case "truncate":
		if err := unix.Ftruncate(fd, f.base+o.off); err != nil {
			return err
		}
		f.resize(o.off)
	case "punch":
		if err := unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, f.base+o.off, o.n); err != nil {
			return err
		}
		f.zeroes(o.off, o.n, false)
	case "zero":
		mode := uint32(unix.FALLOC_FL_ZERO_RANGE)
		if o.flag {
			mode |= unix.FALLOC_FL_KEEP_SIZE
		}
		if err := unix.Fallocate(fd, mode, f.base+o.off, o.n); err != nil {
			return err
		}
		f.zeroes(o.off, o.n, !o.flag)
	case "allocate":
		mode := uint32(0)
		if o.flag {
			mode |= unix.FALLOC_FL_KEEP_SIZE
		}
		if err := unix.Fallocate(fd, mode, f.base+o.off, o.n); err != nil {
			return err
		}
		if !o.flag {
			f.resize(max(size, o.off+o.n))
		}
	case "copy", "copyfrom":
		return f.copy(fd, o)
	case "sendfile":
		return f.sendfile(fd, o)
	case "seek":
		return f.seek(fd, o)
	case "fsync":
		return unix.Fsync(fd)
	case "fdatasync":
		return unix.Fdatasync(fd)
	case "forget":
		if err := unix.Fsync(fd); err != nil {
			return err
		}
		return unix.Fadvise(fd, 0, 0, unix.FADV_DONTNEED)
	case "settimes":
		return unix.UtimesNanoAt(unix.AT_FDCWD, f.paths[o.mount], []unix.Timespec{{Sec: o.off}, {Sec: o.n}}, 0)
	}
	return f.checkSize(o.mount)
}

func (f *bytesFile) checkSize(m int) error {
	var st unix.Stat_t
	if err := unix.Stat(f.paths[m], &st); err != nil {
		return fmt.Errorf("stat: %w", err)
	}
	if want := f.base + int64(len(f.model)); st.Size != want {
		return fmt.Errorf("%d bytes long, should be %d", st.Size, want)
	}
	return nil
}

func (f *bytesFile) read(fd int, o *byteOp) error {
	b := aligned(int(o.n))
	total := 0
	for total < len(b) {
		n, err := unix.Pread(fd, b[total:], f.base+o.off+int64(total))
		if err != nil {
			return fmt.Errorf("read: %w", err)
		}
		if n == 0 {
			break
		}
		total += n
	}
	return f.same(b[:total], o.off, o.n)
}

func (f *bytesFile) write(fd int, o *byteOp) error {
	b := aligned(int(o.n))
	copy(b, pattern(o.fill, o.off, o.n))
	for done := 0; done < len(b); {
		n, err := unix.Pwrite(fd, b[done:], f.base+o.off+int64(done))
		if err != nil {
			return err
		}
		done += n
	}
	f.put(b, o.off)
	return nil
}

// mapped reads or writes through a shared mapping, within the file.
func (f *bytesFile) mapped(fd int, o *byteOp) (err error) {
	n := int64(len(f.piece(o.off, o.n)))
	if n == 0 {
		return nil
	}
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if e, ok := recover().(interface{ Addr() uintptr }); ok {
			err = fmt.Errorf("SIGBUS at %#x", e.Addr())
		}
	}()
	start := (f.base + o.off) &^ 4095
	skip := f.base + o.off - start
	prot := unix.PROT_READ
	if o.kind == "mapwrite" {
		prot |= unix.PROT_WRITE
	}
	m, err := unix.Mmap(fd, start, int(skip+n), prot, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	defer unix.Munmap(m)
	if o.kind == "mapread" {
		return f.same(append([]byte(nil), m[skip:]...), o.off, n)
	}
	b := pattern(o.fill, o.off, n)
	copy(m[skip:], b)
	f.put(b, o.off)
	if o.flag {
		return unix.Msync(m, unix.MS_SYNC)
	}
	return nil
}

// copy copies within the file, or from another.
func (f *bytesFile) copy(fd int, o *byteOp) error {
	from, src := fd, f.base+o.off
	var b []byte
	if o.kind == "copyfrom" {
		other, err := unix.Open(f.other[o.mount], unix.O_RDONLY, 0)
		if err != nil {
			return err
		}
		defer unix.Close(other)
		from, src = other, o.off
		b = pattern(7, o.off, min(o.n, windowMax-o.off))
	} else {
		if o.off < o.to+o.n && o.to < o.off+o.n { // EINVAL
			o.n = max(o.off-o.to, o.to-o.off)
		}
		b = append(b, f.piece(o.off, o.n)...)
	}
	if o.n == 0 {
		return nil
	}
	dst := f.base + o.to
	for left := int64(len(b)); left > 0; {
		n, err := unix.CopyFileRange(from, &src, fd, &dst, int(left), 0)
		if err != nil {
			return err
		}
		if n == 0 {
			return errors.New("nothing was copied")
		}
		left -= int64(n)
	}
	if len(b) > 0 {
		f.put(b, o.to)
	}
	return f.checkSize(o.mount)
}

// sendfile reads through the kernel's pipes.
func (f *bytesFile) sendfile(fd int, o *byteOp) error {
	tmp, err := os.CreateTemp("", "ashlar-bytes-")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	defer tmp.Close()
	off := f.base + o.off
	for left := o.n; left > 0; {
		n, err := unix.Sendfile(int(tmp.Fd()), fd, &off, int(left))
		if err != nil {
			return err
		}
		if n == 0 {
			break
		}
		left -= int64(n)
	}
	b, err := os.ReadFile(tmp.Name())
	if err != nil {
		return err
	}
	return f.same(b, o.off, o.n)
}

// seek looks for data and holes: what is said to be a hole must be zeros.
func (f *bytesFile) seek(fd int, o *byteOp) error {
	size := int64(len(f.model))
	at, err := unix.Seek(fd, f.base+o.off, unix.SEEK_DATA)
	switch {
	case errors.Is(err, unix.ENXIO):
		at = f.base + max(size, o.off)
	case err != nil:
		return err
	case at < f.base+o.off || at >= f.base+size:
		return fmt.Errorf("data at %d, in %d bytes", at-f.base, size)
	}
	for i := o.off; i < min(at-f.base, size); i++ {
		if f.model[i] != 0 {
			return fmt.Errorf("no data before %d, byte %d is %d", at-f.base, i, f.model[i])
		}
	}
	if o.off >= size {
		return nil
	}
	at, err = unix.Seek(fd, f.base+o.off, unix.SEEK_HOLE)
	if err != nil || at < f.base+o.off || at > f.base+size {
		return fmt.Errorf("hole at %d of %d: %w", at-f.base, size, err)
	}
	return nil
}
