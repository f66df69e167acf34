package fusefs

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/file"
)

// fsType is the type of our mounts in the kernel's list.
const fsType = "fuse.ashlar"

// Mount is a mounted volume.
type Mount struct {
	dir    string
	server *fuse.Server
	f      *filesystem
}

// Filesystem is a volume about to be mounted: its Drop is for
// file.Options, before the file.FS that Mount needs exists.
type Filesystem struct{ f *filesystem }

// New prepares a mount.
func New(o Options) *Filesystem {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	f := &filesystem{RawFileSystem: fuse.NewDefaultRawFileSystem(), o: o}
	return &Filesystem{f}
}

// Drop makes the kernel drop what it has cached of an inode; it is for
// file.Options.
func (n *Filesystem) Drop(ino ashlar.Inode, off, length uint64) { n.f.drop(ino, off, length) }

// Mount mounts the volume and serves it in the background.
func (n *Filesystem) Mount(fs *file.FS) (*Mount, error) {
	f := n.f
	f.fs = fs
	dir, err := filepath.Abs(f.o.Dir)
	if err != nil {
		return nil, err
	}
	if err := Mountable(dir); err != nil {
		return nil, err
	}
	var server *fuse.Server
	err = f.device.open(func() (err error) {
		server, err = fuse.NewServer(f, dir, f.mountOptions())
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("mount %s: %w", dir, err)
	}
	go server.Serve()
	if err := server.WaitMount(); err != nil {
		return nil, fmt.Errorf("mount %s: %w", dir, err)
	}
	if m, err := findMount(dir); err == nil && m != nil {
		f.below.serve(m.device)
	}
	raiseReadAhead(dir, f.o.Logger)
	return &Mount{dir: dir, server: server, f: f}, nil
}

func (f *filesystem) mountOptions() *fuse.MountOptions {
	options := append([]string{"default_permissions"}, f.o.Extra...)
	if f.o.ReadOnly {
		options = append(options, "ro")
	}
	root := os.Geteuid() == 0
	o := &fuse.MountOptions{
		AllowOther: !f.o.OwnerOnly, Options: options, FsName: f.o.Source, Name: "ashlar",
		MaxWrite: RequestMax, MaxReadAhead: RequestMax, MaxBackground: backgroundMax,
		DisableSplice: true, ExplicitDataCacheControl: true, EnableLocks: true,
		ExtraCapabilities: fuse.CAP_ATOMIC_O_TRUNC | fuse.CAP_EXPORT_SUPPORT | fuse.CAP_ASYNC_DIO |
			fuse.CAP_READDIRPLUS_AUTO | fuse.CAP_DIRECT_IO_ALLOW_MMAP |
			fuse.CAP_HANDLE_KILLPRIV_V2 | // without it every write asks for a file capability first
			fuse.CAP_DONT_MASK | fuse.CAP_SETXATTR_EXT, // lists of directories, not the umask, make modes
		EnableAcl:         true,
		DirectMountStrict: root,
		Logger:            slog.NewLogLogger(f.o.Logger.Handler(), slog.LevelWarn),
	}
	if root {
		o.Options, o.DirectMountFlags = directFlags(options)
	}
	return o
}

// directFlags splits mount options into those that the kernel takes as flags
// and the others. Without suid and dev, both are off.
func directFlags(options []string) (rest []string, flags uintptr) {
	flags = unix.MS_NOSUID | unix.MS_NODEV
	for _, o := range options {
		switch o {
		case "ro":
			flags |= unix.MS_RDONLY
		case "noatime":
			flags |= unix.MS_NOATIME
		case "sync":
			flags |= unix.MS_SYNCHRONOUS
		case "dirsync":
			flags |= unix.MS_DIRSYNC
		default:
			rest = append(rest, o) // dev, suid, exec and their opposites are go-fuse's
		}
	}
	return rest, flags
}

// Unmount takes the mount away: at once if nobody uses it, otherwise as soon
// as its last user is gone, of which busy tells. Everything written was
// flushed at close; the caller closes the file.FS afterwards.
func (m *Mount) Unmount() (busy bool, err error) {
	if os.Geteuid() != 0 {
		return false, m.server.Unmount()
	}
	err = unix.Unmount(m.dir, 0)
	if errors.Is(err, unix.EBUSY) {
		busy = true
		err = unix.Unmount(m.dir, unix.MNT_DETACH)
	}
	if errors.Is(err, unix.EINVAL) { // unmounted by somebody else
		err = nil
	}
	return busy, err
}

// Wait returns when the volume is unmounted, by Unmount or by umount(8).
func (m *Mount) Wait() { m.server.Wait() }

// Mountable tells what is wrong with a mount point.
func Mountable(dir string) error {
	if mounted, err := isMounted(dir); err != nil {
		return err
	} else if mounted { // looked up first: stat of a dead mount fails
		return ashlar.E("mount", ashlar.Busy, dir, errors.New("an Ashlar volume is mounted there; umount it first"))
	}
	st, err := os.Stat(dir)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return ashlar.E("mount", ashlar.NotExist, dir, errors.New("make the directory first"))
	case err != nil:
		return err
	case !st.IsDir():
		return ashlar.E("mount", ashlar.NotDir, dir, nil)
	}
	return nil
}

func isMounted(dir string) (bool, error) {
	if d, err := filepath.EvalSymlinks(filepath.Dir(dir)); err == nil {
		dir = filepath.Join(d, filepath.Base(dir))
	}
	m, err := findMount(dir)
	return m != nil && m.fsType == fsType, err
}

// mountInfo is a line of /proc/self/mountinfo.
type mountInfo struct {
	device string // major:minor
	fsType string
}

// findMount returns the topmost mount at a path, nil if there is none.
func findMount(dir string) (*mountInfo, error) {
	r, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return scanMounts(r, dir)
}

// scanMounts reads lines of "id parent major:minor root point options tags… -
// type source options" (proc(5)).
func scanMounts(r io.Reader, dir string) (m *mountInfo, err error) {
	s := bufio.NewScanner(r)
	for s.Scan() {
		left, right, ok := strings.Cut(s.Text(), " - ")
		l, rt := strings.Fields(left), strings.Fields(right)
		if !ok || len(l) < 5 || len(rt) < 1 || unescape(l[4]) != dir {
			continue
		}
		m = &mountInfo{device: l[2], fsType: rt[0]}
	}
	return m, s.Err()
}

// unescape undoes the octal escapes of mountinfo.
func unescape(s string) string {
	var b strings.Builder
	for len(s) > 0 {
		if s[0] == '\\' && len(s) >= 4 {
			if n, err := strconv.ParseUint(s[1:4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				s = s[4:]
				continue
			}
		}
		b.WriteByte(s[0])
		s = s[1:]
	}
	return b.String()
}

// raiseReadAhead lets the kernel read ahead further than FUSE may ask for.
func raiseReadAhead(dir string, log *slog.Logger) {
	m, err := findMount(dir)
	if err != nil || m == nil {
		return
	}
	path := "/sys/class/bdi/" + m.device + "/read_ahead_kb"
	err = os.WriteFile(path, []byte(strconv.Itoa(readAheadKB)), 0)
	if err != nil && !errors.Is(err, syscall.EACCES) && !errors.Is(err, os.ErrNotExist) {
		log.Warn("read-ahead stays at the kernel's default", "err", err)
	}
}
