// Package namespace decides the file system operations of the masters: given
// a transaction over the state, the leader's time and an operation, it makes
// the key writes, the reply and a line for the change log. Volumes, inodes,
// names, attributes, layouts of files, and the queues of what is left to do in
// the background (orphans, layers to delete, cuts) are its records.
//
// It is not a server: it has no clock, no randomness, no goroutine, and keeps
// nothing between calls, so ten million inodes need no memory. Exactly-once
// and sessions are meta's and meta/session's.
//
// Local invariants:
//
//	N-1  An operation that fails has written nothing: every function checks
//	     first and writes last.
//	N-2  A name is one dentry key and one cookie key that agree on inode, type
//	     and cookie.
//	N-3  An inode's Nlink is its names (of a directory: 2 plus its
//	     subdirectories, 0 once removed). The first name is in the inode's
//	     home, each other has a link key.
//	N-4  Directories form a tree: following home leads to the volume's root.
//	N-5  A volume's usage counts its inodes, orphans included, and the sizes
//	     of its regular files.
//
// Errors follow the precedence of Linux's VFS, so that a program sees the
// errno it would see on a local file system.
package namespace

import (
	"strconv"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/meta/key"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// CookieFirst is the cookie of the first name made in a directory; those
// below it are free for "." and "..".
const CookieFirst = 3

// XattrsMax is the most extended attributes of one inode.
const XattrsMax = 1024

// OpenTable tells who has a file open: the leader's memory. While it is not
// complete yet (a new leader still collecting hellos) it answers true.
type OpenTable interface {
	// IsOpen tells whether any session has the inode open.
	IsOpen(ino ashlar.Inode) bool
	// OpenElsewhere tells whether a session other than by has it open.
	OpenElsewhere(ino ashlar.Inode, by ashlar.SessionID) bool
}

// Placer chooses groups for new data of a pool: at most n, at least one
// unless it fails. The same seed and state give the same choice.
type Placer interface {
	Choose(pool uint32, n int, seed uint64) ([]ashlar.PGID, error)
}

// Space tells a pool's space in bytes of user data.
type Space interface {
	Space(pool uint32) (total, free uint64)
}

// Env is what an evaluation knows beyond the state.
type Env struct {
	Now    int64 // operation time, nanoseconds since 1970; never goes back
	Opens  OpenTable
	Placer Placer
	Space  Space
	// CutDone tells whether every group of a layer has recorded a generation
	// and cut; nil for no.
	CutDone func(ashlar.LayerID, ashlar.Generation) bool
}

// Call is one operation to evaluate.
type Call struct {
	Session ashlar.SessionID
	Cred    *ashlar.Cred
	Body    wire.Message
}

// op is an evaluation under way.
type op struct {
	tx      key.Tx
	env     *Env
	session ashlar.SessionID
	cred    *ashlar.Cred
	name    string   // what errors say was tried
	note    []byte   // change-log line
	changed []*Inode // put so far, in order

	// Change of the volume's usage, written once at the end.
	volume    ashlar.VolumeID
	partition ashlar.Partition
	inodes    int64
	bytes     int64
}

// Evaluate evaluates a call. handled is false, and nothing was done, for a
// body that is not namespace's. note is empty when nothing was changed.
func Evaluate(tx key.Tx, env *Env, call *Call) (reply wire.Message, note string, handled bool, err error) {
	o := &op{tx: tx, env: env, session: call.Session, cred: call.Cred}
	reply, handled, err = o.dispatch(call.Body)
	if !handled || err != nil {
		return nil, "", handled, err
	}
	if err := o.settle(); err != nil {
		return nil, "", true, err
	}
	if e, ok := reply.(*wire.Entry); ok {
		o.also(e)
	}
	return reply, string(o.note), true, nil
}

func (o *op) dispatch(body wire.Message) (wire.Message, bool, error) {
	reply, ok, err := o.read(body)
	if ok {
		return reply, true, err
	}
	switch m := body.(type) {
	case *wire.SetAttr:
		reply, err = o.setAttr(m)
	case *wire.Make:
		reply, err = o.make(m)
	case *wire.Link:
		reply, err = o.link(m)
	case *wire.Remove:
		reply, err = o.remove(m)
	case *wire.Rename:
		reply, err = o.rename(m)
	case *wire.SetXattr:
		reply, err = o.setXattr(m)
	case *wire.RemoveXattr:
		reply, err = o.removeXattr(m)
	case *wire.Reserve:
		reply, err = o.reserve(m)
	case *wire.Commit:
		reply, err = o.commit(m)
	case *wire.Commits:
		reply, err = o.commits(m)
	case *wire.Grow:
		reply, err = o.grow(m)
	case *wire.Accessed:
		reply, err = o.accessed(m)
	case *wire.SetVolume:
		reply, err = o.setVolume(m)
	case *wire.DeleteVolume:
		reply, err = o.deleteVolume(m)
	default:
		return nil, false, nil
	}
	return reply, true, err
}

// read dispatches the operations that carry no sequence.
func (o *op) read(body wire.Message) (reply wire.Message, ok bool, err error) {
	switch m := body.(type) {
	case *wire.Lookup:
		reply, err = o.lookup(m)
	case *wire.GetAttr:
		reply, err = o.getAttr(m)
	case *wire.Readlink:
		reply, err = o.readlink(m)
	case *wire.Readdir:
		reply, err = o.readdir(m)
	case *wire.Open:
		reply, err = o.open(m)
	case *wire.Release:
		reply = &wire.Empty{}
	case *wire.GetXattr:
		reply, err = o.getXattr(m)
	case *wire.ListXattr:
		reply, err = o.listXattr(m)
	case *wire.StatFS:
		reply, err = o.statFS(m)
	case *wire.Access:
		reply, err = o.access(m)
	case *wire.FindVolume:
		reply, err = o.findVolume(m)
	default:
		return nil, false, nil
	}
	return reply, true, err
}

// fail makes the operation's error.
func (o *op) fail(kind ashlar.Kind, subject string) error {
	return ashlar.E(o.name, kind, subject, nil)
}

// settle writes the change of usage. It comes last, and fails only on a
// damaged record.
func (o *op) settle() error {
	if o.inodes == 0 && o.bytes == 0 {
		return nil
	}
	var u Usage
	k := key.Usage(o.partition, o.volume)
	if _, err := key.Load(o.tx, k, &u); err != nil {
		return err
	}
	u.Inodes += uint64(o.inodes)
	u.Bytes += uint64(o.bytes)
	o.inodes, o.bytes = 0, 0
	if u.Inodes == 0 { // the root counts: the volume is gone with its last inode
		o.tx.Delete(k)
		return nil
	}
	key.Store(o.tx, k, &u)
	return nil
}

// count notes a change of the usage of an inode's volume (N-5).
func (o *op) count(i *Inode, inodes int64, from, to uint64) {
	o.volume, o.partition = i.Volume, ashlar.PartitionOf(i.Attr.Inode)
	o.inodes += inodes
	if i.Attr.Type == ashlar.TypeFile {
		o.bytes += int64(to) - int64(from)
	}
}

// The change-log line is built by hand: it is made for every change.

func (o *op) say(s string) *op {
	if len(o.note) > 0 {
		o.note = append(o.note, ' ')
	}
	o.note = append(o.note, s...)
	return o
}

func (o *op) sayInode(ino ashlar.Inode) *op {
	o.note = strconv.AppendUint(append(o.note, ' '), uint64(ino)&(1<<(64-ashlar.PartitionBits)-1), 10)
	return o
}

func (o *op) sayNumber(n uint64) *op {
	o.note = strconv.AppendUint(append(o.note, ' '), n, 10)
	return o
}

func (o *op) sayName(dir ashlar.Inode, name string) *op {
	o.sayInode(dir)
	o.note = strconv.AppendQuote(append(o.note, '/'), name)
	return o
}
