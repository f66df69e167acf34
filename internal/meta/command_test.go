package meta_test

import (
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/meta/key"
	"github.com/ashlarfs/ashlar/internal/meta/metatest"
	"github.com/ashlarfs/ashlar/internal/meta/namespace"
	"github.com/ashlarfs/ashlar/internal/wire"
)

// body makes an operation from a command of a script.
func (w *world) body(a args) wire.Message {
	if m := w.namesBody(a); m != nil {
		return m
	}
	ino := w.at(a.str("path"))
	switch a.d.Cmd {
	case "stat":
		return &wire.GetAttr{Inode: ino}
	case "lookup":
		return &wire.Lookup{Parent: ino, Name: a.str("name")}
	case "readlink":
		return &wire.Readlink{Inode: ino}
	case "ls":
		return &wire.Readdir{Inode: ino, Cookie: a.num("cookie"), Limit: uint32(a.num("limit")), Plus: a.flag("plus")}
	case "open":
		return &wire.Open{Inode: ino, Write: a.flag("write"), Truncate: a.flag("truncate")}
	case "access":
		return &wire.Access{Inode: ino, Mask: uint8(a.num("mask"))}
	case "statfs":
		return &wire.StatFS{Inode: ino}
	case "getxattr":
		return &wire.GetXattr{Inode: ino, Name: a.str("name")}
	case "setxattr":
		return w.setXattr(a, ino)
	case "setfacl":
		m := &wire.SetXattr{Inode: ino, Name: "system.posix_acl_access", Value: aclOf(a.str("list"))}
		if a.flag("default") {
			m.Name = "system.posix_acl_default"
		}
		return m
	case "listxattr":
		return &wire.ListXattr{Inode: ino}
	case "rmxattr":
		return &wire.RemoveXattr{Inode: ino, Name: a.str("name")}
	case "setattr":
		return setAttr(a, ino)
	case "reserve":
		return &wire.Reserve{Inode: ino, Size: a.num("size"), Len: uint32(a.num("len"))}
	case "commit":
		return w.commitOf(a, ino)
	case "accessed":
		m := &wire.Accessed{List: []wire.AccessTime{{Inode: ino, Was: int64(a.num("was")), At: int64(a.num("at"))}}}
		if other := a.str("and"); other != "" {
			m.List = append(m.List, wire.AccessTime{Inode: w.at(other), Was: int64(a.num("was")), At: int64(a.num("at"))})
		}
		return m
	case "grow":
		i := w.load(ino)
		return &wire.Grow{Inode: ino, Layer: i.Object.Layer - ashlar.LayerID(a.num("old")), Chunk: uint32(a.num("chunk"))}
	}
	return nil
}

func (w *world) namesBody(a args) wire.Message {
	path := a.str("path")
	switch a.d.Cmd {
	case "make":
		dir, name := w.split(path)
		m := &wire.Make{
			Parent: dir, Name: name, Type: typeNames[a.str("type")], Mode: a.oct("mode"), Target: a.str("target"),
			Rdev: uint32(a.num("rdev")), Exclusive: a.flag("exclusive"), Umask: a.oct("umask"),
		}
		if m.Unnamed = a.flag("unnamed"); m.Unnamed {
			m.Name, m.Open = "", true
		}
		if n := a.num("target-length"); n > 0 {
			m.Target = strings.Repeat("t", int(n))
		}
		return m
	case "link":
		dir, name := w.split(a.str("to"))
		return &wire.Link{Inode: w.at(path), Parent: dir, Name: name}
	case "unlink", "rmdir":
		dir, name := w.split(path)
		return &wire.Remove{Parent: dir, Name: name, Dir: a.d.Cmd == "rmdir"}
	case "rename":
		from, old := w.split(path)
		to, name := w.split(a.str("to"))
		m := &wire.Rename{OldParent: from, OldName: old, NewParent: to, NewName: name, Flags: uint32(a.num("flags"))}
		if a.flag("noreplace") {
			m.Flags |= wire.RenameNoReplace
		}
		if a.flag("exchange") {
			m.Flags |= wire.RenameExchange
		}
		if a.flag("whiteout") {
			m.Flags |= wire.RenameWhiteout
		}
		return m
	case "volume":
		m := &wire.SetVolume{Name: a.str("name"), Update: a.flag("update"), Rename: a.str("rename"), Pool: a.str("pool"), Mode: a.oct("mode")}
		if n := a.num("chunk"); n != 0 {
			m.Policy = ashlar.Policy{ChunkSize: uint32(n), StripeWidth: uint8(a.num("width")), StripeUnit: uint32(n)}
		}
		return m
	case "find-volume":
		return &wire.FindVolume{Name: a.str("name")}
	case "delete-volume":
		return &wire.DeleteVolume{Name: a.str("name"), Force: a.flag("force")}
	}
	return nil
}

func (w *world) setXattr(a args, ino ashlar.Inode) wire.Message {
	m := &wire.SetXattr{Inode: ino, Name: a.str("name"), Value: []byte(a.str("value")), Flags: uint32(a.num("flags"))}
	if n := a.num("name-length"); n > 0 {
		m.Name = "user." + strings.Repeat("n", int(n)-5)
	}
	if n := a.num("value-length"); n > 0 {
		m.Value = make([]byte, n)
	}
	return m
}

// aclOf makes a list from u::7,u:5:6,g::5,g:6:0,m::7,o::0.
func aclOf(text string) []byte {
	b := []byte{2, 0, 0, 0}
	for _, e := range strings.Split(text, ",") {
		var tag string
		id, perm := -1, 0
		f := strings.Split(e, ":")
		if tag = f[0]; f[1] != "" {
			tag = strings.ToUpper(tag)
			fmt.Sscan(f[1], &id)
		}
		fmt.Sscan(f[2], &perm)
		b = binary.LittleEndian.AppendUint16(b, map[string]uint16{"u": 1, "U": 2, "g": 4, "G": 8, "m": 16, "o": 32}[tag])
		b = binary.LittleEndian.AppendUint16(b, uint16(perm))
		b = binary.LittleEndian.AppendUint32(b, uint32(id))
	}
	return b
}

func setAttr(a args, ino ashlar.Inode) wire.Message {
	m := &wire.SetAttr{Inode: ino}
	for name, bit := range map[string]uint32{
		"mode": wire.SetMode, "uid": wire.SetUID, "gid": wire.SetGID, "size": wire.SetSize, "atime": wire.SetAtime,
		"mtime": wire.SetMtime, "atime-now": wire.SetAtimeNow, "mtime-now": wire.SetMtimeNow, "ctime": wire.SetCtime,
		"kill": wire.SetKill,
	} {
		if a.flag(name) {
			m.Valid |= bit
		}
	}
	m.Mode, m.UID, m.GID, m.Size = a.oct("mode"), uint32(a.num("uid")), uint32(a.num("gid")), a.num("size")
	m.Atime, m.Mtime, m.Ctime = int64(a.num("atime")), int64(a.num("mtime")), int64(a.num("ctime"))
	return m
}

// commitOf reports data; "old" is how far behind the named generation is.
func (w *world) commitOf(a args, ino ashlar.Inode) wire.Message {
	i := w.load(ino)
	gen := i.Object.Gen - ashlar.Generation(a.num("old"))
	return &wire.Commit{Inode: ino, Layer: i.Object.Layer, Gen: gen, Size: a.num("size"), Mtime: int64(a.num("mtime"))}
}

func (w *world) load(ino ashlar.Inode) *namespace.Inode {
	i := new(namespace.Inode)
	_, _ = key.Load(&w.mem, key.Inode(ino), i)
	i.Attr.Inode = ino
	return i
}

// control runs commands that are not operations of a client.
func (w *world) control(a args) (string, bool) {
	out := ""
	switch a.d.Cmd {
	case "as":
		w.cred = ashlar.Cred{UID: uint32(a.num("uid")), GID: uint32(a.num("gid")), Checked: a.flag("checked")}
		if g := a.num("group"); g != 0 {
			w.cred.Groups = []uint32{uint32(g)}
		}
	case "hold", "release":
		by := w.session + ashlar.SessionID(a.num("session"))
		if ino := w.at(a.str("path")); a.d.Cmd == "hold" {
			w.opens.Open(ino, by)
		} else {
			w.opens.Close(ino, by)
		}
	case "groups":
		w.env.Placer = metatest.Groups(a.num("n"))
	case "times":
		i := w.load(w.at(a.str("path"))).Attr
		out = fmt.Sprintf("atime=%d mtime=%d ctime=%d btime=%d version=%d\n", i.Atime, i.Mtime, i.Ctime, i.Btime, i.Version)
	case "where":
		p, ok := namespace.Path(&w.mem, w.at(a.str("path")))
		out = fmt.Sprintf("%s %v\n", p, ok)
	case "state":
		out = w.state(a.str("kind"))
	default:
		return w.background(a)
	}
	w.mem.Commit()
	return out, true
}

// background runs what the leader does on its own.
func (w *world) background(a args) (string, bool) {
	var err error
	out := ""
	switch a.d.Cmd {
	case "orphans":
		for _, ino := range namespace.Orphans(&w.mem, 0, 100) {
			out += fmt.Sprintf("%d\n", short(ino))
		}
	case "reap":
		err = namespace.Reap(&w.mem, w.at(a.str("path")))
	case "deletions":
		var ds []namespace.Deletion
		ds, err = namespace.Deletions(&w.mem, 0, 100)
		for _, d := range ds {
			out += fmt.Sprintf("layer %d groups %v\n", short(d.Layer), d.Groups)
		}
	case "deleted":
		l := ashlar.InPartition[ashlar.LayerID](key.VolumePartition, a.num("layer"))
		err = namespace.DeletionDone(&w.mem, ashlar.PGID(a.num("group")), []ashlar.LayerID{l})
	case "begin-cut":
		i := w.load(w.at(a.str("path")))
		err = namespace.BeginCut(&w.mem, &namespace.NeedCut{
			Inode: i.Attr.Inode, Layer: i.Object.Layer, Gen: i.Object.Gen + 1 - ashlar.Generation(a.num("old")), Size: a.num("size"),
		})
	case "cut-done":
		w.cut = a.str("is") != "false"
	case "finish-cut":
		err = namespace.FinishCut(&w.mem, w.env.Now, w.load(w.at(a.str("path"))).Object.Layer)
	case "cuts":
		var cuts []*namespace.NeedCut
		cuts, err = namespace.Cuts(&w.mem, key.VolumePartition)
		for _, n := range cuts {
			out += showError(n) + "\n"
		}
	case "reap-tree":
		var more bool
		more, err = namespace.ReapTree(&w.mem, w.env.Now, w.opens, int(a.num("limit")))
		out = fmt.Sprintf("more=%v\n", more)
	default:
		return "", false
	}
	w.mem.Commit()
	if err != nil {
		return showError(err) + "\n", true
	}
	return out, true
}

// state lists the keys of a kind, or all but results.
func (w *world) state(kind string) string {
	var b strings.Builder
	w.mem.Scan(nil, []byte{0xff}, func(k, _ []byte) bool {
		s := key.String(k)
		if kind == "" && key.Kind(k[2]) != key.KindResult || kind != "" && strings.Contains(s, "/"+kind+"/") {
			b.WriteString(s + "\n")
		}
		return true
	})
	return b.String()
}
