package inspect

import (
	"context"
	"errors"
	"fmt"
	"slices"

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
	// There says that an earlier extraction finished it: this one wrote nothing.
	There bool `json:"there,omitempty"`
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

// Extract writes a file to a target. Of each block it takes the copy whose
// region was changed last, of current copies first, if its checksum is right.
// Owner, mode and the time of the last change are set as well as this process
// may. progress is told of bytes of the file that were dealt with. Different
// files may be extracted at once.
func (s *Scan) Extract(ctx context.Context, to Target, f *File, progress func(bytes uint64)) {
	f.Result = &Result{}
	done := uint64(0)
	err := s.extract(ctx, to, f, func(n uint64) {
		n = min(n, f.Size-done) // the last chunk is seldom full
		done += n
		progress(n)
	})
	if err != nil {
		if f.Result.There = errors.Is(err, ErrThere); !f.Result.There {
			f.Result.Error = err.Error()
		}
	}
	progress(f.Size - done)
}

func (s *Scan) extract(ctx context.Context, to Target, f *File, progress func(bytes uint64)) error {
	w, err := to.Create(f)
	if err != nil {
		return err
	}
	out := &runs{w: w}
	for _, p := range f.Parts {
		if err = ctx.Err(); err == nil {
			err = s.extractPart(out, f, p)
		}
		if err != nil {
			w.Abort()
			return err
		}
		progress(uint64(f.chunkSize))
	}
	if err := out.flush(); err != nil {
		w.Abort()
		return err
	}
	return w.Finish(f)
}

// source is an open copy.
type source struct {
	*chunkstore.ChunkFile
	copy *chunkCopy
}

// extractPart writes what a chunk holds.
func (s *Scan) extractPart(w *runs, f *File, p *Part) error {
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
func (f *File) extractBlock(w *runs, p *Part, from []source, b int, buf []byte) error {
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
		return w.write(buf[:n], int64(at))
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
	named, incomplete, absent, there := 0, 0, 0, 0
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
		if f.Result != nil && f.Result.There {
			there++
		}
		bytes += f.Size
	}
	out := fmt.Sprintf("%d files, %d bytes: %d under their names, %d in %s", len(files), bytes, named, len(files)-named, LostFound)
	if absent > 0 {
		out += fmt.Sprintf("; %d have chunks that no disk here has (holes, or lost)", absent)
	}
	if there > 0 {
		out += fmt.Sprintf("; %d were there already", there)
	}
	if incomplete > 0 {
		out += fmt.Sprintf("; %d INCOMPLETE", incomplete)
	}
	return out
}
