package client

import (
	"io/fs"
	"time"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// fileInfo is an fs.FileInfo. Its Sys is an *ashlar.Attr.
type fileInfo struct {
	name string
	a    ashlar.Attr
}

func (i *fileInfo) Name() string       { return i.name }
func (i *fileInfo) Size() int64        { return int64(i.a.Size) }
func (i *fileInfo) Mode() fs.FileMode  { return mode(&i.a) }
func (i *fileInfo) ModTime() time.Time { return time.Unix(0, i.a.Mtime) }
func (i *fileInfo) IsDir() bool        { return i.a.Type == ashlar.TypeDir }
func (i *fileInfo) Sys() any           { return &i.a }

// String shows an entry as ls does.
func (i *fileInfo) String() string { return fs.FormatFileInfo(i) }

var typeModes = map[ashlar.FileType]fs.FileMode{
	ashlar.TypeFIFO: fs.ModeNamedPipe, ashlar.TypeChar: fs.ModeDevice | fs.ModeCharDevice, ashlar.TypeDir: fs.ModeDir,
	ashlar.TypeBlock: fs.ModeDevice, ashlar.TypeSymlink: fs.ModeSymlink, ashlar.TypeSocket: fs.ModeSocket,
}

var modeBits = []struct {
	bit  uint16
	mode fs.FileMode
}{{ashlar.ModeSetuid, fs.ModeSetuid}, {ashlar.ModeSetgid, fs.ModeSetgid}, {ashlar.ModeSticky, fs.ModeSticky}}

// mode converts type and permissions to Go's.
func mode(a *ashlar.Attr) fs.FileMode {
	m := typeModes[a.Type] | fs.FileMode(a.Mode&ashlar.ModePerm)
	for _, b := range modeBits {
		if a.Mode&b.bit != 0 {
			m |= b.mode
		}
	}
	return m
}

// unixMode is the inverse of mode, without the type.
func unixMode(m fs.FileMode) uint16 {
	u := uint16(m.Perm())
	for _, b := range modeBits {
		if m&b.mode != 0 {
			u |= b.bit
		}
	}
	return u
}

// dirEntry is an fs.DirEntry.
type dirEntry struct{ d wire.DirEntry }

func (e *dirEntry) Name() string      { return e.d.Name }
func (e *dirEntry) IsDir() bool       { return e.d.Type == ashlar.TypeDir }
func (e *dirEntry) Type() fs.FileMode { return typeModes[e.d.Type] }

// Info returns the attributes as of the listing.
func (e *dirEntry) Info() (fs.FileInfo, error) { return &fileInfo{e.d.Name, e.d.Attr}, nil }

// String shows an entry as ls does.
func (e *dirEntry) String() string { return fs.FormatDirEntry(e) }
