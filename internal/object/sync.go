package object

import (
	"context"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// Sync returns when every acknowledged write of the object, by whomever, is
// on stable storage on all in-sync members of every group that an object of
// the given size uses.
func (s *Store) Sync(ctx context.Context, ref *Ref, size uint64) error {
	var pieces []piece
	for _, g := range groups(&ref.Layout, size) {
		pieces = append(pieces, piece{Extent: ashlar.Extent{Group: g}})
	}
	return parallel(pieces, func(x *piece) error {
		return s.run(ctx, x.Group, &syncRequest{store: s, ref: ref})
	})
}

// groups returns the groups that hold bytes of an object of the given size.
func groups(l *ashlar.Layout, size uint64) []ashlar.PGID {
	var out []ashlar.PGID
	seen := map[ashlar.PGID]bool{}
	chunks := l.Chunks(size)
	for i := range l.Segments {
		seg := &l.Segments[i]
		if seg.First >= chunks {
			break
		}
		end := chunks
		if i+1 < len(l.Segments) {
			end = min(end, l.Segments[i+1].First)
		}
		for _, g := range seg.Groups[:min(uint32(len(seg.Groups)), end-seg.First)] {
			if !seen[g] {
				seen[g] = true
				out = append(out, g)
			}
		}
	}
	return out
}

type syncRequest struct {
	store *Store
	ref   *Ref
}

func (r *syncRequest) prepare(ctx context.Context, k *known) (wire.Message, wire.Message, error) {
	session, _, err := r.store.masters.WaitSession(ctx)
	if err != nil {
		return nil, nil, err
	}
	return &wire.Sync{Address: address(r.ref, k, session, 0)}, nil, nil
}

func (r *syncRequest) failed(error) {}
func (r *syncRequest) done() error  { return nil }
