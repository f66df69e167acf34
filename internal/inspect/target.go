package inspect

import (
	"errors"
	"io"
	"os"
	"path"
	"time"

	"github.com/ashlarfs/ashlar"
)

// Target is where files are extracted to.
type Target interface {
	// Create begins a file at f.Place. It returns ErrThere if an earlier
	// extraction has finished it.
	Create(f *File) (Output, error)
}

// Output is a file being extracted.
type Output interface {
	io.WriterAt
	// Finish gives the file its size, owner, mode and time and closes it. What
	// is said of owner and mode alone goes into f.Result.Owner.
	Finish(f *File) error
	// Abort closes a file that could not be written.
	Abort()
}

// ErrThere says that a file is there already, as it would be extracted.
var ErrThere = errors.New("it is there already")

// Dir is a target: a directory, which confines what is written. No file may
// be there yet.
type Dir struct{ Root *os.Root }

// Create implements Target.
func (d Dir) Create(f *File) (Output, error) {
	if err := d.Root.MkdirAll(path.Dir(f.Place), 0o755); err != nil {
		return nil, err
	}
	w, err := d.Root.OpenFile(f.Place, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	return &dirFile{w, d.Root}, nil
}

type dirFile struct {
	*os.File
	root *os.Root
}

// Finish implements Output.
func (w *dirFile) Finish(f *File) error {
	err := w.Truncate(int64(f.Size))
	if owner := errors.Join(w.Chown(int(f.UID), int(f.GID)), w.Chmod(f.FileMode())); owner != nil {
		f.Result.Owner = owner.Error()
	}
	if err = errors.Join(err, w.Close()); err != nil {
		return err
	}
	return w.root.Chtimes(f.Place, time.Time{}, f.ModTime())
}

// Abort implements Output.
func (w *dirFile) Abort() { _ = w.Close() } // it is told already why

// ModTime is when the file was last changed, as far as its chunks tell.
func (f *File) ModTime() time.Time { return time.Unix(0, f.Mtime) }

// FileMode is the file's mode in Go's bits.
func (f *File) FileMode() os.FileMode {
	m := os.FileMode(f.Mode & ashlar.ModePerm)
	if f.Mode&ashlar.ModeSetuid != 0 {
		m |= os.ModeSetuid
	}
	if f.Mode&ashlar.ModeSetgid != 0 {
		m |= os.ModeSetgid
	}
	if f.Mode&ashlar.ModeSticky != 0 {
		m |= os.ModeSticky
	}
	return m
}

// runMax is how much is written at a time, in bytes.
const runMax = 1 << 20

// runs joins writes that follow each other.
type runs struct {
	w   io.WriterAt
	at  int64 // of buf in the file
	buf []byte
}

func (r *runs) write(p []byte, at int64) error {
	if len(r.buf) > 0 && (at != r.at+int64(len(r.buf)) || len(r.buf)+len(p) > runMax) {
		if err := r.flush(); err != nil {
			return err
		}
	}
	if len(r.buf) == 0 {
		r.at = at
	}
	r.buf = append(r.buf, p...)
	return nil
}

func (r *runs) flush() error {
	if len(r.buf) == 0 {
		return nil
	}
	_, err := r.w.WriteAt(r.buf, r.at)
	r.buf = r.buf[:0]
	return err
}
