package lock

import (
	"fmt"
	"slices"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/meta/key"
)

// Release removes what a session that has ended held, of up to limit files
// and names, and gives it to who waits; more tells whether something is left. A lost
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
	names := o.names(s, limit-len(inodes), &more)
	for _, name := range names {
		if err := o.releaseName(s, name); err != nil {
			return false, "", err
		}
	}
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
	if len(inodes)+len(names) > 0 {
		note = fmt.Sprintf("locks of session %d released: of %d files, %d named", uint64(s), len(inodes), len(names))
		if o.note != "" {
			note += "; " + o.note
		}
	}
	return more, note, nil
}

// Regrant grants what can be since Remove or End took waiters out.
func Regrant(tx key.Tx, env *Env) (note string, err error) {
	o := &op{tx: tx, env: env}
	names := env.Queue.left
	env.Queue.left = nil
	slices.Sort(names)
	for _, s := range slices.Compact(names) {
		n, err := o.loadName(s)
		if err == nil {
			err = o.regrantName(n)
		}
		if err != nil {
			return "", err
		}
	}
	return o.note, nil
}

// names returns up to limit names of locks that a session holds.
func (o *op) names(s ashlar.SessionID, limit int, more *bool) (out []string) {
	lo, hi := key.Range64(key.KindNamer, s)
	o.tx.Scan(lo, hi, func(k, _ []byte) bool {
		if len(out) == limit {
			*more = true
			return false
		}
		out = append(out, string(key.Tail(k)[8:]))
		return true
	})
	return out
}
