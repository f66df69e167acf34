package inspect

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"time"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/chunkstore"
	"github.com/ashlarfs/ashlar/internal/vfs"
)

// Result is how extracting a file ended.
type Result struct {
	// Lost are the bytes that no copy had whole; they read as zeros.
	Lost []Range `json:"lost,omitempty"`
	// Stale counts bytes taken from disks that were out of sync, because no
	// current copy was good.
	Stale uint64 `json:"stale_bytes"`
	// Mended counts bytes whose best copy was damaged and another was good.
	Mended uint64 `json:"mended_bytes"`
	Error  string `json:"error,omitempty"`
	// Owner says why owner or mode could not be set.
	Owner string `json:"owner_error,omitempty"`
}

// Range is a run of bytes of a file.
type Range struct {
	Off uint64 `json:"off"`
	Len uint64 `json:"len"`
}

// rangesMax is how many lost ranges of a file are told one by one.
const rangesMax = 1000

// Complete tells whether a file was extracted with all that its chunks held.
func (f *File) Complete() bool {
	r := f.Result
	return r != nil && r.Error == "" && len(r.Lost) == 0 && r.Stale == 0 && f.OnlyStale == 0
}

// Extract writes a file below out, which confines it. The file must not be
// there. Of each block it takes the copy whose region was changed last, of
// current copies first, if its checksum is right. Owner, mode and the time of
// the last change are set as well as this process may.
func (s *Scan) Extract(ctx context.Context, out *os.Root, f *File) {
	f.Result = &Result{}
	if err := s.extract(ctx, out, f); err != nil {
		f.Result.Error = err.Error()
	}
}

func (s *Scan) extract(ctx context.Context, out *os.Root, f *File) (err error) {
	if err := out.MkdirAll(path.Dir(f.Place), 0o755); err != nil {
		return err
	}
	w, err := out.OpenFile(f.Place, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	for _, p := range f.Parts {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := s.extractPart(w, f, p); err != nil {
			return err
		}
	}
	if err := w.Truncate(int64(f.Size)); err != nil {
		return err
	}
	owner := w.Chown(int(f.UID), int(f.GID))
	owner = errors.Join(owner, w.Chmod(fileMode(f.Mode)))
	if owner != nil {
		f.Result.Owner = owner.Error()
	}
	return out.Chtimes(f.Place, time.Time{}, time.Unix(0, f.Mtime))
}

// fileMode turns mode bits into Go's.
func fileMode(mode uint16) os.FileMode {
	m := os.FileMode(mode & ashlar.ModePerm)
	if mode&ashlar.ModeSetuid != 0 {
		m |= os.ModeSetuid
	}
	if mode&ashlar.ModeSetgid != 0 {
		m |= os.ModeSetgid
	}
	if mode&ashlar.ModeSticky != 0 {
		m |= os.ModeSticky
	}
	return m
}

// source is an open copy.
type source struct {
	*chunkstore.ChunkFile
	copy *chunkCopy
}

// extractPart writes what a chunk holds.
func (s *Scan) extractPart(w *os.File, f *File, p *Part) error {
	var open []source
	for _, c := range p.copies {
		r, err := s.fs.Open(c.name)
		if err != nil {
			continue // another copy may do
		}
		defer func(r vfs.File) { _ = r.Close() }(r)
		if x, err := chunkstore.OpenChunkFile(r, c.name); err == nil && x.Info.ChunkSize == f.chunkSize {
			open = append(open, source{x, c})
		}
	}
	if len(open) == 0 {
		f.lost(p, 0, f.chunkSize)
		return nil
	}
	const perRegion = ashlar.RegionSize / ashlar.BlockSize
	buf := make([]byte, ashlar.BlockSize)
	for region := range open[0].Regions() {
		from := rankRegion(open, region)
		for b := region * perRegion; b < (region+1)*perRegion; b++ {
			if err := f.extractBlock(w, p, from, b, buf); err != nil {
				return err
			}
		}
	}
	return nil
}

// rankRegion orders the copies for one region: current ones first, then those
// in-sync longest, then by the epoch of the region's last change. A damaged
// record comes after a good one of its rank.
func rankRegion(open []source, region int) []source {
	out := slices.Clone(open)
	slices.SortStableFunc(out, func(a, b source) int {
		if a.copy.synced != b.copy.synced {
			if a.copy.synced > b.copy.synced {
				return -1
			}
			return 1
		}
		ea, _, oka := a.Region(region)
		eb, _, okb := b.Region(region)
		switch {
		case oka != okb && oka, oka && okb && ea > eb:
			return -1
		case oka != okb, ea < eb:
			return 1
		}
		return 0
	})
	return out
}

// extractBlock writes a block from the first copy that has it whole.
func (f *File) extractBlock(w *os.File, p *Part, from []source, b int, buf []byte) error {
	off := uint32(b) * ashlar.BlockSize
	at := offsetOf(&p.copies[0].origin, f.chunkSize, p.Index, off)
	if at >= f.Size {
		return nil
	}
	for i, c := range from {
		if !c.ReadBlock(b, buf) {
			continue
		}
		n := min(uint64(len(buf)), f.Size-at)
		if i > 0 {
			f.Result.Mended += n
		}
		if !c.copy.current {
			f.Result.Stale += n
		}
		if state := c.State(b); state != chunkstore.Data {
			return nil // a hole
		}
		_, err := w.WriteAt(buf[:n], int64(at))
		return err
	}
	f.lost(p, off, ashlar.BlockSize)
	return nil
}

// lost notes that a range of a chunk is nowhere whole.
func (f *File) lost(p *Part, off, n uint32) {
	for end := off + n; off < end; off += ashlar.BlockSize {
		at := offsetOf(&p.copies[0].origin, f.chunkSize, p.Index, off)
		if at >= f.Size {
			continue
		}
		r := f.Result
		if i := len(r.Lost) - 1; i >= 0 && (r.Lost[i].Off+r.Lost[i].Len == at || i+1 >= rangesMax) {
			r.Lost[i].Len = at + ashlar.BlockSize - r.Lost[i].Off
		} else {
			r.Lost = append(r.Lost, Range{at, ashlar.BlockSize})
		}
	}
}

// Summary says how files were found, or extracted, in one line.
func Summary(files []*File) string {
	named, incomplete, absent := 0, 0, 0
	var bytes uint64
	for _, f := range files {
		if f.Why == "" {
			named++
		}
		if f.Result != nil && !f.Complete() {
			incomplete++
		}
		if f.Absent > 0 {
			absent++
		}
		bytes += f.Size
	}
	out := fmt.Sprintf("%d files, %d bytes: %d under their names, %d in %s", len(files), bytes, named, len(files)-named, LostFound)
	if absent > 0 {
		out += fmt.Sprintf("; %d have chunks that no disk here has (holes, or lost)", absent)
	}
	if incomplete > 0 {
		out += fmt.Sprintf("; %d INCOMPLETE", incomplete)
	}
	return out
}
