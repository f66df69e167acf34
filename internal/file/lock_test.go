package file_test

import (
	"context"
	"testing"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/file"
	"github.com/ashlarfs/ashlar/internal/file/filetest"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// lockMeta answers requests for locks, the others as the cluster does.
type lockMeta struct {
	file.Meta
	wait func(m *wire.WaitLock) (granted bool, err error)
}

func (l *lockMeta) Do(ctx context.Context, cred ashlar.Cred, body, reply wire.Message) error {
	switch m := body.(type) {
	case *wire.WaitLock:
		granted, err := l.wait(m)
		reply.(*wire.LockReply).Granted = granted
		return err
	case *wire.SetLock:
		reply.(*wire.LockReply).Granted = true
		return nil
	}
	return l.Meta.Do(ctx, cred, body, reply)
}

// The masters can not tell any more whether a request that has waited for long
// was withdrawn: it is made again under another number.
func TestALongWaitForALockIsAskedAgain(t *testing.T) {
	c := filetest.New()
	cl := c.Client()
	var asked []uint64
	meta := &lockMeta{Meta: cl, wait: func(m *wire.WaitLock) (bool, error) {
		if asked = append(asked, m.ID); len(asked) == 1 {
			return false, ashlar.E("lock", ashlar.OutcomeUnknown, "", nil)
		}
		return true, nil
	}}
	fs := file.New(file.Options{Meta: meta, Data: cl, Volume: c.Volume()})
	h := create(t, fs, "f")
	ok(t, h.WaitLock(ctx, wire.Lock{Class: wire.LockOFD, Type: wire.Exclusive, Owner: 1, End: wire.LockEnd}))
	if len(asked) != 2 || asked[0] == asked[1] {
		t.Errorf("asked as %v", asked)
	}
	ok(t, h.Close(ctx))
}
