package fusefs

import (
	"context"
	"errors"
	"log/slog"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/ashlarfs/ashlar"
)

// errnos is what the kernel is told for each kind of error; EIO otherwise.
var errnos = map[ashlar.Kind]syscall.Errno{
	ashlar.Invalid:         syscall.EINVAL,
	ashlar.NotExist:        syscall.ENOENT,
	ashlar.Exist:           syscall.EEXIST,
	ashlar.NotDir:          syscall.ENOTDIR,
	ashlar.IsDir:           syscall.EISDIR,
	ashlar.NotEmpty:        syscall.ENOTEMPTY,
	ashlar.Permission:      syscall.EACCES,
	ashlar.NotOwner:        syscall.EPERM,
	ashlar.NameTooLong:     syscall.ENAMETOOLONG,
	ashlar.TooManyLinks:    syscall.EMLINK,
	ashlar.NoSpace:         syscall.ENOSPC,
	ashlar.Quota:           syscall.EDQUOT,
	ashlar.TooBig:          syscall.EFBIG,
	ashlar.NoAttr:          syscall.ENODATA,
	ashlar.Range:           syscall.ERANGE,
	ashlar.Stale:           syscall.ESTALE,
	ashlar.CrossVolume:     syscall.EXDEV,
	ashlar.Loop:            syscall.EINVAL,
	ashlar.Busy:            syscall.EBUSY,
	ashlar.Unsupported:     syscall.EOPNOTSUPP,
	ashlar.Timeout:         syscall.ETIMEDOUT,
	ashlar.Unreachable:     syscall.ETIMEDOUT,
	ashlar.TooManySymlinks: syscall.ELOOP,
	ashlar.ReadOnly:        syscall.EROFS,
	ashlar.Deadlock:        syscall.EDEADLK,
	ashlar.NoLocks:         syscall.ENOLCK,
}

// status is what the kernel is told about err. An error that stands for a
// failure of the cluster is logged, since the errno says so little.
func status(log *slog.Logger, op string, err error) fuse.Status {
	if err == nil {
		return fuse.OK
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return fuse.Status(syscall.ETIMEDOUT)
	}
	if errno, ok := errnos[ashlar.KindOf(err)]; ok {
		return fuse.Status(errno)
	}
	log.Error("request failed", "op", op, "err", err)
	return fuse.EIO
}

// status logs and converts.
func (f *filesystem) status(op string, err error) fuse.Status { return status(f.o.Logger, op, err) }
