package master

import (
	"context"

	"github.com/ashlarfs/ashlar/internal/meta/namespace"
	"github.com/ashlarfs/ashlar/internal/rpc"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// origins tells a chunkserver what the chunks of files are to note of them. It
// is a hint: what is committed at some moment of late does.
func (l *lead) origins(_ context.Context, r *rpc.Request) (wire.Message, error) {
	if err := nodeOnly(r); err != nil {
		return nil, err
	}
	q := r.Msg.(*wire.Origins)
	if _, err := l.reporter(q.Session); err != nil {
		return nil, err
	}
	snap, err := l.m.store.Snapshot()
	if err != nil {
		return nil, err
	}
	defer snap.Close()
	tx := &plain{store: snap}
	out := &wire.OriginsReply{Origins: make([]wire.Origin, len(q.Inodes))}
	for i, ino := range q.Inodes {
		if o, ok := namespace.Origin(tx, ino); ok {
			out.Origins[i] = o
		}
	}
	return out, nil
}
