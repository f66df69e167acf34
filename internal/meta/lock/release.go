package lock

import (
	"fmt"
	"slices"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/meta/key"
)

// Release removes what a session that has ended held, of up to limit inodes,
// and gives it to who waits; more tells whether something is left. A lost
// session's locks are released only once it is fenced: what it has under way
// must not be applied under somebody else's lock (I-7).
func Release(tx key.Tx, env *Env, s ashlar.SessionID, limit int) (more bool, note string, err error) {
	o := &op{tx: tx, env: env}
	var inodes []ashlar.Inode
	lo, hi := key.Lockers(key.VolumePartition, s)
	tx.Scan(lo, hi, func(k, _ []byte) bool {
		if len(inodes) == limit {
			more = true
			return false
		}
		inodes = append(inodes, ashlar.Inode(key.Tail64(k, 1)))
		return true
	})
	for _, ino := range inodes {
		t, err := o.load(ino)
		if err != nil {
			return false, "", err
		}
		for _, h := range slices.Clone(t.holders) {
			if h.session == s {
				h.list = nil
				o.write(t, h)
			}
		}
		tx.Delete(key.Locker(s, ino))
		if err := o.regrant(t); err != nil {
			return false, "", err
		}
	}
	if len(inodes) > 0 {
		note = fmt.Sprintf("locks of session %d released, of %d files", uint64(s), len(inodes))
		if o.note != "" {
			note += "; " + o.note
		}
	}
	return more, note, nil
}
